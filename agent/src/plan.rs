//! The plan: the ordered steps of one node, made from its spec and the facts without any I/O.

use std::fmt;
use std::path::PathBuf;

use crate::facts::Facts;
use crate::image::Image;
use crate::preflight;
use crate::render;
use crate::role::etcd_version::{OLDEST_ETCD, oldest_etcd};
use crate::role::types::{DnsName, ProxyKind};
use crate::role::{Kubernetes, NodeSpec, Role};
use crate::runtime;
use crate::step::certificates::Certificates;
use crate::step::clock::Clock;
use crate::step::dns::Dns;
use crate::step::etcd::Member;
use crate::step::etcd_health::Healthy;
use crate::step::join::{Join, JoinControlPlane, JoinEtcd};
use crate::step::kubeadm::{BOOTSTRAP_CONF, JoinPhases};
use crate::step::kubelet_access;
use crate::step::{addons::Addons, init::Init, kernel::Kernel, ready::Ready, service::Service, vip::VipFree};

/// A step is comparable data, so a plan can be printed, compared with a golden file, and resumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub id: &'static str,
    pub title: String,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// What the facts say against going on; nothing is changed before it.
    Preflight(Vec<preflight::Finding>),
    Hostname(DnsName),
    Files(Vec<FileSpec>),
    Timezone(String),
    Kernel(Kernel),
    /// What units have beside their own files; those of containers run already.
    DropIns(Vec<FileSpec>),
    /// Swap off now and after every reboot.
    SwapOff,
    Service(Service),
    /// Units that must not run on such a machine.
    Off(Vec<&'static str>),
    /// Certificates that this machine issues for itself.
    Certificates(Certificates),
    /// A member of an external etcd cluster.
    Etcd(Box<Member>),
    /// Nobody else holds the VIP, before it is claimed.
    VipFree(VipFree),
    Clock(Clock),
    /// Preloaded images pinned, archives imported.
    Images,
    Init(Box<Init>),
    Join(Box<Join>),
    Addons(Addons),
    /// root's kubeconfig is the administrator's.
    Kubeconfig,
    Ready(Ready),
    /// Cluster DNS works, and goes on when a machine dies.
    Dns(Dns),
    /// The Node says which image it runs.
    Image(Image),
    /// API servers may ask the kubelets.
    KubeletAccess,
    /// The load balancers learn of this control plane.
    Publish,
    /// Every API server is of the same cluster.
    OneCluster,
    /// No secret that this machine needs no more stays on it.
    Scrub,
}

/// A file to be written whole. The content of a secret one is never shown.
#[derive(Clone, PartialEq)]
pub struct FileSpec {
    pub path: PathBuf,
    pub mode: u32,
    pub content: String,
    pub secret: bool,
}

impl FileSpec {
    pub fn public(path: impl Into<PathBuf>, content: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o644, content: content.into(), secret: false }
    }
    pub fn secret(path: impl Into<PathBuf>, content: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o600, content: content.into(), secret: true }
    }
}

impl fmt::Debug for FileSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = if self.secret { "***" } else { &self.content };
        f.debug_struct("FileSpec")
            .field("path", &self.path)
            .field("mode", &format_args!("{:04o}", self.mode))
            .field("content", &content)
            .finish()
    }
}

/// Where the cluster's CA lies on every node, for health checks and for people.
pub const CA_FILE: &str = "/etc/kindling/ca.crt";
pub const KUBEADM_FILE: &str = "/etc/kindling/kubeadm.yaml";
/// There for a moment, while a half-announced etcd member gets its manifest.
const ETCD_CONFIG: &str = "/run/kindling/kubeadm-etcd.yaml";
pub const DISCOVERY_FILE: &str = "/etc/kindling/discovery.conf";

/// Runs [`crate::endpoint`].
const WATCHER: &str = "kindling-endpoint.service";
pub const KEEPALIVED: &str = "keepalived.service";

/// The bring-up of a node, in the order in which it happens.
pub fn plan(spec: &NodeSpec, facts: &Facts) -> Vec<Step> {
    let mut steps = vec![
        step(
            "preflight",
            "can this machine be what its role file says",
            Action::Preflight(preflight::check(spec, facts)),
        ),
        step("hostname", format!("host name {}", spec.name), Action::Hostname(spec.name.clone())),
        step(
            "hosts",
            "every node and the endpoint in /etc/hosts",
            Action::Files(vec![FileSpec::public("/etc/hosts", render::hosts(spec))]),
        ),
    ];
    steps.extend(time(spec, facts));
    if !matches!(spec.role, Role::Etcd(_)) {
        steps.push(step("kernel", "modules and sysctls", Action::Kernel(kernel(spec, facts))));
    }
    if facts.emulated {
        let drop_ins = Action::DropIns(crate::emulated::drop_ins());
        steps.push(step("emulated", "few switches between processes on emulated processors", drop_ins));
    }
    if spec.kubernetes().is_some() && facts.container.is_none() {
        steps.push(step("swap", "swap off for good", Action::SwapOff));
    }
    steps.push(step(
        "ca",
        "the cluster's CA certificate",
        Action::Files(vec![FileSpec::public(CA_FILE, spec.ca.clone())]),
    ));
    if let Some(kubernetes) = spec.kubernetes() {
        steps.extend(runtime::steps(kubernetes, facts));
    } else {
        // It starts with the image, for the many that need it.
        steps.push(step(
            "runtime",
            "no container runtime runs",
            Action::Off(vec![runtime::containerd::UNIT]),
        ));
    }
    steps.extend(endpoint(spec, facts));
    match &spec.role {
        Role::LoadBalancer(_) => {}
        Role::Etcd(role) => {
            steps.extend(certificates("this member's certificates", Certificates::of_etcd_member(spec)));
            let title = format!("etcd, one of {} members", role.members.len());
            // Preflight refuses a machine without it, so the fallback is never applied.
            steps.push(step(
                "etcd",
                title,
                Action::Etcd(Box::new(Member::new(spec, role, facts.etcd.unwrap_or(OLDEST_ETCD)))),
            ));
        }
        Role::Worker(kubernetes) => steps.push(join(spec, kubernetes, facts)),
        Role::ControlPlane(role) => {
            steps.push(step("pki", "the cluster's CAs and service-account keys", Action::Files(pki(spec))));
            steps.extend(external_etcd(spec));
            if role.first {
                steps.push(init(spec, facts));
                steps.push(step(
                    "upstream",
                    "CoreDNS asks nobody where nobody is known",
                    Action::Dns(Dns::Upstream),
                ));
                if !role.kubernetes.addons.is_empty() {
                    let title = format!("add-ons {}", role.kubernetes.addons.join(", "));
                    steps.push(step("addons", title, Action::Addons(Addons::new(&role.kubernetes))));
                }
            } else {
                steps.push(join(spec, &role.kubernetes, facts));
            }
            steps.push(step("kubeconfig", "root's kubeconfig", Action::Kubeconfig));
        }
    }
    steps.push(ready(spec));
    if let (Some(_), Some(image)) = (spec.kubernetes(), &facts.image) {
        steps.push(step("image", "the Node says which image it runs", Action::Image(image.clone())));
    }
    if let Some(role) = spec.control_plane() {
        let kubeadm = facts.kubeadm.unwrap_or(role.kubernetes.version);
        // The first one, too: on a new disk it joins.
        if kubelet_access::is_needed(kubeadm) {
            steps.push(step("kubelet-access", "this API server may ask the kubelets", Action::KubeletAccess));
        }
        steps.push(step("publish", "the load balancers learn of this API server", Action::Publish));
        steps.push(step("one-cluster", "every API server is of one cluster", Action::OneCluster));
    }
    steps.extend(dns(spec));
    steps.push(step("scrub", "no secret stays that this machine needs no more", Action::Scrub));
    steps
}

pub(crate) fn step(id: &'static str, title: impl Into<String>, action: Action) -> Step {
    Step { id, title: title.into(), action }
}

fn time(spec: &NodeSpec, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(timezone) = &spec.network.timezone {
        steps.push(step("timezone", format!("time zone {timezone}"), Action::Timezone(timezone.clone())));
    }
    // A system container has its host's clock, and chrony.service does not start in one.
    if let Some(text) = render::chrony(spec).filter(|_| facts.container.is_none()) {
        let service = Service::new("chrony.service", vec![FileSpec::public("/etc/chrony/chrony.conf", text)]);
        steps.push(step("time", "chrony with the given servers", Action::Service(service)));
    }
    let servers = steps.iter().any(|step| step.id == "time");
    steps.push(step("clock", "a clock that can be right", Action::Clock(Clock::new(spec, servers))));
    steps
}

fn kernel(spec: &NodeSpec, facts: &Facts) -> Kernel {
    Kernel {
        modules: render::modules(spec).into_iter().map(str::to_owned).collect(),
        sysctls: render::sysctls(spec),
        files: vec![
            FileSpec::public("/etc/modules-load.d/90-kindling.conf", render::modules_conf(spec)),
            FileSpec::public("/etc/sysctl.d/90-kindling.conf", render::sysctl_conf(spec)),
        ],
        container: facts.container.is_some(),
    }
}

/// The proxy and keepalived, where the endpoint lives on this machine.
fn endpoint(spec: &NodeSpec, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    match spec.proxy().map(|proxy| proxy.kind) {
        Some(ProxyKind::Haproxy) => {
            let file = FileSpec::secret("/etc/haproxy/haproxy.cfg", render::haproxy(spec));
            let service = Service::new("haproxy.service", vec![file])
                .checked_by("haproxy", &["-c", "-q", "-f"])
                .instead_of(&["nginx.service"]);
            steps.push(step("haproxy", "haproxy in front of the API servers", Action::Service(service)));
        }
        Some(ProxyKind::Nginx) => {
            let file = FileSpec::public("/etc/nginx/nginx.conf", render::nginx(spec));
            let service = Service::new("nginx.service", vec![file])
                .checked_by("nginx", &["-t", "-q", "-c"])
                .instead_of(&["haproxy.service"]);
            steps.push(step("nginx", "nginx in front of the API servers", Action::Service(service)));
        }
        Some(ProxyKind::None) | None => {}
    }
    if let (Some(vrrp), Some(vip)) = (spec.vrrp(), spec.endpoint.vip) {
        // Preflight refuses a machine without its address, so the fallback is never applied.
        let interface = facts.interface_of(spec.address()).unwrap_or("eth0");
        let question =
            VipFree { interface: interface.into(), vip, vrid: vrrp.vrid, peers: vrrp.peers.clone() };
        steps.push(step("vip", format!("nobody else holds {vip}"), Action::VipFree(question)));
        if let Some(text) = render::watched(spec) {
            let service = Service::new(WATCHER, vec![FileSpec::public(crate::endpoint::CONFIG_FILE, text)]);
            steps.push(step(
                "endpoint",
                "what decides who holds the VIP, and learns of later API servers",
                Action::Service(service),
            ));
        }
        let files =
            vec![FileSpec::public("/etc/keepalived/keepalived.conf", render::keepalived(spec, interface))];
        let service = Service::new(KEEPALIVED, files)
            .checked_by("keepalived", &["--config-test", "--use-file"])
            .unless(crate::step::vip::WAITS);
        steps.push(step("keepalived", format!("keepalived for {vip}"), Action::Service(service)));
    }
    steps
}

fn certificates(title: &str, certificates: Option<Certificates>) -> Option<Step> {
    certificates.map(|certificates| step("certificates", title, Action::Certificates(certificates)))
}

/// A control plane's way to an external etcd; nothing where etcd is its own.
fn external_etcd(spec: &NodeSpec) -> Vec<Step> {
    let Some(healthy) = healthy(spec) else { return Vec::new() };
    let certificates =
        certificates("the API server's certificate for etcd", Certificates::of_etcd_client(spec));
    let wait = step("etcd", "the external etcd answers", Action::Ready(Ready::Etcd(healthy)));
    certificates.into_iter().chain([wait]).collect()
}

fn healthy(spec: &NodeSpec) -> Option<Healthy> {
    match &spec.role {
        Role::Etcd(role) => Some(Healthy {
            members: role.members.clone(),
            own: Some(spec.address()),
            // Its own is preflight's; the others may still be of the image before, and be replaced next.
            oldest: OLDEST_ETCD,
            ca: role.ca.clone(),
            identity: format!("{}/client", render::ETCD_PKI),
        }),
        Role::ControlPlane(role) => Some(Healthy {
            members: role.etcd.clone()?,
            own: None,
            oldest: oldest_etcd(role.kubernetes.version),
            ca: role.pki.etcd_ca.clone(),
            identity: "/etc/kubernetes/pki/apiserver-etcd-client".into(),
        }),
        _ => None,
    }
}

fn pki(spec: &NodeSpec) -> Vec<FileSpec> {
    let Some(role) = spec.control_plane() else { return Vec::new() };
    let at = |name: &str| format!("/etc/kubernetes/pki/{name}");
    let mut files = vec![
        FileSpec::public(at("ca.crt"), spec.ca.clone()),
        FileSpec::secret(at("ca.key"), role.pki.ca_key.expose()),
        FileSpec::public(at("front-proxy-ca.crt"), role.pki.front_proxy_ca.clone()),
        FileSpec::secret(at("front-proxy-ca.key"), role.pki.front_proxy_ca_key.expose()),
        FileSpec::public(at("etcd/ca.crt"), role.pki.etcd_ca.clone()),
        FileSpec::public(at("sa.pub"), role.pki.sa_public.clone()),
        FileSpec::secret(at("sa.key"), role.pki.sa_key.expose()),
    ];
    // kubeadm needs it only for an etcd of its own.
    if role.etcd.is_none() {
        files.push(FileSpec::secret(at("etcd/ca.key"), role.pki.etcd_ca_key.expose()));
    }
    files
}

fn environment(spec: &NodeSpec, kubernetes: &Kubernetes, facts: &Facts) -> render::Environment {
    let kubeadm = facts.kubeadm.unwrap_or(kubernetes.version);
    render::Environment {
        cri_socket: runtime::socket(kubernetes.runtime).into(),
        container: facts.container.is_some(),
        runtime: kubernetes.runtime,
        kubeadm,
        deadlines: spec.deadlines,
        emulated: facts.emulated,
    }
}

fn init(spec: &NodeSpec, facts: &Facts) -> Step {
    let role = spec.control_plane().expect("only control planes init");
    let environment = environment(spec, &role.kubernetes, facts);
    let init = Init {
        config: FileSpec::secret(KUBEADM_FILE, render::kubeadm_init(spec, role, &environment)),
        join: build_join(spec, &role.kubernetes, facts),
        pki: pki(spec),
    };
    step("init", "kubeadm init, unless the cluster is there already", Action::Init(Box::new(init)))
}

fn join(spec: &NodeSpec, kubernetes: &Kubernetes, facts: &Facts) -> Step {
    step(
        "join",
        "wait for the cluster, then kubeadm join",
        Action::Join(Box::new(build_join(spec, kubernetes, facts))),
    )
}

fn build_join(spec: &NodeSpec, kubernetes: &Kubernetes, facts: &Facts) -> Join {
    let environment = environment(spec, kubernetes, facts);
    let control_plane = spec.control_plane().map(|role| JoinControlPlane {
        pki: pki(spec),
        phases: JoinPhases::of(environment.kubeadm),
        etcd: role.etcd.is_none().then(|| JoinEtcd {
            config: FileSpec::secret(ETCD_CONFIG, render::kubeadm_init(spec, role, &environment)),
            bootstrap: FileSpec::secret(
                BOOTSTRAP_CONF,
                render::bootstrap_kubeconfig(spec, &kubernetes.token),
            ),
        }),
    });
    Join {
        config: FileSpec::secret(
            KUBEADM_FILE,
            render::kubeadm_join(spec, kubernetes, spec.control_plane(), &environment),
        ),
        discovery: FileSpec::secret(DISCOVERY_FILE, render::discovery_kubeconfig(spec, &kubernetes.token)),
        control_plane,
        kubeadm: environment.kubeadm,
        cri_socket: environment.cri_socket,
    }
}

fn ready(spec: &NodeSpec) -> Step {
    if let (Role::Etcd(_), Some(healthy)) = (&spec.role, healthy(spec)) {
        return step("ready", "a majority of etcd's members answers", Action::Ready(Ready::Etcd(healthy)));
    }
    match spec.kubernetes() {
        Some(kubernetes) => {
            let ready = Ready::Node { name: spec.name.clone(), network_addon: !kubernetes.addons.is_empty() };
            step("ready", format!("Node {} is Ready", spec.name), Action::Ready(ready))
        }
        None => {
            let watcher = render::watched(spec).map(|_| WATCHER);
            let proxy = spec.proxy().map(|proxy| proxy_unit(proxy.kind));
            let services = proxy.into_iter().chain([KEEPALIVED]).chain(watcher).collect();
            step("ready", "the proxy and keepalived run", Action::Ready(Ready::Services(services)))
        }
    }
}

/// The cluster's, which the first control plane made, and on each control plane that its pods are not all on one.
fn dns(spec: &NodeSpec) -> Vec<Step> {
    let Some(role) = spec.control_plane() else { return Vec::new() };
    let network_addon = !role.kubernetes.addons.is_empty();
    let available = Action::Dns(Dns::Available { network_addon });
    let available = role.first.then(|| step("dns", "names are resolved in the cluster", available));
    let spread = step("dns-spread", "cluster DNS is not on one machine alone", Action::Dns(Dns::Spread));
    available.into_iter().chain([spread]).collect()
}

/// The unit of what stands between the VIP and the API servers.
pub fn proxy_unit(kind: ProxyKind) -> &'static str {
    match kind {
        ProxyKind::Nginx => "nginx.service",
        ProxyKind::Haproxy | ProxyKind::None => "haproxy.service",
    }
}
