# shellcheck shell=bash
# Which inputs a bake has, and the digests that say whether they changed. Read by `image/bake`.

check_options() {
    case $DISTRO in
        debian | ubuntu) ;;
        *) die "DISTRO=$DISTRO: ubuntu or debian" ;;
    esac
    ARCHITECTURE=${ARCHITECTURE:-$(dpkg --print-architecture 2>/dev/null || uname -m)}
    case $ARCHITECTURE in
        amd64 | x86_64) ARCHITECTURE=amd64 MKOSI_ARCHITECTURE=x86-64 ELF_MACHINE=62 KIND=$DISTRO ;;
        arm64 | aarch64) ARCHITECTURE=arm64 MKOSI_ARCHITECTURE=arm64 ELF_MACHINE=183 KIND=$DISTRO-arm64 ;;
        *) die "ARCHITECTURE=$ARCHITECTURE: amd64 or arm64" ;;
    esac
    PLATFORM=(--distribution "$DISTRO" --architecture "$MKOSI_ARCHITECTURE")
    case $KUBERNETES in
        dir)
            [[ -n ${KUBERNETES_DIR-} ]] || die "KUBERNETES=dir needs KUBERNETES_DIR=, a folder with VERSION and bin/"
            [[ -s $KUBERNETES_DIR/VERSION && -d $KUBERNETES_DIR/bin ]] || die "$KUBERNETES_DIR has no VERSION or no bin/"
            KUBERNETES_DIR=$(realpath "$KUBERNETES_DIR")
            local asked=${KUBERNETES_VERSION-}
            KUBERNETES_VERSION=$(<"$KUBERNETES_DIR/VERSION")
            [[ -z $asked || v${asked#v} == "$KUBERNETES_VERSION" ]] ||
                die "KUBERNETES_VERSION=$asked, but $KUBERNETES_DIR is $KUBERNETES_VERSION: leave KUBERNETES_VERSION= out, or name another folder"
            [[ $KUBERNETES_VERSION =~ ^v1\.([0-9]+)\.[0-9]+$ ]] ||
                die "$KUBERNETES_DIR/VERSION says \"$KUBERNETES_VERSION\": not a version such as v1.36.3"
            ((BASH_REMATCH[1] >= 32)) || die "$KUBERNETES_DIR is Kubernetes $KUBERNETES_VERSION: older than 1.32"
            ;;
        apt)
            [[ -z ${KUBERNETES_DIR-} ]] || die "KUBERNETES_DIR=$KUBERNETES_DIR is taken with KUBERNETES=dir alone, and this bake is KUBERNETES=apt"
            [[ ${KUBERNETES_VERSION-} =~ ^v?1\.([0-9]+)\.[0-9]+$ ]] ||
                die "KUBERNETES=apt needs KUBERNETES_VERSION=, such as 1.36.3"
            ((BASH_REMATCH[1] >= 32)) || die "KUBERNETES_VERSION=$KUBERNETES_VERSION: older than 1.32"
            KUBERNETES_VERSION=${KUBERNETES_VERSION#v}
            ;;
        *) die "KUBERNETES=$KUBERNETES: apt or dir" ;;
    esac
    check_mirrors
    SECURE_BOOT=()
    if [[ -n ${SECURE_BOOT_KEY-}${SECURE_BOOT_CERTIFICATE-} ]]; then
        [[ -r ${SECURE_BOOT_KEY-} && -r ${SECURE_BOOT_CERTIFICATE-} ]] ||
            die "SECURE_BOOT_KEY= and SECURE_BOOT_CERTIFICATE= go together: the files of a private key and its certificate (PEM)"
        SECURE_BOOT=(--secure-boot yes --secure-boot-auto-enroll no --secure-boot-key "$(realpath "$SECURE_BOOT_KEY")"
            --secure-boot-certificate "$(realpath "$SECURE_BOOT_CERTIFICATE")")
    fi
}

check_baking() {
    [[ -x $AGENT ]] || die "no agent at $AGENT: build it, or name it by AGENT="
    local program
    for program in "$AGENT" ${KUBERNETES_DIR:+"$KUBERNETES_DIR/bin/kubelet"}; do
        of_architecture "$program" || die "$program is not of ARCHITECTURE=$ARCHITECTURE"
    done
}

# Users of the node's own ids own files in the tree, and containerd's snapshots need real mounts.
check_root() {
    [[ $EUID == 0 ]] || die "root is needed: the tree's files belong to several users, and filling containerd's
store mounts overlays. The same as root:
  $(again)"
}

# By which files are told apart, as four bytes in hexadecimal.
first_bytes() { od -An -tx1 -N4 "$1" | tr -d ' \n'; }

# By its first bytes, as an unpacked release has LICENSE and README.md beside its programs, and a copy may have lost their modes.
is_program() { # FILE
    [[ -f $1 && $(first_bytes "$1") =~ ^(7f454c46|2321) ]]
}

# Whether a program is of the image's architecture: e_machine of its header, elf(5).
of_architecture() { # PROGRAM
    [[ $(first_bytes "$1") == 7f454c46 && $(od -An -tu2 -j18 -N2 "$1" | tr -d ' ') == "$ELF_MACHINE" ]]
}

# Digest of files and folders: names, contents, and whether they run; the other bits of their modes are the umask of whoever made
# them. Contents are read again only if a name, size or time changed, because archives of images are large. Links are what they are, or, with -L, what they lead to: an operator's folder
# may be made of links, and what is installed follows them.
digest() { # [-L] PATH...
    local list=() path seen known sum links=-P
    if [[ ${1-} == -L ]]; then links=$1 && shift; fi
    for path in "$@"; do [[ ! -e $path ]] || list+=("$path"); done
    ((${#list[@]})) || { echo none; return; }
    seen=$({ echo "2 $links" && find "$links" "${list[@]}" -printf '%p %m %s %T@ %l\n' | LC_ALL=C sort; } | sha256sum | cut -c1-32)
    known=$CACHE/digests/$seen
    [[ ! -s $known ]] || { cat "$known"; return; }
    sum=$(for path in "${list[@]}"; do
        (cd "${path%/*}" && find "$links" "${path##*/}" \( -type f -o -type l \) \( -perm /100 -printf '%p x %l\n' -o -printf '%p - %l\n' \) | LC_ALL=C sort &&
            find "$links" "${path##*/}" -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
    done | sha256sum | cut -c1-16)
    # Whoever only asks whether there is anything to do need not be root, whose cache it is.
    if mkdir -p "${known%/*}" 2>/dev/null && [[ -w ${known%/*} ]]; then
        printf '%s\n' "$sum" >"$known.new"
        mv "$known.new" "$known"
    fi
    printf '%s\n' "$sum"
}

# When the newest of some inputs was committed: the time that files of the image bear, and the part of its version that
# grows.
epoch() { # PATH...
    git -c safe.directory="$ROOT" -C "$ROOT" log -1 --format=%ct -- "$@" 2>/dev/null | grep . || echo "${SOURCE_DATE_EPOCH-}" | grep . ||
        # Not a clone.
        (cd "$ROOT" && find "$@" -type f -printf '%Ts\n' | sort -n | tail -n 1)
}

combine() { printf '%s\n' "$@" | sha256sum | cut -c1-16; }

# One key a step: its own files, its options and the keys of the steps before it. Mirrors are in none of them.
keys() {
    local debs kubernetes=none images manifests=()
    debs=$(digest -L "${DEBS[@]}")
    [[ $KUBERNETES != dir ]] || kubernetes=$(digest -L "$KUBERNETES_DIR"/{VERSION,bin,addons,cni})
    [[ -z $IMAGES_OF_KUBEADM ]] || mapfile -t manifests < <(addon_manifests)
    images=$(combine "$(digest -L "${IMAGE_ARCHIVES[@]}")" "${IMAGES_OF_KUBEADM:+$KUBERNETES_VERSION $IMAGE_REPOSITORY}" \
        "$(digest -L "${manifests[@]}")" "$ARCHITECTURE")
    local common
    common=$(digest "$IMAGE/release" "$IMAGE/tools" "$IMAGE/steps/base.sh")
    # Those of a step that is kept must not follow commits that have nothing to do with it.
    local common_inputs=(image/release image/tools image/steps/base.sh)
    EPOCH=${SOURCE_DATE_EPOCH:-$(epoch image agent Cargo.toml Cargo.lock)}
    # Of the last bake with REFRESH=1: all that follows goes by it, too.
    local refreshed mirror
    refreshed=$(cat "$CACHE/$KIND/refreshed" 2>/dev/null || true)
    [[ -n ${SOURCE_DATE_EPOCH-} || -z $refreshed ]] || ((EPOCH > refreshed)) || EPOCH=$refreshed
    # The one thing about mirrors that changes what is in the image.
    mirror=$(given_debian_mirror) WITHOUT_SECURITY=
    [[ $DISTRO != debian || -z $mirror || $mirror == */debian || -n ${SECURITY_MIRROR-} ]] || WITHOUT_SECURITY=yes
    EPOCH_BASE=$(epoch image/mkosi.{conf,conf.d,extra,profiles,postinst.chroot,finalize} "${common_inputs[@]}")
    EPOCH_INITRD=$(epoch image/initrd "${common_inputs[@]}")
    KEY_BASE=$(combine "$EPOCH_BASE" "$KIND" "${EXTRA_PACKAGES[*]}" "$KUBERNETES" "$KUBERNETES_VERSION" "$debs" "$common" "$refreshed" "$WITHOUT_SECURITY" \
        "$(digest "$IMAGE"/mkosi.{conf,conf.d,extra,profiles,postinst.chroot,finalize})")
    KEY_INITRD=$(combine "$EPOCH_INITRD" "$KIND" "$common" "$refreshed" "$WITHOUT_SECURITY" "$(digest "$IMAGE/initrd")")
    KEY_IMAGES=$(combine "$images" "$(digest "$IMAGE"/steps/{store.sh,images.sh,image-names,fill-store,settle-store})")
    KEY_TREE=$(combine "$EPOCH" "$KEY_BASE" "$KEY_IMAGES" "$kubernetes" "$(digest "$AGENT")" "$(cri_dockerd_key)" \
        "$(digest -L ${EXTRA_CA:+"$EXTRA_CA"} ${SSH_KEY:+"$SSH_KEY"})" \
        "$(digest "$IMAGE"/steps/{tree.sh,extras.sh,cri-dockerd.sh,settle-times})")
    KEY_DISK=$(combine "$KEY_TREE" "$KEY_INITRD" "$(digest ${SECURE_BOOT_CERTIFICATE:+"$(realpath "$SECURE_BOOT_CERTIFICATE")"})" "$(digest "$IMAGE/disk" "$IMAGE/steps/disk.sh")")
    # Versions are compared by the boot loader and by systemd-sysupdate: Kubernetes first, then time. With `kindling_` it is a
    # partition's label, which has at most 36 characters.
    VERSION=${KUBERNETES_VERSION#v}-$(date -u -d "@$EPOCH" +%y%m%d.%H%M)-${KEY_TREE:0:7}
    ((${#VERSION} <= 27)) || die "the version $VERSION has more than 27 characters"
}

# REFRESH=1: what mkosi keeps of installed packages is of another day, and everything that is made of them is made anew.
refresh() {
    [[ -n ${REFRESH-} ]] || return 0
    say "packages of the distribution as they are today"
    rm -rf "$CACHE/$KIND"/incremental-*
    date +%s >"$CACHE/$KIND/refreshed"
    keys
}

up_to_date() {
    [[ -d $OUT/tree && $(cat "$OUT/.tree" 2>/dev/null) == "$KEY_TREE" ]] || return 1
    [[ -z ${TREE_ONLY-} ]] || return 0
    disk_up_to_date && [[ -z ${UPDATE-} || -d $OUT/update ]]
}

disk_up_to_date() { [[ -s $OUT/kindling.raw && $(cat "$OUT/.disk" 2>/dev/null) == "$KEY_DISK" ]]; }
