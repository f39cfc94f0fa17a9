# shellcheck shell=bash
# shellcheck disable=SC2154  # set by the reader
# One virtual machine under test, for what needs a firmware, a boot loader and a disk. Whoever reads this sets `work`.
# UEFI as the qemu driver has it; SECURE=1 takes the firmware that checks signatures, with the keys of VARS;
# FORWARD=tcp:HOST:PORT-GUEST:PORT leads to a port of the guest; MEMORY is in MiB.

# shellcheck source=tests/lib/kvm.sh
. tests/lib/kvm.sh

passed=0
qemu_pid=

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
fail() { say "FAILED: $*"; exit 1; }
ok() { say "ok: $*"; passed=$((passed + 1)); }

# Guests are emulated, maybe on a machine that does something else too.
PATIENCE=${PATIENCE:-1800}

power_on() { # DISK SEED CONSOLE [QEMU ARGUMENTS...]
    local disk=$1 seed=$2 console=$3 code=/usr/share/OVMF/OVMF_CODE_4M.fd machine=q35 accel='tcg,thread=multi' cpu=max
    shift 3
    local more=()
    if [[ -n ${SECURE-} ]]; then
        code=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd machine=q35,smm=on
        more=(-global 'driver=cfi.pflash01,property=secure,value=on')
    fi
    if kvm_works; then accel=kvm cpu=host; fi
    : >"$console"
    qemu-system-x86_64 -no-user-config -nodefaults -machine "$machine" -accel "$accel" -cpu "$cpu" -smp 2 -m "${MEMORY:-1536}" \
        -display none "${more[@]}" -drive "if=pflash,unit=0,format=raw,readonly=on,file=$code" \
        -drive "if=pflash,unit=1,format=raw,file=${VARS:-$work/vars.fd}" \
        -drive "if=virtio,format=qcow2,discard=unmap,file=$disk" -drive "if=virtio,format=raw,readonly=on,file=$seed" \
        -netdev "user,id=net,restrict=on,ipv6=off${FORWARD:+,net=10.0.0.0/24,hostfwd=$FORWARD}" -device "virtio-net-pci,netdev=net,mac=$mac" -device virtio-rng-pci \
        -chardev "file,id=console,path=$console" -serial chardev:console "$@" >"$console.qemu" 2>&1 &
    qemu_pid=$!
}

power_cut() {
    [[ -n $qemu_pid ]] || return 0
    kill -KILL "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
    qemu_pid=
}

# Until the console shows it, the machine is off, or patience ends.
console_shows() { # CONSOLE PATTERN
    local deadline=$((SECONDS + PATIENCE))
    until grep -aqE "$2" "$1"; do
        kill -0 "$qemu_pid" 2>/dev/null || { grep -aqE "$2" "$1" && return 0; cat "$1.qemu"; return 1; }
        ((SECONDS < deadline)) || return 1
        sleep 1
    done
}

reported() { # CONSOLE KEY
    local line
    # What was never said is not the same as nothing.
    line=$(tr -d '\r' <"$1" | grep -a "report: $2=" | tail -n 1) || { echo '(not reported)' && return 0; }
    printf '%s\n' "${line##*report: "$2"=}"
}

expect() { # WHAT WANTED GOT
    [[ $3 == "$2" ]] || fail "$1: wanted \`$2\`, got \`$3\`"
    ok "$1: $2"
}

# An empty disk over the baked one, of the size that a machine may have.
disk_over() { # IMAGE DISK [GIGABYTES]
    qemu-img create -q -f qcow2 -F qcow2 -b "$(realpath "$1")" "$2" "${3:-20}G"
}

# Flips a bit of a disk where the first block of a program of its root lies. RAW, the baked disk, says where that is:
# the partition's start, and the block's in the partition's file system.
flip() { # RAW LABEL PROGRAM DISK [LABEL OF THE SLOT IN DISK'S TABLE OF RAW]
    local raw=$1 label=$2 program=$3 disk=$4 start into block
    start=$(root_start "$raw" "$label")
    into=$(root_start "$raw" "${5:-$label}")
    dd if="$raw" of="$work/root.img" bs=1M iflag=skip_bytes skip=$((start * 512)) count=1536 conv=sparse status=none
    dump.erofs --path="$program" -e "$work/root.img" >"$work/extents"
    block=$(sed -nE 's/^ *0: .*: *([0-9]+)\.\. *[0-9]+ \|.*$/\1/p' "$work/extents" | tail -n 1)
    [[ -n $block ]] || { cat "$work/extents"; fail "no extent of $program"; }
    local at=$((block + 512)) byte
    byte=$(od -An -tu1 -j "$at" -N 1 "$work/root.img" | tr -d ' ')
    rm "$work/root.img"
    qemu-io -f qcow2 -c "write -P $((byte ^ 1)) $((into * 512 + at)) 1" "$disk" >"$work/flipped"
}

# The first sector of a slot's root: the larger one of the two partitions that have the label.
root_start() { # RAW LABEL
    sfdisk --json "$1" | jq --arg name "$2" '[.partitiontable.partitions[] | select(.name == $name)] | max_by(.size) | .start'
}

ended() {
    local code=$?
    power_cut
    if ((code)); then
        for console in "$work"/*.console; do
            echo "--- $console"
            tr -d '\r' <"$console" | tail -n 40
        done
    fi
    exit "$code"
}
