# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # read and set by the reader
# Programs and images as they were released: nothing is compiled. Read by build, which provides `say`, `die`, `here`,
# `curl_here`, `version` and `addons`.
#   KUBERNETES_RELEASES=  default: https://dl.k8s.io
#   CRI_TOOLS_RELEASES=   default: https://github.com/kubernetes-sigs/cri-tools/releases/download
#   PROXY=                how they are reached, such as http://proxy.example:3128
# Mirrors of the registries are skopeo's own setting (containers-registries.conf(5), CONTAINERS_REGISTRIES_CONF).

releases=${KUBERNETES_RELEASES:-https://dl.k8s.io}
cri_tools=${CRI_TOOLS_RELEASES:-https://github.com/kubernetes-sigs/cri-tools/releases/download}
crictl=v1.37.0

[ -z "${CONTAINERD-}${CRIO-}" ] || die "CONTAINERD= and CRIO= are compiled: KUBERNETES_SOURCE=module"

source_tools() {
	command -v curl >/dev/null || printf '%s\n' curl ca-certificates
	command -v skopeo >/dev/null || echo skopeo
}

source_key() {
	cat "$here/release.sh"
	echo "$version $(dpkg --print-architecture) $releases $cri_tools"
}

# fetched URL FILE: checked by the sum that is published beside it.
fetched() {
	local sum have
	fetch "$1" "$2"
	fetch "$1.sha256" "$2.sha256"
	read -r sum _ <"$2.sha256" || [ -n "$sum" ] || die "$1.sha256 is empty"
	have=$(sha256sum "$2" | cut -d ' ' -f 1)
	[ "$sum" = "$have" ] || die "$1: its SHA-256 is $have, published is $sum"
	rm "$2.sha256"
}

fetch() {
	curl_here --retry 3 --connect-timeout 20 --speed-limit 1000 --speed-time 60 --max-time 1800 -o "$2" "$1" ||
		die "cannot fetch $1 (KUBERNETES_SOURCE=module compiles instead)"
}

# fetch_source WORK OUT: programs in OUT/bin, images in OUT/images; sets `epoch`.
fetch_source() {
	local name image architecture wanted named etcd=(usr/local/bin/etcd usr/local/bin/etcdctl)
	architecture=$(dpkg --print-architecture)
	say "kubernetes $version as it was released, from $releases"
	for name in kubeadm kubelet kubectl; do
		fetched "$releases/release/$version/bin/linux/$architecture/$name" "$2/bin/$name"
		chmod 755 "$2/bin/$name"
	done
	[ "$("$2/bin/kubeadm" version -o short)" = "$version" ] || die "this kubeadm says that it is $("$2/bin/kubeadm" version -o short)"
	epoch=$(date -d "$("$2/bin/kubeadm" version -o json | sed -n 's/.*"buildDate": "\(.*\)".*/\1/p')" +%s)
	fetched "$cri_tools/$crictl/crictl-$crictl-linux-$architecture.tar.gz" "$1/crictl.tar.gz"
	tar -xzf "$1/crictl.tar.gz" -C "$2/bin" --no-same-owner crictl
	wanted=$("$2/bin/kubeadm" config images list --kubernetes-version "$version" 2>/dev/null) || die "this kubeadm does not name its images"
	named=$("$here/../../image/steps/image-names" registry.k8s.io "$addons/flannel.yaml") || die "the images of $addons/flannel.yaml are not known"
	for image in $wanted $named; do
		say "fetching $image"
		name=${image##*/}
		HTTPS_PROXY=${PROXY:-${HTTPS_PROXY-}} skopeo --command-timeout 30m ${CONTAINERS_REGISTRIES_CONF:+--registries-conf "$CONTAINERS_REGISTRIES_CONF"} copy --quiet --retry-times 3 --override-os linux --override-arch "$architecture" \
			"docker://$image" "docker-archive:$2/images/${name/:/-}.tar:$image" ||
			die "cannot fetch the image $image (KUBERNETES_SOURCE=module compiles instead)"
	done
	# It came with etcd 3.6, and no node calls it.
	etcd+=('usr/local/bin/etcdutl?')
	"$here/unpack" "$2"/images/etcd-*.tar "$2/bin" "${etcd[@]}"
	mkdir -p "$1/programs"
}
