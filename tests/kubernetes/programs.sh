# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # read and set by the reader
# Programs from Go modules, each pinned by a go.mod and a go.sum of its own below modules/. Read by build, which provides
# `say`, `die`, `here`, `cache`, `version`, and `lanes`, which it ends.

# shellcheck source-path=SCRIPTDIR source=mains.sh
. "$here/mains.sh"

# Where go.dev's own instructions put it; sudo's PATH is another one.
command -v go >/dev/null || [ ! -x /usr/local/go/bin/go ] || export PATH=$PATH:/usr/local/go/bin

# Those that are the same for every Kubernetes.
shared_programs=(cri-tools-v1.37.0 flannel-v0.28.10 flannel-cni-v0.9.1)
[ -z "${CONTAINERD-}" ] || shared_programs+=("containerd-$CONTAINERD")
[ -z "${CRIO-}" ] || shared_programs+=("crio-$CRIO")

# The user's own settings say where modules come from; everything that could change the bytes is fixed here.
go_here() {
	https_proxy=${PROXY:-${https_proxy-}} http_proxy=${PROXY:-${http_proxy-}} \
		env GOFLAGS= GOWORK=off GOEXPERIMENT= GODEBUG= GOOS=linux GOAMD64=v1 GOARM64=v8.0 GOGC=400 \
		GOMODCACHE="$cache/go/mod" GOCACHE="$cache/go/build" go "$@"
}

source_tools() {
	# To compile pause.c, statically.
	{ [ -n "$(command -v gcc)" ] && [ -e "$(gcc -print-file-name=libc.a)" ]; } || printf '%s\n' gcc libc6-dev
}

source_key() {
	check_go
	declare -f fetch_source
	program_key "kubernetes-$version"
	for program in "${shared_programs[@]}"; do program_key "$program"; done
}

check_go() {
	local wanted have
	wanted=$(sed -n 's/^go //p' "$here"/modules/*/go.mod | sort -V | tail -n 1)
	have=$(cd "$here" && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) ||
		die "Go $wanted or newer is missing: see https://go.dev/doc/install; or KUBERNETES_SOURCE=release, which compiles nothing"
	[ "$(printf '%s\n' "$wanted" "${have#go}" | sort -V | head -n 1)" = "$wanted" ] || [ "$(go env GOTOOLCHAIN)" != local ] ||
		die "Go $wanted or newer is needed, here is ${have#go}: see https://go.dev/doc/install; or KUBERNETES_SOURCE=release, which compiles nothing"
}

# Without cgo every program is static: an image needs no libc for it, and any machine's will do. No debug information, no path of
# this machine: small, and the same bytes everywhere.
go_build() { CGO_ENABLED=0 go_here build -trimpath -buildvcs=false -modcacherw -gcflags=all=-dwarf=false "$@"; }

# program_key NAME-VERSION: a short name for what its inputs make.
program_key() {
	(
		cd "$here/modules/$1" || exit
		{
			cat go.mod go.sum
			declare -f go_here go_build compile kubernetes_version main_of
			go_here version
			gcc -dumpfullversion 2>/dev/null || true
		} | sha256sum | cut -c1-12
	)
}

# module_folder PATH VERSION: where its source lies.
module_folder() { (cd "$here" && go_here mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p'); }

# compile NAME-VERSION FOLDER: its programs. Those of an earlier run are taken, if their inputs were the same.
compile() {
	local name=${1%-v*} of=${1##*-} kept flags='-s -w -buildid=' tags='' packages count log
	kept=$cache/programs/$1-$(program_key "$1")
	if [ ! -d "$kept" ]; then
		log=$cache/compile-$1.log
		rm -rf "$kept.new"
		mkdir -p "$kept.new/source"
		cp "$here/modules/$1"/go.{mod,sum} "$kept.new/source/"
		cd "$kept.new/source" || exit
		case $name in
		kubernetes) flags+=$(kubernetes_version) ;;
		cri-tools) flags+=" -X sigs.k8s.io/cri-tools/pkg/version.Version=$of" ;;
		containerd) flags+=" -X github.com/containerd/containerd/v2/version.Version=$of" ;;
		# Without the C that its project links: GPG, btrfs and ostree.
		crio) tags=containers_image_openpgp,exclude_graphdriver_btrfs,containers_image_ostree_stub ;;
		flannel) flags+=" -X github.com/flannel-io/flannel/pkg/version.Version=$of" ;;
		esac
		say "$1: fetching its modules"
		go_here mod download -modcacherw >"$log" 2>&1 || { tail -n 20 "$log" && die "the modules of $1 cannot be fetched (whole log: $log)"; }
		mapfile -t packages < <(go_here list tool 2>/dev/null)
		if [ -n "$(main_module "$name")" ]; then
			main_of "$name" "$(module_folder "$(main_module "$name")" "$of")" >main.go
			packages+=(.)
		fi
		count=$(go_here list -tags "$tags" -deps -f '{{if not .Standard}}.{{end}}' "${packages[@]}" | wc -l)
		say "$1: compiling $count packages"
		(while sleep 60; do say "$1: $(wc -l <"$log") of $count packages"; done) 3>&- &
		local progress=$!
		go_build -v -tags "$tags" -ldflags "$flags" -o "$kept.new/" "${packages[@]}" >"$log" 2>&1 ||
			{ kill $progress; tail -n 20 "$log"; die "$1 does not compile (whole log: $log)"; }
		kill $progress
		case $name in
		kubernetes)
			gcc -Os -Wall -static -s -ffile-prefix-map="$(module_folder k8s.io/kubernetes "$of")"=. -DVERSION="$(constant PauseVersion)" \
				-o "$kept.new/pause" "$(module_folder k8s.io/kubernetes "$of")/build/pause/linux/pause.c"
			;;
		crio)
			gcc -std=c99 -Os -Wall -static -s -ffile-prefix-map="$(module_folder github.com/cri-o/cri-o "$of")"=. \
				-o "$kept.new/pinns" "$(module_folder github.com/cri-o/cri-o "$of")"/pinns/src/*.c
			;;
		etcd) mv "$kept.new/server" "$kept.new/etcd" ;;
		flannel) mv "$kept.new/flannel" "$kept.new/flanneld" && mv "$kept.new/install_conf" "$kept.new/install-conf" ;;
		flannel-cni) mv "$kept.new/flannel" "$kept.new/flannel-cni-plugin" ;;
		esac
		cd "$here" && rm -rf "$kept.new/source"
		mv -T "$kept.new" "$kept"
		say "$1: compiled"
	fi
	cp -al "$kept/." "$2/"
}

# The flags that say which version these programs are.
kubernetes_version() {
	local where pair minor=${version#v1.}
	for where in client-go/pkg/version component-base/version; do
		for pair in "gitVersion=$version" gitMajor=1 "gitMinor=${minor%.*}" gitTreeState=archive gitCommit=module \
			"buildDate=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)"; do
			printf ' -X k8s.io/%s.%s' "$where" "$pair"
		done
	done
}

# constant NAME: what this version's kubeadm asks for.
constant() {
	sed -nE "s/^\t$1 = \"(.*)\"$/\1/p" "$(module_folder k8s.io/kubernetes "$version")/cmd/kubeadm/app/constants/constants.go"
}

# fetch_source WORK OUT: all programs in WORK/programs, those of nodes in OUT/bin; sets `epoch`.
fetch_source() {
	local name etcd coredns
	mkdir -p "$1/programs" "$cache/programs"
	say "kubernetes $version from Go modules, with Go $(go env GOVERSION)"
	(cd "$here" && go_here mod download -modcacherw "k8s.io/kubernetes@$version") || die "the module proxy has no k8s.io/kubernetes $version"
	epoch=$(date -d "$(sed -E 's/.*"Time":"([^"]+)".*/\1/' "$cache/go/mod/cache/download/k8s.io/kubernetes/@v/$version.info")" +%s)
	etcd=$(constant DefaultEtcdVersion) coredns=$(constant CoreDNSVersion)
	# What all need first, or both below would compile it at the same moment.
	(cd "$here/modules/kubernetes-$version" && go_build std) || die "Go's own packages do not compile"
	# Two at once: the end of each is linking, which keeps one processor busy. Etcd comes first: the others share libraries
	# with Kubernetes, which are compiled by then. Each is a group of processes, which ends as a whole, and none has the lock,
	# which must not outlive this run.
	set -m
	(compile "kubernetes-$version" "$1/programs") 9>&- &
	lanes+=($!)
	(for name in "etcd-v${etcd%-*}" "coredns-$coredns" "${shared_programs[@]}"; do compile "$name" "$1/programs"; done) 9>&- &
	lanes+=($!)
	set +m
	# Whichever ends first.
	for _ in "${lanes[@]}"; do wait -n || die "not compiled; the cause is above"; done
	lanes=()
	for name in kubeadm kubelet kubectl crictl etcd etcdctl etcdutl containerd containerd-shim-runc-v2 ctr; do
		[ ! -e "$1/programs/$name" ] || cp "$1/programs/$name" "$2/bin/"
	done
	[ -z "${CRIO-}" ] || "$here/crio-package" "$1/programs" "$CRIO" "$epoch" "$2/debs"
	[ "$("$2/bin/kubeadm" version -o short)" = "$version" ] || die "this kubeadm says that it is $("$2/bin/kubeadm" version -o short)"
}
