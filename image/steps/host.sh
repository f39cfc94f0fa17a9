# shellcheck shell=bash
# What the baking machine must have: packages, mkosi, tools. Read by `image/bake`.

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
    # The first minutes of a new machine are its unattended upgrades'.
    apt-get -q -o DPkg::Lock::Timeout=600 update >&2
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}" >&2
}

# mkosi >= 25: the installed one, or the package of Debian 13, fetched through a private apt configuration and
# unpacked into the cache: nothing is installed.
find_mkosi() {
    local have
    have=$(command -v mkosi >/dev/null && mkosi --version 2>/dev/null | sed 's/^mkosi //') || true
    if [[ ${have%%.*} =~ ^[0-9]+$ ]] && ((${have%%.*} >= 25)); then
        MKOSI=(mkosi)
        return 0
    fi
    local home=$CACHE/mkosi
    if [[ ! -x $home/usr/bin/mkosi ]]; then
        say "fetching mkosi from Debian 13"
        local apt=$CACHE/apt
        rm -rf "$apt" "$home" "$home.new"
        # The URL of a mirror may have a password in it.
        mkdir -m 0700 "$apt"
        mkdir -p "$apt"/{sources,lists/partial,cache/archives/partial}
        debian_sources >"$apt/sources/debian.sources"
        : >"$apt/status"
        local options=(-q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/sources"
            -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
            -o "APT::Sandbox::User=root" -o "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false")
        [[ -z ${EXTRA_CA-} ]] || { ca_bundle && options+=(-o "Acquire::https::CaInfo=$CACHE/ca-bundle.pem"); }
        (apt-get "${options[@]}" update && cd "$apt" && apt-get "${options[@]}" download mkosi) >&2 ||
            die "cannot fetch mkosi from $(debian_mirror), Debian's archive ($(debian_mirror_option) names another, PROXY= the way there,
EXTRA_CA= the CA of its certificate)"
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
    [[ ! -d $TOOLS ]] || return 0
    say "baking the tools tree"
    sandbox_tree debian "$CACHE/sandbox-tools"
    local work=$CACHE/tools.work
    clear_folder "$work"
    run_mkosi "$IMAGE/tools" --sandbox-tree "$CACHE/sandbox-tools" --output-directory "$work"
    mv "$work/tools" "$TOOLS"
    rm -rf "$work"
}
