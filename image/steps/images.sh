# shellcheck shell=bash
# The container images that an image is baked with: which, and from where. Read by `image/bake`.

check_images() {
    local word name='[^=/:]+(:[0-9]+)?(/[^=/:]+)*'
    IMAGE_ARCHIVES=() IMAGES_OF_KUBEADM='' IMAGE_REPOSITORY=${IMAGE_REPOSITORY-}
    # A folder brings its own; what comes from an archive of packages is complete only with these.
    [[ $KUBERNETES == dir ]] || IMAGES=${IMAGES:-kubeadm}
    for word in ${IMAGES-}; do
        if [[ $word == none ]]; then
            [[ $IMAGES == none ]] || die "IMAGES=: none stands alone, or is left out"
        elif [[ $word == kubeadm ]]; then
            IMAGES_OF_KUBEADM=yes
        elif [[ -d $word ]]; then
            add_archives "$(realpath "$word")" || die "IMAGES=: the folder \"$word\" holds no archive of images (.tar, not compressed)"
        elif [[ -s $word && $word == *.tar ]]; then
            IMAGE_ARCHIVES+=("$(realpath "$word")")
        else
            die "IMAGES=: \"$word\" is neither an archive of images (.tar), nor a folder of such, nor the word kubeadm or none"
        fi
    done
    if [[ $KUBERNETES == dir && -d $KUBERNETES_DIR/images ]]; then
        add_archives "$(realpath "$KUBERNETES_DIR/images")" || die "$KUBERNETES_DIR/images holds no archive of images (.tar, not compressed)"
    fi
    for word in ${IMAGE_MIRRORS-}; do
        [[ $word =~ ^$name=$name$ ]] ||
            die "IMAGE_MIRRORS=: \"$word\" is not of the form ghcr.io=harbor.example.org/ghcr"
    done
}

# Those of a folder; fails where it has none.
add_archives() { # FOLDER
    local found
    found=$(find "$1" -maxdepth 1 -name '*.tar' | LC_ALL=C sort)
    [[ -n $found ]] || return 1
    mapfile -t -O ${#IMAGE_ARCHIVES[@]} IMAGE_ARCHIVES <<<"$found"
}

# The manifests of add-ons that the image will have: its own, and the folder's, which come over these.
addon_manifests() {
    local file own=$IMAGE/mkosi.extra/usr/share/kindling/addons folder=
    [[ $KUBERNETES != dir ]] || folder=$KUBERNETES_DIR/addons
    for file in "$own"/*.yaml; do
        [[ -n $folder && -e $folder/${file##*/} ]] || printf '%s\n' "$file"
    done
    for file in ${folder:+"$folder"/*.yaml}; do
        [[ ! -e $file ]] || printf '%s\n' "$file"
    done
}

# Where an image is fetched from: its own registry, or what IMAGE_MIRRORS= puts in its place.
image_source() { # NAME
    local pair
    for pair in ${IMAGE_MIRRORS-}; do
        [[ $1 != "${pair%%=*}"/* ]] || { printf '%s\n' "${pair#*=}${1#"${pair%%=*}"}" && return 0; }
    done
    printf '%s\n' "$1"
}

# The images that this version of kubeadm wants, under the names that it calls them by.
wanted_images() {
    local wanted kubeadm=(chroot "$BASE/tree" kubeadm)
    if [[ $KUBERNETES == dir ]]; then
        # A copy may have lost its modes, and may lie where nothing runs.
        install -m 0755 "$KUBERNETES_DIR/bin/kubeadm" "$CACHE/kubeadm"
        kubeadm=("$CACHE/kubeadm")
    fi
    if ! wanted=$("${kubeadm[@]}" config images list --kubernetes-version "v${KUBERNETES_VERSION#v}" \
        ${IMAGE_REPOSITORY:+--image-repository "$IMAGE_REPOSITORY"} 2>"$CACHE/kubeadm.log") || [[ -z $wanted ]]; then
        die "kubeadm does not name its images: $(tail -n 5 "$CACHE/kubeadm.log")"
    fi
    printf '%s\n' "$wanted"
}

# Those that this version of kubeadm wants and those that the add-ons name, each an archive in the cache. What an archive
# holds that was given is not fetched.
fetch_images() {
    [[ -n $IMAGES_OF_KUBEADM ]] || return 0
    local image wanted named held manifests
    wanted=$(wanted_images)
    mapfile -t manifests < <(addon_manifests)
    named=$("$IMAGE/steps/image-names" "${IMAGE_REPOSITORY:-registry.k8s.io}" "${manifests[@]}")
    held=$("$IMAGE/steps/image-names" - "${IMAGE_ARCHIVES[@]}")
    mkdir -p "$CACHE/images"
    while read -r image; do
        [[ -n $image ]] || continue
        ! grep -qxF -- "$image" <<<"$held" || continue
        if [[ $image == *@* ]]; then
            say "$image is named by its digest: nodes pull it, it is not preloaded"
            continue
        fi
        fetch_image "$image"
    done < <(printf '%s\n' "$wanted" "$named" | awk '!seen[$0]++')
    find "$CACHE/images" -maxdepth 1 -name '*.tar' -atime +30 -delete
}

fetch_image() { # NAME
    local from options=(--override-os linux --override-arch "$ARCHITECTURE") archive
    archive=$CACHE/images/$(combine "$1" "$ARCHITECTURE").tar
    if [[ ! -s $archive ]]; then
        from=$(image_source "$1")
        if [[ $from == "$1" ]]; then say "fetching $1"; else say "fetching $1 from $from"; fi
        rm -f "$archive.new"
        [[ -z ${EXTRA_CA-} ]] || { mkdir -p "$CACHE/images/certs" && cp "$EXTRA_CA" "$CACHE/images/certs/extra.crt"; }
        # An OCI archive keeps the layers compressed, as the registry has them.
        # skopeo comes with the tools tree; the network's resolver is the host's.
        run_tool skopeo --insecure-policy --command-timeout 30m copy --quiet --retry-times 3 "${options[@]}" ${EXTRA_CA:+--src-cert-dir "$CACHE/images/certs"} \
            "docker://$from" "oci-archive:$archive.new:$1" ||
            die "cannot fetch $from. IMAGE_REPOSITORY= names another registry for kubeadm's images, IMAGE_MIRRORS= one for others
(such as ghcr.io=harbor.example.org/ghcr), IMAGES= an archive that holds $1, PROXY= the way there; IMAGES=none leaves all of them out, and nodes pull them as they come up"
        mv "$archive.new" "$archive"
    fi
    # Its last use, by which those go that no bake wants any more; its own time is left, by which a digest is known.
    touch -a "$archive"
    IMAGE_ARCHIVES+=("$archive")
}
