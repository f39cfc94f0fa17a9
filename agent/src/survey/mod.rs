//! How a cluster fares, asked from the workstation (`kindling status --cluster`).
//!
//! [`ask`] collects the *answers*: of the API, of each control plane's TLS, of the neighbour table. [`judge`] makes the
//! *survey* of them, without any input or output, and [`show`] prints it.

mod access;
mod ask;
mod command;
mod dns;
mod judge;
mod planes;
mod show;
mod tls;
mod versions;
mod vip;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

pub use access::{Kubeconfig, field as kubeconfig_field};
pub use command::run;
pub use judge::judge;
pub use planes::{address as node_address, trouble as pod_trouble};
pub use tls::{Certificate, Refusal};

/// What was heard, as it was said.
#[derive(Debug, Clone)]
pub struct Answers {
    pub now: OffsetDateTime,
    /// Where the API was asked.
    pub server: String,
    /// Why the endpoint did not answer, where a control plane was asked in its place.
    pub endpoint_error: Option<String>,
    pub version: Value,
    pub nodes: Value,
    /// Of kube-system.
    pub pods: Value,
    /// kubeadm's ConfigMap.
    pub kubeadm: Option<Value>,
    /// The Deployment of cluster DNS.
    pub coredns: Option<Value>,
    /// The EndpointSlices of its Service.
    pub dns_slices: Value,
    /// Of each bootstrap token its id and its end, never its secret.
    pub tokens: Vec<Token>,
    /// `/readyz?verbose`, or why not.
    pub readyz: Result<String, String>,
    pub ca: Option<OffsetDateTime>,
    pub admin: Option<OffsetDateTime>,
    /// Asked through a port of this machine: nobody else of the cluster is reached from here.
    pub forwarded: bool,
    pub planes: Vec<PlaneAnswer>,
    pub vip: Option<VipAnswer>,
    /// Of the cluster file, where there is one.
    pub expected: Vec<Expected>,
    pub external_etcd: Vec<Reached>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub id: String,
    pub ends: Option<OffsetDateTime>,
}

/// A node of the cluster file that must be in the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    pub name: String,
    pub control_plane: bool,
}

/// What the API server of a control plane presents.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaneAnswer {
    pub node: String,
    pub certificate: Result<Certificate, Refusal>,
}

/// Whether somebody listens there.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    pub name: String,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VipAnswer {
    pub address: String,
    /// Who holds it and how that is known, or why it is not.
    pub holder: Result<(String, &'static str), String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    pub version: u32,
    pub server: String,
    /// No finding.
    pub well: bool,
    pub kubernetes: String,
    pub nodes: Vec<NodeRow>,
    pub control_planes: Vec<PlaneRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_etcd: Vec<EtcdRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<VipRow>,
    pub dns: DnsRow,
    pub certificates: Vec<CertificateRow>,
    pub findings: Vec<Finding>,
    /// What is no fault, and what could not be known from here.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct NodeRow {
    pub name: String,
    pub roles: Vec<String>,
    pub ready: bool,
    pub version: String,
    pub taints: Vec<String>,
    /// Conditions that should not be.
    pub pressure: Vec<String>,
    /// The version of the image that it runs, and the hash by which its kernel verifies it; as the node says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_hash: Option<String>,
}

/// The state of each static pod, "ok" or why not.
#[derive(Debug, Clone, Serialize)]
pub struct PlaneRow {
    pub node: String,
    pub apiserver: String,
    pub controller_manager: String,
    pub scheduler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct EtcdRow {
    pub name: String,
    pub state: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct VipRow {
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// How that is known, or why it is not.
    pub how: String,
}

/// Whether names are resolved in the cluster.
#[derive(Debug, Clone, Serialize)]
pub struct DnsRow {
    /// "ok", "disabled", or why not.
    pub state: String,
    /// Where its pods run.
    pub nodes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CertificateRow {
    pub what: String,
    /// Days since the epoch would help nobody: `2027-11-24`.
    pub ends: String,
    pub days: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub about: String,
    pub what: String,
    pub remedy: String,
}
