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
        if let Some((reason, remedy)) = refused(draft, *server) {
            findings.error("network.dns", network.dns_span.clone(), reason, remedy);
        }
    }
}

const OUTSIDE: &str =
    "write the DNS servers of the machines' network, outside the cluster, as in [\"10.0.0.2\"]";

/// A reason and a remedy.
fn refused(draft: &Draft, server: Ipv4Addr) -> Option<(String, &'static str)> {
    let services = draft.services.as_ref().map_or_else(default_services, |at| at.value);
    let pods = draft.pods.as_ref().map_or_else(default_pods, |at| at.value);
    let vip = draft.endpoint.as_ref().and_then(|endpoint| endpoint.vip.as_ref());
    if services.net().contains(&server) {
        return Some((
            format!(
                "{server} is in the network of the Services ({services}): no packet leaves the cluster for it, and the cluster's own DNS server may have it"
            ),
            "write another server, or another network in `services`",
        ));
    }
    if pods.net().contains(&server) {
        return Some((
            format!("{server} is in the network of the pods ({pods}): no packet leaves the cluster for it"),
            "write another server, or another network in `pods`",
        ));
    }
    let reason = if server.is_loopback() {
        format!("{server} is loopback: in a pod that is the pod itself, and CoreDNS would ask itself")
    } else if !is_unicast(server) {
        format!("{server} is not an address that a server can have")
    } else if vip.is_some_and(|vip| vip.value == server) {
        format!("{server} is the VIP, where the API answers and no DNS server does")
    } else {
        let node = holder_of(draft, server)?;
        format!("{server} is {node}'s address, and no machine of the cluster is a DNS server")
    };
    Some((reason, OUTSIDE))
}
