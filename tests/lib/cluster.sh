# shellcheck shell=bash
# shellcheck disable=SC2154  # set by the reader
# A real cluster under test: what tests/e2e and tests/ha share. Whoever reads this sets `work`, `kindling`, `driver`
# and `bin` (the folder of kubectl).

passed=0

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
kubectl() { "$bin/kubectl" --kubeconfig "$work/state/admin.conf" --request-timeout=20s "$@"; }

# Tries for a while: what a cluster shows follows its machines by some seconds.
eventually() {
    local what=$1 tries=$2
    shift 2
    until "$@" >"$work/last" 2>&1; do
        if ((--tries <= 0)); then
            say "FAILED: $what"
            cat "$work/last"
            exit 1
        fi
        sleep 2
    done
    say "ok: $what"
    passed=$((passed + 1))
}

# What a cluster that is not as it should be says of itself.
tell_why() {
    local console
    # Machines that could not be started say why there, and nowhere else.
    cat "$work/first-up" 2>/dev/null || true
    kubectl get nodes -o wide || true
    kubectl get pods -A -o wide || true
    kubectl get events -A --sort-by=.lastTimestamp 2>/dev/null | tail -n 20 || true
    # The machines are removed; what they said may be wanted whole.
    mkdir -p "$work/failed"
    for console in "$work"/state/nodes/*/console.log; do
        echo "--- $console"
        grep -a 'kindling\[' "$console" | tail -n 12 || true
        cp "$console" "$work/failed/$(basename "$(dirname "$console")").log" || true
    done
    echo "whole consoles: $work/failed"
}

cleanup() {
    local code=$?
    if ((code)) && [[ -z ${KEEP-} ]]; then tell_why; fi
    [[ -n ${KEEP-} ]] || "$kindling" down --cluster "$work/cluster.toml" --state "$work/state" || code=1
    exit "$code"
}

console_has() { grep -aqE "$2" "$work/state/nodes/$1/console.log"; }

# What a topology's machines have otherwise than by default.
shape=()

up() {
    "$kindling" up --driver "$driver" --cluster "$work/cluster.toml" --seeds "$work/seeds" --image build/image/test \
        --state "$work/state" "${shape[@]}" "$@"
}

power() { "$kindling" power --state "$work/state" "$@"; }

# An empty folder for the cluster, and its machines removed however this ends.
begin() {
    mkdir -p "$work"
    "$kindling" down --cluster "$work/cluster.toml" --state "$work/state" >/dev/null 2>&1 || true
    rm -rf "$work"
    trap cleanup EXIT
}

render() {
    "$kindling" render --cluster "$work/cluster.toml" --secrets "$work/secrets.toml" --out "$work/seeds" >"$work/rendered"
}
