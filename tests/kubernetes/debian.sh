# shellcheck shell=bash
# Packages of the host's own release, Debian's or Ubuntu's, through a private apt: the host's /etc/apt is read, nothing on the
# host is changed, and root is not needed. Read by build and by ../vsphere/build, which provide
# `say` and `die`.

# Another machine's, for the tests.
host_etc=${HOST_ETC:-/etc}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# With MIRROR=, whatever the host is: Debian 13.
suite=trixie
# shellcheck source=/dev/null
[ -n "${MIRROR:-}" ] || suite=$(. "$host_etc/os-release" && echo "${VERSION_CODENAME:-}")

# shellcheck source-path=SCRIPTDIR source=../lib/packages.sh
. "${BASH_SOURCE[0]%/*}/../lib/packages.sh"

install_on_host() {
	[ "$(id -u)" = 0 ] || die "the host lacks: $*; install that, or run this once as root"
	say "installing on the host: $*"
	apt_install "$@"
}

# debian_open DIR: sets up the private apt in DIR and reads the package lists.
debian_open() {
	apt_dir=$1
	mkdir -p "$apt_dir"/{etc,lists/partial,cache/archives/partial}
	# An empty list of installed packages, so that dependencies are resolved for the images, not for the host.
	: >"$apt_dir/status"
	debian_sources "$apt_dir/etc"
	private_apt update -qq
}

# debian_sources DIR: writes the suite's sources to DIR.
debian_sources() {
	if [ -n "${MIRROR:-}" ]; then
		[ -e $keyring ] || install_on_host debian-archive-keyring
		printf '%s [signed-by='"$keyring"'] '"$MIRROR $suite"' main\n' deb deb-src >"$1/mirror.list"
		return
	fi
	# The host's own sources of the suite, in both of apt's formats, with their options and keys. Another release of Debian lies
	# beside the host's own, under the same key.
	local file own=$suite
	# shellcheck source=/dev/null
	[ "$(. "$host_etc/os-release" && echo "$ID")" != debian ] || own=$(. "$host_etc/os-release" && echo "$VERSION_CODENAME")
	for file in "$host_etc"/apt/sources.list "$host_etc"/apt/sources.list.d/*.list; do
		[ -e "$file" ] || continue
		sed -nE '/^deb(-src)?[[:space:]](.*[[:space:]])?'"$own"'[[:space:]](.*[[:space:]])?main([[:space:]]|$)/{s/^deb(-src)?/deb/p;s/^deb/deb-src/p}' \
			"$file" | sed -E 's/[[:space:]]'"$own"'[[:space:]]/ '"$suite"' /' | sort -u >"$1/$(basename "$file" .list).list"
	done
	for file in "$host_etc"/apt/sources.list.d/*.sources; do
		[ -e "$file" ] || continue
		sed '/^#/d' "$file" | awk -v own="$own" -v suite="$suite" '
			BEGIN { RS = ""; ORS = "\n\n" }
			$0 ~ "(^|\n)Suites:([^\n]*[ \t])?" own "([ \t\n]|$)" &&
			/(^|\n)Components:([^\n]*[ \t])?main([ \t\n]|$)/ &&
			!/(^|\n)Enabled:[ \t]*(no|false)/ {
				sub(/Types:[^\n]*/, "Types: deb deb-src")
				match($0, /Suites:[^\n]*/)
				suites = substr($0, RSTART, RLENGTH)
				gsub(own, suite, suites)
				print substr($0, 1, RSTART - 1) suites substr($0, RSTART + RLENGTH)
			}
		' >"$1/$(basename "$file")"
	done
	find "$1" -type f -empty -delete
	[ -n "$(ls "$1")" ] ||
		die "this host has no apt source for '$suite': give a Debian mirror, MIRROR=http://.../debian"
}

private_apt() {
	https_proxy=${PROXY:-${https_proxy-}} http_proxy=${PROXY:-${http_proxy-}} \
		apt-get -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt_dir/etc" \
		-o Dir::Etc::PreferencesParts=/dev/null -o Dir::State::Lists="$apt_dir/lists" \
		-o Dir::State::Status="$apt_dir/status" -o Dir::Cache="$apt_dir/cache" \
		-o Dir::Log=/dev/null -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" "$@"
}

# debian_source PACKAGE VERSION DIR: unpacks a source package as DIR, Debian's patches applied.
debian_source() {
	mkdir -p "$apt_dir/source"
	(
		cd "$apt_dir/source" || exit
		private_apt -qq --download-only source "$1=$2" ||
			die "Debian's source package $1 $2 is not to be had; is there a newer one? Then write it into the script that asks for it"
		# apt has checked the files against the signed archive; the maintainer's own key need not be known here.
		dpkg-source --no-check -x ./*.dsc "$3" >/dev/null
	)
}

# debian_unpack DIR PACKAGE...: these packages alone.
debian_unpack() {
	local dir=$1 deb
	shift
	mkdir -p "$dir" "$apt_dir/only"
	(cd "$apt_dir/only" && private_apt -qq download "$@")
	for deb in "$apt_dir"/only/*.deb; do dpkg -x "$deb" "$dir"; done
}

# debian_unpack_with_dependencies DIR PACKAGE...: unpacked, not installed: no maintainer script and no service runs.
debian_unpack_with_dependencies() {
	local dir=$1 deb
	shift
	mkdir -p "$dir"
	private_apt -qq install -y --no-install-recommends --download-only "$@"
	for deb in "$apt_dir"/cache/archives/*.deb; do dpkg -x "$deb" "$dir"; done
}
