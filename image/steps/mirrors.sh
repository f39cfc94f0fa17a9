# shellcheck shell=bash
# Where packages come from: the distribution's archives, and Kubernetes'. Read by `image/bake`.
# Each function that looks for something succeeds, also where it found nothing: whoever calls it says what is missing.

# The options that name mirrors, as everything below wants them: a URL of http or https, without slashes at its end.
check_mirrors() {
    local option uri scheme
    for option in MIRROR SECURITY_MIRROR DEBIAN_MIRROR KUBERNETES_MIRROR; do
        uri=${!option-}
        [[ -n $uri ]] || continue
        [[ ${uri,,} =~ ^https?://[^/[:space:]]+(/[^[:space:]]*)?$ ]] ||
            die "$option=$uri: not a URL of http or https, such as http://mirror.example/debian; nothing else can be baked from"
        while [[ $uri == */ ]]; do uri=${uri%/}; done
        # apt knows schemes in small letters only.
        scheme=${uri%%:*}
        printf -v "$option" %s "${scheme,,}:${uri#*:}"
    done
    # The folder of a minor is found by `kubernetes_sandbox_tree`; mirrors' pages print the whole of it.
    [[ ! ${KUBERNETES_MIRROR-} =~ ^(.+)/core:?/stable:?(/v1\.[0-9]+(/deb)?)?$ ]] || KUBERNETES_MIRROR=${BASH_REMATCH[1]}
}

# What is baked, as `image/release` and `image/tools` have it.
DEBIAN_RELEASE=trixie UBUNTU_RELEASE=noble

# Whose archives are named like a distribution's, or no longer carry what is baked: not taken where nothing can be reached and asked.
OTHERS='docker|yarnpkg\.com|virtualbox\.org|launchpad|microsoft\.com|old-releases\.ubuntu\.com|archive\.debian\.org'

# Which archive is which of this machine's apt sources, filled by `find_archive`.
declare -A HOST_ARCHIVES=()

# The archive NAME among this machine's apt sources: the first that is the distribution's, or else the distribution's own host. Asks
# each once; what is passed over is said.
find_archive() { # NAME SUITE ORIGIN DEFAULT
    local uri why code unreachable='' list='' parts=''
    [[ -z ${HOST_ARCHIVES[$1]-} ]] || return 0
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d 2>/dev/null || true)"
    while read -r uri; do
        code=0
        why=$(ask_archive "$uri" "$2" "$3") || code=$?
        ((code != 0)) || { HOST_ARCHIVES[$1]=$uri && return 0; }
        say "not used of this machine's apt sources: $uri: $why"
        ((code != 2)) || [[ -n $unreachable || $uri =~ $OTHERS ]] || unreachable=$uri
    done < <("$IMAGE/steps/apt-sources" "$1" "$list" "$parts" || true)
    HOST_ARCHIVES[$1]=$4
    [[ -n $unreachable ]] || return 0
    # Where nothing can be reached, such as without a network, what this machine has been given is the better guess.
    why=$(ask_archive "$4" "$2" "$3") || {
        say "used all the same, as $4 is no better ($why): $unreachable"
        HOST_ARCHIVES[$1]=$unreachable
    }
}

# Whether an archive is the distribution's and carries the release; prints why not. Fails with 2 where it did not answer, with 1
# where it did.
ask_archive() { # URI SUITE ORIGIN
    local file said origin label codename
    [[ ${1,,} == http?(s)://* ]] || { echo "a bake uses http and https only, not ${1%%:*}" && return 1; }
    file=$(mktemp)
    if ! said=$(fetch_url "$1/dists/$2/InRelease" "$file" --retry 0 --connect-timeout 4 --max-time 10 2>&1); then
        rm -f "$file"
        case $said in
            *'error: 404'* | *'error: 410'*) echo "it does not carry $2" && return 1 ;;
            *) echo "it cannot be reached ($said)" && return 2 ;;
        esac
    fi
    origin=$(release_field Origin "$file") label=$(release_field Label "$file") codename=$(release_field Codename "$file")
    rm -f "$file"
    if [[ $origin != "$3" || $label != "$3"* ]]; then
        echo "it is somebody else's, not $3's: its Origin is \"$origin\", its Label \"$label\"" && return 1
    elif [[ $codename != "$2" ]]; then
        echo "what it has as $2 is \"$codename\"" && return 1
    fi
}

release_field() { # FIELD FILE
    # The tail of a line in a page of the web may be anything.
    sed -n "/^$1: /{s///;s/[^[:alnum:] ._-]//g;p;q}" "$2"
}

# Debian's archive: that of Debian's image, and for every image that of the programs that bake.
debian_mirror() {
    local given
    given=$(given_debian_mirror)
    if [[ -n $given ]]; then
        printf '%s\n' "$given"
    else
        find_archive debian "$DEBIAN_RELEASE" Debian http://deb.debian.org/debian
        printf '%s\n' "${HOST_ARCHIVES[debian]}"
    fi
}

# What an option says of it; empty where none does.
given_debian_mirror() {
    if [[ $DISTRO == debian && -n ${MIRROR-} ]]; then printf '%s\n' "$MIRROR"; else printf '%s\n' "${DEBIAN_MIRROR-}"; fi
}

# The option that names another.
debian_mirror_option() {
    if [[ $DISTRO == debian ]]; then echo MIRROR=; else echo DEBIAN_MIRROR=; fi
}

# Empty where MIRROR= does not say.
debian_security_mirror() {
    local mirror
    mirror=$(given_debian_mirror)
    if [[ -n ${SECURITY_MIRROR-} ]]; then
        printf '%s\n' "$SECURITY_MIRROR"
    elif [[ -z $mirror ]]; then
        find_archive debian-security "$DEBIAN_RELEASE-security" Debian http://deb.debian.org/debian-security
        printf '%s\n' "${HOST_ARCHIVES[debian-security]}"
    elif [[ $mirror == */debian ]]; then
        # Mirrors keep both archives side by side.
        printf '%s\n' "$mirror-security"
    fi
}

# Ubuntu keeps amd64 in one archive and all other architectures in another.
ubuntu_mirror() {
    local name=ubuntu default=http://archive.ubuntu.com/ubuntu
    [[ $ARCHITECTURE == amd64 ]] || name=ubuntu-ports default=http://ports.ubuntu.com/ubuntu-ports
    if [[ -n ${MIRROR-} ]]; then
        printf '%s\n' "$MIRROR"
    else
        find_archive "$name" "$UBUNTU_RELEASE" Ubuntu "$default"
        printf '%s\n' "${HOST_ARCHIVES[$name]}"
    fi
}

# Asks for the archives of a distribution here and not in a subshell, which would forget what it found.
find_mirrors() { # DISTRIBUTION
    case $1 in
        debian) debian_mirror && debian_security_mirror ;;
        ubuntu) ubuntu_mirror ;;
    esac >/dev/null
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
    if [[ $DISTRO == ubuntu && $ARCHITECTURE != amd64 && -n ${MIRROR-} && $MIRROR != *-ports ]]; then
        say "MIRROR=$MIRROR: most mirrors keep $ARCHITECTURE in a folder of its own, ubuntu-ports"
    fi
}

source_entry() { # URI SUITES COMPONENTS KEYRING
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n\n' "$1" "$2" "$3" "$4"
}

debian_sources() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg security release=$DEBIAN_RELEASE
    find_mirrors debian
    source_entry "$(debian_mirror)" "$release $release-updates" main "$keyring"
    security=$(debian_security_mirror)
    [[ -z $security ]] || source_entry "$security" "$release-security" main "$keyring"
}

ubuntu_sources() {
    local release=$UBUNTU_RELEASE
    find_mirrors ubuntu
    source_entry "$(ubuntu_mirror)" "$release $release-updates $release-security" 'main universe' /usr/share/keyrings/ubuntu-archive-keyring.gpg
}

# A sandbox tree: what mkosi's apt finds in /etc. Its sources replace those that mkosi would make up.
sandbox_tree() { # DISTRIBUTION FOLDER
    local list=$2/etc/apt/sources.list.d/mkosi.sources
    rm -rf "$2"
    mkdir -p "${2%/*}"
    # The URLs of mirrors and proxies may have passwords in them.
    mkdir -m 0700 "$2"
    mkdir -p "${list%/*}" "$2/etc/apt/apt.conf.d"
    case $1 in
        debian) debian_sources >"$list" ;;
        ubuntu) ubuntu_sources >"$list" ;;
    esac
    [[ -z ${EXTRA_CA-} ]] || sandbox_ca "$2"
    sandbox_proxy "$2"
}

# The way out, as curl takes it from the environment.
sandbox_proxy() { # FOLDER
    local http=${http_proxy:-${HTTP_PROXY-}} https=${https_proxy:-${HTTPS_PROXY-}} direct=${no_proxy:-${NO_PROXY-}} host
    [[ -n $http$https ]] || return 0
    {
        printf 'Acquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' "${http:-$https}" "${https:-$http}"
        for host in ${direct//,/ }; do
            printf 'Acquire::http::Proxy::%s "DIRECT";\nAcquire::https::Proxy::%s "DIRECT";\n' "$host" "$host"
        done
    } >"$1/etc/apt/apt.conf.d/91-kindling-proxy"
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
    echo 'Acquire::https::CaInfo "/etc/apt/kindling-ca.pem";' >"$1/etc/apt/apt.conf.d/90-kindling-ca"
}

# curl as the bake uses it everywhere: with the operator's CA, and never without an end.
fetch_url() { # URL FILE [OPTION...]
    local options=(-fsSL --retry 3 --connect-timeout 30 --speed-limit 1000 --speed-time 60 --max-time 1800)
    [[ -z ${EXTRA_CA-} ]] || { ca_bundle && options+=(--cacert "$CACHE/ca-bundle.pem"); }
    # By a pipe: a URL may have a password in it, and arguments are everybody's to read.
    local url=${1//\\/\\\\}
    printf 'url = "%s"\n' "${url//\"/\\\"}" | curl "${options[@]}" "${@:3}" -o "$2" --config -
}

# Of pkgs.k8s.io and most mirrors; and without colons, as some object stores want names.
KUBERNETES_LAYOUTS=(core:/stable:/@MINOR@/deb core/stable/@MINOR@/deb)

kubernetes_sandbox_tree() { # FOLDER
    local minor=v${KUBERNETES_VERSION%.*} key=$1/etc/apt/keyrings/kubernetes.asc layout uri='' why='' failures=()
    mkdir -p "${key%/*}" "$1/etc/apt/sources.list.d"
    for layout in "${KUBERNETES_LAYOUTS[@]}"; do
        uri=$KUBERNETES_MIRROR/${layout/@MINOR@/$minor}
        if why=$(fetch_url "$uri/Release.key" "$key" 2>&1); then
            # Some mirrors answer with a page of theirs for whatever they have not.
            ! head -c 64 "$key" | grep -aq '^-----BEGIN PGP PUBLIC KEY BLOCK-----' || break
            why='what comes is no public key (-----BEGIN PGP PUBLIC KEY BLOCK-----)'
        fi
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
