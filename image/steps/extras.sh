# shellcheck shell=bash
# What an operator adds to an image: packages, certificate authorities, an SSH key. Read by `image/bake`.

check_extras() {
    local word file
    EXTRA_PACKAGES=() DEBS=()
    for word in ${PACKAGES-}; do
        if [[ $word == *.deb ]]; then
            dpkg-deb --info "$word" >/dev/null 2>&1 || die "PACKAGES=: \"$word\" is no file of a package (.deb)"
            DEBS+=("$(realpath "$word")")
        else
            [[ $word =~ ^[a-z0-9][a-z0-9+.=:~*-]+$ ]] || die "PACKAGES=: \"$word\" is neither a package's name nor a file (.deb)"
            EXTRA_PACKAGES+=("$word")
        fi
    done
    if [[ $KUBERNETES == dir ]]; then
        for file in "$KUBERNETES_DIR"/debs/*.deb; do [[ ! -e $file ]] || DEBS+=("$file"); done
    fi
    # reprepro, by which mkosi hands them to apt, passes over a package that lacks one, after minutes.
    for file in "${DEBS[@]}"; do
        for word in Package Version Architecture Section Priority; do
            [[ -n $(dpkg-deb --field "$file" "$word") ]] || die "$file has no $word in its control file, without which it cannot be installed in an image"
        done
    done
    if [[ -n ${EXTRA_CA-} ]]; then
        grep -q 'BEGIN CERTIFICATE' "$EXTRA_CA" 2>/dev/null || die "EXTRA_CA=$EXTRA_CA: no file with certificates (PEM)"
        ! grep -q 'PRIVATE KEY' "$EXTRA_CA" || die "EXTRA_CA=$EXTRA_CA holds a private key: it would be in every image"
        EXTRA_CA=$(realpath "$EXTRA_CA")
    fi
    if [[ -n ${SSH_KEY-} ]]; then
        if grep -q 'PRIVATE KEY' "$SSH_KEY" 2>/dev/null || ! grep -qE '^(ssh|ecdsa|sk)-[^ ]+ AAAA' "$SSH_KEY" 2>/dev/null; then
            die "SSH_KEY=$SSH_KEY: not a file with public keys, as ssh-keygen writes them into *.pub"
        fi
        SSH_KEY=$(realpath "$SSH_KEY")
        EXTRA_PACKAGES+=(openssh-server)
    fi
    if [[ -n ${PROXY-} ]]; then
        [[ $PROXY == http?(s)://* ]] || die "PROXY=$PROXY: not a URL such as http://proxy.example:3128"
        export http_proxy=$PROXY https_proxy=$PROXY
    fi
}

# Into the tree: who is trusted, and who may log in.
lay_extras() {
    if [[ -n ${EXTRA_CA-} ]]; then
        # One certificate a file, as update-ca-certificates(8) wants them.
        mkdir -p "$TREE/usr/local/share/ca-certificates"
        awk -v folder="$TREE/usr/local/share/ca-certificates" '
            /BEGIN CERTIFICATE/ { n++; on = 1 }
            on { print >(folder "/operator-" n ".crt") }
            /END CERTIFICATE/ { on = 0 }' "$EXTRA_CA"
        chroot "$TREE" update-ca-certificates >"$CACHE/ca.log" 2>&1 || die "EXTRA_CA=$EXTRA_CA is not taken (see $CACHE/ca.log)"
    fi
    if [[ -n ${SSH_KEY-} ]]; then
        # In /etc, so that keys can be changed on a node; root's home folder is on /var and empty in the image.
        install -D -m 0644 "$SSH_KEY" "$TREE/etc/ssh/authorized_keys.d/root"
        printf '%s\n' 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u' 'PermitRootLogin prohibit-password' \
            'PasswordAuthentication no' 'KbdInteractiveAuthentication no' >"$TREE/etc/ssh/sshd_config.d/10-kindling.conf"
        # Each machine makes keys of its own at its first boot; the package has made some for all of them.
        rm -f "$TREE"/etc/ssh/ssh_host_*
        install -d "$TREE/usr/lib/systemd/system/ssh.service.d"
        printf '%s\n' '[Service]' ExecStartPre= 'ExecStartPre=/usr/bin/ssh-keygen -A' 'ExecStartPre=/usr/sbin/sshd -t' \
            >"$TREE/usr/lib/systemd/system/ssh.service.d/10-kindling.conf"
        # The disk is made by the presets once more; this one comes before the one that keeps all other units off.
        echo 'enable ssh.service' >"$TREE/usr/lib/systemd/system-preset/00-kindling-ssh.preset"
        ln -sf /usr/lib/systemd/system/ssh.service "$TREE/etc/systemd/system/multi-user.target.wants/ssh.service"
        # What systemd would offer beside it: a way in from the hypervisor.
        mkdir -p "$TREE/etc/systemd/system-generators"
        ln -s /dev/null "$TREE/etc/systemd/system-generators/systemd-ssh-generator"
    fi
}

# For those who log in.
lay_comforts() {
    local program folder=$TREE/usr/share/bash-completion/completions
    mkdir -p "$folder"
    for program in kubectl kubeadm crictl nerdctl; do
        [[ -x $TREE/usr/bin/$program ]] || continue
        chroot "$TREE" "$program" completion bash >"$folder/$program" 2>/dev/null || true
        [[ -s $folder/$program ]] || rm -f "$folder/$program"
    done
    chroot "$TREE" kindling completions bash >"$folder/kindling"
    # Where nerdctl is in the image, it sees what the kubelet sees.
    if [[ -x $TREE/usr/bin/nerdctl ]]; then
        install -d "$TREE/etc/nerdctl"
        printf 'namespace = "k8s.io"\n' >"$TREE/etc/nerdctl/nerdctl.toml"
    fi
}
