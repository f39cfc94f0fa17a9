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

is_url() { [[ ${1,,} == http?(s)://* ]]; }

# Sets CRI_DOCKERD_FROM, a file, a URL or nothing, CRI_DOCKERD_SUM, which may be empty for a file, and CRI_DOCKERD_LEFT_OUT.
# Fetches nothing.
check_cri_dockerd() {
    local given default=$CRI_DOCKERD_RELEASES/v$CRI_DOCKERD_VERSION/cri-dockerd-$CRI_DOCKERD_VERSION.$ARCHITECTURE.tgz
    CRI_DOCKERD_FROM=${CRI_DOCKERD-} CRI_DOCKERD_SUM=${CRI_DOCKERD_SHA256-} CRI_DOCKERD_LEFT_OUT=''
    CRI_DOCKERD_SUM=${CRI_DOCKERD_SUM,,}
    [[ -z $CRI_DOCKERD_SUM || $CRI_DOCKERD_SUM =~ ^[0-9a-f]{64}$ ]] ||
        die "CRI_DOCKERD_SHA256=$CRI_DOCKERD_SHA256: not a SHA-256, which has 64 digits of 0 to 9 and a to f"
    case $CRI_DOCKERD_FROM in
        none)
            [[ -z $CRI_DOCKERD_SUM ]] || die "CRI_DOCKERD=none takes no CRI_DOCKERD_SHA256=: nothing is there to be checked"
            CRI_DOCKERD_FROM='' CRI_DOCKERD_LEFT_OUT=yes
            return 0
            ;;
        '')
            given=$(given_cri_dockerd)
            if [[ $given == /* ]]; then
                cri_dockerd_sum "$given" "$given"
                return 0
            elif [[ -n $given ]]; then
                [[ -z $CRI_DOCKERD_SUM ]] || die "CRI_DOCKERD_SHA256= cannot be checked for \"$given\" of PACKAGES=, which apt fetches and checks:
leave it away, or name the package's file"
                return 0
            fi
            CRI_DOCKERD_FROM=$default
            ;;
    esac
    if is_url "$CRI_DOCKERD_FROM"; then
        [[ $CRI_DOCKERD_FROM != "$default" || -n $CRI_DOCKERD_SUM ]] || CRI_DOCKERD_SUM=${CRI_DOCKERD_SHA256_OF[$ARCHITECTURE]}
        [[ -n $CRI_DOCKERD_SUM ]] ||
            die "CRI_DOCKERD=$CRI_DOCKERD_FROM needs CRI_DOCKERD_SHA256=: nothing else says that what comes is what was meant"
    else
        [[ ! -d $CRI_DOCKERD_FROM ]] || die "CRI_DOCKERD=$CRI_DOCKERD_FROM is a folder: name the program, .deb or .tgz in it"
        [[ -s $CRI_DOCKERD_FROM ]] || die "CRI_DOCKERD=$CRI_DOCKERD_FROM: no such file; a program, a .deb or a release archive (.tgz),
a file or a URL; or none"
        CRI_DOCKERD_FROM=$(realpath "$CRI_DOCKERD_FROM")
        # Here, not only when it is laid: a bake that has nothing to do lays nothing.
        cri_dockerd_sum "$CRI_DOCKERD_FROM" "$CRI_DOCKERD_FROM"
    fi
}

# What its bytes are known by before it is fetched; what the folder or a package brings is in their own keys.
cri_dockerd_key() {
    if [[ -n $CRI_DOCKERD_LEFT_OUT ]]; then
        echo left-out
    elif is_url "$CRI_DOCKERD_FROM"; then
        printf '%s\n' "$CRI_DOCKERD_SUM"
    else
        digest ${CRI_DOCKERD_FROM:+"$CRI_DOCKERD_FROM"}
    fi
}

# What comes with the Kubernetes folder or by PACKAGES=: a file, or a package's name. Files of packages are named freely.
given_cri_dockerd() {
    local word
    if [[ $KUBERNETES == dir ]] && is_program "$KUBERNETES_DIR/bin/cri-dockerd"; then
        printf '%s\n' "$KUBERNETES_DIR/bin/cri-dockerd"
        return 0
    fi
    for word in "${DEBS[@]}"; do
        [[ $(dpkg-deb --field "$word" Package) != cri-dockerd ]] || { printf '%s\n' "$word" && return 0; }
    done
    for word in "${EXTRA_PACKAGES[@]}"; do
        case $word in cri-dockerd | cri-dockerd[:=]*) printf '%s\n' "$word" && return 0 ;; esac
    done
}

# The program itself, in CRI_DOCKERD_PROGRAM; empty where there is none to lay. Called before anything that takes minutes.
fetch_cri_dockerd() {
    CRI_DOCKERD_PROGRAM=
    [[ -n $CRI_DOCKERD_FROM ]] || return 0
    local folder=$CACHE/cri-dockerd file=$CRI_DOCKERD_FROM sum why
    mkdir -p "$folder"
    if is_url "$CRI_DOCKERD_FROM"; then
        file=$folder/$CRI_DOCKERD_SUM
        if [[ ! -s $file ]]; then
            say "fetching cri-dockerd: $CRI_DOCKERD_FROM"
            rm -f "$file.new"
            why=$(fetch_url "$CRI_DOCKERD_FROM" "$file.new" 2>&1) || die "cannot fetch cri-dockerd from $CRI_DOCKERD_FROM: $why
- fetch it elsewhere and name the file: CRI_DOCKERD=FILE (sha256 $CRI_DOCKERD_SUM)
- PROXY= names the way there, EXTRA_CA= the CA of its certificate
- CRI_DOCKERD=none leaves it out: $WITHOUT_CRI_DOCKERD"
            cri_dockerd_sum "$file.new" "$CRI_DOCKERD_FROM"
            mv "$file.new" "$file"
        fi
    fi
    # Also what was kept: a disk may have lost a part of it.
    cri_dockerd_sum "$file" "$CRI_DOCKERD_FROM"
    sum=$(sha256sum "$file")
    CRI_DOCKERD_PROGRAM=$folder/${sum%% *}.program
    unpack_cri_dockerd "$file" "$CRI_DOCKERD_PROGRAM.new"
    mv "$CRI_DOCKERD_PROGRAM.new" "$CRI_DOCKERD_PROGRAM"
}

cri_dockerd_sum() { # FILE WHERE-IT-IS-FROM
    local sum
    [[ -n $CRI_DOCKERD_SUM ]] || return 0
    sum=$(sha256sum "$1")
    [[ ${sum%% *} == "$CRI_DOCKERD_SUM" ]] || {
        # Not kept: the next bake fetches it again.
        [[ $1 != "$CACHE"/* ]] || rm -f "$1"
        die "cri-dockerd from $2 is not what was meant:
  its sha256 is  ${sum%% *}
  it should be   $CRI_DOCKERD_SUM"
    }
}

# The program out of a package, an archive, or as it is; told apart by their first bytes.
unpack_cri_dockerd() { # FILE PROGRAM
    local archive=$2.tar
    case $(first_bytes "$1") in
        213c6172)
            dpkg-deb --fsys-tarfile "$1" >"$archive" || die "$CRI_DOCKERD_FROM: the package cannot be read"
            unpack_member "$archive" '(^|/)usr/bin/cri-dockerd$' "$2"
            ;;
        1f8b*)
            gzip -dc "$1" >"$archive" || die "$CRI_DOCKERD_FROM: the archive cannot be read"
            unpack_member "$archive" '(^|/)cri-dockerd$' "$2"
            ;;
        7f454c46) install -m 0755 "$1" "$2" ;;
        *) die "$CRI_DOCKERD_FROM is neither a program nor a .deb nor a .tgz" ;;
    esac
    [[ -s $2 ]] || die "$CRI_DOCKERD_FROM holds no cri-dockerd"
    of_architecture "$2" || die "cri-dockerd of $CRI_DOCKERD_FROM is not of ARCHITECTURE=$ARCHITECTURE"
    chmod 0755 "$2"
}

# The first plain file of an archive whose name is of PATTERN; links and folders may be named so too. Removes the archive.
unpack_member() { # ARCHIVE PATTERN FILE
    local members member
    members=$(tar -tvf "$1") || die "$CRI_DOCKERD_FROM: the archive cannot be read"
    # Mode, owner, size, day, hour, name.
    member=$(awk -v pattern="$2" '/^-/ { sub(/^[^ ]+ +[^ ]+ +[^ ]+ +[^ ]+ +[^ ]+ /, ""); if ($0 ~ pattern) { print; exit } }' <<<"$members")
    : >"$3"
    # The name as it stands, so that a program is never taken for a pattern.
    [[ -z $member ]] || tar -xOf "$1" --no-wildcards -- "$member" >"$3"
    rm -f "$1"
}

# Into the tree, over what a folder may have brought, and run once: one that misses a library is found here, not on a node.
lay_cri_dockerd() {
    [[ -z $CRI_DOCKERD_LEFT_OUT ]] || rm -f "$TREE/usr/bin/cri-dockerd"
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
