# shellcheck shell=bash
# cri-dockerd, without which no kubelet uses docker. No distribution has it, so it is fetched or given. Read by `image/bake`.

# What is taken unless CRI_DOCKERD= says otherwise.
CRI_DOCKERD_RELEASES=https://github.com/Mirantis/cri-dockerd/releases/download
CRI_DOCKERD_VERSION=0.3.24
declare -A CRI_DOCKERD_SHA256_OF=(
    [amd64]=dd4b7f514c248a3aaca398f467430a4c58aae9a77ea8b96a2f5b5d6fba0948d1
    [arm64]=c783a03735887c4a8fc894bd4cf7a1c0defef3ecf50a4d79ff31eed45c26b17e
)
WITHOUT_CRI_DOCKERD='without it nodes refuse runtime = "docker"; containerd and CRI-O do not need it'

# Sets CRI_DOCKERD_FROM, a file, a URL or nothing, and CRI_DOCKERD_SUM, which may be empty for a file. Fetches nothing.
check_cri_dockerd() {
    local default=$CRI_DOCKERD_RELEASES/v$CRI_DOCKERD_VERSION/cri-dockerd-$CRI_DOCKERD_VERSION.$ARCHITECTURE.tgz
    CRI_DOCKERD_FROM=${CRI_DOCKERD-} CRI_DOCKERD_SUM=${CRI_DOCKERD_SHA256-}
    CRI_DOCKERD_SUM=${CRI_DOCKERD_SUM,,}
    [[ -z $CRI_DOCKERD_SUM || $CRI_DOCKERD_SUM =~ ^[0-9a-f]{64}$ ]] ||
        die "CRI_DOCKERD_SHA256=$CRI_DOCKERD_SHA256: not a SHA-256, which has 64 digits of 0 to 9 and a to f"
    case $CRI_DOCKERD_FROM in
        none)
            CRI_DOCKERD_FROM=
            return 0
            ;;
        '')
            ! cri_dockerd_is_given || return 0
            CRI_DOCKERD_FROM=$default
            ;;
    esac
    if [[ $CRI_DOCKERD_FROM == http?(s)://* ]]; then
        [[ $CRI_DOCKERD_FROM != "$default" || -n $CRI_DOCKERD_SUM ]] || CRI_DOCKERD_SUM=${CRI_DOCKERD_SHA256_OF[$ARCHITECTURE]}
        [[ -n $CRI_DOCKERD_SUM ]] ||
            die "CRI_DOCKERD=$CRI_DOCKERD_FROM needs CRI_DOCKERD_SHA256=: nothing else says that what comes is what was meant"
    else
        [[ -s $CRI_DOCKERD_FROM ]] || die "CRI_DOCKERD=$CRI_DOCKERD_FROM: no such file; a program, a .deb or a release archive (.tgz),
a file or a URL; or none"
        CRI_DOCKERD_FROM=$(realpath "$CRI_DOCKERD_FROM")
        # Here, not only when it is laid: a bake that has nothing to do lays nothing.
        cri_dockerd_sum "$CRI_DOCKERD_FROM"
    fi
}

# What its bytes are known by before it is fetched.
cri_dockerd_key() {
    if [[ $CRI_DOCKERD_FROM == http?(s)://* ]]; then
        printf '%s\n' "$CRI_DOCKERD_SUM"
    else
        digest ${CRI_DOCKERD_FROM:+"$CRI_DOCKERD_FROM"}
    fi
}

# Whether it comes with the Kubernetes folder, or as a package by name.
cri_dockerd_is_given() {
    local file
    if [[ $KUBERNETES == dir ]]; then
        for file in "$KUBERNETES_DIR"/bin/cri-dockerd "$KUBERNETES_DIR"/debs/cri-dockerd*.deb; do
            [[ ! -e $file ]] || return 0
        done
    fi
    for file in ${PACKAGES-}; do
        case ${file##*/} in cri-dockerd | cri-dockerd[_=]*) return 0 ;; esac
    done
    return 1
}

# The program itself, in CRI_DOCKERD_PROGRAM; empty where there is none to lay. Called before anything that takes minutes.
fetch_cri_dockerd() {
    CRI_DOCKERD_PROGRAM=
    [[ -n $CRI_DOCKERD_FROM ]] || return 0
    local folder=$CACHE/cri-dockerd file=$CRI_DOCKERD_FROM sum why
    mkdir -p "$folder"
    if [[ $CRI_DOCKERD_FROM == http?(s)://* ]]; then
        file=$folder/$CRI_DOCKERD_SUM
        if [[ ! -s $file ]]; then
            say "fetching cri-dockerd: $CRI_DOCKERD_FROM"
            rm -f "$file.new"
            why=$(fetch_url "$CRI_DOCKERD_FROM" "$file.new" 2>&1) || die "cannot fetch cri-dockerd from $CRI_DOCKERD_FROM: $why
- fetch it elsewhere and name the file: CRI_DOCKERD=FILE (sha256 $CRI_DOCKERD_SUM)
- PROXY= names the way there, EXTRA_CA= the CA of its certificate
- CRI_DOCKERD=none leaves it out: $WITHOUT_CRI_DOCKERD"
            cri_dockerd_sum "$file.new"
            mv "$file.new" "$file"
        fi
    fi
    # Also what was kept: a disk may have lost a part of it.
    cri_dockerd_sum "$file"
    sum=$(sha256sum "$file")
    CRI_DOCKERD_PROGRAM=$folder/${sum%% *}.program
    unpack_cri_dockerd "$file" "$CRI_DOCKERD_PROGRAM.new"
    mv "$CRI_DOCKERD_PROGRAM.new" "$CRI_DOCKERD_PROGRAM"
}

cri_dockerd_sum() { # FILE
    local sum
    [[ -n $CRI_DOCKERD_SUM ]] || return 0
    sum=$(sha256sum "$1")
    [[ ${sum%% *} == "$CRI_DOCKERD_SUM" ]] || {
        # Not kept: the next bake fetches it again.
        [[ $1 != "$CACHE"/* ]] || rm -f "$1"
        die "cri-dockerd from $CRI_DOCKERD_FROM is not what was meant:
  its sha256 is  ${sum%% *}
  it should be   $CRI_DOCKERD_SUM"
    }
}

# The program out of a package, an archive, or as it is; told apart by their first bytes.
unpack_cri_dockerd() { # FILE PROGRAM
    local members member=''
    case $(first_bytes "$1") in
        213c6172) dpkg-deb --fsys-tarfile "$1" | tar -xOf - --wildcards '*/usr/bin/cri-dockerd' >"$2" 2>/dev/null || member=missing ;;
        1f8b*)
            members=$(tar -tzf "$1") || die "$CRI_DOCKERD_FROM: the archive cannot be read"
            member=$(awk '/(^|\/)cri-dockerd$/ { print; exit }' <<<"$members")
            if [[ -n $member ]]; then tar -xzOf "$1" "$member" >"$2" && member=; else member=missing; fi
            ;;
        7f454c46) install -m 0755 "$1" "$2" ;;
        *) die "$CRI_DOCKERD_FROM is neither a program nor a .deb nor a .tgz" ;;
    esac
    [[ -z $member && -s $2 ]] || die "$CRI_DOCKERD_FROM holds no cri-dockerd"
    of_architecture "$2" || die "cri-dockerd of $CRI_DOCKERD_FROM is not of ARCHITECTURE=$ARCHITECTURE"
    chmod 0755 "$2"
}

# Into the tree, over what a folder may have brought, and run once: one that misses a library is found here, not on a node.
lay_cri_dockerd() {
    [[ -z $CRI_DOCKERD_PROGRAM ]] || install -m 0755 "$CRI_DOCKERD_PROGRAM" "$TREE/usr/bin/cri-dockerd"
    if [[ ! -e $TREE/usr/bin/cri-dockerd ]]; then
        say "no cri-dockerd: $WITHOUT_CRI_DOCKERD (CRI_DOCKERD= names one)"
        return 0
    fi
    cri_dockerd_version "$TREE" >/dev/null
}

cri_dockerd_version() { # TREE
    local text
    text=$(chroot "$1" cri-dockerd --version 2>&1) || die "cri-dockerd does not run in the image: $text"
    # Such as: cri-dockerd 0.3.24 (eb5a5a5)
    grep -oEm 1 '[0-9]+(\.[0-9]+)+' <<<"$text" || echo unknown
}
