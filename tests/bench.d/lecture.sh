#!/bin/bash
# The lecture's commands for one machine, one after the other, as people put them into user-data: the baseline of
# tests/bench. What a person types at each machine there, or copies from one to the next, is in /etc/lecture/lecture.env
# beforehand, so no human's pauses are in its time; lecture.py writes that file and explains what is in it.
# The lines on the console are the agent's, as `kindling up` follows a machine by them.
set -euo pipefail
# shellcheck disable=SC1091  # lies in the machine
. /etc/lecture/lecture.env
exec >/var/log/lecture.log 2>&1
# cloud-init runs its commands without one, and kubectl wants it.
export HOME=/root

case $ROLE in
    init) total=5 ;;
    control-plane) total=4 ;;
    *) total=3 ;;
esac
socket=/run/containerd/containerd.sock
n=0

say() { echo "kindling[$1/$total] $2" >/dev/console; }

failed() {
    say "$n" "$step: FAILED: $(tail -n 1 /var/log/lecture.log) | remedy: read /var/log/lecture.log"
    say 0 "$NAME: FAILED: the lecture's script ended | remedy: read /var/log/lecture.log"
}

step() {
    local begun=$SECONDS
    step=$1
    n=$((n + 1))
    say "$n" "$1: started"
    "$1"
    say "$n" "$1: done ($((SECONDS - begun)) s)"
}

in_container() { systemd-detect-virt --quiet --container; }

# No chrony: the cluster has no time servers, so the agent does nothing about the time either.
host() {
    hostnamectl hostname "$NAME"
    echo "$HOSTS" >>/etc/hosts
    swapoff -a
    [[ ! -e /etc/fstab ]] || sed -i '/swap/s/^/#/' /etc/fstab
    printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/k8s.conf
    cat >/etc/sysctl.d/k8s.conf <<-END
	net.bridge.bridge-nf-call-iptables  = 1
	net.bridge.bridge-nf-call-ip6tables = 1
	net.ipv4.ip_forward                 = 1
	END
    # In a container modules and some sysctls are the host's, and these say so by failing.
    in_container || modprobe -a overlay br_netfilter
    sysctl --system || true
}

containerd() {
    mkdir -p /etc/containerd
    command containerd config default >/etc/containerd/config.toml
    sed -i "s#sandbox_image = .*#sandbox_image = \"$SANDBOX\"#" /etc/containerd/config.toml
    sed -i 's#SystemdCgroup = false#SystemdCgroup = true#g' /etc/containerd/config.toml
    # Debian's is another folder than that of flannel's plugin.
    sed -i 's#bin_dir = .*#bin_dir = "/opt/cni/bin"#' /etc/containerd/config.toml
    # A container may not lower the OOM score of what runs in it.
    ! in_container ||
        sed -i 's#restrict_oom_score_adj = false#restrict_oom_score_adj = true#' /etc/containerd/config.toml
    systemctl restart containerd
    systemctl enable kubelet
}

# The lecture's ha1 and ha2. Its check asks for haproxy, which a VIP on control planes has not; with one machine
# the outcome changes nothing but the priority. No mail server, so no smtp_alert.
keepalived() {
    local interface
    interface=$(ip -4 -o address show to "$ADDRESS" | awk '{print $2}')
    cat >/etc/keepalived/keepalived.conf <<-END
	global_defs {
	  router_id $NAME
	}
	vrrp_script check_apiserver {
	  script "/usr/bin/pgrep -x kube-apiserver"
	  interval 1
	  weight -30
	  fall 3
	  rise 2
	  timeout 2
	}
	vrrp_instance VI_1 {
	  state $STATE
	  interface $interface
	  garp_master_delay 10
	  virtual_router_id 66
	  priority $PRIORITY
	  advert_int 1
	  authentication {
	    auth_type PASS
	    auth_pass 123456
	  }
	  virtual_ipaddress {
	    $VIP/24 dev $interface label $interface:1
	  }
	  track_script {
	    check_apiserver
	  }
	}
	END
    systemctl enable keepalived
    systemctl restart keepalived
}

# The flags that the lecture gives kubeadm, as its configuration, as this cluster needs settings that have no flag
# and kubeadm refuses to take both: conntrack's limits cannot be written in a container; the image's /usr cannot be written to.
# The kernel's configuration, its control groups and the swap that a container shows are the host's.
init() {
    cat >/etc/lecture/kubeadm.yaml <<-END
	apiVersion: kubeadm.k8s.io/v1beta4
	kind: InitConfiguration
	bootstrapTokens: [{token: "$TOKEN", ttl: "0"}]
	localAPIEndpoint: {advertiseAddress: "$ADDRESS"}
	nodeRegistration: {criSocket: $socket, ignorePreflightErrors: [SystemVerification, Swap]}
	---
	apiVersion: kubeadm.k8s.io/v1beta4
	kind: ClusterConfiguration
	kubernetesVersion: "$VERSION"
	controlPlaneEndpoint: "$ENDPOINT"
	networking: {podSubnet: "$PODS", serviceSubnet: "$SERVICES"}
	---
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	failSwapOn: false
	failCgroupV1: false
	---
	apiVersion: kubeproxy.config.k8s.io/v1alpha1
	kind: KubeProxyConfiguration
	conntrack: {maxPerCore: 0, min: 0}
	END
    kubeadm init --config /etc/lecture/kubeadm.yaml
    mkdir -p "$HOME/.kube"
    cp /etc/kubernetes/admin.conf "$HOME/.kube/config"
}

addons() {
    local addon
    for addon in $ADDONS; do
        sed "s|@PODS@|$PODS|" "/usr/share/kindling/addons/$addon.yaml" | kubectl apply -f -
    done
}

# The last that kubeadm does on a control plane is to give its Node a label; a token may read Nodes.
joined() {
    curl --silent --insecure --max-time 5 --header @- "https://$ENDPOINT/api/v1/nodes/$1" \
        <<<"Authorization: Bearer $TOKEN" | grep '"node-role.kubernetes.io/control-plane"' >/dev/null
}

# A person would wait until the control plane is there. A script that starts with it can only try again.
join() {
    local try=1 more=()
    [[ $ROLE != control-plane ]] || more=(--control-plane --apiserver-advertise-address "$ADDRESS")
    if [[ -n $AFTER ]]; then
        say "$n" "join: waiting: $AFTER has not joined yet"
        until joined "$AFTER"; do sleep 1; done
    fi
    until kubeadm join "$ENDPOINT" --token "$TOKEN" --discovery-token-unsafe-skip-ca-verification \
        --cri-socket "$socket" --ignore-preflight-errors=SystemVerification,Swap "${more[@]}"; do
        sleep 5
        kubeadm reset -f --cri-socket "$socket"
        # Which takes the shared keys away.
        [[ ! -d /etc/lecture/pki ]] || cp -a /etc/lecture/pki /etc/kubernetes/
        try=$((try + 1))
        say "$n" "join: waiting: try $try"
    done
}

step=begin
trap failed ERR
# Also in the functions.
set -E
step host
step containerd
[[ $ROLE == worker ]] || step keepalived
if [[ $ROLE == init ]]; then
    step init
    step addons
else
    step join
fi
say 0 "$NAME: done ($SECONDS s)"
