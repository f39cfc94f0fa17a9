//! /etc/kindling/endpoint.toml: what the endpoint watcher ([`crate::endpoint`]) checks and learns.

use std::fmt::Write;

use super::{API_PORT, WRITTEN_BY};
use crate::role::NodeSpec;

/// `None` where the VIP may not live on this node. Where it may live on no other nothing has to be decided, and
/// without a proxy nothing is learnt. Nothing in it is secret.
pub fn watched(spec: &NodeSpec) -> Option<String> {
    let decides = !spec.vrrp()?.peers.is_empty();
    let servers = spec.proxy().map(|proxy| {
        let mut text = format!(
            "\n# The API servers of the role file; those that come later the cluster names.\n\
             [servers]\nproxy = \"{}\"\n[servers.given]\n",
            proxy.kind
        );
        for (name, address) in &proxy.servers {
            let _ = writeln!(text, "\"{name}\" = \"{address}\"");
        }
        text
    });
    if !decides {
        return servers.map(|servers| format!("{WRITTEN_BY}{}", servers.trim_start()));
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
    let servers = servers.unwrap_or_default();
    Some(format!("{WRITTEN_BY}# {why}\ncheck = \"{check}\"\naddress = \"{address}\"\n{servers}"))
}
