# shellcheck shell=bash
# Installs what is missing, each given as COMMAND:PACKAGE, or as FILE:PACKAGE where it has no command; says for what root is needed.

need_packages() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || [[ $pair == /* && -e ${pair%%:*} ]] || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        echo "missing packages; install them as root: apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}" >&2
    # Daemons that come with a package must not start on this machine.
    local policy=/usr/sbin/policy-rc.d made=
    [[ -e $policy ]] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=1; }
    local rc=0
    apt_install "${missing[@]}" >&2 || rc=1
    [[ -z $made ]] || rm -f "$policy"
    return "$rc"
}

# What `kindling up --driver $1` starts machines with.
need_driver() {
    case $1 in
        qemu) image/qemu-packages >&2 ;;
        machines) need_packages systemd-nspawn:systemd-container ip:iproute2 && need_inotify ;;
        *) echo "need_driver: $1 is none: qemu or machines" >&2 && return 1 ;;
    esac
}

# Machines share the kernel's inotify instances with all that is root's, and the usual 128 are too few for a cluster of six.
need_inotify() {
    local limit=/proc/sys/fs/inotify/max_user_instances
    (($(<"$limit") >= 1024)) || ! [[ -w $limit ]] || {
        echo "raising fs.inotify.max_user_instances to 1024, until the next boot: each machine needs some twenty" >&2
        # Where the host is itself a container, kindling says what is wrong.
        echo 1024 2>/dev/null >"$limit" || true
    }
}

# One at a time: tests run beside one another. The lock ends with the parentheses: what comes after may take hours.
apt_install() {
    (
        flock 9
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    ) 9<"${BASH_SOURCE[0]}"
}

# Asked once for all that follows: a server that answers now may not do so in a minute.
choose_source() {
    local made
    made=$(tests/kubernetes/build) || return 1
    export KUBERNETES_SOURCE=module
    [[ ${made##*/} != *-release-* ]] || KUBERNETES_SOURCE=release
}
