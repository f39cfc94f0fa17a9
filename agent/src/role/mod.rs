//! Role file -> node spec: what is read is checked as a whole, and the result is a new type, so that
//! nothing can be planned from a file that was not validated.

pub mod components;
pub mod etcd_version;
pub mod file;
mod moment;
mod read;
pub(crate) mod schema;
mod shared;
pub mod types;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::cluster::pki::Pair;
pub use file::{ControlPlane, Deadlines, Endpoint, Network, Proxy, Registry, RoleFile, Vrrp};
use types::*;

/// The oldest kubeadm whose behaviour is known.
pub const OLDEST_KUBERNETES: KubernetesVersion = KubernetesVersion { major: 1, minor: 32, patch: 0 };
/// The newest minor version whose kubeadm is known here.
pub const NEWEST_MINOR: u32 = 37;

/// A validated role file. Only [`NodeSpec::parse`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSpec {
    pub cluster: ClusterName,
    pub name: DnsName,
    pub network: Network,
    pub endpoint: Endpoint,
    pub hosts: BTreeMap<DnsName, Ipv4Addr>,
    pub deadlines: Deadlines,
    /// The cluster's CA certificate, PEM: every role verifies the API server with it.
    pub ca: String,
    pub role: Role,
    /// It has joined: its token is gone, and its keys are where kubeadm has them.
    pub scrubbed: bool,
}

/// A role carries what that role needs, and nothing more.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    ControlPlane(Box<ControlPlaneRole>),
    Worker(Box<Kubernetes>),
    LoadBalancer(Box<LoadBalancerRole>),
    Etcd(Box<EtcdRole>),
}

/// What every machine with a kubelet needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Kubernetes {
    pub version: KubernetesVersion,
    pub runtime: RuntimeName,
    pub pods: Subnet,
    pub services: Subnet,
    pub dns_domain: DnsName,
    pub image_repository: Option<String>,
    pub registries: Vec<Registry>,
    pub labels: BTreeMap<String, String>,
    /// `None` leaves kubeadm's default: control planes are tainted, workers are not.
    pub taints: Option<Vec<Taint>>,
    /// Add-ons of the cluster: without one that brings a pod network no Node becomes Ready.
    pub addons: Vec<String>,
    pub token: BootstrapToken,
    /// `None` where it lives for ever, or as long as the cluster that it forms says.
    pub token_expires: Option<Moment>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ControlPlaneRole {
    pub kubernetes: Kubernetes,
    pub first: bool,
    pub peers: Vec<Ipv4Addr>,
    pub cert_sans: Vec<HostOrAddress>,
    pub api_server_args: BTreeMap<String, String>,
    pub controller_manager_args: BTreeMap<String, String>,
    pub scheduler_args: BTreeMap<String, String>,
    /// Of the member on this machine; nothing where etcd is external.
    pub etcd_args: BTreeMap<String, String>,
    pub token_ttl_hours: u32,
    pub pki: ControlPlanePki,
    /// Where the VIP may live on this machine (`stacked`).
    pub vrrp: Option<Vrrp>,
    pub proxy: Option<Proxy>,
    /// The members of an external etcd cluster; `None` where etcd runs on the control planes.
    pub etcd: Option<BTreeMap<DnsName, Ipv4Addr>>,
}

/// The CAs and the service-account keys that all control planes share, PEM.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlPlanePki {
    pub ca_key: Secret,
    pub front_proxy_ca: String,
    pub front_proxy_ca_key: Secret,
    pub etcd_ca: String,
    pub etcd_ca_key: Secret,
    pub sa_public: String,
    pub sa_key: Secret,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancerRole {
    pub vrrp: Vrrp,
    pub proxy: Proxy,
}

/// A member of an external etcd cluster. It issues its own certificates, as kubeadm does for a local etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdRole {
    /// The version of the cluster that it serves: kubeadm of it takes no etcd that is too old.
    pub kubernetes: KubernetesVersion,
    /// All members, this one among them.
    pub members: BTreeMap<DnsName, Ipv4Addr>,
    /// Flags of this member that are the operator's own.
    pub args: BTreeMap<String, String>,
    pub ca: String,
    pub ca_key: Secret,
}

impl ControlPlanePki {
    /// etcd's CA.
    pub fn etcd_authority(&self) -> Pair {
        Pair { certificate: self.etcd_ca.clone(), key: self.etcd_ca_key.clone() }
    }
}

impl EtcdRole {
    /// etcd's CA.
    pub fn authority(&self) -> Pair {
        Pair { certificate: self.ca.clone(), key: self.ca_key.clone() }
    }
}

impl NodeSpec {
    /// The cluster's CA, on a machine that may sign by it.
    pub fn authority(&self, role: &ControlPlaneRole) -> Pair {
        Pair { certificate: self.ca.clone(), key: role.pki.ca_key.clone() }
    }

    pub fn role_name(&self) -> RoleName {
        match self.role {
            Role::ControlPlane(_) => RoleName::ControlPlane,
            Role::Worker(_) => RoleName::Worker,
            Role::LoadBalancer(_) => RoleName::LoadBalancer,
            Role::Etcd(_) => RoleName::Etcd,
        }
    }

    pub fn kubernetes(&self) -> Option<&Kubernetes> {
        match &self.role {
            Role::ControlPlane(role) => Some(&role.kubernetes),
            Role::Worker(role) => Some(role),
            Role::LoadBalancer(_) | Role::Etcd(_) => None,
        }
    }

    pub fn etcd(&self) -> Option<&EtcdRole> {
        match &self.role {
            Role::Etcd(role) => Some(role),
            _ => None,
        }
    }

    pub fn control_plane(&self) -> Option<&ControlPlaneRole> {
        match &self.role {
            Role::ControlPlane(role) => Some(role),
            _ => None,
        }
    }

    pub fn vrrp(&self) -> Option<&Vrrp> {
        match &self.role {
            Role::ControlPlane(role) => role.vrrp.as_ref(),
            Role::Worker(_) | Role::Etcd(_) => None,
            Role::LoadBalancer(role) => Some(&role.vrrp),
        }
    }

    pub fn proxy(&self) -> Option<&Proxy> {
        match &self.role {
            Role::ControlPlane(role) => role.proxy.as_ref(),
            Role::Worker(_) | Role::Etcd(_) => None,
            Role::LoadBalancer(role) => Some(&role.proxy),
        }
    }

    pub fn address(&self) -> Ipv4Addr {
        self.network.address.ip()
    }

    /// `host:port`, as kubeadm's `controlPlaneEndpoint` wants it.
    pub fn control_plane_endpoint(&self) -> String {
        format!("{}:{}", self.endpoint.host, self.endpoint.port)
    }

    /// `text` without anything that this node must keep to itself.
    pub fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let mut hide = |secret: &str| {
            if !secret.is_empty() {
                text = text.replace(secret, "***");
            }
        };
        if let Some(kubernetes) = self.kubernetes() {
            // The token's id is public.
            hide(&kubernetes.token.expose()[7..]);
            let passwords = kubernetes.registries.iter().flat_map(crate::runtime::password_texts);
            passwords.for_each(|text| hide(&text));
        }
        self.vrrp().into_iter().for_each(|v| hide(v.password.expose()));
        self.proxy().and_then(|p| p.stats_password.as_ref()).into_iter().for_each(|p| hide(p.expose()));
        while let Some(start) = text.find("PRIVATE KEY-----\n") {
            let from = start + "PRIVATE KEY-----".len();
            let to = text[from..].find("-----END").map_or(text.len(), |n| from + n);
            text.replace_range(from..to, " *** ");
        }
        text
    }
}
