# shellcheck shell=bash
# What the baking machine must have: packages, mkosi, apt sources, tools. Read by `image/bake`.

# The only packages that are installed on the host, and only those that are missing. Everything else comes from
# the tools tree.
host_packages() {
    local missing=() package
    local wanted=(apt ca-certificates curl debian-archive-keyring dpkg fdisk python3 tar util-linux xz-utils zstd)
    # An installed mkosi that is new enough brings its own dependencies.
    for package in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing on this machine: ${missing[*]}"
    [[ $EUID == 0 ]] || die "install these packages first: ${missing[*]}"
    apt-get -q update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" >&2
}

# URIs of the host's own apt sources, without needing downloaded indexes: `host_uris debian` finds .../debian.
host_uris() {
    # shellcheck disable=SC2016  # apt's own placeholder
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed 's:/$::' | grep -E "/$1\$" | sort -u
}

debian_mirror() {
    if [[ $DISTRO == debian && -n ${MIRROR-} ]]; then echo "$MIRROR"; else host_uris debian | head -n 1; fi
}

debian_security_mirror() {
    if [[ $DISTRO == debian && -n ${MIRROR-} ]]; then
        # Mirrors keep both archives side by side.
        [[ $MIRROR == */debian ]] && echo "$MIRROR-security"
    else
        host_uris debian-security | head -n 1
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
    local uri=${MIRROR:-$(host_uris ubuntu | head -n 1)}
    source_entry "$uri" "$1 $1-updates $1-security" 'main universe' /usr/share/keyrings/ubuntu-archive-keyring.gpg
}

# A sandbox tree whose apt sources replace the ones that mkosi would make up (they name hosts that a mirror-only
# machine does not reach). No mirror known: an empty tree, and mkosi's defaults.
sandbox_tree() { # DISTRIBUTION FOLDER
    local list=$2/etc/apt/sources.list.d/mkosi.sources
    rm -rf "$2"
    mkdir -p "${list%/*}"
    case $1 in
        debian) [[ -z $(debian_mirror) ]] || debian_sources trixie >"$list" ;;
        ubuntu) [[ -z ${MIRROR:-$(host_uris ubuntu)} ]] || ubuntu_sources noble >"$list" ;;
    esac
}

kubernetes_sandbox_tree() { # FOLDER
    local minor=v${KUBERNETES_VERSION%.*} key=$1/etc/apt/keyrings/kubernetes.asc
    local uri=$KUBERNETES_MIRROR/core:/stable:/$minor/deb
    mkdir -p "${key%/*}"
    curl -fsSL --retry 3 -o "$key" "$uri/Release.key" || die "cannot fetch $uri/Release.key (KUBERNETES_MIRROR=)"
    printf 'Types: deb\nURIs: %s/\nSuites: /\nSigned-By: /etc/apt/keyrings/kubernetes.asc\n' "$uri" \
        >"$1/etc/apt/sources.list.d/kubernetes.sources"
}

# mkosi >= 25: the installed one, or the package of Debian 13, fetched through a private apt configuration and
# unpacked into the cache: nothing is installed.
find_mkosi() {
    local have
    have=$(command -v mkosi >/dev/null && mkosi --version 2>/dev/null | sed 's/^mkosi //') || true
    if [[ ${have%%.*} =~ ^[0-9]+$ ]] && ((${have%%.*} >= 25)); then
        MKOSI=(mkosi)
        return
    fi
    local home=$CACHE/mkosi
    if [[ ! -x $home/usr/bin/mkosi ]]; then
        say "fetching mkosi from Debian 13"
        local apt=$CACHE/apt
        rm -rf "$apt" "$home" "$home.new"
        mkdir -p "$apt"/{sources,lists/partial,cache/archives/partial}
        debian_sources trixie >"$apt/sources/debian.sources"
        : >"$apt/status"
        local options=(-q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/sources"
            -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
            -o "APT::Sandbox::User=root" -o "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false")
        apt-get "${options[@]}" update >&2
        (cd "$apt" && apt-get "${options[@]}" download mkosi >&2)
        dpkg-deb -x "$apt"/mkosi_*.deb "$home.new"
        mv "$home.new" "$home"
        rm -rf "$apt"
    fi
    MKOSI=(env "PYTHONPATH=$home/usr/lib/python3/dist-packages" /usr/bin/python3 -m mkosi)
}

# The tools tree: what mkosi runs instead of the host's programs, the same on every host.
tools_tree() {
    local key
    key=$({ cat "$IMAGE/tools/mkosi.conf"; "${MKOSI[@]}" --version; } | sha256sum | cut -c1-16)
    TOOLS=$CACHE/tools-$key
    [[ -d $TOOLS ]] && return
    say "baking the tools tree"
    sandbox_tree debian "$CACHE/sandbox-tools"
    local work=$CACHE/tools.work
    clear_folder "$work"
    run_mkosi "$IMAGE/tools" --sandbox-tree "$CACHE/sandbox-tools" --output-directory "$work"
    mv "$work/tools" "$TOOLS"
    rm -rf "$work"
}
