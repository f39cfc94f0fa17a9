//! Asks everybody, each within a deadline.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Answers, Expected, Kubeconfig, PlaneAnswer, Reached, Token, VipAnswer, tls, vip};
use crate::cluster::{API_PORT, Cluster, end_of};
use crate::kube::{Credentials, Kube, KubeError, Server};
use crate::render::ETCD_CLIENT_PORT;
use crate::role::types::{EndpointBy, ProxyKind, RoleName, Secret};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Of a look that is not needed for the rest.
const SHORT: Duration = Duration::from_secs(3);
const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const TOKENS: &str =
    "/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken";
const KUBEADM: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";

/// The API must answer somewhere; all else becomes a part of the answers.
pub fn ask(config: &Kubeconfig, cluster: Option<&Cluster>) -> Result<Answers, KubeError> {
    let (kube, server, endpoint_error) = reach(config, cluster)?;
    let nodes = kube.get_json("/api/v1/nodes")?;
    let pods = kube.get_json(PODS)?;
    // Through a port of loopback, as `kindling up` gives one, the machines' own addresses are of a network that this
    // machine is not on: whoever answers there is somebody else.
    let forwarded = config.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let here = cluster.filter(|_| !forwarded);
    let planes = if forwarded { Vec::new() } else { planes(config, cluster, &nodes) };
    let readyz = kube.get("/readyz?verbose").map_err(|error| error.to_string());
    Ok(Answers {
        now: OffsetDateTime::now_utc(),
        server,
        endpoint_error,
        version: kube.get_json("/version")?,
        kubeadm: kube.find(KUBEADM)?,
        coredns: kube.find(crate::dns::DEPLOYMENT)?,
        dns_slices: kube.get_json(crate::dns::SLICES)?,
        tokens: tokens(&kube.get_json(TOKENS)?),
        readyz,
        ca: end_of(&config.ca),
        admin: end_of(&config.certificate),
        vip: here.and_then(|cluster| who_holds(config, cluster, &planes)),
        planes,
        forwarded,
        expected: cluster.map(expected).unwrap_or_default(),
        external_etcd: here.map(external_etcd).unwrap_or_default(),
        nodes,
        pods,
    })
}

/// The endpoint, or any control plane that answers in its place.
fn reach(
    config: &Kubeconfig,
    cluster: Option<&Cluster>,
) -> Result<(Kube, String, Option<String>), KubeError> {
    let credentials =
        || Credentials::Certificate(Secret::new(config.certificate.clone() + config.key.expose()));
    let mut servers: Vec<Server> = Vec::new();
    let mut failure = None;
    match endpoint(config, cluster) {
        Ok(list) => servers.extend(list),
        Err(error) => failure = Some(KubeError::Client(error)),
    }
    let of_endpoint = servers.len();
    let planes = cluster.into_iter().flat_map(|c| c.with_role(RoleName::ControlPlane));
    servers.extend(planes.map(|n| Server::at(&config.ca, n.address.ip(), API_PORT)));
    for (n, server) in servers.into_iter().enumerate() {
        let address = server.address.to_string();
        let kube = Kube::new(server, credentials(), TIMEOUT)?;
        match kube.get("/version") {
            Ok(_) => {
                let error = failure.filter(|_| n >= of_endpoint).map(|error| error.to_string());
                return Ok((kube, address, error));
            }
            // An answer that refuses is an answer: another server says the same.
            Err(error @ KubeError::Status { status: 401 | 403, .. }) => return Err(error),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| KubeError::Client(format!("{} has no address", config.host))))
}

fn endpoint(config: &Kubeconfig, cluster: Option<&Cluster>) -> Result<Vec<Server>, String> {
    let ca = config.ca.clone();
    if let Ok(ip) = config.host.parse::<IpAddr>() {
        let address = SocketAddr::new(ip, config.port);
        return Ok(vec![Server { ca, address, name: config.name.clone() }]);
    }
    let name = config.name.clone().unwrap_or_else(|| config.host.clone());
    // The workstation's resolver need not know the cluster's name.
    if let Some(vip) =
        cluster.filter(|c| c.endpoint.host.to_string() == config.host).and_then(|c| c.endpoint.vip)
    {
        let address = SocketAddr::from((vip.address, config.port));
        return Ok(vec![Server { ca, address, name: Some(name) }]);
    }
    let found = (config.host.as_str(), config.port).to_socket_addrs();
    let found =
        found.map_err(|error| format!("the endpoint's name {} is not known: {error}", config.host))?;
    Ok(found.map(|address| Server { ca: ca.clone(), address, name: Some(name.clone()) }).collect())
}

/// A TLS handshake with each API server, all at once.
fn planes(config: &Kubeconfig, cluster: Option<&Cluster>, nodes: &Value) -> Vec<PlaneAnswer> {
    let mut list: Vec<(String, Ipv4Addr)> = Vec::new();
    if let Some(cluster) = cluster {
        list.extend(cluster.with_role(RoleName::ControlPlane).map(|n| (n.name.to_string(), n.address.ip())));
    }
    for node in nodes["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        if super::planes::is_control_plane(node)
            && !list.iter().any(|(known, _)| known == name)
            && let Some(ip) = super::planes::address(node)
        {
            list.push((name.to_owned(), ip));
        }
    }
    std::thread::scope(|scope| {
        let ask = |ip: Ipv4Addr| {
            tls::certificate(&config.ca, SocketAddr::from((ip, API_PORT)), &ip.to_string(), SHORT)
        };
        let threads: Vec<_> = list.iter().map(|(name, ip)| (name, scope.spawn(move || ask(*ip)))).collect();
        let answer = |(name, thread): (&String, std::thread::ScopedJoinHandle<'_, _>)| {
            Some(PlaneAnswer { node: name.clone(), certificate: thread.join().ok()? })
        };
        threads.into_iter().filter_map(answer).collect()
    })
}

fn tokens(secrets: &Value) -> Vec<Token> {
    let text = |secret: &Value, key: &str| {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let items = secrets["items"].as_array().into_iter().flatten();
    let token = |secret: &Value| {
        let ends = text(secret, "expiration").and_then(|t| OffsetDateTime::parse(&t, &Rfc3339).ok());
        Some(Token { id: text(secret, "token-id")?, ends })
    };
    items.filter_map(token).collect()
}

fn who_holds(config: &Kubeconfig, cluster: &Cluster, planes: &[PlaneAnswer]) -> Option<VipAnswer> {
    let address = cluster.endpoint.vip?.address;
    let holders: Vec<_> = cluster.vip_holders().map(|n| (n.name.to_string(), n.address.ip())).collect();
    let mut all = vec![address];
    all.extend(holders.iter().map(|(_, ip)| *ip));
    let neighbours = vip::neighbours(&all);
    // Through a proxy any API server's certificate is seen.
    let direct = (cluster.endpoint.by == EndpointBy::Stacked && cluster.endpoint.proxy == ProxyKind::None)
        .then(|| {
            let at = SocketAddr::from((address, cluster.endpoint.port));
            tls::certificate(&config.ca, at, &address.to_string(), SHORT).ok()
        })
        .flatten();
    let holder = vip::holder(address, &holders, &neighbours, direct.as_ref(), planes);
    Some(VipAnswer { address: address.to_string(), holder })
}

fn expected(cluster: &Cluster) -> Vec<Expected> {
    let nodes = cluster.nodes.iter().filter(|n| n.role.runs_kubelet());
    nodes
        .map(|n| Expected { name: n.name.to_string(), control_plane: n.role == RoleName::ControlPlane })
        .collect()
}

/// Without a certificate of etcd's CA only whether somebody listens can be known.
fn external_etcd(cluster: &Cluster) -> Vec<Reached> {
    let members = cluster.with_role(RoleName::Etcd);
    let reach = |ip: Ipv4Addr| TcpStream::connect_timeout(&SocketAddr::from((ip, ETCD_CLIENT_PORT)), SHORT);
    members
        .map(|n| Reached {
            name: n.name.to_string(),
            error: reach(n.address.ip()).err().map(|error| error.to_string()),
        })
        .collect()
}
