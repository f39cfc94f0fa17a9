# shellcheck shell=bash
# shellcheck disable=SC2154  # set by the reader
# A real cluster under test: what tests/e2e and tests/ha share. Whoever reads this sets `work`, `kindling` and `driver`.
# KUBERNETES_VERSION= names another version than the default of tests/kubernetes/build, TEST_IMAGE= the folder of its image.

image=${TEST_IMAGE:-build/image/test}
folder=$(tests/kubernetes/build)
bin=$folder/bin
# shellcheck disable=SC2034  # tests/ha reads it
version=$(<"$folder/VERSION")

# Emulated machines need minutes for what takes seconds elsewhere: how often everything is tried, and for how long, times this.
slow=1
# shellcheck source=tests/lib/kvm.sh
. tests/lib/kvm.sh
if [[ $driver == qemu ]] && ! kvm_works; then slow=5; fi

# Set where the cluster has one node alone: there is nobody else's pod to be led to.
alone=

passed=0
ended=unknown
registry_processes=()

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
fail() {
    failure=$*
    say "FAILED: $failure"
    exit 1
}
kubectl() { "$bin/kubectl" --kubeconfig "$work/state/admin.conf" --request-timeout=$((20 * slow))s "$@"; }

# Tries a command until it succeeds or GIVE-UP does, which is asked after each failure.
persist() { # WHAT GIVE-UP COMMAND...
    local what=$1 give_up=$2
    shift 2
    until "$@" >"$work/last" 2>&1; do
        if "$give_up"; then
            cat "$work/last"
            fail "$what"$'\n'"$(tail -n 20 "$work/last")"
        fi
        sleep 2
    done
    say "ok: $what"
    passed=$((passed + 1))
}

# Tries for a while: what a cluster shows follows its machines by some seconds.
eventually() { # WHAT TRIES COMMAND...
    local tries=$2
    # What is tried once is as it should be, or not.
    ((tries == 1)) || tries=$((tries * slow))
    persist "$1" tried_enough "${@:3}"
}
tried_enough() { ((--tries <= 0)); }

# The same, by the clock: for what would come right by itself if one only waited long enough.
within() { # WHAT SECONDS COMMAND...
    local end=$((SECONDS + $2 * slow))
    persist "$1" too_late "${@:3}"
}
too_late() { ((SECONDS >= end)); }

# A server on every node, see workload.yaml; what follows asks them.
workload() {
    if [[ ${RUNTIME-} != crio ]]; then
        kubectl apply -f tests/lib/workload.yaml
    else
        # Its images are pulled.
        sed 's/imagePullPolicy: Never/imagePullPolicy: IfNotPresent/' tests/lib/workload.yaml | kubectl apply -f -
    fi
}
web_pod() { kubectl get pods -l app=web --field-selector "spec.nodeName=$1,status.phase=Running" -o name; }

# One of them runs on each of these nodes, and nowhere else.
workload_runs() {
    local got want
    got=$(kubectl get pods -l app=web -o jsonpath='{range .items[?(@.status.phase=="Running")]}{.spec.nodeName}{"\n"}{end}' | sort)
    want=$(printf '%s\n' "$@" | sort)
    echo "$got"
    [[ $got == "$want" ]]
}

# From a pod of each of these nodes the Service's name leads to a pod of another node: the cluster's DNS, the Service and the
# network between nodes in one. Each answer is any of the pods', and one question of ten may be lost: with half of cluster
# DNS out of reach half of them are.
names_lead_elsewhere() {
    local node pod answers
    (($#)) || return 1
    for node in "$@"; do
        pod=$(web_pod "$node")
        # A stream has no deadline of its own, and may have been led to a machine that just lost its power.
        answers=$(timeout $((75 * slow)) "$bin/kubectl" --kubeconfig "$work/state/admin.conf" exec "$pod" -- \
            sh -c "for n in 1 2 3 4 5 6 7 8 9 10; do timeout $((5 * slow)) wget -qO- http://web/; done")
        echo "from $node: ${answers//$'\n'/ }"
        if (($(grep -c . <<<"$answers") < 9)) || { [[ -z $alone ]] && ! grep -vx "$node" <<<"$answers" | grep -q .; }; then
            tell_of "$pod"
            return 1
        fi
    done
}

# Why a pod does not do what it should.
tell_of() { # POD
    kubectl get "$1" -o jsonpath='{range .status.containerStatuses[*]}{.name} is {.state}, was {.lastState}{"\n"}{end}'
    kubectl get events --field-selector "involvedObject.name=${1#pod/}" --sort-by=.lastTimestamp | tail -n 5
}

# The same, to be looked at: a demo's last word.
show_names() {
    local all
    eventually "a small web server is asked for on each node" 15 workload
    eventually "the cluster tells its nodes" 15 kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}'
    mapfile -t all <"$work/last"
    within "from each node the name of a Service, web, leads to a pod of another one" 180 names_lead_elsewhere "${all[@]}"
    cat "$work/last"
    kubectl delete -f tests/lib/workload.yaml --wait=false >/dev/null
}

# What goes through the kubelet of each of these nodes: logs, attach and port-forward; exec is above.
kubelets_stream() {
    local node
    for node in "$@"; do
        tests/lib/streams "$slow" "$node" "$(web_pod "$node")" "$bin/kubectl" --kubeconfig "$work/state/admin.conf" || return 1
    done
}

# The pods of cluster DNS run on as many nodes as there can be: one that dies leaves the other. One that is about to go does
# not count.
names_are_spread() {
    local got
    got=$(kubectl -n kube-system get pods -l k8s-app=kube-dns -o jsonpath='{range .items[?(@.status.phase=="Running")]}{.spec.nodeName}{" "}{.metadata.deletionTimestamp}{"\n"}{end}')
    got=$(sed -n 's/ $//p' <<<"$got")
    echo "$got"
    [[ $(sort -u <<<"$got" | wc -l) == 2 ]]
}

# What a cluster that is not as it should be says of itself.
tell_why() {
    local console logs
    # Machines that could not be started say why there, and nowhere else.
    cat "$work/first-up" 2>/dev/null || true
    kubectl get nodes -o wide || true
    kubectl get pods -A -o wide || true
    kubectl -n kube-system logs -l k8s-app=kube-dns --tail=5 || true
    kubectl get events -A --sort-by=.lastTimestamp 2>/dev/null | tail -n 20 || true
    # The machines are removed; what they said may be wanted whole.
    mkdir -p "$work/failed"
    for console in "$work"/state/nodes/*/console.log; do
        echo "--- $console"
        grep -a 'kindling\[' "$console" | tail -n 12 || true
        cp "$console" "$work/failed/$(basename "$(dirname "$console")").log" || true
    done
    # Of machines whose disks are folders: why a kubelet ended, and what ran in pods.
    for logs in "$work"/state/nodes/*/var/log/journal; do
        [[ -d $logs ]] || continue
        console=${logs%/var/log/journal}
        console=${console##*/}
        journalctl --directory "$logs" --unit kubelet --no-pager --output cat --lines 200 2>/dev/null |
            grep -E '^[EF][0-9]{4} ' | tail -n 3 | cut -c 1-400 | sed "s/^/$console: /" || true
    done
    for logs in "$work"/state/nodes/*/var/log/pods/kube-system_{etcd,kube-apiserver}-*; do
        [[ -d $logs ]] || continue
        echo "--- ${logs##*/}"
        tail -qn 3 "$logs"/*/*.log | cut -c 1-600 || true
    done
    echo "whole consoles: $work/failed; the last word of each machine:"
    for console in "$work"/state/nodes/*/console.log; do
        echo "$(basename "$(dirname "$console")"): $(grep -a 'kindling\[' "$console" | tail -n 1)"
    done
}

cleanup() {
    local code=$?
    if ((code)) && [[ -z ${KEEP-} ]]; then tell_why; fi
    ((${#registry_processes[@]} == 0)) || kill "${registry_processes[@]}" 2>/dev/null || true
    [[ -n ${KEEP-} ]] || "$kindling" down --cluster "$work/cluster.toml" --state "$work/state" || code=1
    # Last, too: of a long log people see the end first.
    if ((code)); then
        say "FAILED: ${failure:-a command ended with $code: $ended}"
    fi
    exit "$code"
}

console_has() { grep -aqE "$2" "$work/state/nodes/$1/console.log"; }

# With `beside` set it is the process in the background itself, so that `kill` ends it.
beside=
up() {
    ${beside:+exec} "$kindling" up --driver "$driver" --cluster "$work/cluster.toml" --seeds "$work/seeds" --image "$image" \
        --state "$work/state" "$@"
}

# etcd's log ends behind its head, as it does for some tenths of a second of its first start. A record is its length in the
# lowest bytes of eight, and zeros up to the next multiple of eight.
etcd_log() { echo "$work/state/nodes/$1/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal"; }
blank_etcd() {
    python3 - "$(etcd_log "$1")" <<'END'
import pathlib, sys
log = pathlib.Path(sys.argv[1])
snapshots = log.parent.parent / "snap"
with open(log, "r+b") as log:
    size, end, content = log.seek(0, 2), 0, (log.seek(0), log.read(4096))[1]
    for kind in (4, 1, 5):
        assert content[end + 9] == kind, content[:200]
        end += 8 + -(-int.from_bytes(content[end : end + 4], "little") // 8) * 8
    log.truncate(end)
    log.truncate(size)
for file in snapshots.iterdir():
    file.unlink()
END
}

power() { "$kindling" power --state "$work/state" "$@"; }

# An empty folder for the cluster, and its machines removed however this ends.
begin() {
    mkdir -p "$work"
    # Machines that could not be removed would go on, and nothing would know of them any more.
    [[ ! -d $work/state ]] || "$kindling" down --cluster "$work/cluster.toml" --state "$work/state" >/dev/null
    rm -rf "$work"
    trap cleanup EXIT
    set -E
    trap 'ended="$BASH_COMMAND (${BASH_SOURCE[0]}, line $LINENO)"' ERR
}

# The cluster is to be of the Kubernetes that the image has.
take_version() { sed -i "s/^kubernetes = .*/kubernetes = \"$version\"/" "$work/cluster.toml"; }

render() {
    "$kindling" render --cluster "$work/cluster.toml" --secrets "$work/secrets.toml" --out "$work/seeds" >"$work/rendered"
}
