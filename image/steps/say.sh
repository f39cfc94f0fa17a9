# shellcheck shell=bash
# How `image/bake` and `image/ova` speak, and how they end. PROGRAM is the name that they go by.

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" | masked >&2; }
die() { printf '%s: %s\n' "$PROGRAM" "$*" | masked >&2; exit 1; }
# Proxies and mirrors may be named with a password.
masked() { sed -E 's|(://)[^/[:space:]]+@|\1...@|g'; }

# What `set -e` ends without a word of its own is named by its place, in functions and subshells too, which end at their first
# failure as everything else does. A subshell ends its parent, so the innermost place is the first line; one that `die` ended
# has said why already.
set -o errtrace
shopt -s inherit_errexit
ended() { # CODE FILE LINE COMMAND
    printf '%s: ended with code %s at %s:%s: %s\n' "$PROGRAM" "$1" "${2#"$ROOT/"}" "$3" "$4" >&2
}
trap 'ended "$?" "${BASH_SOURCE[0]-$0}" "$LINENO" "$BASH_COMMAND"' ERR

# The options of `image/bake`, of which `make image` passes on those that are set.
OPTIONS=(DISTRO KUBERNETES KUBERNETES_DIR KUBERNETES_VERSION KUBERNETES_MIRROR ARCHITECTURE MIRROR SECURITY_MIRROR DEBIAN_MIRROR
    CRI_DOCKERD CRI_DOCKERD_SHA256 IMAGES IMAGE_REPOSITORY IMAGE_MIRRORS PACKAGES EXTRA_CA SSH_KEY PROXY AGENT OUT KINDLING_CACHE
    TREE_ONLY UPDATE REFRESH SECURE_BOOT_KEY SECURE_BOOT_CERTIFICATE SOURCE_DATE_EPOCH)

# This very call as root: sudo keeps no variable of its caller.
again() {
    local name words=()
    for name in "${OPTIONS[@]}"; do
        [[ -z ${!name-} ]] || words+=("$name=${!name@Q}")
    done
    printf 'sudo env %s %s\n' "${words[*]}" "${ROOT@Q}/$PROGRAM"
}
