#!/bin/bash
# Run in the machine under test, at each boot: says on the console what can only be seen from inside.
say() { echo "report: $1=$2" >/dev/console; }

# Where a test asks for it by a disk of this name: a version that is being tried, and whose node does not come up.
if [[ -e /dev/disk/by-id/virtio-broken && -e /sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f ]]; then
    units=/run/systemd/system
    mkdir -p $units/haproxy.service.d $units/kindling-boot-deadline.timer.d
    printf '[Service]\nExecStartPre=false\n' >$units/haproxy.service.d/99-test.conf
    printf '[Timer]\nOnBootSec=\nOnBootSec=150s\n' >$units/kindling-boot-deadline.timer.d/99-test.conf
    systemctl daemon-reload
    systemctl stop haproxy.service
    systemctl restart kindling-boot-deadline.timer
    exit
fi

say state "$(systemctl is-system-running --wait)"
say failed "$(systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1 | xargs)"
say root "$(findmnt -no SOURCE,FSTYPE,OPTIONS / | xargs)"
say etc "$(findmnt -no SOURCE,FSTYPE /etc | xargs)"
say verity "$(dmsetup status root | xargs)"
version=$(sed -n 's/^IMAGE_VERSION=//p' /etc/os-release | tr -d \")
say version "$version"
say loader "$(bootctl status --no-pager 2>/dev/null | sed -n 's/^ *Current Entry: //p')"
say entries "$(find "$(bootctl --print-boot-path)/EFI/Linux" -name '*.efi' -printf '%f\n' | sort | xargs)"
say cmdline "$(cat /proc/cmdline)"
say image "$(kindling status | sed -n 's/^image //p')"
# Who listens: protocol, address, program.
say listeners "$(ss -Hltunp | awk '{ match($0, /\(\("[^"]*"/); print $1 ":" $5 ":" substr($0, RSTART + 3, RLENGTH - 4) }' | LC_ALL=C sort -u | xargs)"
say mounts "$(findmnt -rno TARGET,OPTIONS /tmp | xargs)"
say banner "$(sed -n 's/^Kindling: //p' /run/issue.d/kindling.issue)"
seconds() { awk '{ printf "%.2f", $1 / 1000000 }'; }
say initrd-at "$(systemctl show -P InitRDTimestampMonotonic | seconds)"
say userspace-at "$(systemctl show -P UserspaceTimestampMonotonic | seconds)"
say agent-at "$(systemctl show -P ExecMainStartTimestampMonotonic kindling.service | seconds)"
[[ ! -e /dev/disk/by-id/virtio-plot ]] || systemd-analyze plot | dd of=/dev/disk/by-id/virtio-plot conv=notrunc status=none
say secure-boot "$(bootctl status --no-pager 2>/dev/null | sed -n 's/^ *Secure Boot: //p')"
bad=
for path in / /usr /usr/bin /usr/local/bin /usr/lib/cni; do
    ! touch "$path/.written" 2>/dev/null || bad+=" $path"
done
say wrongly-writable "$bad"
bad=
for path in /etc /etc/kubernetes /etc/cni/net.d /etc/containerd /etc/docker /opt/cni/bin /usr/libexec/kubernetes/kubelet-plugins \
    /root /home /srv /tmp /run /var/lib/kubelet /var/lib/etcd /var/lib/containerd /var/lib/docker /var/log/pods; do
    mkdir -p "$path" && touch "$path/.written" && rm "$path/.written" || bad+=" $path"
done
say not-writable "$bad"
say var-megabytes "$(df --output=size -m /var | tail -n 1 | xargs)"
echo boot >>/etc/report-boots
say boots "$(wc -l </etc/report-boots)"
say machine-id "$(cat /etc/machine-id)"
sync
say kubeadm "$(sha256sum /usr/bin/kubeadm | cut -c 1-16)"

# What the cluster of a control plane keeps: who wrote it first.
if [[ -e /etc/kubernetes/admin.conf ]]; then
    export KUBECONFIG=/etc/kubernetes/admin.conf
    say node "$(kubectl get nodes -o 'jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.metadata.labels.kindling/image}{end}')"
    kubectl create configmap kept --from-literal "by=$version" >/dev/null 2>&1
    say kept "$(kubectl get configmap kept -o 'jsonpath={.data.by}')"
fi

# A disk with a newer version: into the other slot with it.
if [[ -e /dev/disk/by-label/UPDATE && ! -e /var/updated ]]; then
    mkdir -p /run/update
    # A load balancer has no use for it; a node would bring its images.
    systemctl start containerd.service
    # An image that this version has not, and the next one brings.
    image=$(ctr -n k8s.io images ls -q | grep -m 1 /pause:)
    ctr -n k8s.io images rm --sync "${image:-none}" >/dev/null
    say removed "${image:-none}, $(ctr -n k8s.io images ls -q | grep -c /pause:) left"
    mount -o ro /dev/disk/by-label/UPDATE /run/update
    # Not by PIPESTATUS: systemd-run takes what is in braces behind a dollar sign for a variable of its own.
    set -o pipefail
    kindling-slot update /run/update 2>&1 | sed '/%\.$/d; s/^/update: /' >/dev/console
    say update $?
    say brought "$(ctr -n k8s.io images ls | grep -F "${image:-none} " | grep -o 'pinned=pinned')"
    say left-over "$(find /var/lib/kindling/update /var/lib/kindling/images -name '*.tar' -printf '%f ' 2>/dev/null)"
    say slots "$(kindling-slot status 2>&1 | xargs)"
    say new-slot "$(kindling-slot run kindling --version 2>&1 | xargs)"
    say new-slot-version "$(sed -n 's/^IMAGE_VERSION=//p' /run/kindling/slot/usr/lib/os-release | tr -d \")"
    kindling-slot unmount
    touch /var/updated
    sync
fi
say end now
