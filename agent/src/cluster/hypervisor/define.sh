#!/usr/bin/env bash
# Makes this cluster's VMs by libvirt and powers all of them on at once. What is there already is left alone, so it may
# be run again. Written by `kindling render`.
#   define.sh QCOW2 [--no-start]    QCOW2: kindling.qcow2 of the image, which the disks are copies of
# Which libvirt, says virsh's own environment (LIBVIRT_DEFAULT_URI); the disks' folder is one of this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder='' disk_gb='' nodes=''
# shellcheck source=/dev/null
. "$here/settings"

say() { printf '%s\n' "$*"; }
die() {
    printf 'define.sh: %s\n' "$*" >&2
    exit 1
}

image=${1-}
[[ -n $image ]] || die "name the image's disk: define.sh build/image/ubuntu/kindling.qcow2"
[[ -r $image ]] || die "$image cannot be read"
for program in virsh qemu-img; do
    command -v "$program" >/dev/null || die "$program is missing (Debian: libvirt-clients, qemu-utils)"
done
virsh uri >/dev/null || die "libvirt does not answer: see the line above"

# Complete or not there: a run may be interrupted.
disk() { # NAME
    local path=$folder/$1.qcow2
    [[ ! -e $path ]] || return 0
    qemu-img convert -O qcow2 "$image" "$path.new"
    qemu-img resize -q "$path.new" "${disk_gb}G"
    mv "$path.new" "$path"
}

made=() others=()
define() { # NODE DOMAIN
    local node=$1 domain=$2 seed="$folder/$2-seed.img"
    if virsh domstate "$domain" >/dev/null 2>&1; then
        say "$domain: is there already: left alone"
        return
    fi
    if [[ -e $folder/$domain.qcow2 && ! -e $folder/.$domain.begun ]]; then
        say "$domain: $folder/$domain.qcow2 is there already, and no domain that has it: left alone"
        others+=("$folder/$domain.qcow2")
        return
    fi
    say "$domain: making its disks"
    : >"$folder/.$domain.begun"
    disk "$domain"
    # libvirt gives it to the user that QEMU runs as; it holds secrets.
    install -m 0600 "$here/../$node/seed.img" "$seed"
    virsh -q define --validate "$here/$node.xml"
    rm "$folder/.$domain.begun"
    made+=("$domain")
}

mkdir -p "$folder"
while read -r node domain <&3; do define "$node" "$domain"; done 3<<<"$nodes"

# All at the same moment: the nodes find each other.
if [[ ${2-} != --no-start && ${#made[@]} -gt 0 ]]; then
    failed=0 jobs=()
    for domain in "${made[@]}"; do
        virsh -q start "$domain" &
        jobs+=("$!")
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    ((failed == 0)) || die "not all domains are started: see above; virsh start DOMAIN does it by hand"
    say "started: ${made[*]}"
fi
((${#others[@]} == 0)) || die "this cluster lacks a node for each of: ${others[*]}. Remove what nobody needs, and run this again"
