//! Kernel modules and sysctls: /etc/modules-load.d and /etc/sysctl.d.

use std::fmt::Write;

use super::WRITTEN_BY;
use crate::role::NodeSpec;

/// `overlay` for the containers' file systems, `br_netfilter` so that bridged traffic passes iptables.
/// A load balancer needs neither.
pub fn modules(spec: &NodeSpec) -> Vec<&'static str> {
    if spec.kubernetes().is_some() { vec!["overlay", "br_netfilter"] } else { Vec::new() }
}

/// For /etc/modules-load.d (modules-load.d(5)).
pub fn modules_conf(spec: &NodeSpec) -> String {
    modules(spec).into_iter().fold(WRITTEN_BY.to_owned(), |text, module| text + module + "\n")
}

/// What kubeadm's preflight asks for, and `ip_nonlocal_bind` where haproxy listens on the VIP while
/// another machine holds it. The bridge's keys exist only once `br_netfilter` is loaded.
pub fn sysctls(spec: &NodeSpec) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    if spec.kubernetes().is_some() {
        keys.extend([
            "net.bridge.bridge-nf-call-iptables",
            "net.bridge.bridge-nf-call-ip6tables",
            "net.ipv4.ip_forward",
        ]);
    }
    if spec.proxy().is_some() && spec.endpoint.vip.is_some() {
        keys.push("net.ipv4.ip_nonlocal_bind");
    }
    keys.into_iter().map(|key| (key.to_owned(), "1".to_owned())).collect()
}

/// For /etc/sysctl.d (sysctl.d(5)).
pub fn sysctl_conf(spec: &NodeSpec) -> String {
    let mut text = WRITTEN_BY.to_owned();
    for (key, value) in sysctls(spec) {
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}
