//! The operator's side: cluster file and secrets in, one role file and one seed per node out.
//!
//! A [`Cluster`] comes only from [`Cluster::parse`], so whoever holds one holds a validated one. What is
//! rendered from it is a function of the two files alone: the same inputs give the same bytes.

mod arguments;
mod assemble;
mod check;
mod check_dns;
mod check_endpoint;
mod check_registries;
mod derive;
mod draft;
mod file;
pub mod hypervisor;
mod kubeconfig;
mod labels;
pub mod new;
pub mod pki;
pub mod placement;
mod read;
pub mod render;
pub mod sealed;
mod secrets;
pub mod seed;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::input::{Report, Source};
use crate::role::file::{Deadlines, Registry};
use crate::role::types::*;
use crate::suggest;

pub use derive::{default_mac, default_vrid, vmware_mac};
pub(crate) use draft::Draft;
pub use file::FileError;
pub use kubeconfig::kubeconfig;
pub use pki::{KeyPairPem, Leaf, Pair, PkiError, end_of, issue, outdated};
pub use sealed::SecretsFile;
pub use secrets::{Expired, Secrets, new_token};

pub use crate::render::API_PORT;
/// Where the proxy listens on a control plane, whose 6443 is the API server's.
pub const STACKED_PROXY_PORT: u16 = 8443;
/// haproxy's page of figures, and where any proxy says that it lives.
pub const STATS_PORT: u16 = 8888;

/// A validated cluster file.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: ClusterName,
    pub kubernetes: KubernetesVersion,
    pub runtime: RuntimeName,
    pub pods: Subnet,
    pub services: Subnet,
    pub dns_domain: DnsName,
    /// kubeadm's own default where `None`.
    pub image_repository: Option<String>,
    /// Applied by the first control plane, in this order.
    pub addons: Vec<String>,
    /// 0 means for ever.
    pub token_ttl_hours: u32,
    pub cert_sans: Vec<HostOrAddress>,
    /// Flags of the API server, without their dashes, beside those that kubeadm gives it.
    pub api_server_args: BTreeMap<String, String>,
    pub controller_manager_args: BTreeMap<String, String>,
    pub scheduler_args: BTreeMap<String, String>,
    /// The same of every etcd member.
    pub etcd_args: BTreeMap<String, String>,
    pub endpoint: Endpoint,
    pub network: Network,
    pub deadlines: Deadlines,
    /// Without passwords: those are in the secrets.
    pub registries: Vec<Registry>,
    pub vsphere: Option<placement::Vsphere>,
    pub libvirt: Option<placement::Libvirt>,
    /// In the order of the file.
    pub nodes: Vec<Node>,
    _validated: Validated,
}

/// Keeps the struct literal to this module, so that a [`Cluster`] is always a validated one.
#[derive(Debug, Clone)]
struct Validated;

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub host: HostOrAddress,
    pub port: u16,
    pub by: EndpointBy,
    /// Present unless `by` is `external`.
    pub vip: Option<Vip>,
    pub proxy: ProxyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vip {
    pub address: Ipv4Addr,
    pub vrid: Vrid,
    /// Time between two VRRP advertisements, in milliseconds.
    pub advert_ms: u32,
}

#[derive(Debug, Clone)]
pub struct Network {
    pub gateway: Ipv4Addr,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<HostOrAddress>,
    pub timezone: Option<String>,
    /// Name of the link to configure; the node's MAC address says which one where `None`.
    pub interface: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub name: DnsName,
    pub role: RoleName,
    pub address: HostAddress,
    /// As in the file, or derived from the cluster's and the node's name.
    pub mac: MacAddress,
    /// The designated first control plane, exactly one in a cluster.
    pub first: bool,
    pub labels: BTreeMap<String, String>,
    /// `None` leaves kubeadm's default.
    pub taints: Option<Vec<Taint>>,
}

/// A name that is no node's.
#[derive(Debug, thiserror::Error)]
#[error("the cluster has no node `{name}`\n  remedy: {remedy}")]
pub struct NoSuchNode {
    name: String,
    remedy: String,
}

/// Reads and validates a cluster file. The report holds the warnings, or on failure every mistake.
pub fn load(path: &Path) -> Result<(Cluster, Report), Report> {
    Cluster::parse(file::read(path, "make one with `kindling new`, or name it with --cluster")?)
}

impl Cluster {
    pub fn parse(source: Source) -> Result<(Self, Report), Report> {
        read::parse(source)
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }

    /// As [`Cluster::node`], for a name that somebody typed.
    pub fn named(&self, name: &str) -> Result<&Node, NoSuchNode> {
        self.node(name).ok_or_else(|| NoSuchNode {
            name: name.to_owned(),
            remedy: suggest::choose(name, self.nodes.iter().map(|node| node.name.as_str())),
        })
    }

    pub fn with_role(&self, role: RoleName) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    /// The machines that may hold the VIP, in the order of their priority.
    pub fn vip_holders(&self) -> impl Iterator<Item = &Node> {
        let holder = match self.endpoint.by {
            EndpointBy::LoadBalancer => Some(RoleName::LoadBalancer),
            EndpointBy::Stacked => Some(RoleName::ControlPlane),
            EndpointBy::External => None,
        };
        self.nodes.iter().filter(move |node| Some(node.role) == holder)
    }

    /// `https://host:port` of the endpoint.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.endpoint.host, self.endpoint.port)
    }
}
