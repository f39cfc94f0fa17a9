//! What the cluster file may leave out, derived from names so that it is the same at each render.

use aws_lc_rs::digest::{SHA256, digest};

use crate::role::types::{ClusterName, DnsName, MacAddress, Vrid};

/// A MAC address in the block that QEMU uses for its guests, 52:54:00. It differs for each node of each
/// cluster; `attempt` gives another one where two nodes of a cluster collide (24 bits are not many).
pub fn default_mac(cluster: &ClusterName, node: &DnsName, attempt: u32) -> MacAddress {
    let hash = digest(&SHA256, format!("mac\n{cluster}\n{node}\n{attempt}").as_bytes());
    let bytes = hash.as_ref();
    MacAddress([0x52, 0x54, 0x00, bytes[0], bytes[1], bytes[2]])
}

/// As [`default_mac`], in the block in which VMware takes addresses that people give: 00:50:56:00 to 00:50:56:3f.
pub fn vmware_mac(cluster: &ClusterName, node: &DnsName, attempt: u32) -> MacAddress {
    let MacAddress([_, _, _, a, b, c]) = default_mac(cluster, node, attempt);
    MacAddress([0x00, 0x50, 0x56, a & 0x3f, b, c])
}

/// A VRID that is unlikely to meet another cluster's on the same network, where everybody would else
/// take the one of the tutorial (kubeasz#99).
pub fn default_vrid(cluster: &ClusterName) -> Vrid {
    let hash = digest(&SHA256, format!("vrid\n{cluster}").as_bytes());
    let bytes = hash.as_ref();
    Vrid((u16::from_be_bytes([bytes[0], bytes[1]]) % 255) as u8 + 1)
}
