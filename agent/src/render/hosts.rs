//! /etc/hosts (hosts(5)).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::WRITTEN_BY;
use crate::role::NodeSpec;
use crate::role::types::{DnsName, HostOrAddress};

/// Every node, and the endpoint's name where the cluster holds the VIP itself; an `external` endpoint's
/// name is the resolver's to know. There is no 127.0.1.1: it would make the node's own name a loopback
/// address, which etcd and the kubelet take for the node's.
pub fn hosts(spec: &NodeSpec) -> String {
    let mut text = format!(
        "{WRITTEN_BY}\
127.0.0.1 localhost

::1     ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters

"
    );
    let endpoint = match (&spec.endpoint.host, spec.endpoint.vip) {
        (HostOrAddress::Name(name), Some(vip)) => Some((name, vip)),
        _ => None,
    };
    let lines: Vec<(&DnsName, Ipv4Addr)> =
        endpoint.into_iter().chain(spec.hosts.iter().map(|(name, address)| (name, *address))).collect();
    let mut claims: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in &lines {
        *claims.entry(name.short()).or_default() += 1;
    }
    for (name, address) in lines {
        let short = name.short();
        // An alias that two machines claim would mean whichever comes first.
        if short != name.as_str() && claims[short] == 1 {
            let _ = writeln!(text, "{address} {name} {short}");
        } else {
            let _ = writeln!(text, "{address} {name}");
        }
    }
    text
}
