//! kubeadm's configuration: `kubeadm init --config`, `kubeadm join --config`
//! (<https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/>).

use std::collections::BTreeMap;

use super::API_PORT;
use super::etcd::client_url;
use super::yaml::{Map, Yaml, documents};
use crate::role::types::{KubernetesVersion, RuntimeName};
use crate::role::{ControlPlaneRole, Deadlines, Kubernetes, NodeSpec};

/// The only API that every supported kubeadm reads: it came with 1.31, and 1.37 reads no older one.
const API: &str = "kubeadm.k8s.io/v1beta4";

fn document(kind: &str) -> Map {
    Map::new().with("apiVersion", API).with("kind", kind)
}

/// Flags of a component, or variables.
fn arguments<'a>(flags: impl IntoIterator<Item = (&'a str, String)>) -> Yaml {
    let flag = |(name, value): (&str, String)| Map::new().with("name", name).with("value", value);
    flags.into_iter().map(flag).collect::<Vec<Map>>().into()
}

/// What of the machine matters to kubeadm.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// With its scheme, `unix:///run/containerd/containerd.sock`: with two runtimes in the image kubeadm
    /// refuses to guess.
    pub cri_socket: String,
    /// The node runs in a system container, whose kernel and swap are the host's.
    pub container: bool,
    /// The whole cluster's.
    pub runtime: RuntimeName,
    pub kubeadm: KubernetesVersion,
    pub deadlines: Deadlines,
    /// By QEMU, see [`crate::emulated`].
    pub emulated: bool,
}

/// For `kubeadm init`. Holds the bootstrap token.
pub fn kubeadm_init(spec: &NodeSpec, cp: &ControlPlaneRole, env: &Environment) -> String {
    documents([
        init_configuration(spec, cp, env),
        cluster_configuration(spec, cp, env),
        kubelet_configuration(env),
        kube_proxy_configuration(&cp.kubernetes, env),
    ])
}

/// For `kubeadm join`, of a control plane where `cp` is given. Holds the bootstrap token.
pub fn kubeadm_join(
    spec: &NodeSpec,
    kubernetes: &Kubernetes,
    cp: Option<&ControlPlaneRole>,

    env: &Environment,
) -> String {
    let discovery = Map::new()
        .with("file", Map::new().with("kubeConfigPath", "/etc/kindling/discovery.conf"))
        .with("tlsBootstrapToken", kubernetes.token.expose());
    documents([document("JoinConfiguration")
        .with("discovery", discovery)
        .with_some("controlPlane", cp.map(|_| Map::new().with("localAPIEndpoint", local_endpoint(spec))))
        .with("nodeRegistration", registration(spec, kubernetes, env))
        .with("timeouts", timeouts(env))])
}

fn init_configuration(spec: &NodeSpec, cp: &ControlPlaneRole, env: &Environment) -> Map {
    let token = Map::new()
        .with("token", cp.kubernetes.token.expose())
        .with("description", "Kindling's, for nodes that join")
        // Counted from init on, not from when the seed was rendered; 0 means for ever.
        .with("ttl", format!("{}h", cp.token_ttl_hours))
        .with("usages", vec!["signing", "authentication"])
        .with("groups", vec!["system:bootstrappers:kubeadm:default-node-token"]);
    document("InitConfiguration")
        // Without it kubeadm makes one that nobody knows, which is better than one that everybody does.
        .with_some("bootstrapTokens", (!spec.scrubbed).then(|| vec![token]))
        .with("localAPIEndpoint", local_endpoint(spec))
        .with("nodeRegistration", registration(spec, &cp.kubernetes, env))
        .with("timeouts", timeouts(env))
}

fn cluster_configuration(spec: &NodeSpec, cp: &ControlPlaneRole, env: &Environment) -> Map {
    let kubernetes = &cp.kubernetes;
    let api_server = Map::new()
        .with("certSANs", certificate_names(spec, cp))
        .with_some("extraArgs", own_arguments(&cp.api_server_args))
        .with_some("extraEnvs", variables(env));
    document("ClusterConfiguration")
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
        .with_some("controllerManager", component(&cp.controller_manager_args, env))
        .with_some("scheduler", component(&cp.scheduler_args, env))
        .with_some("etcd", external_etcd(cp).or_else(|| local_etcd(cp, env)))
}

fn own_arguments(args: &BTreeMap<String, String>) -> Option<Yaml> {
    (!args.is_empty()).then(|| arguments(args.iter().map(|(name, value)| (name.as_str(), value.clone()))))
}

/// Variables of a component's process.
fn variables(env: &Environment) -> Option<Yaml> {
    let (name, value) = crate::emulated::ENVIRONMENT;
    env.emulated.then(|| arguments([(name, value.to_owned())]))
}

/// Nothing where kubeadm's own is enough.
fn component(args: &BTreeMap<String, String>, env: &Environment) -> Option<Map> {
    (!args.is_empty() || env.emulated).then(|| {
        Map::new().with_some("extraArgs", own_arguments(args)).with_some("extraEnvs", variables(env))
    })
}

/// Joining control planes read it from the cluster, so that all members have the same flags.
fn local_etcd(cp: &ControlPlaneRole, env: &Environment) -> Option<Map> {
    Some(Map::new().with("local", component(&cp.etcd_args, env)?))
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
        // kubeadm's default as well; said because containerd 1.7 does not tell the kubelet which one it uses.
        .with("cgroupDriver", "systemd")
        .with_some("failSwapOn", env.container.then_some(false))
        // The host's to choose, as its swap is. From 1.35 on a kubelet refuses cgroup v1 by default.
        .with_some("failCgroupV1", env.container.then_some(false))
        .with_some("evictionHard", env.container.then(eviction_in_a_container))
        .with_some("featureGates", feature_gates(env))
}

/// cri-dockerd answers exec and attach with a URL without a scheme, which the kubelet's way of 1.36 and newer takes for
/// https (Mirantis/cri-dockerd#569). An older kubelet does not know the gate, and would not start.
fn feature_gates(env: &Environment) -> Option<Map> {
    (env.runtime == RuntimeName::Docker && env.kubeadm.minor >= 36)
        .then(|| Map::new().with("ExtendWebSocketsToKubelet", false))
}

/// The disk is the host's, and others fill it: a part of it says nothing about what is left for this node. All signals
/// are given, because a kubelet that is given one forgets its defaults of the others.
fn eviction_in_a_container() -> Map {
    Map::new()
        .with("imagefs.available", "1Gi")
        .with("imagefs.inodesFree", "5%")
        .with("memory.available", "100Mi")
        .with("nodefs.available", "1Gi")
        .with("nodefs.inodesFree", "5%")
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

fn registration(spec: &NodeSpec, kubernetes: &Kubernetes, env: &Environment) -> Map {
    let mut flags = vec![("node-ip", spec.address().to_string())];
    if !kubernetes.labels.is_empty() {
        let labels: Vec<String> =
            kubernetes.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        flags.push(("node-labels", labels.join(",")));
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
        .with("kubeletExtraArgs", arguments(flags))
        .with_some("ignorePreflightErrors", ignored)
        // kubeadm's default as well; said because preloaded images are the whole point.
        .with("imagePullPolicy", "IfNotPresent")
}

/// kubeadm's own patience, as parts of what the agent grants one kubeadm command: kubeadm should give up
/// before it is killed, as it knows what it waited for. With the agent's default of 900 s no part is
/// below kubeadm's default.
fn timeouts(env: &Environment) -> Map {
    Map::new()
        // Also the startupProbe of each static pod, which kubeadm's upgrade must find as it is here.
        .with("controlPlaneComponentHealthCheck", seconds(half(env).max(FOUR_MINUTES)))
        .with("discovery", seconds(third(env)))
        // kubeadm's default at most: an endpoint that is away costs it whole, and an upgrade tries ten times.
        .with("etcdAPICall", seconds(third(env).min(120)))
        .with("kubeletHealthCheck", seconds(third(env)))
        // From 1.36.1 on the first API server's start, too.
        .with("kubernetesAPICall", seconds(third(env).max(FOUR_MINUTES)))
        .with("tlsBootstrap", seconds(third(env)))
}

/// kubeadm's default for a component of the control plane to come up.
const FOUR_MINUTES: u64 = 240;

fn half(env: &Environment) -> u64 {
    (env.deadlines.kubeadm / 2).max(1)
}

fn third(env: &Environment) -> u64 {
    (env.deadlines.kubeadm / 3).max(1)
}

fn seconds(seconds: u64) -> String {
    format!("{seconds}s")
}
