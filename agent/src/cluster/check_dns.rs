//! The DNS servers of a cluster file: the machines ask them, and CoreDNS does for the pods.

use std::net::Ipv4Addr;

use super::assemble::{default_pods, default_services};
use super::check::holder_of;
use super::read::Draft;
use crate::input::Findings;
use crate::role::types::is_unicast;

/// CoreDNS ends at a server that leads back to itself, and a server that is not there leaves machines without names.
pub fn servers(draft: &Draft, findings: &Findings) {
    let Some(network) = &draft.network else { return };
    for server in &network.dns {
        if let Some(reason) = refused(draft, *server) {
            findings.error(
                "network.dns",
                network.dns_span.clone(),
                reason,
                "write the DNS servers of the machines' network, outside the cluster, as in [\"10.0.0.2\"]",
            );
        }
    }
}

fn refused(draft: &Draft, server: Ipv4Addr) -> Option<String> {
    let services = draft.services.as_ref().map_or_else(default_services, |at| at.value);
    let pods = draft.pods.as_ref().map_or_else(default_pods, |at| at.value);
    let vip = draft.endpoint.as_ref().and_then(|endpoint| endpoint.vip.as_ref());
    if server.is_loopback() {
        Some(format!("{server} is loopback: in a pod that is the pod itself, and CoreDNS would ask itself"))
    } else if !is_unicast(server) {
        Some(format!("{server} is not an address that a server can have"))
    } else if services.net().contains(&server) {
        Some(format!("{server} is in the network of the Services ({services}): CoreDNS would ask itself"))
    } else if pods.net().contains(&server) {
        Some(format!(
            "{server} is in the network of the pods ({pods}): machines need names before there is a pod"
        ))
    } else if vip.is_some_and(|vip| vip.value == server) {
        Some(format!("{server} is the VIP, where the API answers and no DNS server does"))
    } else {
        holder_of(draft, server).map(|node| {
            format!("{server} is {node}'s address, and no machine of the cluster is a DNS server")
        })
    }
}
