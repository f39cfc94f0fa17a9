# shellcheck shell=bash
# Which inputs a bake has, and the digests that say whether they changed. Read by `image/bake`.

check_options() {
    case $DISTRO in
        debian | ubuntu) ;;
        *) die "DISTRO=$DISTRO: ubuntu or debian" ;;
    esac
    case $KUBERNETES in
        dir)
            [[ -n ${KUBERNETES_DIR-} ]] || die "KUBERNETES=dir needs KUBERNETES_DIR=, a folder with VERSION and bin/"
            [[ -s $KUBERNETES_DIR/VERSION && -d $KUBERNETES_DIR/bin ]] || die "$KUBERNETES_DIR has no VERSION or no bin/"
            KUBERNETES_DIR=$(realpath "$KUBERNETES_DIR")
            KUBERNETES_VERSION=$(<"$KUBERNETES_DIR/VERSION")
            ;;
        apt)
            [[ ${KUBERNETES_VERSION-} =~ ^v?1\.([0-9]+)\.[0-9]+$ ]] ||
                die "KUBERNETES=apt needs KUBERNETES_VERSION=, such as 1.32.3"
            ((BASH_REMATCH[1] >= 32)) || die "KUBERNETES_VERSION=$KUBERNETES_VERSION: older than 1.32"
            KUBERNETES_VERSION=${KUBERNETES_VERSION#v}
            ;;
        *) die "KUBERNETES=$KUBERNETES: apt or dir" ;;
    esac
}

check_baking() {
    [[ -x $AGENT ]] || die "no agent at $AGENT: build it, or name it by AGENT="
    # Users of the node's own ids own files in the tree, and containerd's snapshots need real mounts.
    [[ $EUID == 0 ]] || die "root is needed: the tree's files belong to several users, and filling containerd's
store mounts overlays; try: sudo --preserve-env image/bake"
}

# Digest of files and folders: names, modes and contents. Contents are read again only if a name, size or time
# changed, because archives of images are large.
digest() {
    local list=() path seen known
    for path in "$@"; do [[ ! -e $path ]] || list+=("$path"); done
    ((${#list[@]})) || { echo none; return; }
    seen=$(find "${list[@]}" -printf '%p %m %s %T@ %l\n' | LC_ALL=C sort | sha256sum | cut -c1-32)
    known=$CACHE/digests/$seen
    if [[ ! -s $known ]]; then
        mkdir -p "${known%/*}"
        for path in "${list[@]}"; do
            (cd "${path%/*}" && find "${path##*/}" \( -type f -o -type l \) -printf '%p %m %l\n' | LC_ALL=C sort &&
                find "${path##*/}" -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
        done | sha256sum | cut -c1-16 >"$known.new"
        mv "$known.new" "$known"
    fi
    cat "$known"
}

combine() { printf '%s\n' "$@" | sha256sum | cut -c1-16; }

# One key a step: its own files, its options and the keys of the steps before it. Mirrors are in none of them.
keys() {
    local debs=none kubernetes=none images=none
    if [[ $KUBERNETES == dir ]]; then
        debs=$(digest "$KUBERNETES_DIR/debs")
        kubernetes=$(digest "$KUBERNETES_DIR"/{VERSION,bin,addons,cni})
        images=$(digest "$KUBERNETES_DIR/images")
    fi
    local common
    common=$(digest "$IMAGE/release" "$IMAGE/tools" "$IMAGE/steps/base.sh")
    KEY_BASE=$(combine "$DISTRO" "$KUBERNETES" "$KUBERNETES_VERSION" "$debs" "$common" \
        "$(digest "$IMAGE"/mkosi.{conf,conf.d,extra,profiles,postinst.chroot,finalize})")
    KEY_INITRD=$(combine "$DISTRO" "$common" "$(digest "$IMAGE/initrd")")
    KEY_IMAGES=$(combine "$images" "$(digest "$IMAGE/steps/store.sh")")
    KEY_TREE=$(combine "$KEY_BASE" "$KEY_IMAGES" "$kubernetes" "$(digest "$AGENT")" "$(digest "$IMAGE/steps/tree.sh")")
    KEY_DISK=$(combine "$KEY_TREE" "$KEY_INITRD" "$(digest "$IMAGE/disk" "$IMAGE/steps/disk.sh")")
    VERSION=v${KUBERNETES_VERSION#v}-$KEY_TREE
}

up_to_date() {
    [[ -d $OUT/tree && $(cat "$OUT/.tree" 2>/dev/null) == "$KEY_TREE" ]] || return 1
    [[ -n ${TREE_ONLY-} || $(cat "$OUT/.disk" 2>/dev/null) == "$KEY_DISK" ]]
}
