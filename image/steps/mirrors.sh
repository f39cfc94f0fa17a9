# shellcheck shell=bash
# Where packages come from: the distribution's archives, and Kubernetes'. Read by `image/bake`.
# Each function prints what it found and succeeds, also where it found nothing: whoever calls it says what is missing.

# URIs of the host's own apt sources: `host_uris debian` finds .../debian. By what an update would fetch, because
# `apt-get indextargets` knows only what was downloaded already, which is nothing on a new machine.
host_uris() {
    local all
    # Fails where a source is malformed, such as one with an empty `URIs:`; then this machine has none that can be used.
    all=$(apt-get update --print-uris 2>/dev/null) || return 0
    # A host such as security.ubuntu.com has nothing but updates of a suite; only Debian's security archive is one by itself.
    # Somebody else's archive may end in the same word, such as Docker's, but has no updates beside the suite: it comes last.
    sed -nE "s|^'(https?://[^']*/$1)/+dists/([^/']+)/.*|\1 \2|p" <<<"$all" | awk -v by_itself="$([[ $1 != *-security ]] || echo yes)" '
        by_itself || $2 !~ /-/ { if (!seen[$1]++) order[++count] = $1 }
        $2 ~ /-updates$/ { whole[$1] = 1 }
        END { for (pass = 1; pass >= 0; pass--) for (n = 1; n <= count; n++) if ((order[n] in whole) == pass) print order[n] }'
}

# The first of them, or else the distribution's own host.
first_uri() { # NAME DEFAULT
    local found
    found=$(host_uris "$1")
    [[ -n $found ]] || found=$2
    printf '%s\n' "${found%%$'\n'*}"
}

# Debian's archive: that of Debian's image, and for every image that of the programs that bake.
debian_mirror() {
    if [[ $DISTRO == debian && -n ${MIRROR-} ]]; then
        printf '%s\n' "${MIRROR%/}"
    elif [[ -n ${DEBIAN_MIRROR-} ]]; then
        printf '%s\n' "${DEBIAN_MIRROR%/}"
    else
        first_uri debian http://deb.debian.org/debian
    fi
}

# Empty where MIRROR= does not say.
debian_security_mirror() {
    local mirror=${DEBIAN_MIRROR-}
    [[ $DISTRO != debian || -z ${MIRROR-} ]] || mirror=$MIRROR
    if [[ -n ${SECURITY_MIRROR-} ]]; then
        printf '%s\n' "${SECURITY_MIRROR%/}"
    elif [[ -z $mirror ]]; then
        first_uri debian-security http://deb.debian.org/debian-security
    elif [[ ${mirror%/} == */debian ]]; then
        # Mirrors keep both archives side by side.
        printf '%s\n' "${mirror%/}-security"
    fi
}

# Ubuntu keeps amd64 in one archive and all other architectures in another.
ubuntu_mirror() {
    if [[ -n ${MIRROR-} ]]; then
        printf '%s\n' "${MIRROR%/}"
    elif [[ $ARCHITECTURE == amd64 ]]; then
        first_uri ubuntu http://archive.ubuntu.com/ubuntu
    else
        first_uri ubuntu-ports http://ports.ubuntu.com/ubuntu-ports
    fi
}

distribution_mirror() {
    if [[ $DISTRO == debian ]]; then debian_mirror; else ubuntu_mirror; fi
}

# What about the mirrors is worth knowing before an image is baked from them.
mirror_warnings() {
    if [[ $DISTRO == debian && -z $(debian_security_mirror) ]]; then
        say "$(debian_mirror) does not end in /debian, so where its security updates lie is unknown: the image goes without them
        (SECURITY_MIRROR= names the place)"
    fi
    if [[ $DISTRO == ubuntu && $ARCHITECTURE != amd64 && -n ${MIRROR-} && ${MIRROR%/} != *-ports ]]; then
        say "MIRROR=$MIRROR: most mirrors keep $ARCHITECTURE in a folder of its own, ubuntu-ports"
    fi
}

source_entry() { # URI SUITES COMPONENTS KEYRING
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n' "$1" "$2" "$3" "$4"
}

debian_sources() { # RELEASE
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg security
    source_entry "$(debian_mirror)" "$1 $1-updates" main "$keyring"
    security=$(debian_security_mirror)
    [[ -z $security ]] || source_entry "$security" "$1-security" main "$keyring"
}

ubuntu_sources() { # RELEASE
    source_entry "$(ubuntu_mirror)" "$1 $1-updates $1-security" 'main universe' /usr/share/keyrings/ubuntu-archive-keyring.gpg
}

# A sandbox tree: what mkosi's apt finds in /etc. Its sources replace those that mkosi would make up.
sandbox_tree() { # DISTRIBUTION FOLDER
    local list=$2/etc/apt/sources.list.d/mkosi.sources
    rm -rf "$2"
    mkdir -p "${list%/*}"
    case $1 in
        debian) debian_sources trixie >"$list" ;;
        ubuntu) ubuntu_sources noble >"$list" ;;
    esac
    [[ -z ${EXTRA_CA-} ]] || sandbox_ca "$2"
}

# What the bake trusts: this machine's certificate authorities and the operator's. For curl and apt, which take one file.
ca_bundle() {
    local file found=''
    for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        [[ ! -s $file ]] || { found=$file && break; }
    done
    mkdir -p "$CACHE"
    cat ${found:+"$found"} "$EXTRA_CA" >"$CACHE/ca-bundle.pem"
}

sandbox_ca() { # FOLDER
    ca_bundle
    install -D -m 0644 "$CACHE/ca-bundle.pem" "$1/etc/apt/kindling-ca.pem"
    mkdir -p "$1/etc/apt/apt.conf.d"
    echo 'Acquire::https::CaInfo "/etc/apt/kindling-ca.pem";' >"$1/etc/apt/apt.conf.d/90-kindling-ca"
}

# curl as the bake uses it everywhere: with the operator's CA, and never without an end.
fetch_url() { # URL FILE
    local options=(-fsSL --retry 3 --connect-timeout 30 --speed-limit 1000 --speed-time 60 --max-time 1800)
    [[ -z ${EXTRA_CA-} ]] || { ca_bundle && options+=(--cacert "$CACHE/ca-bundle.pem"); }
    curl "${options[@]}" -o "$2" "$1"
}

# Of pkgs.k8s.io and most mirrors; and without colons, as some object stores want names.
KUBERNETES_LAYOUTS=(core:/stable:/@MINOR@/deb core/stable/@MINOR@/deb)

kubernetes_sandbox_tree() { # FOLDER
    local minor=v${KUBERNETES_VERSION%.*} key=$1/etc/apt/keyrings/kubernetes.asc layout uri='' why='' failures=()
    mkdir -p "${key%/*}" "$1/etc/apt/sources.list.d"
    for layout in "${KUBERNETES_LAYOUTS[@]}"; do
        uri=${KUBERNETES_MIRROR%/}/${layout/@MINOR@/$minor}
        if why=$(fetch_url "$uri/Release.key" "$key" 2>&1); then break; fi
        failures+=("  $uri/Release.key: $why")
        uri=
    done
    [[ -n $uri ]] || die "cannot fetch the key of Kubernetes $minor's packages (KUBERNETES_MIRROR= names another place, PROXY= the way there,
EXTRA_CA= the CA of its certificate):
$(printf '%s\n' "${failures[@]}")"
    printf 'Types: deb\nURIs: %s/\nSuites: /\nSigned-By: /etc/apt/keyrings/kubernetes.asc\n' "$uri" \
        >"$1/etc/apt/sources.list.d/kubernetes.sources"
    allow_old_signature "$uri" "$1"
}

# Repositories of older minors are signed as they were when they were last written to: with signatures of OpenPGP's version 3,
# which the apt of the tools tree refuses since February 2026. This bake takes them, if they are of the right key.
allow_old_signature() { # URI FOLDER
    local file=$CACHE/kubernetes-signature policy=$2/etc/crypto-policies/back-ends/apt-sequoia.config version
    fetch_url "$1/InRelease" "$file" 2>/dev/null || fetch_url "$1/Release.gpg" "$file" 2>/dev/null ||
        die "$1 has neither InRelease nor Release.gpg: no repository of packages"
    version=$("$IMAGE/steps/signature-version" "$file") || die "$1: what signs it cannot be read"
    ((version == 3)) || return 0
    say "$1 is signed by a signature of version 3, which apt refuses by default now: this bake takes it"
    mkdir -p "${policy%/*}"
    sed -E 's/^signature\.v3[ =].*/signature.v3 = "always"/' "$TOOLS/usr/share/apt/default-sequoia.config" >"$policy"
    grep -q '^signature.v3 = "always"' "$policy" || printf '\n[packets]\nsignature.v3 = "always"\n' >>"$policy"
}
