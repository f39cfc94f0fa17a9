//! The words of a role file and a cluster file as types that refuse bad values while they are parsed.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::moment::Moment;

/// Gives a newtype over a string its `Deserialize`, `Serialize` and `Display` by way of `FromStr`.
macro_rules! string_type {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS subdomain in lower case (RFC 1123), as Kubernetes wants its Node names: at most 253
/// characters, labels of at most 63.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label: `master1` of `master1.kang.org`.
    pub fn short(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() <= 253 && text.split('.').all(is_label) && text.parse::<Ipv4Addr>().is_err() {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is not a host name (RFC 1123: labels of 1-63 lower-case letters, digits and `-`, joined by `.`)"
            ))
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
string_type!(DnsName);

/// A cluster's name: one DNS label, as it becomes a part of file and machine names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if is_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is not a cluster name (1-63 lower-case letters, digits and `-`)"))
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
string_type!(ClusterName);

/// A DNS name or an IPv4 address, as the host part of an endpoint, an NTP server or a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOrAddress {
    Name(DnsName),
    Address(Ipv4Addr),
}

impl FromStr for HostOrAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        text.parse()
            .map(Self::Name)
            .map_err(|_| format!("`{text}` is neither a host name nor an IPv4 address"))
    }
}

impl fmt::Display for HostOrAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}
string_type!(HostOrAddress);

/// A machine's address with its prefix, `10.0.0.101/24`: neither the subnet's own nor its broadcast address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAddress(Ipv4Net);

impl HostAddress {
    pub fn ip(&self) -> Ipv4Addr {
        self.0.addr()
    }
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }
    pub fn subnet(&self) -> Ipv4Net {
        self.0.trunc()
    }
}

impl FromStr for HostAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net: Ipv4Net = text
            .parse()
            .map_err(|_| format!("`{text}` is not an IPv4 address with a prefix, as in 10.0.0.101/24"))?;
        if net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast()) {
            return Err(format!("`{text}` is the address of the subnet itself or its broadcast address"));
        }
        if !is_unicast(net.addr()) {
            return Err(format!("`{text}` is not an address a machine can have"));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
string_type!(HostAddress);

pub fn is_unicast(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}

/// A network, `10.244.0.0/16`, without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet(Ipv4Net);

impl Subnet {
    pub fn net(&self) -> Ipv4Net {
        self.0
    }
    pub fn overlaps(&self, other: Ipv4Net) -> bool {
        self.0.contains(&other.network()) || other.contains(&self.0.network())
    }
}

impl FromStr for Subnet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net: Ipv4Net =
            text.parse().map_err(|_| format!("`{text}` is not an IPv4 network, as in 10.244.0.0/16"))?;
        if net != net.trunc() {
            return Err(format!("`{text}` has host bits: the network is {}", net.trunc()));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
string_type!(Subnet);

/// A unicast MAC address, written in lower case with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a MAC address, as in 52:54:00:12:34:56");
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let mut bytes = [0; 6];
        if parts.len() != 6 {
            return Err(bad());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            if part.len() != 2 {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(format!("`{text}` is a multicast or empty MAC address: no machine can have it"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
string_type!(MacAddress);

/// A version of Kubernetes, `v1.37.2`; the `v` may be left out when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl FromStr for KubernetesVersion {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a version of Kubernetes, as in v1.37.2");
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        let mut next = || parts.next().and_then(|p| p.parse().ok()).ok_or_else(bad);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if version.major != 1 {
            return Err(format!(
                "`{text}` is not a version of Kubernetes 1, the only one that Kindling knows"
            ));
        }
        Ok(version)
    }
}

impl KubernetesVersion {
    /// Reads what a program says of itself, `v1.37.0-rc.1` or `v1.37.2+vendor` too: such a build behaves as the version
    /// that it leads to or was made from.
    pub fn of_program(output: &str) -> Option<Self> {
        output.trim().split(['-', '+']).next()?.parse().ok()
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}
string_type!(KubernetesVersion);

/// A text that must never be seen: no `Display`, and `Debug` hides it. It is written out only by
/// [`Secret::expose`] and when a role file or a secrets file is serialized.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A bootstrap token, `[a-z0-9]{6}\.[a-z0-9]{16}`: a public id and a secret
/// (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken(String);

impl BootstrapToken {
    /// Of a machine that has joined: it lets nobody in.
    pub fn nobodys() -> Self {
        Self("000000.0000000000000000".to_owned())
    }
    /// The public half.
    pub fn id(&self) -> &str {
        &self.0[..6]
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for BootstrapToken {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let good = |part: &str, n| {
            part.len() == n && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match text.split_once('.') {
            Some((id, secret)) if good(id, 6) && good(secret, 16) => Ok(Self(text.to_owned())),
            // The text is a secret, even a mistyped one.
            _ => Err("not a bootstrap token (6 characters, a dot, 16 characters, of a-z and 0-9)".to_owned()),
        }
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.***", self.id())
    }
}

impl<'de> Deserialize<'de> for BootstrapToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for BootstrapToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A taint as kubectl writes it: `key=value:Effect` or `key:Effect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl FromStr for Taint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a taint: write key=value:Effect, Effect being NoSchedule, PreferNoSchedule or NoExecute"
            )
        };
        let (rest, effect) = text.rsplit_once(':').ok_or_else(bad)?;
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(bad());
        }
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        if !is_label_key(key) || !is_label_value(value) {
            return Err(bad());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        write!(f, ":{}", self.effect)
    }
}
string_type!(Taint);

/// A label's key: an optional DNS prefix with `/`, then a name
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>).
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(|p| p.parse::<DnsName>().is_ok()) && !name.is_empty() && is_label_value(name)
}

/// A label's value: at most 63 of letters, digits, `-`, `_`, `.`; a letter or digit at both ends.
pub fn is_label_value(value: &str) -> bool {
    value.len() <= 63
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && value.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric())
        && value.bytes().last().is_none_or(|b| b.is_ascii_alphanumeric())
}

/// A VRRP virtual router identifier, 1-255 (RFC 5798, section 5.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Vrid(pub u8);

impl<'de> Deserialize<'de> for Vrid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            n @ 1..=255 => Ok(Self(n as u8)),
            n => Err(serde::de::Error::custom(format!("{n} is not a VRID: 1 to 255"))),
        }
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoleName {
    /// An API server, its controllers, and etcd unless machines of their own have it.
    ControlPlane,
    /// Runs the workloads.
    Worker,
    /// Holds the VIP and leads to the control planes' API servers; no Node of the cluster.
    LoadBalancer,
    /// A member of an external etcd, which keeps the cluster's state instead of the control planes; no Node of the cluster.
    Etcd,
}

impl RoleName {
    /// Whether the machine is a Node of the cluster.
    pub fn runs_kubelet(self) -> bool {
        matches!(self, Self::ControlPlane | Self::Worker)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::LoadBalancer => "load-balancer",
            Self::Etcd => "etcd",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeName {
    /// With the images that are baked in.
    Containerd,
    /// Docker Engine, with the same images. It needs cri-dockerd in the image.
    Docker,
    /// CRI-O, where it was baked into the image; it pulls its images.
    Crio,
}

/// Who answers at the endpoint: the load-balancer nodes, the control planes themselves, or somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointBy {
    /// Machines of their own, with the role of that name: they hold the VIP, and a proxy on them leads to the API servers.
    LoadBalancer,
    /// The control planes themselves hold the VIP.
    Stacked,
    /// Somebody else's address: a load balancer that is there already, or a single control plane.
    External,
}

/// What stands between the VIP and the API servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyKind {
    /// Asks every API server how it is, verified by the cluster's CA, and has a page of figures.
    Haproxy,
    /// Its stream module: without active checks and without statistics, so an API server that hangs is found only by
    /// connections that fail.
    Nginx,
    /// The VIP leads to the API server of the machine that holds it.
    None,
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_of_kubernetes_1_and_a_program_may_say_more_of_itself() {
        let read = |text: &str| KubernetesVersion::of_program(text).map(|version| version.to_string());
        for said in ["v1.37.0\n", "v1.37.0-rc.1\n", "v1.37.0-alpha.2.14+0123456789abcd", "v1.37.0+vendor"] {
            assert_eq!(read(said).as_deref(), Some("v1.37.0"), "{said}");
        }
        assert_eq!(read("kubeadm version"), None);
        // A cluster file names a release.
        assert!("v1.37.0-rc.1".parse::<KubernetesVersion>().is_err());
        for other in ["v2.0.0", "v0.37.0"] {
            let error = other.parse::<KubernetesVersion>().expect_err("it is refused");
            assert!(error.contains("is not a version of Kubernetes 1"), "{error}");
        }
    }
}
