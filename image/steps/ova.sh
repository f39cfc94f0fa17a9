# shellcheck shell=bash
# The baked disk as VMDK, OVF and OVA. Read by `image/ova`.

# What the outputs are made from.
ova_key() {
    (cd "$OUT" && cat version && sha256sum kindling.raw && sha256sum "$IMAGE"/steps/{ova.sh,vmdk-id} "$IMAGE/ovf/kindling.ovf" |
        cut -d ' ' -f 1) | sha256sum | cut -c1-16
}

ova() {
    local work=$OUT/ova.work
    rm -rf "$work"
    mkdir -p "$work"
    say "writing the VMDK"
    vmdk "$OUT/kindling.raw" "$work/kindling.vmdk"
    ovf "$work" >"$work/kindling.ovf"
    # The manifest of the OVF specification (DSP0243, section 5.1).
    (cd "$work" && sha256sum --tag kindling.ovf kindling.vmdk | sed 's/^SHA256 (\(.*\)) = /SHA256(\1)= /') >"$work/kindling.mf"
    say "writing the OVA"
    # The descriptor must be the first member, the manifest the second; of the clock and the users nothing may be left.
    tar -C "$work" --format=ustar --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 \
        -cf "$work/kindling.ova" kindling.ovf kindling.mf kindling.vmdk
    rm "$work/kindling.mf"
    mv -f "$work"/kindling.{vmdk,ovf,ova} "$OUT/"
    rm -rf "$work"
    checksums
}

# vmdk RAW VMDK: as large as the qcow2 is, so that it can be booted as it is.
vmdk() {
    local grown=${2%.vmdk}.qcow2
    # A grown view of the raw disk, which itself stays as it is.
    qemu_img create -q -f qcow2 -F raw -b "$1" "$grown" "$DISK_SIZE"
    qemu_img convert -f qcow2 -O vmdk -o subformat=streamOptimized,adapter_type=lsilogic "$grown" "$2"
    rm "$grown"
    # qemu-img makes the content id up; it is the content's own here, and never one of the two that mean "none".
    "$IMAGE/steps/vmdk-id" "$2" "$(sha256sum "$1" | cut -c1-7)1"
}

# qemu-img of the tools tree, on files of OUT.
qemu_img() { CACHE=$OUT run_tool qemu-img "$@"; }

# The descriptor, its blanks filled in.
ovf() { # FOLDER
    local version distro id=96 type=debian10_64Guest sed=() pair
    version=$(<"$OUT/version")
    distro=$(sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p' "$OUT/tree/etc/os-release" 2>/dev/null || true)
    case $distro in
        Ubuntu*) id=94 type=ubuntu64Guest ;;
    esac
    for pair in "VERSION=$version" "KUBERNETES=${version%-*}" "DISTRO=${distro:-$DISTRO}" "OS_ID=$id" "OS_TYPE=$type" \
        "VMDK_BYTES=$(stat -c %s "$1/kindling.vmdk")" "CAPACITY=$(numfmt --from=iec "$DISK_SIZE")"; do
        sed+=(-e "s|@${pair%%=*}@|${pair#*=}|g")
    done
    sed "${sed[@]}" "$IMAGE/ovf/kindling.ovf"
}
