//! The role file as it is written and read: what one node may know, and nothing more.
//!
//! `kindling render` serializes a [`RoleFile`], the agent reads one. The reader goes through
//! [`crate::input`] so that all mistakes are reported at once; the round trip is tested.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

use super::types::*;
use crate::input::{Report, Section, Source};

/// The newest role file version this binary reads and the one it writes.
pub const VERSION: i64 = 1;

/// What to do about a role file that is wrong: nobody should mend it by hand.
const RENDER: &str = "the role file is written by `kindling render`: mend cluster.toml and render it again";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoleFile {
    pub version: i64,
    pub cluster: ClusterName,
    pub name: DnsName,
    pub role: RoleName,
    /// The machine has joined, and what it needs no more was taken out ([`RoleFile::scrub`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub scrubbed: bool,
    pub kubernetes: KubernetesVersion,
    pub runtime: RuntimeName,
    pub pods: Subnet,
    pub services: Subnet,
    pub dns_domain: DnsName,
    /// Where kubeadm takes its images from; kubeadm's own default where missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Names of the add-ons that the first control plane applies.
    pub addons: Vec<String>,
    pub network: Network,
    pub endpoint: Endpoint,
    /// Every node of the cluster, for /etc/hosts.
    pub hosts: BTreeMap<DnsName, Ipv4Addr>,
    pub deadlines: Deadlines,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taints: Option<Vec<Taint>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<Registry>,
    /// Present where the VIP may live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<Vrrp>,
    /// Present where haproxy or nginx runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// Present on members of an external etcd cluster, and on control planes that use one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// Control planes and workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<BootstrapToken>,
    /// For the message where it is not known any more; the cluster itself counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<Moment>,
    pub pki: Pki,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    pub address: HostAddress,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<HostOrAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    pub host: HostOrAddress,
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<Ipv4Addr>,
    pub by: EndpointBy,
}

/// How long the agent waits, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Deadlines {
    /// For the cluster to answer, before a join.
    pub cluster: u64,
    /// For one kubeadm command.
    pub kubeadm: u64,
    /// For the Node to be Ready.
    pub ready: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { cluster: 1800, kubeadm: 900, ready: 900 }
    }
}

/// A registry as containerd's `certs.d` knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registry {
    /// Host with an optional port, `docker.io`, `harbor.kang.org:8443`.
    pub host: String,
    /// Asked before the registry itself, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Takes any certificate; with an `http://` mirror, none at all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// PEM of the CA that signed the registry's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vrrp {
    pub vrid: Vrid,
    /// 1-254; the highest of those whose check passes holds the VIP.
    pub priority: u8,
    pub peers: Vec<Ipv4Addr>,
    /// Time between two advertisements, in milliseconds.
    pub advert_ms: u32,
    pub password: Secret,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proxy {
    pub kind: ProxyKind,
    /// The API servers behind it.
    pub servers: BTreeMap<DnsName, Ipv4Addr>,
    /// haproxy's page of figures; in any case where the proxy says that it lives.
    pub stats_port: u16,
    /// haproxy's alone: nginx has no page of figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ControlPlane {
    /// The designated first one may init once; all others join.
    pub first: bool,
    /// The addresses of the other control planes.
    pub peers: Vec<Ipv4Addr>,
    /// Further names and addresses for the API server's certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<HostOrAddress>,
    /// Life of the bootstrap token from init on, in hours; 0 means for ever.
    pub token_ttl_hours: u32,
}

/// An external etcd cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Etcd {
    pub members: BTreeMap<DnsName, Ipv4Addr>,
}

/// PEM texts. A worker has only `ca`, a load balancer too (for its health checks); a member of an external
/// etcd cluster has etcd's CA besides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pki {
    pub ca: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca_key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_ca_key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa_public: Option<String>,
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

fn read_deadlines(mut s: Section<'_, '_>) -> Option<Deadlines> {
    let default = Deadlines::default();
    let cluster = s.optional("cluster", "seconds");
    let kubeadm = s.optional("kubeadm", "seconds");
    let ready = s.optional("ready", "seconds");
    s.finish();
    Some(Deadlines {
        cluster: cluster.unwrap_or(default.cluster),
        kubeadm: kubeadm.unwrap_or(default.kubeadm),
        ready: ready.unwrap_or(default.ready),
    })
}

/// Shared with the cluster file, whose `[[registries]]` are the same.
pub fn read_registry(mut s: Section<'_, '_>) -> Option<Registry> {
    let remedy = "see `[[registries]]` in the cluster file that `kindling new` writes";
    let host: Option<String> = s.required("host", remedy);
    let mirrors: Option<Vec<String>> = s.optional("mirrors", remedy);
    let insecure = s.optional("insecure", remedy);
    let ca: Option<String> = s.optional("ca", remedy);
    let username: Option<String> = s.optional("username", remedy);
    let password: Option<Secret> = s.optional_secret("password", remedy);
    if host.as_ref().is_some_and(|h| h.is_empty() || h.contains(['/', ' ', '"'])) {
        s.error(
            "host",
            "must be a host with an optional port, without `https://` or a path",
            "write harbor.example.org or harbor.example.org:8443",
        );
    }
    for mirror in mirrors.iter().flatten() {
        if !(mirror.starts_with("https://") || mirror.starts_with("http://")) || mirror.contains([' ', '"']) {
            s.error("mirrors", format!("`{mirror}` is not a URL"), "write https://mirror.example.org");
        }
    }
    if username.is_some() != password.is_some() {
        s.error("username", "`username` and `password` go together", "give both, or neither");
    }
    if ca.as_ref().is_some_and(|ca| !ca.contains("-----BEGIN CERTIFICATE-----")) {
        s.error("ca", "is not a PEM certificate", "give the text of the CA's certificate");
    }
    s.finish();
    Some(Registry {
        host: host?,
        mirrors: mirrors.unwrap_or_default(),
        insecure: insecure.unwrap_or_default(),
        ca,
        username,
        password,
    })
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
    let token_ttl_hours = s.required("token_ttl_hours", RENDER);
    s.finish();
    Some(ControlPlane {
        first: first?,
        peers: peers?,
        cert_sans: cert_sans.unwrap_or_default(),
        token_ttl_hours: token_ttl_hours?,
    })
}

fn read_etcd(mut s: Section<'_, '_>) -> Option<Etcd> {
    let members: Option<BTreeMap<DnsName, Ipv4Addr>> = s.required("members", RENDER);
    s.finish();
    Some(Etcd { members: members? })
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
