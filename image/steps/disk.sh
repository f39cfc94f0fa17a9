# shellcheck shell=bash
# The bootable disk, and the exchange of the old outputs for the new ones. Read by `image/bake`.

# An image that is grown to this size can be booted as it is; blocks that nobody wrote take no space.
DISK_SIZE=20G

node_disk() {
    initrd
    say "baking the disk"
    local new=$OUT/new work=$CACHE/$DISTRO/disk.work
    mkdir -p "$new"
    clear_folder "$work"
    sandbox_tree "$DISTRO" "$CACHE/sandbox-$DISTRO"
    # As an archive, because mkosi copies folders in a way that cannot copy the device nodes by which a layer of an
    # image says that a file of the layer below is gone.
    tar -C "$TREE" --xattrs --acls --numeric-owner -cf "$work/tree.tar" .
    repart_definitions "$work/repart"
    run_mkosi_for_node "$IMAGE/disk" --output-directory "$work" --base-tree "$work/tree.tar" --initrd "$INITRD" \
        --repart-directory "$work/repart" --incremental no --cache-only always
    say "writing the qcow2"
    run_tool qemu-img convert -O qcow2 -o compression_type=zstd -c -W -m 4 "$work/kindling.raw" "$work/kindling.qcow2"
    run_tool qemu-img resize -q "$work/kindling.qcow2" "$DISK_SIZE"
    mv "$work"/kindling.{raw,qcow2} "$new/"
    rm -rf "$work"
    printf '%s\n' "$KEY_DISK" >"$new/.disk"
}

# The root partition as large as this tree needs, so that no one hashes or copies gigabytes of nothing.
repart_definitions() { # FOLDER
    local kilobytes
    kilobytes=$(du -sk "$TREE" | cut -f 1)
    cp -r "$IMAGE/disk/repart" "$1"
    mkdir "$1/20-root.conf.d"
    printf '[Partition]\nSizeMinBytes=%dM\nSizeMaxBytes=%dM\n' $((kilobytes / 900 + 256)){,} >"$1/20-root.conf.d/size.conf"
}

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
        exec chroot "$tools" "$@"' run_tool "$TOOLS" "$CACHE" "$@"
}

# The old outputs stay until all new ones are complete.
publish() {
    local new=$OUT/new
    [[ -d $new ]] || return 0
    if [[ -d $new/tree ]]; then
        rm -rf "$OUT/old"
        [[ ! -d $OUT/tree ]] || mv "$OUT/tree" "$OUT/old"
        rm -f "$OUT"/{kindling.raw,kindling.qcow2,SHA256SUMS,.disk}
    fi
    find "$new" -mindepth 1 -maxdepth 1 -exec mv -f -t "$OUT" {} +
    checksums
    rm -rf "$new" "$OUT/old"
}

# Of all files in OUT.
checksums() {
    (
        cd "$OUT" || exit
        find . -maxdepth 1 -type f ! -name '.*' ! -name SHA256SUMS -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum
    ) >"$OUT/.sums"
    mv "$OUT/.sums" "$OUT/SHA256SUMS"
}
