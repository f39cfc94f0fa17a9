#!/usr/bin/env bash
# Compiles Kubernetes from Debian's source tree, without the network. Called by build.
#   compile.sh WORK OUT
# WORK holds go/ (Debian's Go packages, unpacked) and gopath/src/k8s.io/kubernetes (the source tree);
# OUT gets the binaries and `epoch`, the date of the package's last change.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$1 out=$2
version=v1.20.2
tree=$work/gopath/src/k8s.io/kubernetes
targets=(kubeadm kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy crictl)

# Go 1.19 and GOPATH mode, whatever the host has: this tree is older than what newer Gos accept.
# Without cgo every binary is static, so an image needs no libc for it and any guest's libc will do;
# it also compiles each package once only.
GOROOT=$(echo "$work"/go/usr/lib/go-1.*)
export GOROOT GOPATH=$work/gopath GOCACHE=$work/gocache GOENV=off GO111MODULE=off GOFLAGS=-tags=providerless CGO_ENABLED=0
PATH=$GOROOT/bin:$PATH

mkdir -p "$out"
cd "$tree"
epoch=$(dpkg-parsechangelog -l debian/changelog -S Timestamp)
package=$(dpkg-parsechangelog -l debian/changelog -S Version)
echo "$epoch" >"$out/epoch"

# The vendored reflect2 reads the run time's internals in a way that crashes with Go >= 1.18.
rm -r vendor/github.com/modern-go/reflect2
cp -r "$work/go/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/

mkdir cmd/crictl
cp "$here/crictl.go" cmd/crictl/main.go

# One generated file is not part of the source package: the API server's OpenAPI definitions. The tree's
# own `make` would build every generator to find the others up to date, so call this one alone. The
# report it writes must equal the tree's list of known violations: then the inputs were the right ones.
go build -trimpath -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
inputs=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io |
	grep -v -e '^staging/src/k8s.io/code-generator/' -e '^staging/src/k8s.io/sample-apiserver/' |
	xargs -n1 dirname | LC_ALL=C sort -u |
	sed -e 's,^staging/src/,vendor/,' -e 's,^,k8s.io/kubernetes/,' | paste -sd,)
"$work/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi \
	-O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
diff "$work/violations" api/api-rules/violation_exceptions.list

# No debug information, no build ids, no path of this machine: small, and the same bytes everywhere.
flags='-s -w -buildid='
for where in client-go/pkg/version component-base/version; do
	for pair in gitVersion=$version gitMajor=1 gitMinor=20 gitTreeState=clean "gitCommit=$package" \
		"buildDate=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)"; do
		flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$where.$pair"
	done
done
go build -trimpath -ldflags "$flags" -o "$out/" "${targets[@]/#/./cmd/}"
gcc -Os -Wall -static -s -ffile-prefix-map="$tree"=. -DVERSION=3.2 -o "$out/pause" build/pause/linux/pause.c

[ "$("$out/kubeadm" version -o short)" = $version ]
