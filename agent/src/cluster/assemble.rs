//! A draft in which nothing is wrong -> the [`Cluster`], with the defaults put in.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{Draft, NodeDraft};
use super::{
    API_PORT, Cluster, Endpoint, Network, Node, STACKED_PROXY_PORT, Validated, Vip, default_mac,
    default_vrid, vmware_mac,
};
use crate::role::types::*;

pub const DEFAULT_DNS_DOMAIN: &str = "cluster.local";
pub const DEFAULT_ADDONS: [&str; 1] = ["flannel"];
pub const DEFAULT_TOKEN_HOURS: u32 = 24;
/// Ten years: kubeadm takes no duration that Go cannot hold, which ends at 292.
pub const LONGEST_TOKEN: u32 = 10 * 365 * 24;
pub const DEFAULT_ADVERT_MS: u32 = 100;

pub fn default_pods() -> Subnet {
    "10.244.0.0/16".parse().expect("a network")
}

pub fn default_services() -> Subnet {
    "10.96.0.0/12".parse().expect("a network")
}

type Derive = fn(&ClusterName, &DnsName, u32) -> MacAddress;

/// Puts the defaults in. `None` only where a problem is recorded already.
pub fn assemble(draft: Draft) -> Option<Cluster> {
    let name = draft.name?.value;
    let endpoint = draft.endpoint?;
    let by = endpoint.by?.value;
    let proxy = endpoint.proxy.map(|p| p.value).unwrap_or(match by {
        EndpointBy::LoadBalancer => ProxyKind::Haproxy,
        EndpointBy::Stacked | EndpointBy::External => ProxyKind::None,
    });
    let port = endpoint.port.map(|p| p.value).unwrap_or(match (by, proxy) {
        (EndpointBy::Stacked, ProxyKind::Haproxy | ProxyKind::Nginx) => STACKED_PROXY_PORT,
        _ => API_PORT,
    });
    let vrrp = draft.vrrp;
    let vip = endpoint.vip.map(|vip| Vip {
        address: vip.value,
        vrid: vrrp.as_ref().and_then(|v| v.vrid).unwrap_or_else(|| default_vrid(&name)),
        advert_ms: vrrp.as_ref().and_then(|v| v.advert_ms).unwrap_or(DEFAULT_ADVERT_MS),
    });
    let host = match (endpoint.host, vip) {
        (Some(host), _) => host.value,
        (None, Some(vip)) => HostOrAddress::Address(vip.address),
        (None, None) => return None,
    };
    let network = draft.network?;
    // vCenter keeps a block of its own maker's for addresses that people give.
    let derive = if draft.vsphere.is_some() { vmware_mac } else { default_mac };
    Some(Cluster {
        nodes: assemble_nodes(&name, draft.nodes?, derive)?,
        kubernetes: draft.kubernetes?.value,
        runtime: draft.runtime.map_or(RuntimeName::Containerd, |r| r.value),
        pods: draft.pods.map_or_else(default_pods, |p| p.value),
        services: draft.services.map_or_else(default_services, |s| s.value),
        dns_domain: draft
            .dns_domain
            .map_or_else(|| DEFAULT_DNS_DOMAIN.parse().expect("a domain"), |d| d.value),
        image_repository: draft.image_repository,
        addons: draft.addons.unwrap_or_else(|| DEFAULT_ADDONS.map(String::from).to_vec()),
        token_ttl_hours: draft.token_ttl_hours.unwrap_or(DEFAULT_TOKEN_HOURS),
        cert_sans: draft.cert_sans.unwrap_or_default(),
        api_server_args: draft.api_server_args.unwrap_or_default(),
        controller_manager_args: draft.controller_manager_args.unwrap_or_default(),
        scheduler_args: draft.scheduler_args.unwrap_or_default(),
        etcd_args: draft.etcd_args.unwrap_or_default(),
        endpoint: Endpoint { host, port, by, vip, proxy },
        network: Network {
            gateway: network.gateway?.value,
            dns: network.dns,
            ntp: network.ntp,
            timezone: network.timezone,
            interface: network.interface,
        },
        deadlines: draft.deadlines,
        registries: draft.registries.into_iter().map(|r| r.value).collect(),
        vsphere: draft.vsphere,
        libvirt: draft.libvirt,
        name,
        _validated: Validated,
    })
}

fn assemble_nodes(cluster: &ClusterName, drafts: Vec<NodeDraft>, derive: Derive) -> Option<Vec<Node>> {
    let macs = macs(cluster, &drafts, derive);
    let is_control_plane = |n: &NodeDraft| n.role.as_ref().is_some_and(|r| r.value == RoleName::ControlPlane);
    let said = |n: &NodeDraft| n.first.as_ref().map(|f| f.value);
    let first = drafts
        .iter()
        .find(|n| said(n) == Some(true))
        .or_else(|| drafts.iter().find(|n| is_control_plane(n) && said(n).is_none()))
        .map(|n| n.name.clone());
    drafts
        .into_iter()
        .map(|draft| {
            Some(Node {
                first: first.as_ref() == Some(&draft.name),
                mac: macs[&draft.name],
                role: draft.role?.value,
                address: draft.address?.value,
                labels: draft.labels.map(|l| l.value).unwrap_or_default(),
                taints: draft.taints.map(|t| t.value),
                name: draft.name,
            })
        })
        .collect()
}

/// A MAC address for every node. Those of the file come first, the derived ones in the order of the
/// names, so that moving a line in the file changes no machine's address.
fn macs(cluster: &ClusterName, drafts: &[NodeDraft], derive: Derive) -> BTreeMap<DnsName, MacAddress> {
    let mut macs: BTreeMap<DnsName, MacAddress> =
        drafts.iter().filter_map(|n| Some((n.name.clone(), n.mac.as_ref()?.value))).collect();
    let mut taken: BTreeSet<MacAddress> = macs.values().copied().collect();
    let without: BTreeSet<&DnsName> = drafts.iter().filter(|n| n.mac.is_none()).map(|n| &n.name).collect();
    for name in without {
        let mac = (0..).map(|attempt| derive(cluster, name, attempt)).find(|mac| !taken.contains(mac));
        let mac = mac.expect("2^24 addresses are more than nodes");
        taken.insert(mac);
        macs.insert(name.clone(), mac);
    }
    macs
}
