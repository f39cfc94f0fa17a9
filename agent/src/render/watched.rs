//! /etc/kindling/endpoint.toml: what the endpoint watcher ([`crate::endpoint`]) checks.

use super::{API_PORT, WRITTEN_BY};
use crate::role::NodeSpec;

/// `None` where the VIP may not live on this node, or on no other: nothing has to be decided there. Nothing
/// in it is secret.
pub fn watched(spec: &NodeSpec) -> Option<String> {
    if spec.vrrp()?.peers.is_empty() {
        return None;
    }
    let (why, check, address) = match spec.proxy() {
        Some(proxy) => (
            "The proxy answers by itself: a process that is there but frozen does not pass.",
            "proxy",
            format!("127.0.0.1:{}", proxy.stats_port),
        ),
        None => (
            "The VIP leads to this machine's own API server, so only that counts.",
            "api-server",
            format!("{}:{API_PORT}", spec.address()),
        ),
    };
    Some(format!("{WRITTEN_BY}# {why}\ncheck = \"{check}\"\naddress = \"{address}\"\n"))
}
