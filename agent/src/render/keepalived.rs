//! /etc/keepalived/keepalived.conf (keepalived.conf(5)) and the script that it asks.

use std::fmt::Write;

use super::{API_PORT, CA_FILE, CHECK_FILE, HEALTH_PATH, WRITTEN_BY};
use crate::role::NodeSpec;

/// Taken off the priority of a machine whose check fails. Priorities fall from 100 by one for each
/// machine, so it is more than they differ, and a healthy machine always wins. It is never 0, which would
/// mean FAULT: when no API server answers anywhere, somebody must still hold the VIP, or the first
/// control plane could never init.
const PENALTY: u8 = 60;

/// keepalived's configuration for the VIP on `interface`. Empty where the VIP may not live on this node.
/// Nothing in it is secret.
///
/// VRRP version 3 (RFC 5798), as only it has advertisements below a second; it has no authentication,
/// so the password of the role file is not in it. Instead adverts are taken from the peers' addresses
/// only, and only with a TTL that no router has touched.
pub fn keepalived(spec: &NodeSpec, interface: &str) -> String {
    let (Some(vrrp), Some(vip)) = (spec.vrrp(), spec.endpoint.vip) else { return String::new() };
    let asks_haproxy = spec.proxy().is_some();
    // An API server under load answers late; haproxy never does.
    let timeout = if asks_haproxy { 2 } else { 3 };
    // Where nobody else could take the VIP, asking costs and decides nothing.
    let check = (!vrrp.peers.is_empty()).then(|| {
        format!(
            "
vrrp_script endpoint {{
    script \"{CHECK_FILE}\"
    interval 1
    timeout {timeout}
    fall 2
    # A machine that comes back proves itself before it takes the VIP back. preempt_delay would do the
    # same, but would also hold back the move away from a machine whose check fails.
    rise 5
    init_fail
    weight -{PENALTY}
}}
"
        )
    });
    let tracked = if check.is_some() { "    track_script {\n        endpoint\n    }\n" } else { "" };
    let mut text = format!(
        "{WRITTEN_BY}
global_defs {{
    router_id {name}
    # It has adverts below a second and no authentication (RFC 5798, section 9).
    vrrp_version 3
    # A busy machine must not miss its own adverts.
    vrrp_priority -20
    enable_script_security
    script_user root
}}
{check}
vrrp_instance {cluster} {{
    # Nobody claims the VIP before it has listened for the others.
    state BACKUP
    interface {interface}
    virtual_router_id {vrid}
    priority {priority}
    advert_int {advert}
    # Switches and neighbours learn the VIP's new place at once, and again in case they missed it.
    garp_master_delay 1
    garp_master_refresh 60
",
        name = spec.name,
        check = check.unwrap_or_default(),
        cluster = spec.cluster,
        vrid = vrrp.vrid,
        priority = vrrp.priority,
        advert = seconds(vrrp.advert_ms),
    );
    // A single holder has nobody to send to; without peers keepalived multicasts, and nobody listens.
    if !vrrp.peers.is_empty() {
        let _ = write!(
            text,
            "    unicast_src_ip {}\n    unicast_ttl 255\n    check_unicast_src\n    unicast_peer {{\n",
            spec.address()
        );
        for peer in &vrrp.peers {
            let _ = writeln!(text, "        {peer} min_ttl 255");
        }
        text.push_str("    }\n");
    }
    let _ = write!(
        text,
        "    virtual_ipaddress {{
        # /32: never the source address of what this machine sends.
        {vip}/32 dev {interface}
    }}
{tracked}}}
"
    );
    text
}

/// keepalived's `advert_int` of version 3: seconds with hundredths.
fn seconds(ms: u32) -> String {
    let hundredths = (ms / 10).max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// The script that says whether this machine should hold the VIP, for /etc/kindling/check-endpoint, 0755.
/// `None` where the VIP may not live on this node, or on no other.
pub fn keepalived_check(spec: &NodeSpec) -> Option<String> {
    if spec.vrrp()?.peers.is_empty() {
        return None;
    }
    let (why, seconds, url) = match spec.proxy() {
        Some(proxy) => (
            "# haproxy answers by itself, 200 while it has a healthy control plane: a process that is there but\n\
             # frozen does not pass.\n",
            1,
            format!("http://127.0.0.1:{}{HEALTH_PATH}", proxy.stats_port),
        ),
        None => (
            "# The VIP leads to this machine's own API server, so only that counts. Whoever else answers on its\n\
             # port has no certificate of the cluster's CA.\n",
            2,
            format!("--cacert {CA_FILE} https://{}:{API_PORT}/readyz", spec.address()),
        ),
    };
    Some(format!(
        "#!/bin/sh\n{WRITTEN_BY}\
         # keepalived asks it once a second whether this machine should hold the VIP.\n\
         {why}\
         exec /usr/bin/curl --disable --silent --fail --output /dev/null --noproxy '*' --max-time {seconds} {url}\n"
    ))
}
