//! kubeadm's configuration: `kubeadm init --config`, `kubeadm join --config`
//! (<https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/> and its older versions).

use std::collections::BTreeMap;

use super::API_PORT;
use super::etcd::client_url;
use super::yaml::{Map, Yaml, documents};
use crate::role::types::KubernetesVersion;
use crate::role::{ControlPlaneRole, Deadlines, Kubernetes, NodeSpec};

/// A version of kubeadm's configuration API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigApi {
    V1beta2,
    V1beta3,
    V1beta4,
}

impl ConfigApi {
    /// The newest one that this kubeadm reads without a warning.
    pub fn for_version(kubeadm: KubernetesVersion) -> Self {
        match (kubeadm.major, kubeadm.minor) {
            (1, ..22) => Self::V1beta2,
            (1, ..31) => Self::V1beta3,
            _ => Self::V1beta4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V1beta2 => "kubeadm.k8s.io/v1beta2",
            Self::V1beta3 => "kubeadm.k8s.io/v1beta3",
            Self::V1beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }

    fn document(self, kind: &str) -> Map {
        Map::new().with("apiVersion", self.name()).with("kind", kind)
    }

    /// Flags of a component: a mapping up to v1beta3, a list from v1beta4 on.
    fn arguments<'a>(self, arguments: impl IntoIterator<Item = (&'a str, String)>) -> Yaml {
        let arguments = arguments.into_iter();
        if self < Self::V1beta4 {
            arguments.fold(Map::new(), |map, (name, value)| map.with(name, value)).into()
        } else {
            let list: Vec<Map> =
                arguments.map(|(name, value)| Map::new().with("name", name).with("value", value)).collect();
            list.into()
        }
    }
}

/// What of the machine matters to kubeadm.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// With its scheme, `unix:///run/containerd/containerd.sock`: with two runtimes in the image kubeadm
    /// refuses to guess.
    pub cri_socket: String,
    /// The node runs in a system container, whose kernel and swap are the host's.
    pub container: bool,
    pub kubeadm: KubernetesVersion,
    pub deadlines: Deadlines,
}

/// Where the kubelet and the controller manager look for volume plug-ins: their default lies in /usr,
/// which is read-only (kubeadm#2031).
const VOLUME_PLUGINS: &str = "/var/lib/kubelet/volumeplugins";

/// For `kubeadm init`. Holds the bootstrap token.
pub fn kubeadm_init(spec: &NodeSpec, cp: &ControlPlaneRole, api: ConfigApi, env: &Environment) -> String {
    documents([
        init_configuration(spec, cp, api, env),
        cluster_configuration(spec, cp, api, env),
        kubelet_configuration(env),
        kube_proxy_configuration(&cp.kubernetes, env),
    ])
}

/// For `kubeadm join`, of a control plane where `cp` is given. Holds the bootstrap token.
pub fn kubeadm_join(
    spec: &NodeSpec,
    kubernetes: &Kubernetes,
    cp: Option<&ControlPlaneRole>,
    api: ConfigApi,
    env: &Environment,
) -> String {
    let discovery = Map::new()
        .with("file", Map::new().with("kubeConfigPath", "/etc/kindling/discovery.conf"))
        .with("tlsBootstrapToken", kubernetes.token.expose())
        .with_some("timeout", (api < ConfigApi::V1beta4).then(|| third(env)));
    documents([api
        .document("JoinConfiguration")
        .with("discovery", discovery)
        .with_some("controlPlane", cp.map(|_| Map::new().with("localAPIEndpoint", local_endpoint(spec))))
        .with("nodeRegistration", registration(spec, kubernetes, api, env))
        .with_some("timeouts", timeouts(api, env))])
}

fn init_configuration(spec: &NodeSpec, cp: &ControlPlaneRole, api: ConfigApi, env: &Environment) -> Map {
    let token = Map::new()
        .with("token", cp.kubernetes.token.expose())
        .with("description", "Kindling's, for nodes that join")
        // Counted from init on, not from when the seed was rendered; 0 means for ever.
        .with("ttl", format!("{}h", cp.token_ttl_hours))
        .with("usages", vec!["signing", "authentication"])
        .with("groups", vec!["system:bootstrappers:kubeadm:default-node-token"]);
    api.document("InitConfiguration")
        // Without it kubeadm makes one that nobody knows, which is better than one that everybody does.
        .with_some("bootstrapTokens", (!spec.scrubbed).then(|| vec![token]))
        .with("localAPIEndpoint", local_endpoint(spec))
        .with("nodeRegistration", registration(spec, &cp.kubernetes, api, env))
        .with_some("timeouts", timeouts(api, env))
}

fn cluster_configuration(spec: &NodeSpec, cp: &ControlPlaneRole, api: ConfigApi, env: &Environment) -> Map {
    let kubernetes = &cp.kubernetes;
    let api_server = Map::new()
        .with("certSANs", certificate_names(spec, cp))
        .with_some("extraArgs", own_arguments(&cp.api_server_args, api))
        .with_some("timeoutForControlPlane", (api < ConfigApi::V1beta4).then(|| half(env)));
    // In the order of their names, as all flags are.
    let mut manager_args = cp.controller_manager_args.clone();
    manager_args.insert("flex-volume-plugin-dir".to_owned(), VOLUME_PLUGINS.to_owned());
    let scheduler = own_arguments(&cp.scheduler_args, api).map(|args| Map::new().with("extraArgs", args));
    api.document("ClusterConfiguration")
        .with("clusterName", spec.cluster.as_str())
        // The default asks the internet.
        .with("kubernetesVersion", kubernetes.version.to_string())
        .with("controlPlaneEndpoint", spec.control_plane_endpoint())
        .with_some("imageRepository", kubernetes.image_repository.clone())
        .with(
            "networking",
            Map::new()
                .with("dnsDomain", kubernetes.dns_domain.as_str())
                .with("podSubnet", kubernetes.pods.to_string())
                .with("serviceSubnet", kubernetes.services.to_string()),
        )
        .with("apiServer", api_server)
        .with("controllerManager", Map::new().with_some("extraArgs", own_arguments(&manager_args, api)))
        .with_some("scheduler", scheduler)
        .with_some("etcd", external_etcd(cp).or_else(|| local_etcd(cp, api)))
}

fn own_arguments(args: &BTreeMap<String, String>, api: ConfigApi) -> Option<Yaml> {
    (!args.is_empty()).then(|| api.arguments(args.iter().map(|(name, value)| (name.as_str(), value.clone()))))
}

/// Joining control planes read it from the cluster, so that all members have the same flags.
fn local_etcd(cp: &ControlPlaneRole, api: ConfigApi) -> Option<Map> {
    let arguments = own_arguments(&cp.etcd_args, api)?;
    Some(Map::new().with("local", Map::new().with("extraArgs", arguments)))
}

/// Without it kubeadm makes every control plane a member of a local etcd.
fn external_etcd(cp: &ControlPlaneRole) -> Option<Map> {
    let endpoints: Vec<String> = cp.etcd.as_ref()?.values().map(|ip| client_url(*ip)).collect();
    let external = Map::new()
        .with("endpoints", endpoints)
        .with("caFile", "/etc/kubernetes/pki/etcd/ca.crt")
        .with("certFile", "/etc/kubernetes/pki/apiserver-etcd-client.crt")
        .with("keyFile", "/etc/kubernetes/pki/apiserver-etcd-client.key");
    Some(Map::new().with("external", external))
}

/// kubeadm adds the node's name and address and the cluster's own names by itself, but neither 127.0.0.1
/// nor what the other control planes are called.
fn certificate_names(spec: &NodeSpec, cp: &ControlPlaneRole) -> Vec<String> {
    let mut names = vec![spec.endpoint.host.to_string()];
    names.extend(spec.endpoint.vip.map(|vip| vip.to_string()));
    names.extend(["127.0.0.1".to_owned(), "localhost".to_owned()]);
    names.push(spec.address().to_string());
    names.extend(cp.peers.iter().map(ToString::to_string));
    names.extend(cp.cert_sans.iter().map(ToString::to_string));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Joining nodes read it from the cluster, so nothing of this one machine may stand in it but that all
/// machines of a cluster are of one kind, virtual machines or system containers.
fn kubelet_configuration(env: &Environment) -> Map {
    Map::new()
        .with("apiVersion", "kubelet.config.k8s.io/v1beta1")
        .with("kind", "KubeletConfiguration")
        // kubeadm's default only from 1.22 on.
        .with("cgroupDriver", "systemd")
        .with("volumePluginDir", VOLUME_PLUGINS)
        .with_some("failSwapOn", env.container.then_some(false))
}

fn kube_proxy_configuration(kubernetes: &Kubernetes, env: &Environment) -> Map {
    // Outside the first network namespace nf_conntrack_max cannot be written: 0 leaves it alone.
    let conntrack = env.container.then(|| Map::new().with("maxPerCore", 0).with("min", 0));
    Map::new()
        .with("apiVersion", "kubeproxy.config.k8s.io/v1alpha1")
        .with("kind", "KubeProxyConfiguration")
        .with("clusterCIDR", kubernetes.pods.to_string())
        .with_some("conntrack", conntrack)
}

/// Named, or the VIP may be picked as the node's address (kube-vip#741, kubeadm#2595).
fn local_endpoint(spec: &NodeSpec) -> Map {
    Map::new().with("advertiseAddress", spec.address().to_string()).with("bindPort", u64::from(API_PORT))
}

fn registration(spec: &NodeSpec, kubernetes: &Kubernetes, api: ConfigApi, env: &Environment) -> Map {
    let mut arguments = vec![("node-ip", spec.address().to_string())];
    if !kubernetes.labels.is_empty() {
        let labels: Vec<String> =
            kubernetes.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        arguments.push(("node-labels", labels.join(",")));
    }
    // An empty list is not a missing one: without any, kubeadm taints a control plane.
    let taints = kubernetes.taints.as_ref().map(|taints| {
        let taint = |t: &crate::role::types::Taint| {
            let value = (!t.value.is_empty()).then(|| t.value.clone());
            Map::new().with("key", t.key.as_str()).with_some("value", value).with("effect", t.effect.as_str())
        };
        taints.iter().map(taint).collect::<Vec<Map>>()
    });
    let mut ignored = Vec::new();
    if env.container {
        // The kernel's configuration and the swap are the host's, and often cannot be seen.
        ignored.extend(["SystemVerification", "Swap"]);
    }
    if spec.control_plane().is_some_and(|cp| cp.etcd.is_some()) {
        // It asks every member, and a majority must be enough: kubeadm then only warns.
        ignored.push("ExternalEtcdVersion");
    }
    let ignored = (!ignored.is_empty()).then_some(ignored);
    Map::new()
        .with("name", spec.name.as_str())
        .with("criSocket", env.cri_socket.as_str())
        .with_some("taints", taints)
        .with("kubeletExtraArgs", api.arguments(arguments))
        .with_some("ignorePreflightErrors", ignored)
        // kubeadm's default as well; said because preloaded images are the whole point.
        .with_some("imagePullPolicy", (api >= ConfigApi::V1beta3).then_some("IfNotPresent"))
}

/// kubeadm's own patience, as parts of what the agent grants one kubeadm command: kubeadm should give up
/// before it is killed, as it knows what it waited for. With the agent's default of 900 s no part is
/// below kubeadm's default.
fn timeouts(api: ConfigApi, env: &Environment) -> Option<Map> {
    (api >= ConfigApi::V1beta4).then(|| {
        Map::new()
            .with("controlPlaneComponentHealthCheck", half(env))
            .with("discovery", third(env))
            .with("etcdAPICall", third(env))
            .with("kubeletHealthCheck", third(env))
            .with("kubernetesAPICall", third(env))
            .with("tlsBootstrap", third(env))
    })
}

fn half(env: &Environment) -> String {
    format!("{}s", (env.deadlines.kubeadm / 2).max(1))
}

fn third(env: &Environment) -> String {
    format!("{}s", (env.deadlines.kubeadm / 3).max(1))
}
