//! The cluster file as it was read, in which any value may be missing.
//!
//! These types are also what is told of the file: their comments and attributes become the JSON Schema of
//! editors, `kindling explain` and `docs/cluster-file.md` ([`crate::help`]). `x-default` says in words what a
//! missing key means where that depends on something; `x-source` says whose rule it is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use super::assemble::*;
use super::{API_PORT, STACKED_PROXY_PORT, placement, read};
use crate::role::file::{Deadlines, Registry};
use crate::role::schema::{LABEL_KEY, LABEL_VALUE};
use crate::role::types::*;

/// A value with its place in the file.
#[derive(Debug, Clone)]
pub struct At<T> {
    pub value: T,
    pub key: String,
    pub span: Range<usize>,
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// One Kubernetes cluster in one file, without anything secret in it. `kindling check` tells what is wrong with
/// it, `kindling render` makes a seed of it for every machine.
#[derive(Debug, Default, JsonSchema)]
#[schemars(title = "Kindling's cluster.toml", deny_unknown_fields)]
pub struct Draft {
    /// The version of this file's format, not of the cluster.
    #[schemars(required, range(min = 1, max = read::VERSION), example = read::VERSION)]
    pub version: Option<i64>,

    /// The cluster's name: one DNS label. It becomes a part of file and machine names, and where they are not
    /// given, of the machines' MAC addresses and of the VRRP identifier.
    #[schemars(required, example = &"mycluster", extend("x-source" = "RFC 1123, section 2.1"))]
    pub name: Option<At<ClusterName>>,

    /// The version of Kubernetes that the image was baked with: v1.32 to v1.37. The agent looks before it begins: it
    /// refuses a kubeadm of another minor version, and warns of another patch, whose images a new cluster would pull.
    #[schemars(required, example = &"v1.37.2", extend(
        "x-source" = "https://kubernetes.io/releases/version-skew-policy/"
    ))]
    pub kubernetes: Option<At<KubernetesVersion>>,

    /// What runs the containers.
    #[schemars(example = &"containerd", extend(
        "default" = "containerd",
        "x-source" = "https://kubernetes.io/docs/setup/production-environment/container-runtimes/"
    ))]
    pub runtime: Option<At<RuntimeName>>,

    /// The pods' network. Each machine with a kubelet gets a /24 of it, so a /16 has room for 256 of them. It must
    /// overlap neither `services` nor the machines' own subnet.
    #[schemars(example = &"10.244.0.0/16", extend(
        "default" = default_pods(),
        "x-source" = "https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ (networking.podSubnet)"
    ))]
    pub pods: Option<At<Subnet>>,

    /// The network of the Services' addresses, /12 to /28. It must overlap neither `pods` nor the machines' own
    /// subnet.
    #[schemars(example = &"10.96.0.0/12", extend(
        "default" = default_services(),
        "x-source" = "https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ (networking.serviceSubnet)"
    ))]
    pub services: Option<At<Subnet>>,

    /// The DNS domain of the cluster's Services.
    #[schemars(example = &"cluster.local", extend(
        "default" = DEFAULT_DNS_DOMAIN,
        "x-source" = "https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ (networking.dnsDomain)"
    ))]
    pub dns_domain: Option<At<DnsName>>,

    /// Where Kubernetes' own images come from: a host and a path, without `https://`. Images that were baked into the
    /// node image must be there under these names.
    #[schemars(
        regex(pattern = r"^[a-z0-9._:-]+(/[a-z0-9._:-]+)*$"),
        example = &"registry.aliyuncs.com/google_containers",
        extend(
            "x-default" = "kubeadm's own, as in registry.k8s.io",
            "x-source" = "https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ (imageRepository)"
        )
    )]
    pub image_repository: Option<String>,

    /// What the first control plane applies to the new cluster, in this order: NAME stands for
    /// /usr/share/kindling/addons/NAME.yaml in the image. `[]` for none; without one that brings a pod network no
    /// Node becomes Ready.
    #[schemars(inner(regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")), example = ["flannel"], extend(
        "default" = DEFAULT_ADDONS,
        "x-source" = "https://kubernetes.io/docs/concepts/cluster-administration/addons/"
    ))]
    pub addons: Option<Vec<String>>,

    /// How long the bootstrap token lets machines join, in hours from the first control plane's init on; 0: for ever.
    #[schemars(range(max = LONGEST_TOKEN), example = 24, extend(
        "default" = DEFAULT_TOKEN_HOURS,
        "x-source" = "https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/"
    ))]
    pub token_ttl_hours: Option<u32>,

    /// Further names and addresses for the API server's certificate. The endpoint's host, the VIP and the machines'
    /// own names and addresses are in it in any case.
    #[schemars(example = ["api.example.org", "203.0.113.10"], extend(
        "default" = [],
        "x-source" = "https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ (apiServer.certSANs)"
    ))]
    pub cert_sans: Option<Vec<HostOrAddress>>,

    /// Flags of the API server that are your own, by name, without the dashes in front: audit log, OIDC, admission. They
    /// count from `kubeadm init` on, for every control plane; a running cluster keeps those that it was made with. A
    /// file that a flag names must be where the API server's pod sees it, under /etc/kubernetes/pki or /etc/ssl/certs.
    /// Not for secrets: everybody on a control plane sees a process's flags. What kubeadm itself sets, so that the
    /// cluster's parts find and trust one another, is refused.
    #[schemars(example = BTreeMap::from([("audit-log-path", "-"), ("event-ttl", "24h")]), transform = flags, extend(
        "default" = {},
        "x-source" = "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/ (kubeadm's apiServer.extraArgs)"
    ))]
    pub api_server_args: Option<BTreeMap<String, String>>,

    /// Flags of the controller manager that are your own, as those of the API server are. For control planes that are slow
    /// or short of processor: one that cannot renew its lease within `leader-elect-renew-deadline` ends and begins anew.
    #[schemars(
        example = patient_leader(),
        transform = flags,
        extend(
            "default" = {},
            "x-source" = "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/ (kubeadm's controllerManager.extraArgs)"
        )
    )]
    pub controller_manager_args: Option<BTreeMap<String, String>>,

    /// Flags of the scheduler that are your own, as those of the controller manager are.
    #[schemars(
        example = patient_leader(),
        transform = flags,
        extend(
            "default" = {},
            "x-source" = "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-scheduler/ (kubeadm's scheduler.extraArgs)"
        )
    )]
    pub scheduler_args: Option<BTreeMap<String, String>>,

    /// Flags of etcd that are your own, by name, without the dashes in front, for every member, on the control planes or on
    /// machines of its own. For machines that are slow or short of processor: a member that hears nothing of its leader for
    /// `election-timeout` milliseconds calls an election, and until it is over the API takes no writes. They count from
    /// the cluster's making on. What the members need to find and trust one another is refused.
    #[schemars(example = BTreeMap::from([("heartbeat-interval", "500"), ("election-timeout", "5000")]), transform = flags, extend(
        "default" = {},
        "x-source" = "https://etcd.io/docs/v3.5/tuning/ (kubeadm's etcd.local.extraArgs)"
    ))]
    pub etcd_args: Option<BTreeMap<String, String>>,

    #[schemars(required)]
    pub endpoint: Option<EndpointDraft>,

    pub vrrp: Option<VrrpDraft>,

    #[schemars(required)]
    pub network: Option<NetworkDraft>,

    #[schemars(with = "Option<Deadlines>")]
    pub deadlines: Deadlines,

    /// Registries that need more than their name: mirrors, a CA of their own, a login. One `[[registries]]` for each
    /// registry.
    #[schemars(with = "Option<Vec<Registry>>", transform = without_password)]
    pub registries: Vec<At<Registry>>,

    pub vsphere: Option<placement::Vsphere>,

    pub libvirt: Option<placement::Libvirt>,

    /// Where [nodes] stands.
    #[schemars(skip)]
    pub nodes_span: Range<usize>,

    /// The machines, by name. A name becomes the host name and the Node's name: a DNS name in lower case, of at most 63
    /// characters. All machines are in one subnet. At least one is a control plane; three or five survive the
    /// loss of one or two.
    #[schemars(required, with = "BTreeMap<DnsName, NodeDraft>", extend(
        "minProperties" = 1,
        "propertyNames" = { "maxLength": 63 },
        "x-source" = "https://kubernetes.io/docs/concepts/overview/working-with-objects/names/"
    ))]
    pub nodes: Option<Vec<NodeDraft>>,
}

/// Where the API answers: the address that kubelets, administrators and everybody else use.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "if" = { "properties": { "by": { "const": "external" } }, "required": ["by"] },
    "then" = { "required": ["host"] },
    "else" = { "required": ["vip"] },
    "x-source" = "https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/high-availability/"
))]
pub struct EndpointDraft {
    #[schemars(skip)]
    pub span: Range<usize>,

    /// The DNS name or the address by which the API is reached; it is in the API server's certificate.
    /// Where the cluster holds a VIP, a name need not be known to any DNS: it is in every machine's /etc/hosts.
    /// Needed with `by = "external"`.
    #[schemars(example = &"kubeapi.example.org", extend(
        "x-default" = "the VIP",
        "x-source" = "https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ (controlPlaneEndpoint)"
    ))]
    pub host: Option<At<HostOrAddress>>,

    /// The TCP port by which the API is reached. Where a proxy runs on the control planes it cannot be 6443, which is
    /// the API server's.
    #[schemars(range(min = 1), example = API_PORT, extend(
        "x-default" = format!("{API_PORT}; {STACKED_PROXY_PORT} with by = \"stacked\" and a proxy")
    ))]
    pub port: Option<At<u16>>,

    /// Who answers there.
    #[schemars(required, example = &"stacked", extend(
        "x-source" = "https://github.com/kubernetes/kubeadm/blob/main/docs/ha-considerations.md"
    ))]
    pub by: Option<At<EndpointBy>>,

    /// The virtual address, which is at one machine at a time: a free IPv4 address of the machines' subnet, without a
    /// prefix. Needed unless `by = "external"`.
    #[schemars(example = &"10.0.0.10", extend("x-source" = "RFC 5798, section 1.1"))]
    pub vip: Option<At<Ipv4Addr>>,

    /// What stands between the VIP and the API servers.
    #[schemars(example = &"haproxy", extend(
        "x-default" = "\"haproxy\" with by = \"load-balancer\", else \"none\"",
        "x-source" = "https://docs.haproxy.org/ and https://nginx.org/en/docs/stream/ngx_stream_core_module.html"
    ))]
    pub proxy: Option<At<ProxyKind>>,

    /// Whether the keys are there at all, right or wrong: a wrong one is not reported as missing too.
    #[schemars(skip)]
    pub has_host: bool,
    #[schemars(skip)]
    pub has_vip: bool,
}

/// How the machines that may hold the VIP talk about it (VRRP version 3, unicast). Nothing here has to be said.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-source" = "RFC 5798, keepalived.conf(5)"))]
pub struct VrrpDraft {
    #[schemars(skip)]
    pub span: Range<usize>,

    /// The virtual router's identifier. No other cluster on the same network may have the same one.
    #[schemars(example = 66, extend(
        "x-default" = "derived from the cluster's name",
        "x-source" = "RFC 5798, section 5.2.3"
    ))]
    pub vrid: Option<Vrid>,

    /// The time between two advertisements, in milliseconds. A dead holder of the VIP is missed after some three of
    /// them. VRRP counts in hundredths of a second.
    #[schemars(range(min = 10, max = 40950), example = 200, extend(
        "multipleOf" = 10,
        "default" = DEFAULT_ADVERT_MS,
        "x-source" = "RFC 5798, section 5.2.7"
    ))]
    pub advert_ms: Option<u32>,
}

/// What all machines share.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "x-source" = "https://docs.cloud-init.io/en/latest/reference/network-config-format-v2.html"
))]
pub struct NetworkDraft {
    /// The router of the machines' subnet. A machine without a default route cannot reach the Services' addresses.
    #[schemars(required, example = &"10.0.0.2")]
    pub gateway: Option<At<Ipv4Addr>>,

    /// The DNS servers, IPv4 addresses. Where a machine knows none, CoreDNS answers for the cluster's own names alone.
    #[schemars(default, example = ["10.0.0.2"])]
    pub dns: Vec<Ipv4Addr>,

    #[schemars(skip)]
    pub dns_span: Range<usize>,

    /// The time servers. Machines whose clocks differ do not trust each other's certificates and tokens.
    #[schemars(with = "Option<Vec<HostOrAddress>>", example = ["ntp.example.org"], extend(
        "x-default" = "the image's own servers",
        "x-source" = "chrony.conf(5)"
    ))]
    pub ntp: Vec<HostOrAddress>,

    /// The time zone, a name of tzdata.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_+-][A-Za-z0-9/_+-]*$"), example = &"Asia/Shanghai", extend(
        "x-default" = "UTC",
        "x-source" = "https://www.iana.org/time-zones"
    ))]
    pub timezone: Option<String>,

    /// The name of the link that gets the machine's address, on every machine the same.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,15}$"), example = &"eth0", extend(
        "x-default" = "the link with the machine's MAC address",
        "x-source" = "netdevice(7) (IFNAMSIZ)"
    ))]
    pub interface: Option<String>,
}

/// One machine.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, example = json!({ "role": "control-plane", "address": "10.0.0.11/24" }))]
pub struct NodeDraft {
    #[schemars(skip)]
    pub name: DnsName,
    #[schemars(skip)]
    pub key: String,
    #[schemars(skip)]
    pub span: Range<usize>,

    /// What the machine is for.
    #[schemars(required, example = &"control-plane", extend(
        "x-source" = "https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/ha-topology/"
    ))]
    pub role: Option<At<RoleName>>,

    /// The machine's IPv4 address with the subnet's prefix.
    #[schemars(required, example = &"10.0.0.11/24")]
    pub address: Option<At<HostAddress>>,

    /// The MAC address of the network card that gets the address. Give the virtual machine the same one.
    #[schemars(example = &"52:54:00:12:34:56", extend(
        "x-default" = "52:54:00 (with [vsphere] 00:50:56, VMware's for static ones) and three bytes derived from the cluster's and the machine's name"
    ))]
    pub mac: Option<At<MacAddress>>,

    /// Whether this is the control plane that makes the cluster (`kubeadm init`, once); the others join it. One of the
    /// cluster.
    #[schemars(example = true, extend(
        "x-default" = "the first control plane of the file",
        "x-source" = "https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/high-availability/"
    ))]
    pub first: Option<At<bool>>,

    /// Labels of the Node. Names of kubernetes.io and k8s.io are Kubernetes' own, and a kubelet may give itself only a
    /// few of them.
    #[schemars(example = BTreeMap::from([("zone", "a")]), extend(
        "default" = {},
        "propertyNames" = { "pattern": LABEL_KEY },
        "additionalProperties" = { "type": "string", "pattern": LABEL_VALUE },
        "x-source" = "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"
    ))]
    pub labels: Option<At<BTreeMap<String, String>>>,

    /// Taints of the Node, as kubectl writes them: key=value:Effect or key:Effect. `[]` for none.
    #[schemars(example = ["node-role.kubernetes.io/control-plane:NoSchedule"], extend(
        "x-default" = "kubeadm's: control planes are tainted, workers are not",
        "x-source" = "https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"
    ))]
    pub taints: Option<At<Vec<Taint>>>,
}

/// How long a leader on a slow machine may be late, as an example.
fn patient_leader() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("leader-elect-lease-duration", "60s"),
        ("leader-elect-renew-deadline", "40s"),
        ("leader-elect-retry-period", "10s"),
    ])
}

/// What `arguments` takes for the name of a flag.
fn flags(schema: &mut Schema) {
    schema.insert("propertyNames".to_owned(), json!({ "pattern": "^[a-z][a-z0-9-]*[a-z0-9]$" }));
    schema.insert("additionalProperties".to_owned(), json!({ "type": "string" }));
}

/// A cluster file holds no secrets: a registry's password stands in secrets.toml.
fn without_password(schema: &mut Schema) {
    if let Some(properties) = schema.pointer_mut("/items/properties").and_then(|p| p.as_object_mut()) {
        properties.remove("password");
    }
}
