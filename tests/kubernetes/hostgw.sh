#!/bin/sh
# The test pod network's node agent, run by hostgw.yaml's DaemonSet in the image kindling.test/tools: writes this
# node's CNI configuration and routes the other nodes' pod networks through their addresses. Flannel's
# host-gw mode does the same; there is no flannel where these tests run.
# NODE_NAME is this node's name; CNI_DIR is the host's CNI folder as mounted here.
set -eu

# An own routing protocol number marks the routes that this script may remove.
PROTOCOL=77
CNI_DIR=${CNI_DIR:-/etc/cni/net.d}

# Debian's busybox prefers its own applets, and its ip knows no routing protocols.
ip() { /usr/bin/ip "$@"; }

say() { echo "hostgw: $*"; }

# One line a node: name, pod network, address. (With --request-timeout kubectl forgets that it runs in a pod.)
nodes() {
	timeout 60 kubectl get nodes -o \
		'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.podCIDR}{" "}{.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'
}

cni_configuration() { # POD_NETWORK
	portmap=
	# Where containerd's own folder and Debian's package have the plugins; the pod shares the host's PIDs.
	if [ -e /proc/1/root/opt/cni/bin/portmap ] || [ -e /proc/1/root/usr/lib/cni/portmap ]; then
		portmap=',
    { "type": "portmap", "capabilities": { "portMappings": true } }'
	fi
	cat <<EOF
{
  "cniVersion": "0.3.1",
  "name": "hostgw",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
      "ipam": { "type": "host-local", "ranges": [ [ { "subnet": "$1" } ] ] }
    }$portmap
  ]
}
EOF
}

# The runtime reads the folder at any time, so the file appears complete or not at all.
write_configuration() { # POD_NETWORK
	file=$CNI_DIR/10-hostgw.conflist
	cni_configuration "$1" >"$file.new"
	if cmp -s "$file.new" "$file"; then
		rm "$file.new"
	else
		# A node that joined anew may get another pod network, and the bridge plugin refuses a bridge with an old address.
		case "$(ip -4 -o addr show cni0 2>/dev/null)" in
		'' | *" inet ${1%.*}."*) ;;
		*) ip link del cni0 ;;
		esac
		mv "$file.new" "$file"
		say "wrote $file for $1"
	fi
}

# Docker sets the policy of FORWARD to DROP, and kube-proxy accepts only its own traffic.
accept_forwarding() {
	for way in -i -o; do
		iptables -w 5 -C FORWARD "$way" cni0 -j ACCEPT 2>/dev/null || iptables -w 5 -I FORWARD "$way" cni0 -j ACCEPT
	done
}

# A route that cannot be set now (an address that is not reachable yet) is tried again in the next round.
write_routes() { # the nodes, on standard input
	wanted=' '
	while read -r name network address; do
		if [ "$name" = "$NODE_NAME" ]; then continue; fi
		wanted="$wanted$network "
		case "$(ip -4 route show "$network" proto $PROTOCOL)" in
		*"via $address "*) ;;
		*) if ip route replace "$network" via "$address" proto $PROTOCOL; then say "$network via $address ($name)"; fi ;;
		esac
	done
	ip -4 route show proto $PROTOCOL | while read -r network rest; do
		case "$wanted" in
		*" $network "*) ;;
		*) if ip route del "$network" proto $PROTOCOL; then say "$network is gone ($rest)"; fi ;;
		esac
	done
}

trap 'exit 0' TERM INT
# Seconds between two looks: short while nodes come and go, then ever longer. Under emulation a look costs
# seconds of processor time, which the API server on the same machine needs more.
interval=2
last=
echo 1 >/proc/sys/net/ipv4/ip_forward
while :; do
	if list=$(nodes); then
		mine=$(echo "$list" | awk -v node="$NODE_NAME" '$1 == node && NF == 3 { print $2 }')
		if [ -n "$mine" ]; then
			accept_forwarding
			# Nodes without a pod network have two fields only: the controller manager has not got to them yet.
			echo "$list" | awk 'NF == 3' | write_routes
			# Last, since it makes the node Ready.
			write_configuration "$mine"
			interval=$((interval < 30 ? interval + 4 : 30))
			if [ "$list" != "$last" ]; then interval=2; fi
			last=$list
		else
			say "no pod network for $NODE_NAME yet"
		fi
	fi
	# In the background, so that the signal that ends the pod is not kept waiting.
	sleep $interval &
	wait $!
done
