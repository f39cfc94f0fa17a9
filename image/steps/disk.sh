# shellcheck shell=bash
# The bootable disk, and the exchange of the old outputs for the new ones. Read by `image/bake`.

# What the initrd needs, and what a node does (bridged pods, VXLAN, kube-proxy and the CNI plugins by nf_tables, whose rules are those
# of iptables), as modules or built into the kernel; mkosi passes over names that it does not find.
KERNEL_NEEDS=(dm-verity erofs overlay ext4 virtio_blk virtio_net
    bridge br_netfilter veth vxlan nf_conntrack nf_nat nf_tables nft_compat
    nft_chain_nat xt_comment xt_conntrack xt_statistic xt_MASQUERADE ip_set)
# A disk and a network card of vSphere, which the OVA asks for.
KERNEL_NEEDS_amd64=(vmw_pvscsi vmxnet3)

# An image that is grown to this size can be booted as it is; blocks that nobody wrote take no space.
DISK_SIZE=20G

node_disk() {
    ! disk_up_to_date || return 0
    initrd
    say "baking the disk"
    local new=$OUT/new work=$CACHE/$KIND/disk.work
    mkdir -p "$new"
    clear_folder "$work"
    check_kernel
    sandbox_tree "$DISTRO" "$CACHE/sandbox-$DISTRO"
    # As an archive, because mkosi copies folders in a way that cannot copy the device nodes by which a layer of an
    # image says that a file of the layer below is gone.
    tar -C "$TREE" --xattrs --acls --numeric-owner -cf "$work/tree.tar" .
    repart_definitions "$work/repart"
    # ext4: the last is ours, as it otherwise makes up what its folders are hashed with; the first two are repart's own.
    # erofs: packed in units of 16 KiB instead of 4, which makes the qcow2 smaller.
    run_mkosi_for_node "$IMAGE/disk" --output-directory "$work" --base-tree "$work/tree.tar" --initrd "$INITRD" \
        --repart-directory "$work/repart" --seed "$(uuid "$VERSION")" --source-date-epoch "$EPOCH" \
        --environment "SYSTEMD_REPART_MKFS_OPTIONS_EXT4=-Enodiscard,lazy_itable_init=1,hash_seed=$(uuid "folders of $VERSION")" \
        --environment SYSTEMD_REPART_MKFS_OPTIONS_EROFS=-C16384 \
        --unified-kernel-image-format "kindling_$VERSION" "${SECURE_BOOT[@]}" --incremental no --cache-only always
    say "writing the qcow2"
    run_tool qemu-img convert -O qcow2 -o compression_type=zstd -c -W -m 4 "$work/kindling.raw" "$work/kindling.qcow2"
    run_tool qemu-img resize -q "$work/kindling.qcow2" "$DISK_SIZE"
    root_hash "$work/kindling.raw" >"$new/kindling.roothash"
    mv "$work"/kindling.{raw,qcow2,efi} "$new/"
    rm -rf "$work"
    printf '%s\n' "$KEY_DISK" >"$new/.disk"
}

# The partition of /var as large as what is in it needs, the same on every machine that bakes: it grows at boot.
repart_definitions() { # FOLDER
    local megabytes
    megabytes=$(find "$TREE/var" -printf '%y %s\n' | awk '{ n += $1 == "f" ? int(($2 + 8191) / 4096) : 2 }
        END { print int(n * 4096 / 1048576 * 1.1 / 64 + 2) * 64 }')
    cp -r "$IMAGE/disk/repart" "$1"
    mkdir "$1/60-var.conf.d"
    printf '[Partition]\nSizeMinBytes=%dM\nSizeMaxBytes=%dM\n' "$megabytes"{,} >"$1/60-var.conf.d/size.conf"
}

# The folder of the kernel that the disk boots. mkosi writes a unified kernel image for each, the newest first, and all under the one
# name that the disk has for it: the oldest is what stays.
booted_kernel() {
    find "$TREE/usr/lib/modules" -mindepth 2 -maxdepth 2 -name 'vmlinu[xz]*' -printf '%h\n' | sort -uV | sed -n 1p
}

check_kernel() {
    local name missing=() kernel needs=("${KERNEL_NEEDS[@]}")
    [[ $ARCHITECTURE != amd64 ]] || needs+=("${KERNEL_NEEDS_amd64[@]}")
    kernel=$(booted_kernel)
    [[ -n $kernel ]] || die "no kernel is in the tree: no package of PACKAGES= or of the distribution brought usr/lib/modules/*/vmlinuz"
    for name in "${needs[@]}"; do
        grep -qsE "/${name//[-_]/[-_]}\.ko(\.[a-z]+)?(:|$)" "$kernel"/modules.{dep,builtin} || missing+=("$name")
    done
    ((${#missing[@]} == 0)) || die "the kernel ${kernel##*/} has no ${missing[*]}: the image would not boot, or its nodes would not
work; a package that has them can be named by PACKAGES= (Ubuntu: linux-image-generic)"
}

# A UUID that follows from a text.
uuid() { sha256sum <<<"$1" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-8\3-8\4-\5/'; }

# A program of the tools tree on files of the cache: the host needs no QEMU to bake.
run_tool() {
    # shellcheck disable=SC2016  # its own arguments
    unshare --mount --propagation private bash -euc '
        tools=$1 cache=$2
        shift 2
        mount --bind "$tools" "$tools"
        mkdir -p "$tools$cache"
        mount --rbind "$cache" "$tools$cache"
        mount --bind /dev "$tools/dev"
        touch "$tools/etc/resolv.conf"
        [[ ! -e /etc/resolv.conf ]] || mount --bind "$(realpath /etc/resolv.conf)" "$tools/etc/resolv.conf"
        exec chroot "$tools" "$@"' run_tool "$TOOLS" "$CACHE" "$@"
}

# Whether machines run of the tree.
tree_is_used() { grep -qsF "lowerdir=$OUT/tree" /proc/[0-9]*/mountinfo; }

# The old outputs stay until all new ones are complete, and a tree until nothing runs of it any more.
publish() {
    local new=$OUT/new
    tree_is_used || rm -rf "$OUT"/old "$OUT"/old-*
    [[ -d $new ]] || return 0
    # Of the disk before this one: another root, or a kernel with another signature.
    rm -rf "$OUT/update"
    if [[ -d $new/tree ]]; then
        if tree_is_used; then
            say "machines run of $OUT/tree: it stays until they are gone, as $OUT/old-$$"
        fi
        [[ ! -d $OUT/tree ]] || mv "$OUT/tree" "$OUT/old-$$"
        rm -rf "$OUT"/{kindling.raw,kindling.qcow2,kindling.efi,kindling.roothash,SHA256SUMS,sbom.spdx.json,provenance.json,.tree,.disk}
    fi
    find "$new" -mindepth 1 -maxdepth 1 ! -name .tree ! -name .disk -exec mv -f -t "$OUT" {} +
    describe
    checksums
    # By these a later run knows that all of it is there.
    find "$new" -mindepth 1 -maxdepth 1 -exec mv -f -t "$OUT" {} +
    rm -rf "$new"
    tree_is_used || rm -rf "$OUT"/old-*
}

# Of all files in OUT.
checksums() {
    (
        cd "$OUT" || exit
        find . -maxdepth 1 -type f ! -name '.*' ! -name SHA256SUMS -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum
    ) >"$OUT/.sums"
    mv "$OUT/.sums" "$OUT/SHA256SUMS"
}

# The image's contents (sbom.spdx.json) and its inputs (provenance.json).
describe() {
    local folder file inputs=(image agent Cargo.toml Cargo.lock)
    local options=("epoch=$EPOCH" "distro=$DISTRO" "kubernetes=v${KUBERNETES_VERSION#v}" "lock=$ROOT/Cargo.lock"
        "key=DISTRO=$DISTRO" "key=KUBERNETES=$KUBERNETES" "key=KUBERNETES_VERSION=$KUBERNETES_VERSION"
        "material=agent=$AGENT" "material=image=$IMAGE" "material=packages=$OUT/manifest.json" "material=mkosi-tools=$TOOLS/var/lib/dpkg/status"
        "revision=$(git -c safe.directory="$ROOT" -C "$ROOT" log -1 --format=%H -- "${inputs[@]}" 2>/dev/null || true)")
    if [[ $KUBERNETES == dir ]]; then
        for folder in bin cni addons; do options+=("material=kubernetes/$folder=$KUBERNETES_DIR/$folder"); done
    fi
    [[ -z $CRI_DOCKERD_PROGRAM ]] || options+=("material=cri-dockerd=$CRI_DOCKERD_PROGRAM")
    [[ ! -e $OUT/tree/usr/bin/cri-dockerd ]] || options+=("cri-dockerd=$(cri_dockerd_version "$OUT/tree")")
    [[ -z ${SECURE_BOOT_CERTIFICATE-} ]] || options+=("material=secure-boot-certificate=$SECURE_BOOT_CERTIFICATE")
    [[ -z ${EXTRA_CA-} ]] || options+=("material=extra-ca=$EXTRA_CA")
    [[ -z ${SSH_KEY-} ]] || options+=("material=ssh-key=$SSH_KEY")
    for file in "${DEBS[@]}"; do options+=("material=package/${file##*/}=$file"); done
    for file in "${IMAGE_ARCHIVES[@]}"; do options+=("material=images/${file##*/}=$file"); done
    "$IMAGE/steps/describe" "$OUT" "${options[@]}"
}

# root or verity, label, UUID, start and size in sectors, of every slot of a disk.
# https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
slots() { # RAW
    sfdisk --json "$1" | python3 -c '
import json, sys
parts = {
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "root",
    "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5": "verity",
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "root",
    "DF3300CE-D69F-4C92-978C-9BFB0F38D820": "verity",
}
for p in json.load(sys.stdin)["partitiontable"]["partitions"]:
    if p["type"] in parts:
        print(parts[p["type"]], p["name"], p["uuid"].lower(), p["start"], p["size"])'
}

# By which the kernel verifies the root: the UUIDs of the slot's two partitions are its halves.
root_hash() { # RAW
    slots "$1" | awk -v label="kindling_$VERSION" '$2 == label { half[$1] = $3 }
        END { gsub("-", "", half["root"]); gsub("-", "", half["verity"]); print "sha256:" half["root"] half["verity"] }'
}

# The archives of the preloaded images as one.
update_images() {
    local archive number=0 folder=$CACHE/update.work
    clear_folder "$folder"
    for archive in "${IMAGE_ARCHIVES[@]}"; do ln -s "$archive" "$folder/kindling_$VERSION-$((number += 1)).tar"; done
    tar -C "$folder" --dereference --format=ustar --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 --sort=name -cf - .
    rm -rf "$folder"
}

# What machines that run an older version take: the root, its hashes, the kernel and the images, as systemd-sysupdate wants
# them named.
update_folder() {
    [[ ! -d $OUT/update ]] || return 0
    say "writing what machines are updated from"
    local new=$OUT/new part label uuid start size table
    clear_folder "$new"
    table=$(slots "$OUT/kindling.raw")
    [[ $table == *"kindling_$VERSION"* ]] || die "$OUT/kindling.raw has no partitions of version $VERSION"
    while read -r part label uuid start size; do
        [[ $label == "kindling_$VERSION" ]] || continue
        dd if="$OUT/kindling.raw" bs=1M iflag=skip_bytes,count_bytes skip=$((start * 512)) count=$((size * 512)) status=none |
            xz -0 --threads=0 >"$new/${label}_$uuid.$part.raw.xz"
    done <<<"$table"
    cp "$OUT/kindling.efi" "$new/kindling_$VERSION.efi"
    ((${#IMAGE_ARCHIVES[@]} == 0)) || update_images | xz -0 --threads=0 >"$new/kindling_$VERSION.images.tar.xz"
    (cd "$new" && sha256sum -- * >SHA256SUMS)
    mv "$new" "$OUT/update"
}
