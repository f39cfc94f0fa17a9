# shellcheck shell=bash
# The node's tree: the base, and on it what changes often. Read by `image/bake`.

node_tree() {
    TREE=$OUT/tree
    [[ ! -d $OUT/tree || $(cat "$OUT/.tree" 2>/dev/null) != "$KEY_TREE" ]] || return 0
    say "laying the agent and Kubernetes on the base tree"
    TREE=$OUT/new/tree
    clear_folder "$OUT/new"
    cp -a --reflink=auto "$BASE/tree" "$TREE"
    install -D -m 0755 "$AGENT" "$TREE/usr/bin/kindling"
    install -D -m 0644 "$IMAGE/README.md" "$TREE/usr/share/doc/kindling/README.md"
    mkdir -p "$TREE/usr/share/kindling/addons"
    [[ $KUBERNETES != dir ]] || lay_kubernetes
    lay_cri_dockerd
    lay_cni_links
    lay_store
    lay_etcd
    lay_extras
    lay_comforts
    printf 'IMAGE_VERSION="%s"\n' "$VERSION" >>"$TREE/usr/lib/os-release"
    # Nothing is newer than this: systemd need not rebuild caches of /etc and /var at first boot.
    touch "$TREE/etc/.updated" "$TREE/var/.updated"
    "$IMAGE/steps/settle-times" "$TREE" "$EPOCH"
    cp "$BASE/tree.manifest" "$OUT/new/manifest.json"
    printf '%s\n' "$VERSION" >"$OUT/new/version"
    printf '%s\n' "$KEY_TREE" >"$OUT/new/.tree"
}

lay_kubernetes() {
    local file
    for file in "$KUBERNETES_DIR"/bin/*; do
        ! is_program "$file" || install -m 0755 "$file" "$TREE/usr/bin/${file##*/}"
    done
    for file in "$KUBERNETES_DIR"/cni/*; do
        ! is_program "$file" || install -m 0755 "$file" "$TREE/usr/lib/cni/${file##*/}"
    done
    for file in "$KUBERNETES_DIR"/addons/*; do
        [[ ! -f $file ]] || install -m 0644 "$file" "$TREE/usr/share/kindling/addons/${file##*/}"
    done
}

# Links made anew by systemd-tmpfiles wherever /var is empty, and made here for the first boot.
lay_cni_links() {
    local plugin
    mkdir -p "$TREE/var/opt/cni/bin"
    for plugin in "$TREE"/usr/lib/cni/*; do
        is_program "$plugin" || continue
        plugin=${plugin##*/}
        printf 'L /var/opt/cni/bin/%s - - - - /usr/lib/cni/%s\n' "$plugin" "$plugin"
        ln -sfn "/usr/lib/cni/$plugin" "$TREE/var/opt/cni/bin/$plugin"
    done >"$TREE/usr/lib/tmpfiles.d/kindling-cni.conf"
}

# Machines of an external etcd run the one that this kubeadm asks for: the folder's, or that of the preloaded image. What the
# distributions have may be older than what kubeadm takes.
lay_etcd() {
    local program
    for program in etcd etcdctl etcdutl; do
        [[ -e $TREE/usr/bin/$program || -z $STORE || ! -e $STORE/etcd/$program ]] ||
            install -m 0755 "$STORE/etcd/$program" "$TREE/usr/bin/$program"
    done
    [[ -e $TREE/usr/bin/etcd ]] || say 'no etcd: none is among the preloaded images; machines of an external etcd refuse this image'
}

lay_store() {
    if [[ -n $STORE ]]; then
        rm -rf "$TREE/var/lib/containerd"
        cp -a --reflink=auto "$STORE/containerd" "$TREE/var/lib/containerd"
        cp "$STORE/images.json" "$TREE/usr/share/kindling/images.json"
    else
        echo '[]' >"$TREE/usr/share/kindling/images.json"
    fi
}
