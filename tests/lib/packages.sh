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
    apt_install "${missing[@]}" >&2
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

# One at a time: tests run beside one another. The lock ends with the parentheses: what comes after may take hours. Daemons that come
# with a package start on this machine neither now nor at its next boot: the tests start their own.
apt_install() {
    (
        local apt=(apt-get -qq -o DPkg::Lock::Timeout=600) policy=/usr/sbin/policy-rc.d own='# made by kindling for the time of an installation' enabled
        flock 9
        # One of a run that was killed is ours, too.
        if [[ ! -e $policy ]] || grep -qxF "$own" "$policy"; then
            trap 'rm -f "$policy"' EXIT
            trap 'exit 1' INT TERM HUP
            printf '#!/bin/sh\n%s\nexit 101\n' "$own" >"$policy"
            chmod +x "$policy"
        fi
        enabled=$(units_that_start)
        "${apt[@]}" update && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@" || exit 1
        LC_ALL=C comm -13 <(printf '%s\n' "$enabled") <(units_that_start) | while read -r unit; do
            echo "$unit of what was installed stays off: systemctl enable it if it is wanted" >&2
            systemctl disable --quiet "$unit" 2>/dev/null || true
        done
    ) 9<"${BASH_SOURCE[0]}"
}
# Of this machine, at its boot; none where systemd is not there.
units_that_start() { systemctl list-unit-files --no-legend --state=enabled 2>/dev/null | cut -d ' ' -f 1 | LC_ALL=C sort || true; }

# Machines of the tests and servers on loopback are asked by nobody's proxy.
no_proxy=${no_proxy:-${NO_PROXY-}}
export no_proxy=${no_proxy:+$no_proxy,}127.0.0.1,localhost,10.0.0.0/24
export NO_PROXY=$no_proxy

# Asked once for all that follows: a server that answers now may not do so in a minute.
choose_source() {
    local made
    made=$(tests/kubernetes/build) || return 1
    export KUBERNETES_SOURCE=module
    [[ ${made##*/} != *-release-* ]] || KUBERNETES_SOURCE=release
}
