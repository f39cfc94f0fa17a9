//! Cluster and secrets -> a role file and a seed for every node, and the administrator's kubeconfig.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::file::{self, FileError};
use super::seed::Seed;
use super::{Cluster, NoSuchNode, Node, STATS_PORT, Secrets, kubeconfig};
use crate::role::file as role;
use crate::role::types::*;

#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    NoSuchNode(#[from] NoSuchNode),
    #[error("cannot make the seed disk of {node}: {source}")]
    Disk { node: DnsName, source: std::io::Error },
    #[error(
        "guestinfo.{key} of {node} would have {length} bytes, and VMware's tools take 64 KiB\n  remedy: \
         leave labels, registries or CA certificates out, or boot this node with its seed.img as a second disk"
    )]
    TooLong { node: DnsName, key: &'static str, length: usize },
    #[error(transparent)]
    File(#[from] FileError),
}

/// A file that was rendered, and whether its text differs from what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    pub changed: bool,
}

/// One file to be written below the output folder.
pub struct Output {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// Renders in memory: the node's files, or all nodes' and `admin.conf`.
pub fn outputs(cluster: &Cluster, secrets: &Secrets, only: Option<&str>) -> Result<Vec<Output>, RenderError> {
    let mut outputs = Vec::new();
    if only.is_none() {
        let text = kubeconfig(cluster, secrets);
        outputs.push(Output { path: "admin.conf".into(), bytes: text.expose().as_bytes().to_vec() });
    }
    if let Some(name) = only {
        cluster.named(name)?;
    }
    for node in cluster.nodes.iter().filter(|n| only.is_none_or(|name| n.name.as_str() == name)) {
        let seed = Seed::new(cluster, node, &role_file(cluster, secrets, node));
        let folder = PathBuf::from(node.name.as_str());
        let disk = seed.disk().map_err(|source| RenderError::Disk { node: node.name.clone(), source })?;
        for (name, bytes) in [
            ("role.toml", seed.role.expose().as_bytes().to_vec()),
            ("user-data", seed.user_data.expose().as_bytes().to_vec()),
            ("meta-data", seed.meta_data.into_bytes()),
            ("network-config", seed.network_config.into_bytes()),
            ("seed.img", disk),
        ] {
            outputs.push(Output { path: folder.join(name), bytes });
        }
    }
    Ok(outputs)
}

/// Writes what [`outputs`] renders below `folder`: folders 0700, files 0600, each file atomically, and
/// nothing before everything was rendered. Files that are not of this render are left alone.
pub fn all(
    cluster: &Cluster,
    secrets: &Secrets,
    folder: &Path,
    only: Option<&str>,
) -> Result<Vec<Written>, RenderError> {
    let outputs = outputs(cluster, secrets, only)?;
    let mut written = Vec::new();
    file::make_private_folder(folder)?;
    for Output { path, bytes } in outputs {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            file::make_private_folder(parent)?;
        }
        let changed = file::write(&path, &bytes, 0o600)?;
        written.push(Written { path, changed });
    }
    Ok(written)
}

/// What one node may know, and nothing more.
pub fn role_file(cluster: &Cluster, secrets: &Secrets, node: &Node) -> role::RoleFile {
    let runs_kubelet = node.role.runs_kubelet();
    let etcd = etcd(cluster, node.role);
    role::RoleFile {
        version: role::VERSION,
        cluster: cluster.name.clone(),
        name: node.name.clone(),
        role: node.role,
        scrubbed: false,
        kubernetes: cluster.kubernetes,
        runtime: cluster.runtime,
        pods: cluster.pods,
        services: cluster.services,
        dns_domain: cluster.dns_domain.clone(),
        image_repository: cluster.image_repository.clone(),
        addons: cluster.addons.clone(),
        network: role::Network {
            address: node.address,
            ntp: cluster.network.ntp.clone(),
            timezone: cluster.network.timezone.clone(),
        },
        endpoint: role::Endpoint {
            host: cluster.endpoint.host.clone(),
            port: cluster.endpoint.port,
            vip: cluster.endpoint.vip.map(|vip| vip.address),
            by: cluster.endpoint.by,
        },
        hosts: cluster.nodes.iter().map(|n| (n.name.clone(), n.address.ip())).collect(),
        deadlines: cluster.deadlines,
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        registries: if runs_kubelet { registries(cluster, secrets) } else { Vec::new() },
        vrrp: vrrp(cluster, secrets, node),
        proxy: proxy(cluster, secrets, node),
        control_plane: (node.role == RoleName::ControlPlane).then(|| role::ControlPlane {
            first: node.first,
            peers: addresses(cluster.with_role(RoleName::ControlPlane), node),
            cert_sans: cluster.cert_sans.clone(),
            api_server_args: cluster.api_server_args.clone(),
            controller_manager_args: cluster.controller_manager_args.clone(),
            scheduler_args: cluster.scheduler_args.clone(),
            etcd_args: if etcd.is_none() { cluster.etcd_args.clone() } else { BTreeMap::new() },
            token_ttl_hours: cluster.token_ttl_hours,
        }),
        etcd,
        token: runs_kubelet.then(|| secrets.token.clone()),
        token_expires: secrets.token_expires(cluster).filter(|_| runs_kubelet).map(Moment),
        pki: pki(secrets, node.role),
    }
}

/// The addresses of all `nodes` but `node` itself.
fn addresses<'n>(nodes: impl Iterator<Item = &'n Node>, node: &Node) -> Vec<Ipv4Addr> {
    nodes.filter(|n| n.name != node.name).map(|n| n.address.ip()).collect()
}

fn registries(cluster: &Cluster, secrets: &Secrets) -> Vec<role::Registry> {
    let with_password = |registry: &role::Registry| {
        let password =
            registry.username.as_ref().and_then(|_| secrets.registries.get(&registry.host).cloned());
        role::Registry { password, ..registry.clone() }
    };
    cluster.registries.iter().map(with_password).collect()
}

/// Only for a machine that may hold the VIP. Priorities fall from 100 in the order of the file, so that
/// two healthy machines never tie.
fn vrrp(cluster: &Cluster, secrets: &Secrets, node: &Node) -> Option<role::Vrrp> {
    let vip = cluster.endpoint.vip?;
    let place = cluster.vip_holders().position(|holder| holder.name == node.name)?;
    Some(role::Vrrp {
        vrid: vip.vrid,
        priority: 100_u8.saturating_sub(u8::try_from(place).unwrap_or(u8::MAX)).max(1),
        peers: addresses(cluster.vip_holders(), node),
        advert_ms: vip.advert_ms,
        password: secrets.vrrp_password.clone(),
    })
}

/// Only for a machine that runs a proxy: those that hold the VIP.
fn proxy(cluster: &Cluster, secrets: &Secrets, node: &Node) -> Option<role::Proxy> {
    if cluster.endpoint.proxy == ProxyKind::None || !cluster.vip_holders().any(|h| h.name == node.name) {
        return None;
    }
    let servers: BTreeMap<_, _> =
        cluster.with_role(RoleName::ControlPlane).map(|n| (n.name.clone(), n.address.ip())).collect();
    Some(role::Proxy {
        kind: cluster.endpoint.proxy,
        servers,
        stats_port: STATS_PORT,
        stats_password: (cluster.endpoint.proxy == ProxyKind::Haproxy)
            .then(|| secrets.stats_password.clone()),
    })
}

/// Only for those that form an external etcd cluster, and those that use it.
fn etcd(cluster: &Cluster, role: RoleName) -> Option<role::Etcd> {
    let members: BTreeMap<_, _> =
        cluster.with_role(RoleName::Etcd).map(|n| (n.name.clone(), n.address.ip())).collect();
    let concerned = matches!(role, RoleName::Etcd | RoleName::ControlPlane);
    (concerned && !members.is_empty()).then(|| role::Etcd {
        members,
        args: if role == RoleName::Etcd { cluster.etcd_args.clone() } else { BTreeMap::new() },
    })
}

/// Keys are for control planes, and etcd's for its own machines.
fn pki(secrets: &Secrets, role: RoleName) -> role::Pki {
    let control_plane = role == RoleName::ControlPlane;
    let etcd = control_plane || role == RoleName::Etcd;
    let text = |pem: &String| control_plane.then(|| pem.clone());
    let secret = |pem: &Secret| control_plane.then(|| pem.clone());
    role::Pki {
        ca: secrets.ca.certificate.clone(),
        ca_key: secret(&secrets.ca.key),
        front_proxy_ca: text(&secrets.front_proxy_ca.certificate),
        front_proxy_ca_key: secret(&secrets.front_proxy_ca.key),
        etcd_ca: etcd.then(|| secrets.etcd_ca.certificate.clone()),
        etcd_ca_key: etcd.then(|| secrets.etcd_ca.key.clone()),
        sa_public: text(&secrets.service_account.public),
        sa_key: secret(&secrets.service_account.key),
    }
}
