//! The role file as it is written and read: what one node may know, and nothing more.
//!
//! `kindling render` serializes a [`RoleFile`], the agent reads one. The reader goes through
//! [`crate::input`] so that all mistakes are reported at once; the round trip is tested.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Serialize;

pub use super::shared::{Deadlines, LONGEST_DEADLINE, Registry};
use super::shared::{read_deadlines, read_registry};
use super::types::*;
use crate::input::{Report, Section, Source};

/// The newest role file version this binary reads and the one it writes.
pub const VERSION: i64 = 1;

/// What to do about a role file that is wrong: nobody should mend it by hand.
const RENDER: &str = "the role file is written by `kindling render`: mend cluster.toml and render it again";

/// What one machine may know of its cluster. `kindling render` writes it, the agent reads it; it holds secrets.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Kindling's role file", deny_unknown_fields)]
pub struct RoleFile {
    /// The version of this file's format.
    #[schemars(range(min = 1, max = VERSION))]
    pub version: i64,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This machine's host name, and its Node's.
    pub name: DnsName,
    /// What this machine is for.
    pub role: RoleName,
    /// The machine has joined, and the agent took out what it needs no more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub scrubbed: bool,
    /// The version of kubeadm and the kubelet in the image.
    pub kubernetes: KubernetesVersion,
    /// What runs the containers.
    pub runtime: RuntimeName,
    /// The pods' network.
    pub pods: Subnet,
    /// The network of the Services' addresses.
    pub services: Subnet,
    /// The DNS domain of the Services.
    pub dns_domain: DnsName,
    /// Where kubeadm takes its images from; kubeadm's own default where missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Names of the add-ons that the first control plane applies.
    #[schemars(default)]
    pub addons: Vec<String>,
    /// This machine in its network.
    pub network: Network,
    /// Where the API answers.
    pub endpoint: Endpoint,
    /// Every node of the cluster, for /etc/hosts.
    pub hosts: BTreeMap<DnsName, Ipv4Addr>,
    /// How long to wait.
    #[schemars(default)]
    pub deadlines: Deadlines,
    /// Labels of the Node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node; kubeadm's where missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taints: Option<Vec<Taint>>,
    /// Registries that need more than their name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub registries: Vec<Registry>,
    /// Present where the VIP may live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<Vrrp>,
    /// Present where haproxy or nginx runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Present on control planes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// Present on members of an external etcd cluster, and on control planes that use one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// Control planes and workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<BootstrapToken>,
    /// When the token ends, for the message where it is not known any more; the cluster itself counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<Moment>,
    /// Keys and certificates.
    pub pki: Pki,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Network {
    /// The address with its prefix.
    pub address: HostAddress,
    /// Time servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub ntp: Vec<HostOrAddress>,
    /// A name of tzdata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Endpoint {
    /// The name or address in the API server's certificate.
    pub host: HostOrAddress,
    /// Its TCP port.
    pub port: u16,
    /// The virtual address, where the cluster holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<Ipv4Addr>,
    /// Who answers there.
    pub by: EndpointBy,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Vrrp {
    /// The virtual router's identifier.
    pub vrid: Vrid,
    /// 1-254; the highest of those whose check passes holds the VIP.
    pub priority: u8,
    /// The addresses of the other machines that may hold the VIP.
    pub peers: Vec<Ipv4Addr>,
    /// Time between two advertisements, in milliseconds.
    pub advert_ms: u32,
    /// keepalived's password.
    pub password: Secret,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Proxy {
    /// Which proxy.
    pub kind: ProxyKind,
    /// The API servers behind it.
    pub servers: BTreeMap<DnsName, Ipv4Addr>,
    /// haproxy's page of figures; in any case where the proxy says that it lives.
    pub stats_port: u16,
    /// haproxy's alone: nginx has no page of figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ControlPlane {
    /// The designated first one may init once; all others join.
    pub first: bool,
    /// The addresses of the other control planes.
    pub peers: Vec<Ipv4Addr>,
    /// Further names and addresses for the API server's certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub cert_sans: Vec<HostOrAddress>,
    /// Life of the bootstrap token from init on, in hours; 0 means for ever.
    pub token_ttl_hours: u32,
    /// Flags of the API server, without their dashes, beside those that kubeadm gives it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub api_server_args: BTreeMap<String, String>,
    /// The same of the controller manager.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub controller_manager_args: BTreeMap<String, String>,
    /// The same of the scheduler.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub scheduler_args: BTreeMap<String, String>,
    /// Flags of the etcd member that kubeadm makes on this machine, without their dashes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub etcd_args: BTreeMap<String, String>,
}

/// An external etcd cluster.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Etcd {
    /// All members, by name.
    pub members: BTreeMap<DnsName, Ipv4Addr>,
    /// Flags of the member on this machine, without their dashes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub args: BTreeMap<String, String>,
}

/// PEM texts. A worker has only `ca`, a load balancer too (for its health checks); a member of an external
/// etcd cluster has etcd's CA besides.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pki {
    /// The cluster's CA.
    pub ca: String,
    /// The cluster's CA's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_key: Option<Secret>,
    /// The CA of the API server's aggregation layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca: Option<String>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca_key: Option<Secret>,
    /// etcd's CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_ca: Option<String>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_ca_key: Option<Secret>,
    /// The public key that service-account tokens are verified with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa_public: Option<String>,
    /// The key that signs them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa_key: Option<Secret>,
}

impl RoleFile {
    /// The text that [`RoleFile::parse`] reads back.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("a role file has only types that TOML knows");
        format!("# Written by `kindling render`. It holds secrets: keep it 0600.\n{body}")
    }

    /// What a machine that has joined needs. A control plane's keys are in /etc/kubernetes/pki, except etcd's CA where
    /// etcd runs on machines of its own: those who issue certificates by it have it here alone. VRRP version 3 has no
    /// password; haproxy's page and registries still ask for theirs.
    pub fn scrub(self) -> Self {
        let keeps_etcd_key = self.etcd.is_some();
        Self {
            scrubbed: true,
            token: None,
            token_expires: None,
            vrrp: self.vrrp.map(|vrrp| Vrrp { password: Secret::new("scrubbed"), ..vrrp }),
            pki: Pki {
                ca_key: None,
                front_proxy_ca_key: None,
                sa_key: None,
                etcd_ca_key: self.pki.etcd_ca_key.filter(|_| keeps_etcd_key),
                ..self.pki
            },
            ..self
        }
    }

    pub fn parse(source: Source) -> Result<(Self, Report), Report> {
        crate::input::read(source, read)
    }
}

fn read(root: &mut Section<'_, '_>) -> Option<RoleFile> {
    let version: Option<i64> = root.required("version", RENDER);
    match version {
        Some(version) if version > VERSION => {
            root.error(
                "version",
                format!("this role file has version {version}, this agent reads up to {VERSION}"),
                "bake the image with a newer Kindling, or render the seed with the one that is in the image",
            );
        }
        Some(version) if version < 1 => root.error("version", "versions start at 1", RENDER),
        _ => {}
    }
    let cluster = root.required("cluster", RENDER);
    let name = root.required("name", RENDER);
    let role = root.required("role", RENDER);
    let scrubbed = root.optional("scrubbed", RENDER);
    let kubernetes = root.required("kubernetes", RENDER);
    let runtime = root.required("runtime", RENDER);
    let pods = root.required("pods", RENDER);
    let services = root.required("services", RENDER);
    let dns_domain = root.required("dns_domain", RENDER);
    let image_repository = root.optional("image_repository", RENDER);
    let addons = root.optional("addons", RENDER);
    let network = root.required_section("network", RENDER).and_then(read_network);
    let endpoint = root.required_section("endpoint", RENDER).and_then(read_endpoint);
    let hosts = root.required("hosts", RENDER);
    let deadlines = match root.section("deadlines") {
        Some(section) => read_deadlines(section),
        None => Some(Deadlines::default()),
    };
    let labels = root.optional("labels", RENDER);
    let taints = root.optional("taints", RENDER);
    let registries = root.sections("registries").into_iter().map(read_registry).collect::<Option<Vec<_>>>();
    let vrrp = root.section("vrrp").map(read_vrrp);
    let proxy = root.section("proxy").map(read_proxy);
    let control_plane = root.section("control_plane").map(read_control_plane);
    let etcd = root.section("etcd").map(read_etcd);
    let token = root.optional_secret("token", RENDER);
    let token_expires = root.optional("token_expires", RENDER);
    let pki = root.required_section("pki", RENDER).and_then(read_pki);
    Some(RoleFile {
        version: version?,
        cluster: cluster?,
        name: name?,
        role: role?,
        scrubbed: scrubbed.unwrap_or_default(),
        kubernetes: kubernetes?,
        runtime: runtime?,
        pods: pods?,
        services: services?,
        dns_domain: dns_domain?,
        image_repository,
        addons: addons.unwrap_or_default(),
        network: network?,
        endpoint: endpoint?,
        hosts: hosts?,
        deadlines: deadlines?,
        labels: labels.unwrap_or_default(),
        taints,
        registries: registries?,
        vrrp: flip(vrrp)?,
        proxy: flip(proxy)?,
        control_plane: flip(control_plane)?,
        etcd: flip(etcd)?,
        token,
        token_expires,
        pki: pki?,
    })
}

/// A table that is there but wrong makes the whole file wrong; one that is missing does not.
fn flip<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(inner) => inner.map(Some),
    }
}

fn read_network(mut s: Section<'_, '_>) -> Option<Network> {
    let address = s.required("address", RENDER);
    let ntp = s.optional("ntp", RENDER);
    let timezone = s.optional("timezone", RENDER);
    s.finish();
    Some(Network { address: address?, ntp: ntp.unwrap_or_default(), timezone })
}

fn read_endpoint(mut s: Section<'_, '_>) -> Option<Endpoint> {
    let host = s.required("host", RENDER);
    let port = s.required("port", RENDER);
    let vip = s.optional("vip", RENDER);
    let by = s.required("by", RENDER);
    s.finish();
    Some(Endpoint { host: host?, port: port?, vip, by: by? })
}

fn read_vrrp(mut s: Section<'_, '_>) -> Option<Vrrp> {
    let vrid = s.required("vrid", RENDER);
    let priority = s.required("priority", RENDER);
    let peers = s.required("peers", RENDER);
    let advert_ms = s.required("advert_ms", RENDER);
    let password = s.required_secret("password", RENDER);
    s.finish();
    Some(Vrrp { vrid: vrid?, priority: priority?, peers: peers?, advert_ms: advert_ms?, password: password? })
}

fn read_proxy(mut s: Section<'_, '_>) -> Option<Proxy> {
    let kind = s.required("kind", RENDER);
    let servers = s.required("servers", RENDER);
    let stats_port = s.required("stats_port", RENDER);
    let stats_password: Option<Secret> = if kind == Some(ProxyKind::Haproxy) {
        s.required_secret("stats_password", RENDER)
    } else {
        s.optional_secret("stats_password", RENDER)
    };
    s.finish();
    Some(Proxy { kind: kind?, servers: servers?, stats_port: stats_port?, stats_password })
}

fn read_control_plane(mut s: Section<'_, '_>) -> Option<ControlPlane> {
    let first = s.required("first", RENDER);
    let peers = s.required("peers", RENDER);
    let cert_sans = s.optional("cert_sans", RENDER);
    let api_server_args = s.optional("api_server_args", RENDER);
    let controller_manager_args = s.optional("controller_manager_args", RENDER);
    let scheduler_args = s.optional("scheduler_args", RENDER);
    let etcd_args = s.optional("etcd_args", RENDER);
    let token_ttl_hours = s.required("token_ttl_hours", RENDER);
    s.finish();
    Some(ControlPlane {
        first: first?,
        peers: peers?,
        cert_sans: cert_sans.unwrap_or_default(),
        api_server_args: api_server_args.unwrap_or_default(),
        controller_manager_args: controller_manager_args.unwrap_or_default(),
        scheduler_args: scheduler_args.unwrap_or_default(),
        etcd_args: etcd_args.unwrap_or_default(),
        token_ttl_hours: token_ttl_hours?,
    })
}

fn read_etcd(mut s: Section<'_, '_>) -> Option<Etcd> {
    let members: Option<BTreeMap<DnsName, Ipv4Addr>> = s.required("members", RENDER);
    let args = s.optional("args", RENDER);
    s.finish();
    Some(Etcd { members: members?, args: args.unwrap_or_default() })
}

fn read_pki(mut s: Section<'_, '_>) -> Option<Pki> {
    let ca = s.required("ca", RENDER);
    let ca_key = s.optional_secret("ca_key", RENDER);
    let front_proxy_ca = s.optional("front_proxy_ca", RENDER);
    let front_proxy_ca_key = s.optional_secret("front_proxy_ca_key", RENDER);
    let etcd_ca = s.optional("etcd_ca", RENDER);
    let etcd_ca_key = s.optional_secret("etcd_ca_key", RENDER);
    let sa_public = s.optional("sa_public", RENDER);
    let sa_key = s.optional_secret("sa_key", RENDER);
    s.finish();
    Some(Pki { ca: ca?, ca_key, front_proxy_ca, front_proxy_ca_key, etcd_ca, etcd_ca_key, sa_public, sa_key })
}
