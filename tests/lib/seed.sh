# shellcheck shell=bash
# shellcheck disable=SC2154  # set by the reader
# The seed of one machine, and beside it vendor-data by which the machine reports on its console.

# A load balancer, the role that comes up without another machine.
balancer_seed() {
    "$kindling" new "$work/cluster" --example demo >/dev/null 2>&1
    sed -i 's|^by = "stacked"|by = "load-balancer"|' "$work/cluster/cluster.toml"
    echo 'ha1 = { role = "load-balancer", address = "10.0.0.31/24" }' >>"$work/cluster/cluster.toml"
    machine_seed ha1
}

# A cluster of one control plane.
control_plane_seed() {
    "$kindling" new "$work/cluster" --example single >/dev/null 2>&1
    sed -i -e "s/^kubernetes = .*/kubernetes = \"$(<"$(tests/kubernetes/build)/VERSION")\"\naddons = [\"flannel\"]/" -e '/^node1 /d' "$work/cluster/cluster.toml"
    machine_seed master1
}

machine_seed() { # NODE
    "$kindling" render --cluster "$work/cluster/cluster.toml" --secrets "$work/cluster/secrets.toml" --out "$work/seeds" >/dev/null
    # shellcheck disable=SC2034  # read by power_on
    mac=$(sed -nE 's/.*macaddress: "(.*)"/\1/p' "$work/seeds/$1/network-config")
    mkdir -p "$work/seed"
    cp "$work/seeds/$1"/{user-data,meta-data,network-config} "$work/seed/"
    {
        # The user-data's role needs no command, and this one must not wait for what waits for it.
        printf '#cloud-config\nbootcmd:\n  - [systemd-run, --quiet, --no-block, --unit=report, -p, StandardOutput=tty, bash, -c, '
        jq -Rs . tests/lib/report.sh | tr -d '\n'
        printf ']\n'
    } >"$work/seed/vendor-data"
    xorriso -as mkisofs -quiet -V cidata -J -r -o "$work/seed.iso" "$work/seed" >/dev/null 2>&1
}
