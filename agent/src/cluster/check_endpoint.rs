//! The part of the checks that concerns `[endpoint]`: who answers there, and with what on which port.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::assemble::{default_pods, default_services};
use super::check::{error, holder_of, is_host_of, node_at, node_named};
use super::read::{At, Draft, EndpointDraft};
use super::{API_PORT, STACKED_PROXY_PORT, STATS_PORT};
use crate::input::Findings;
use crate::role::types::*;
use crate::room;

/// Ports of a control plane besides the API server's: etcd, kubelet, kube-proxy, controllers, scheduler.
const CONTROL_PLANE_PORTS: [u16; 9] = [2379, 2380, 2381, 10248, 10249, 10250, 10256, 10257, 10259];

pub fn endpoint(draft: &Draft, subnet: Option<Ipv4Net>, findings: &Findings) {
    let Some(endpoint) = &draft.endpoint else { return };
    if let Some(vip) = &endpoint.vip {
        check_vip(draft, vip, subnet, findings);
    }
    let Some(by) = &endpoint.by else { return };
    if by.value == EndpointBy::External {
        check_external(draft, endpoint, findings);
    } else {
        check_own(draft, endpoint, by.value, findings);
    }
    check_load_balancers(draft, by, findings);
    check_port(endpoint, by.value, findings);
}

fn check_vip(draft: &Draft, vip: &At<Ipv4Addr>, subnet: Option<Ipv4Net>, findings: &Findings) {
    let ip = vip.value;
    if let Some(subnet) = subnet
        && !is_host_of(subnet, ip)
    {
        error(
            findings,
            vip,
            format!("{ip} is not an address of the nodes' subnet {subnet}"),
            "choose a free address of that subnet: a VIP is claimed by ARP",
        );
    }
    if let Some(node) = holder_of(draft, ip) {
        error(
            findings,
            vip,
            format!("{ip} is also {node}'s address"),
            "choose an address that nobody else has",
        );
    }
    if draft.network.as_ref().and_then(|n| n.gateway.as_ref()).is_some_and(|g| g.value == ip) {
        error(
            findings,
            vip,
            format!("{ip} is also the gateway's address"),
            "choose an address that nobody else has",
        );
    }
}

fn check_external(draft: &Draft, endpoint: &EndpointDraft, findings: &Findings) {
    if !endpoint.has_host {
        findings.error(
            "endpoint.host",
            endpoint.span.clone(),
            "missing: with by = \"external\" nobody but you knows where the API answers",
            "write the DNS name or the address; for a single control plane that node's address",
        );
    }
    if let Some(host) = &endpoint.host {
        check_leads_to_an_api_server(draft, host, endpoint.port.as_ref(), findings);
    }
    if let Some(vip) = &endpoint.vip {
        error(
            findings,
            vip,
            "with by = \"external\" no node of this cluster holds a VIP",
            "write the address as `host`, or choose by = \"stacked\" or \"load-balancer\"",
        );
    }
    if let Some(proxy) = &endpoint.proxy
        && proxy.value != ProxyKind::None
    {
        error(
            findings,
            proxy,
            format!("with by = \"external\" no node of this cluster runs {}", proxy.value),
            "leave it out",
        );
    }
    if let Some(vrrp) = &draft.vrrp {
        findings.error(
            "vrrp",
            vrrp.span.clone(),
            "with by = \"external\" no node of this cluster speaks VRRP",
            "leave [vrrp] out",
        );
    }
}

/// Somebody else's address may be anything but what can only be wrong: nothing but an API server answers on the cluster's own
/// machines, on its own port.
fn check_leads_to_an_api_server(
    draft: &Draft,
    host: &At<HostOrAddress>,
    port: Option<&At<u16>>,
    findings: &Findings,
) {
    let node = match &host.value {
        HostOrAddress::Name(name) => node_named(draft, name),
        HostOrAddress::Address(ip) => node_at(draft, *ip),
    };
    if let Some(node) = node {
        let is_control_plane = |role: &At<RoleName>| role.value == RoleName::ControlPlane;
        if !node.role.as_ref().is_none_or(is_control_plane) {
            error(
                findings,
                host,
                format!("is {}, where no API server runs", node.name),
                "write the address of the load balancer, or with a single control plane that node's",
            );
        } else if let Some(port) = port.filter(|port| port.value != API_PORT) {
            error(
                findings,
                port,
                format!("`host` is {} itself, whose API server listens on {API_PORT}", node.name),
                "leave it out",
            );
        }
        return;
    }
    let HostOrAddress::Address(ip) = host.value else { return };
    let inside =
        |net: Option<&At<Subnet>>, default: Subnet| net.map_or(default, |net| net.value).net().contains(&ip);
    let what = if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
        "is not the address of one other machine"
    } else if inside(draft.pods.as_ref(), default_pods()) {
        "is an address of the pods' network"
    } else if inside(draft.services.as_ref(), default_services()) {
        "is an address of the Services' network"
    } else {
        return;
    };
    error(
        findings,
        host,
        format!("{ip} {what}"),
        "write the address by which all nodes reach the load balancer",
    );
}

/// Checks of an endpoint that the cluster's own machines hold by a VIP.
fn check_own(draft: &Draft, endpoint: &EndpointDraft, by: EndpointBy, findings: &Findings) {
    if !endpoint.has_vip {
        findings.error(
            "endpoint.vip",
            endpoint.span.clone(),
            "missing",
            "write a free address of the nodes' subnet, or choose by = \"external\"",
        );
    }
    match (&endpoint.host, &endpoint.vip) {
        (Some(At { value: HostOrAddress::Address(address), key, span }), Some(vip))
            if *address != vip.value =>
        {
            findings.error(
                key,
                span.clone(),
                format!("{address} is not the VIP {}", vip.value),
                "write a DNS name, or leave `host` out: it is then the VIP",
            );
        }
        (Some(At { value: HostOrAddress::Name(name), key, span }), _)
            if node_named(draft, name).is_some() =>
        {
            findings.error(
                key,
                span.clone(),
                format!("{name} is also a node's name, and would mean that node's address"),
                "give the endpoint a name of its own, as in kubeapi.example.org",
            );
        }
        _ => {}
    }
    if let Some(proxy) = &endpoint.proxy
        && by == EndpointBy::LoadBalancer
        && proxy.value == ProxyKind::None
    {
        error(
            findings,
            proxy,
            "no API server runs on the load balancers, so the VIP would lead nowhere",
            "write \"haproxy\" or leave it out",
        );
    }
    if let Some(At { value: ProxyKind::Nginx, key, span }) = &endpoint.proxy {
        findings.warning(
            key,
            span.clone(),
            "nginx has no active checks: an API server that hangs is found only by connections that fail, and there is no page of figures",
            "write \"haproxy\" unless you have a reason",
        );
    }
}

fn check_load_balancers(draft: &Draft, by: &At<EndpointBy>, findings: &Findings) {
    let Some(nodes) = &draft.nodes else { return };
    let mut balancers =
        nodes.iter().filter_map(|n| n.role.as_ref()).filter(|r| r.value == RoleName::LoadBalancer);
    if by.value == EndpointBy::LoadBalancer {
        if balancers.next().is_none() && nodes.iter().all(|n| n.role.is_some()) {
            error(
                findings,
                by,
                "no node has role = \"load-balancer\", so nobody would hold the VIP",
                "add one (better two), or choose by = \"stacked\": the control planes then hold it",
            );
        }
        return;
    }
    for role in balancers {
        error(
            findings,
            role,
            "the endpoint is not held by load balancers, so this machine would have nothing to do",
            "write by = \"load-balancer\" in [endpoint], or leave this node out",
        );
    }
}

fn check_port(endpoint: &EndpointDraft, by: EndpointBy, findings: &Findings) {
    let Some(port) = &endpoint.port else { return };
    if by != EndpointBy::External && port.value == STATS_PORT {
        error(
            findings,
            port,
            format!("{STATS_PORT} is where the proxy says how it is"),
            "choose another port, 6443 for instance",
        );
        return;
    }
    if by != EndpointBy::Stacked {
        return;
    }
    let proxy = endpoint.proxy.as_ref().map_or(ProxyKind::None, |p| p.value);
    match (proxy, port.value) {
        (ProxyKind::Haproxy | ProxyKind::Nginx, room::PORT) => error(
            findings,
            port,
            format!("{} is where control planes tell one another whether they are new", room::PORT),
            format!("write {STACKED_PROXY_PORT} or leave it out"),
        ),
        (ProxyKind::Haproxy | ProxyKind::Nginx, API_PORT) => error(
            findings,
            port,
            format!("{proxy} and the API server cannot both listen on 6443 of one machine"),
            format!(
                "write {STACKED_PROXY_PORT} or leave it out; or write proxy = \"none\": the VIP then leads to the API server itself"
            ),
        ),
        (ProxyKind::Haproxy | ProxyKind::Nginx, taken)
            if CONTROL_PLANE_PORTS.contains(&taken) || (30_000..=32_767).contains(&taken) =>
        {
            error(
                findings,
                port,
                format!("{taken} is a port that Kubernetes uses on a control plane"),
                format!("write {STACKED_PROXY_PORT} or leave it out"),
            )
        }
        (ProxyKind::None, port_of_nobody) if port_of_nobody != API_PORT => error(
            findings,
            port,
            format!("without a proxy the VIP leads to the API server itself, and that listens on {API_PORT}"),
            format!("leave it out, or write proxy = \"haproxy\" to have {port_of_nobody}"),
        ),
        _ => {}
    }
}
