//! What spans several keys of a cluster file; makes the [`Cluster`] when nothing is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;

use super::Cluster;
use super::arguments::{NODE_MASK, node_mask};
use super::assemble::{assemble, default_pods, default_services};
use super::check_dns::servers;
use super::check_endpoint::endpoint;
use super::check_registries::registries;
use super::read::{At, Draft, NodeDraft};
use crate::input::Findings;
use crate::role::types::*;
use crate::role::{NEWEST_MINOR, OLDEST_KUBERNETES};

pub fn cluster(draft: Draft, findings: &Findings) -> Option<Cluster> {
    let subnet = draft.nodes.as_deref().and_then(common_subnet);
    check_version(&draft, findings);
    check_networks(&draft, subnet, findings);
    if let Some(nodes) = &draft.nodes {
        check_nodes(nodes, subnet, findings);
        check_roles(nodes, draft.nodes_span.clone(), findings);
    }
    check_gateway(&draft, subnet, findings);
    servers(&draft, findings);
    endpoint(&draft, subnet, findings);
    registries(&draft, findings);
    if findings.has_errors() { None } else { assemble(draft) }
}

pub fn error<T>(findings: &Findings, at: &At<T>, message: impl Into<String>, remedy: impl Into<String>) {
    findings.error(&at.key, at.span.clone(), message, remedy);
}

/// The subnet that most nodes are in.
fn common_subnet(nodes: &[NodeDraft]) -> Option<Ipv4Net> {
    let subnets: Vec<_> = nodes.iter().filter_map(|n| Some(n.address.as_ref()?.value.subnet())).collect();
    let count = |subnet: &Ipv4Net| subnets.iter().filter(|s| *s == subnet).count();
    // of equals the first of the file
    subnets.iter().rev().max_by_key(|s| count(s)).copied()
}

fn check_version(draft: &Draft, findings: &Findings) {
    let Some(version) = &draft.kubernetes else { return };
    if version.value < OLDEST_KUBERNETES {
        error(
            findings,
            version,
            format!("{} is older than {OLDEST_KUBERNETES}, the oldest that is supported", version.value),
            "choose a newer version and bake an image with it",
        );
    } else if version.value.minor > NEWEST_MINOR {
        findings.warning(
            &version.key,
            version.span.clone(),
            format!("{} is newer than v1.{NEWEST_MINOR}, the newest that this kindling knows", version.value),
            "use a newer kindling if there is one; this one treats it as the newest it knows",
        );
    }
}

fn check_networks(draft: &Draft, subnet: Option<Ipv4Net>, findings: &Findings) {
    let pods = draft.pods.as_ref();
    let services = draft.services.as_ref();
    let pods_net = pods.map_or_else(default_pods, |p| p.value);
    let services_net = services.map_or_else(default_services, |s| s.value);
    if pods_net.overlaps(services_net.net()) {
        // one of the two is in the file, or the defaults themselves would overlap
        if let Some(at) = services.or(pods) {
            error(
                findings,
                at,
                format!("pods ({pods_net}) and services ({services_net}) overlap"),
                "give each a network of its own, as in pods = \"10.244.0.0/16\" and services = \"10.96.0.0/12\"",
            );
        }
    }
    for (what, net, at) in [("pods", pods_net, pods), ("services", services_net, services)] {
        let Some(subnet) = subnet else { continue };
        if net.overlaps(subnet) {
            let key = at.map_or(what, |at| at.key.as_str());
            let span = at.map_or(0..0, |at| at.span.clone());
            findings.error(
                key,
                span,
                format!(
                    "{net}{} overlaps the nodes' own network {subnet}",
                    if at.is_none() { " (the default)" } else { "" }
                ),
                "choose a private network that is used nowhere else",
            );
        }
    }
    check_room(draft, pods_net, findings);
    if let Some(services) = services
        && !(12..=28).contains(&services_net.net().prefix_len())
    {
        error(
            findings,
            services,
            format!("{services_net} is not a size that Kubernetes takes for Services, /12 to /28"),
            "write a network as in 10.96.0.0/12",
        );
    }
}

/// kubeadm's PodSubnetNodeMaskMaxDiff: more parts than 2 to this are refused.
const MOST_PARTS: u8 = 16;
/// Ten addresses at least, and two that are nobody's.
const SMALLEST_PODS: u8 = 28;

/// The controller manager gives each node a part of the pods' network, a /24 if nothing else is said.
fn check_room(draft: &Draft, pods_net: Subnet, findings: &Findings) {
    let (key, span) = match &draft.pods {
        Some(pods) => (pods.key.as_str(), pods.span.clone()),
        None => ("pods", draft.nodes_span.clone()),
    };
    let default = if draft.pods.is_none() { " (the default)" } else { "" };
    let part = draft.controller_manager_args.as_ref().and_then(node_mask).unwrap_or(NODE_MASK);
    let prefix = pods_net.net().prefix_len();
    if part.saturating_sub(prefix) > MOST_PARTS {
        findings.error(
            key,
            span,
            format!("{pods_net}{default} is too large for parts of /{part}, of which each node gets one: kubeadm refuses it"),
            format!("choose a network of /{} to /{part}", part - MOST_PARTS),
        );
        return;
    }
    // kubeadm's MinimumAddressesInPodSubnet.
    if prefix > SMALLEST_PODS {
        findings.error(
            key,
            span,
            format!("{pods_net}{default} has fewer addresses than kubeadm takes for pods"),
            format!("choose a network of /{SMALLEST_PODS} or larger, as in 10.244.0.0/16"),
        );
        return;
    }
    let room = if prefix > part { 0 } else { 1_usize << (part - prefix) };
    let kubelets = draft.nodes.iter().flatten().filter(|n| runs_kubelet(n)).count();
    if kubelets > room {
        findings.error(
            key,
            span,
            format!(
                "each node gets a /{part}, so {pods_net}{default} has room for {room}, and there are {kubelets}"
            ),
            "choose a larger network, as in pods = \"10.128.0.0/9\", or smaller parts of it by node-cidr-mask-size-ipv4 in [controller_manager_args]",
        );
    }
}

fn runs_kubelet(node: &NodeDraft) -> bool {
    node.role.as_ref().is_none_or(|role| role.value.runs_kubelet())
}

fn check_nodes(nodes: &[NodeDraft], subnet: Option<Ipv4Net>, findings: &Findings) {
    let mut addresses: BTreeMap<Ipv4Addr, &DnsName> = BTreeMap::new();
    let mut macs: BTreeMap<MacAddress, &DnsName> = BTreeMap::new();
    for node in nodes {
        if let Some(address) = &node.address {
            let ip = address.value.ip();
            if let Some(other) = addresses.insert(ip, &node.name) {
                error(
                    findings,
                    address,
                    format!("{ip} is {other}'s address already"),
                    "give every node an address of its own",
                );
            }
            if let Some(subnet) = subnet
                && address.value.subnet() != subnet
            {
                error(
                    findings,
                    address,
                    format!("is in {}, the other nodes are in {subnet}", address.value.subnet()),
                    "put all nodes into one subnet: they share one gateway, and a VIP is claimed by ARP",
                );
            }
        }
        if let Some(mac) = &node.mac
            && let Some(other) = macs.insert(mac.value, &node.name)
        {
            error(
                findings,
                mac,
                format!("{} is {other}'s MAC address already", mac.value),
                "give every node a MAC address of its own, or none: it is then derived from the name",
            );
        }
        if let Some(taints) = &node.taints {
            let mut seen = BTreeSet::new();
            if let Some(second) = taints.value.iter().find(|taint| !seen.insert((&taint.key, &taint.effect)))
            {
                error(
                    findings,
                    taints,
                    format!(
                        "{} stands here with {} a second time: a kubelet with both does not start",
                        second.key, second.effect
                    ),
                    "keep one of the two: a node has one value for a key and an effect",
                );
            }
        }
        if runs_kubelet(node) {
            continue;
        }
        let who = match node.role.as_ref().map(|r| r.value) {
            Some(RoleName::Etcd) => "an etcd machine",
            _ => "a load balancer",
        };
        for (key, span, what) in [
            node.labels.as_ref().map(|l| (&l.key, &l.span, "labels")),
            node.taints.as_ref().map(|t| (&t.key, &t.span, "taints")),
        ]
        .into_iter()
        .flatten()
        {
            findings.error(
                key,
                span.clone(),
                format!("{who} is no Node of the cluster, so it has no {what}"),
                "leave it out",
            );
        }
    }
}

fn check_roles(nodes: &[NodeDraft], nodes_span: Range<usize>, findings: &Findings) {
    let is = |node: &&NodeDraft, role| node.role.as_ref().is_some_and(|r| r.value == role);
    for node in nodes {
        if let (Some(first), Some(role)) = (&node.first, &node.role)
            && first.value
            && role.value != RoleName::ControlPlane
        {
            error(
                findings,
                first,
                match role.value {
                    RoleName::Etcd => "an etcd machine cannot be the first control plane".to_owned(),
                    other => format!("a {other} cannot be the first control plane"),
                },
                "leave it out here",
            );
        }
    }
    if nodes.iter().any(|n| n.role.is_none()) {
        return;
    }
    let control_planes: Vec<_> = nodes.iter().filter(|n| is(n, RoleName::ControlPlane)).collect();
    let Some(one) = control_planes.first() else {
        let span = nodes.first().map_or(nodes_span, |n| n.span.clone());
        findings.error(
            "nodes",
            span,
            "there is no control plane",
            "give one node (better three) role = \"control-plane\"",
        );
        return;
    };
    let said = |n: &&&NodeDraft, value| n.first.as_ref().is_some_and(|f| f.value == value);
    let leader = control_planes.iter().find(|n| said(n, true));
    for node in control_planes.iter().filter(|n| said(n, true)).skip(1) {
        if let Some(first) = &node.first {
            error(
                findings,
                first,
                format!(
                    "{} is the first control plane already, and each of the two would make a cluster of its own",
                    leader.map_or("another node", |n| n.name.as_str())
                ),
                "keep first = true on one of them",
            );
        }
    }
    if control_planes.iter().all(|n| said(&n, false)) {
        findings.error(
            &format!("{}.first", one.key),
            one.first.as_ref().map_or(one.span.clone(), |f| f.span.clone()),
            "every control plane has first = false, so none would make the cluster",
            "write first = true on one of them, or leave the key out: the first of the file is taken",
        );
    }
    let etcds: Vec<_> = nodes.iter().filter(|n| is(n, RoleName::Etcd)).collect();
    check_etcd(&etcds, findings);
    // With an external etcd control planes keep no state, and two are as good as two.
    if control_planes.len() % 2 == 0 && etcds.is_empty() {
        findings.warning(
            "nodes",
            control_planes[control_planes.len() - 1].span.clone(),
            format!(
                "{} control planes survive no more failures than {}: etcd needs a majority",
                control_planes.len(),
                control_planes.len() - 1
            ),
            "have an odd number of control planes: 1, 3 or 5",
        );
    }
}

/// More than seven make every write slower and no failure likelier to be survived
/// (<https://etcd.io/docs/v3.5/faq/#what-is-maximum-cluster-size>).
const MOST_ETCDS: usize = 7;

fn check_etcd(nodes: &[&NodeDraft], findings: &Findings) {
    let Some(last) = nodes.last() else { return };
    let role = |node: &NodeDraft| node.role.as_ref().map_or(node.span.clone(), |r| r.span.clone());
    if let Some(excess) = nodes.get(MOST_ETCDS) {
        findings.error(
            &format!("{}.role", excess.key),
            role(excess),
            format!(
                "{} etcd machines: more than {MOST_ETCDS} only slow every write down, as a majority must have it",
                nodes.len()
            ),
            "have 3 or 5 etcd machines",
        );
    } else if nodes.len().is_multiple_of(2) {
        findings.warning(
            "nodes",
            last.span.clone(),
            format!(
                "{} etcd machines survive no more failures than {}: etcd needs a majority",
                nodes.len(),
                nodes.len() - 1
            ),
            "have an odd number of etcd machines: 1, 3, 5 or 7",
        );
    }
}

fn check_gateway(draft: &Draft, subnet: Option<Ipv4Net>, findings: &Findings) {
    let Some(gateway) = draft.network.as_ref().and_then(|n| n.gateway.as_ref()) else { return };
    let ip = gateway.value;
    if let Some(subnet) = subnet
        && !is_host_of(subnet, ip)
    {
        error(
            findings,
            gateway,
            format!("{ip} is not an address of the nodes' subnet {subnet}"),
            "write the router of that subnet",
        );
    }
    if let Some(node) = holder_of(draft, ip) {
        error(
            findings,
            gateway,
            format!("{ip} is also {node}'s address"),
            "write the address of the router, or give the node another one",
        );
    }
}

/// Whether `ip` is in `subnet` and neither the subnet's own nor its broadcast address.
pub fn is_host_of(subnet: Ipv4Net, ip: Ipv4Addr) -> bool {
    subnet.contains(&ip)
        && (subnet.prefix_len() >= 31 || (ip != subnet.network() && ip != subnet.broadcast()))
}

pub fn node_at(draft: &Draft, ip: Ipv4Addr) -> Option<&NodeDraft> {
    draft.nodes.iter().flatten().find(|n| n.address.as_ref().is_some_and(|a| a.value.ip() == ip))
}

pub fn node_named<'a>(draft: &'a Draft, name: &DnsName) -> Option<&'a NodeDraft> {
    draft.nodes.iter().flatten().find(|n| n.name == *name)
}

pub fn holder_of(draft: &Draft, ip: Ipv4Addr) -> Option<&DnsName> {
    node_at(draft, ip).map(|n| &n.name)
}
