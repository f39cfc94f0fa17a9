# shellcheck shell=bash
# mkosi's own work: the tree of packages and settings, and the initrd. Read by `image/bake`.

clear_folder() {
    rm -rf "$1"
    mkdir -p "$1"
}

# The last two results of a step stay: tests and a product image may be baked by turns.
prune() { # STEP
    local old
    find "$CACHE/$KIND" -maxdepth 1 -name "$1-*" -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d ' ' -f 2- |
        while read -r old; do rm -rf "$old"; done
}

# Output goes to a log that is shown only if mkosi fails: a good bake prints its steps and nothing else.
run_mkosi() { # FOLDER ARGUMENTS...
    local folder=$1 option=MIRROR=
    local log=$CACHE/mkosi-${folder##*/}.log
    shift
    [[ $folder != "$IMAGE/tools" ]] || option=$(debian_mirror_option)
    mkdir -p "$CACHE/packages" "$CACHE/workspace"
    # mkosi would give a proxy, with its password, to apt as an argument; it is in apt's settings, see `sandbox_proxy`.
    env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY "${MKOSI[@]}" --directory "$folder" \
        --package-cache-dir "$CACHE/packages" --workspace-directory "$CACHE/workspace" "$@" build >"$log" 2>&1 || {
        # Progress bars are one long line.
        tr '\r' '\n' <"$log" | grep -v '%$' | tail -n 40 >&2
        die "mkosi failed in $folder (whole log: $log). Where packages could not be fetched: $option names another mirror,
PROXY= the way there, EXTRA_CA= the CA of its certificate, SECURITY_MIRROR= another place of Debian's security updates"
    }
}

run_mkosi_for_node() { # FOLDER ARGUMENTS...
    local folder=$1
    shift
    # mkosi's own cache of installed packages, so that a changed setting costs no installation. It tells images apart by
    # distribution only, hence a folder for each, and for each source of Kubernetes, whose packages differ.
    # Its packages are another's where there is no archive of security updates.
    local incremental=$CACHE/$KIND/incremental-${folder##*/}-$KUBERNETES${WITHOUT_SECURITY:+-without-security}
    mkdir -p "$incremental"
    run_mkosi "$folder" "${PLATFORM[@]}" --tools-tree "$TOOLS" --sandbox-tree "$CACHE/sandbox-$DISTRO" \
        --cache-directory "$incremental" --incremental yes "$@"
}

# What differs with the source of Kubernetes, and what the operator adds, as arguments of mkosi.
kubernetes_arguments() {
    local package deb
    KUBERNETES_ARGUMENTS=(--profile "kubernetes-$KUBERNETES")
    for package in "${EXTRA_PACKAGES[@]}"; do KUBERNETES_ARGUMENTS+=(--package "$package"); done
    if [[ $KUBERNETES == apt ]]; then
        for package in kubelet kubeadm kubectl; do
            KUBERNETES_ARGUMENTS+=(--package "$package=$KUBERNETES_VERSION-*")
        done
    fi
    ((${#DEBS[@]})) || return 0
    clear_folder "$CACHE/$KIND/debs"
    for deb in "${DEBS[@]}"; do
        # With its time, by which mkosi knows whether what it kept is still right.
        cp -p "$deb" "$CACHE/$KIND/debs/"
        # With its version: the distribution's may be newer.
        # shellcheck disable=SC2016  # dpkg's own placeholders
        KUBERNETES_ARGUMENTS+=(--package "$(dpkg-deb --show --showformat='${Package}=${Version}' "$deb")")
    done
    KUBERNETES_ARGUMENTS+=(--package-directory "$CACHE/$KIND/debs")
}

summary() {
    kubernetes_arguments
    "${MKOSI[@]}" --directory "$IMAGE" "${PLATFORM[@]}" "${KUBERNETES_ARGUMENTS[@]}" summary
    "${MKOSI[@]}" --directory "$IMAGE/initrd" "${PLATFORM[@]}" summary
    "${MKOSI[@]}" --directory "$IMAGE/disk" "${PLATFORM[@]}" "${SECURE_BOOT[@]}" summary
}

base_tree() {
    BASE=$CACHE/$KIND/base-$KEY_BASE
    [[ ! -d $BASE ]] || { touch "$BASE"; return 0; }
    find_mirrors "$DISTRO"
    say "baking the base tree: $DISTRO, from $(distribution_mirror)"
    mirror_warnings
    local work=$CACHE/$KIND/base.work
    sandbox_tree "$DISTRO" "$CACHE/sandbox-$DISTRO"
    [[ $KUBERNETES != apt ]] || kubernetes_sandbox_tree "$CACHE/sandbox-$DISTRO"
    kubernetes_arguments
    clear_folder "$work"
    run_mkosi_for_node "$IMAGE" --output-directory "$work" --source-date-epoch "$EPOCH_BASE" \
        "${KUBERNETES_ARGUMENTS[@]}"
    mv "$work" "$BASE"
    touch "$BASE"
    prune base
}

initrd() {
    INITRD=$CACHE/$KIND/initrd-$KEY_INITRD/initrd.cpio.zst
    [[ ! -e $INITRD ]] || { touch "${INITRD%/*}"; return 0; }
    say "baking the initrd"
    local work=$CACHE/$KIND/initrd.work
    sandbox_tree "$DISTRO" "$CACHE/sandbox-$DISTRO"
    clear_folder "$work"
    # A kept installation would bear the times of its own day.
    run_mkosi_for_node "$IMAGE/initrd" --output-directory "$work" --source-date-epoch "$EPOCH_INITRD" --incremental no
    mv "$work" "${INITRD%/*}"
    touch "${INITRD%/*}"
    prune initrd
}
