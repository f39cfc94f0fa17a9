#!/usr/bin/env bash
# Makes this cluster's VMs on vSphere from the OVA, gives each its seed by guestinfo, and powers all of them on at
# once. What is there already is left alone, so it may be run again. Written by `kindling render`.
#   deploy.sh [OVA]    make what is missing; OVA (kindling.ova of the image) is imported once, as a template
#   deploy.sh status   what each node's agent says of itself
#   deploy.sh scrub    take the seeds, with their secrets, out of the VMs' configuration, once the cluster stands
# Which vCenter, and as whom, says govc's own environment: GOVC_URL, GOVC_USERNAME, GOVC_PASSWORD and so on.
# KINDLING_TEMPLATE names a template or VM to clone instead of importing the OVA.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cluster='' nodes='' cpus='' memory_mb='' disk_gb=''
# shellcheck source=/dev/null
. "$here/settings"

say() { printf '%s\n' "$*"; }
die() {
    printf 'deploy.sh: %s\n' "$*" >&2
    exit 1
}

# vm_path NAME: where this script puts a VM, and looks for it.
vm_path() { printf '%s%s' "${GOVC_FOLDER:+${GOVC_FOLDER%/}/}" "$1"; }

exists() { # PATH
    local seen
    seen=$(govc vm.info "$1") || die "vm.info $1 failed: see the line above"
    [[ -n $seen ]]
}

check() {
    local usage
    command -v govc >/dev/null || die "govc is missing; it is in the releases of github.com/vmware/govmomi"
    [[ -n ${GOVC_URL-} ]] || die "GOVC_URL is not set: it names the vCenter; see the environment variables in govc's README"
    # Through -e a seed would stand in the process list.
    usage=$(govc vm.change -h 2>&1 || true)
    grep -Eq '^ +-f[ =]' <<<"$usage" ||
        die "this govc ($(govc version)) cannot read a value from a file (vm.change -f): take v0.27.0 or newer"
    [[ -n ${GOVC_NETWORK-} ]] || die "no network: write it into [vsphere] network of the cluster file, or set GOVC_NETWORK"
    govc about >/dev/null || die "the vCenter does not answer, or refuses the login: see the line above"
}

# The template that all VMs are clones of; a new version of the image is a new template.
template() { # OVA
    if [[ -n ${KINDLING_TEMPLATE-} ]]; then
        template=$KINDLING_TEMPLATE
        exists "$template" || die "there is no $template (KINDLING_TEMPLATE)"
        return
    fi
    [[ -n $1 ]] || die "name the image's OVA (kindling.ova, by 'make ova'), or a template by KINDLING_TEMPLATE="
    [[ -r $1 ]] || die "$1 cannot be read"
    local version network=${GOVC_NETWORK//\\/\\\\}
    version=$(tar -xOf "$1" --occurrence=1 kindling.ovf | sed -n 's:.*<FullVersion>\(.*\)</FullVersion>.*:\1:p')
    [[ -n $version ]] || die "$1 is no OVA of a Kindling image"
    template=$(vm_path "kindling-$version")
    if exists "$template"; then
        say "template kindling-$version is there already"
        return
    fi
    say "importing $1 as kindling-$version"
    # The disk grows as it is written, and nothing is powered on yet.
    printf '{"DiskProvisioning": "thin", "NetworkMapping": [{"Name": "VM Network", "Network": "%s"}], "MarkAsTemplate": true}' \
        "${network//\"/\\\"}" | govc import.ova -options - -name "kindling-$version" "$1"
}

# A VM says in its notes whose it is. One that was begun and not ended, by a run that was interrupted, says this:
unfinished="Kindling: not finished"

# make_vm NODE VM MAC INSTANCE: appends to `made` what has to be powered on, and to `others` what is in the way.
made=() others=()
make_vm() {
    local node=$1 vm=$2 mac=$3 note path key values=()
    local done_note="Kindling: $node of cluster $cluster, seed $4"
    path=$(vm_path "$vm")
    if exists "$path"; then
        note=$(govc object.collect -s "$path" config.annotation)
        case $note in
            "$unfinished") say "$vm: was begun and not finished: going on" ;;
            "$done_note") say "$vm: is there already: left alone" && return ;;
            "Kindling: $node of cluster $cluster, seed "*)
                say "$vm: is there already, with another seed than the one beside this script: left alone" && return
                ;;
            *)
                say "$vm: is there already, and its notes do not say that it was made here: left alone"
                others+=("$vm")
                return
                ;;
        esac
    else
        [[ -r $here/$node/guestinfo.userdata ]] || die "no $here/$node: render without --node"
        say "$vm: cloning"
        govc vm.clone -vm "$template" -on=false -annotation "$unfinished" -net "$GOVC_NETWORK" -net.address "$mac" "$vm" >/dev/null
    fi
    govc vm.disk.change -vm "$path" -disk.label "Hard disk 1" -size "${disk_gb}G"
    for key in metadata userdata; do
        values+=(-f "guestinfo.$key=$here/$node/guestinfo.$key" -f "guestinfo.$key.encoding=$here/$node/guestinfo.$key.encoding")
    done
    # ESXi refuses an address beyond its maker's block unless it is told not to look.
    [[ $mac == 00:50:56:[0-3]* ]] || values+=(-e ethernet0.checkMACAddress=FALSE)
    # One change for all of it, the notes included: a VM that is finished has its seed.
    govc vm.change -vm "$path" -c "$cpus" -m "$memory_mb" -annotation "$done_note" "${values[@]}"
    made+=("$vm")
}

# All at the same moment: the nodes find each other.
power_on() {
    local vm failed=0 jobs=()
    ((${#made[@]})) || return 0
    for vm in "${made[@]}"; do
        govc vm.power -on "$(vm_path "$vm")" >/dev/null &
        jobs+=("$!")
    done
    for vm in "${jobs[@]}"; do wait "$vm" || failed=1; done
    ((failed == 0)) || die "not all VMs are powered on: see above; govc vm.power -on VM does it by hand"
    say "powered on: ${made[*]}"
}

deploy() { # [OVA]
    local node vm mac instance
    template "${1-}"
    while read -r node vm mac instance <&3; do make_vm "$node" "$vm" "$mac" "$instance"; done 3<<<"$nodes"
    power_on
    ((${#others[@]} == 0)) || die "this cluster lacks a node for each of: ${others[*]}. If nobody needs that VM,
remove it (govc vm.destroy VM) and run this again; else rename the node or the cluster"
}

told() { sed -n 's/^ *guestinfo\.kindling\.status: *//p' | tail -n 1; }

status() {
    local vm said power
    while read -r _ vm _ <&3; do
        said=$(govc vm.info -e "$(vm_path "$vm")")
        power=$(sed -n 's/^ *Power state: *//p' <<<"$said")
        say "$vm: ${power:-not there}: $(told <<<"$said")"
    done 3<<<"$nodes"
}

# The agent redacts what the running VM shows; this takes it out of what vCenter keeps.
scrub() {
    local vm path
    while read -r _ vm _ <&3; do
        path=$(vm_path "$vm")
        if [[ $(govc vm.info -e "$path" | told) == done* ]]; then
            govc vm.change -vm "$path" -e guestinfo.userdata=--- -e guestinfo.userdata.encoding=
            say "$vm: its user-data is removed"
        else
            say "$vm: its agent does not say that it is done: left alone"
        fi
    done 3<<<"$nodes"
}

check
case ${1-} in
    status) status ;;
    scrub) scrub ;;
    *) deploy "${1-}" ;;
esac
