# shellcheck shell=bash
# Preloaded images: containerd's store (content, metadata, overlayfs snapshots) filled at bake time by the tree's own
# containerd, because an import at boot costs minutes on machines that share a processor. Read by `image/bake`.

containerd_store() {
    local version started etcd
    STORE=
    fetch_images
    if ((${#IMAGE_ARCHIVES[@]} == 0)); then
        say "no container images are preloaded: nodes pull them as they come up, and cannot be machines of an external etcd (IMAGES=kubeadm fetches them for the image)"
        return 0
    fi
    etcd=$(wanted_images)
    etcd=$(grep -m 1 '/etcd:' <<<"$etcd") || die "kubeadm names no image of etcd: $etcd"
    version=$({ chroot "$BASE/tree" containerd --version && echo "$etcd"; } | sha256sum | cut -c1-8)
    STORE=$CACHE/$KIND/store-$KEY_IMAGES-$version
    [[ ! -d $STORE ]] || { touch "$STORE"; return 0; }
    say "filling containerd's store: ${#IMAGE_ARCHIVES[@]} archives"
    local work=$CACHE/$KIND/store.work
    clear_folder "$work"
    started=$(date +%s)
    # A mount and process namespace of its own: whatever happens in it, nothing stays mounted or running.
    unshare --mount --pid --fork --kill-child --propagation private \
        bash "$IMAGE/steps/fill-store" "$BASE/tree" "$work" "$etcd" "${IMAGE_ARCHIVES[@]}" >"$CACHE/store.log" 2>&1 || {
        tail -n 40 "$CACHE/store.log" >&2
        die "containerd's store could not be filled (whole log: $CACHE/store.log)"
    }
    "$IMAGE/steps/settle-store" "$work/containerd" "$started"
    mv "$work" "$STORE"
    touch "$STORE"
    prune store
}
