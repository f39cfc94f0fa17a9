//! /etc/keepalived/keepalived.conf (keepalived.conf(5)).

use std::fmt::Write;

use super::WRITTEN_BY;
use crate::endpoint::{FIFO, PENALTY, WEIGHT_FILE};
use crate::role::NodeSpec;

/// keepalived's configuration for the VIP on `interface`. Empty where the VIP may not live on this node.
/// Nothing in it is secret.
///
/// VRRP version 3 (RFC 5798), as only it has advertisements below a second; it has no authentication,
/// so the password of the role file is not in it. Instead adverts are taken from the peers' addresses
/// only, and only with a TTL that no router has touched.
pub fn keepalived(spec: &NodeSpec, interface: &str) -> String {
    let (Some(vrrp), Some(vip)) = (spec.vrrp(), spec.endpoint.vip) else { return String::new() };
    // Where nobody else could take the VIP, nothing has to be decided.
    let alone = vrrp.peers.is_empty();
    let mut text = format!(
        "{WRITTEN_BY}
global_defs {{
    router_id {name}
    # It has adverts below a second and no authentication (RFC 5798, section 9).
    vrrp_version 3
    # A busy machine must not miss its own adverts, nor the others', or two hold the VIP for a moment. Where
    # real time is not to be had, the nice value is what remains.
    vrrp_rt_priority 10
    # The limit of 10 ms that comes with it kills keepalived on a busy machine; in microseconds.
    vrrp_rlimit_rttime 1000000
    vrrp_priority -20
    # No script is run; without this line keepalived misses the user that it would run it as.
    script_user root
",
        name = spec.name
    );
    if !alone {
        let _ = write!(
            text,
            "    # Tells Kindling's watcher (kindling-endpoint.service) who holds the VIP.
    vrrp_notify_fifo {FIFO}
}}

# What the watcher adds to the priority: a penalty where the check fails, a bonus where the VIP is.
# Until it has spoken, nothing is known to be healthy.
track_file endpoint {{
    file {WEIGHT_FILE}
    weight 1
    init_file -{PENALTY}
"
        );
    }
    let _ = write!(
        text,
        "}}

vrrp_instance {cluster} {{
    # Nobody claims the VIP before it has listened for the others.
    state BACKUP
    interface {interface}
    virtual_router_id {vrid}
    priority {priority}
    advert_int {advert}
    # Switches and neighbours learn the VIP's new place at once, and again in case they missed it or heard
    # a machine that had slept.
    garp_master_delay 1
    garp_lower_prio_delay 1
    garp_master_refresh 60
",
        cluster = spec.cluster,
        vrid = vrrp.vrid,
        priority = vrrp.priority,
        advert = seconds(vrrp.advert_ms),
    );
    // A single holder has nobody to send to; without peers keepalived multicasts, and nobody listens.
    if !alone {
        let _ = write!(
            text,
            "    unicast_src_ip {}\n    unicast_ttl 255\n    check_unicast_src\n    unicast_peer {{\n",
            spec.address()
        );
        for peer in &vrrp.peers {
            let _ = writeln!(text, "        {peer} min_ttl 255");
        }
        text.push_str("    }\n    track_file {\n        endpoint\n    }\n");
    }
    let _ = write!(
        text,
        "    virtual_ipaddress {{
        # /32: never the source address of what this machine sends.
        {vip}/32 dev {interface}
    }}
}}
"
    );
    text
}

/// keepalived's `advert_int` of version 3: seconds with hundredths.
fn seconds(ms: u32) -> String {
    let hundredths = (ms / 10).max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
