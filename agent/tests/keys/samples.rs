//! A sample of each key, and the places in which it must show.

use kindling::cluster::hypervisor::Target;
use kindling::role::types::RuntimeName;

use crate::Runtime;
use crate::registries::of_registries;

pub const BASE: &str = r#"
version = 1
name = "base"
[endpoint]
host = "kubeapi.test"
vip = "10.0.0.10"
by = "stacked"
[network]
gateway = "10.0.0.2"
[nodes]
cp1 = { role = "control-plane", address = "10.0.0.11/24" }
cp2 = { role = "control-plane", address = "10.0.0.12/24" }
cp3 = { role = "control-plane", address = "10.0.0.13/24" }
w1 = { role = "worker", address = "10.0.0.21/24" }
"#;

const LOAD_BALANCERS: &str = r#"
[endpoint]
by = "load-balancer"
[nodes]
lb1 = { role = "load-balancer", address = "10.0.0.31/24" }
lb2 = { role = "load-balancer", address = "10.0.0.32/24" }
"#;

const EXTERNAL_ETCD: &str = r#"
[nodes]
etcd1 = { role = "etcd", address = "10.0.0.41/24" }
etcd2 = { role = "etcd", address = "10.0.0.42/24" }
etcd3 = { role = "etcd", address = "10.0.0.43/24" }
"#;

const KUBEADM: &str = "/etc/kindling/kubeadm.yaml";
const KEEPALIVED: &str = "/etc/keepalived/keepalived.conf";

/// Where a trace is looked for.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// A file that the plan writes.
    File(&'static str),
    /// A step of the plan, by its id.
    Step(&'static str),
    /// A file of the seed: cloud-init acts on it, before the agent does.
    Seed(&'static str),
    /// What is rendered for a hypervisor.
    Render(Target, &'static str),
}
pub use Place::{File, Render, Step};

/// A sample of a key, and the traces that it must leave.
pub struct Row {
    pub key: &'static str,
    /// Merged into [`BASE`].
    pub sample: String,
    /// Merged into [`BASE`] for the plan that must not have the traces.
    pub without: String,
    pub node: &'static str,
    pub traces: Vec<(Place, String)>,
    /// For this runtime alone; all of them where `None`.
    pub only: Option<RuntimeName>,
    /// What `check` says instead.
    pub refused: Option<&'static str>,
}

pub fn row(
    key: &'static str,
    sample: impl Into<String>,
    node: &'static str,
    place: Place,
    trace: &str,
) -> Row {
    Row {
        key,
        sample: sample.into(),
        without: String::new(),
        node,
        traces: vec![(place, trace.to_owned())],
        only: None,
        refused: None,
    }
}

impl Row {
    pub fn and(mut self, place: Place, trace: &str) -> Self {
        self.traces.push((place, trace.to_owned()));
        self
    }
    pub fn without(mut self, sample: impl Into<String>) -> Self {
        self.without = sample.into();
        self
    }
    pub fn only(mut self, runtime: RuntimeName) -> Self {
        self.only = Some(runtime);
        self
    }
    pub fn refused(mut self, because: &'static str) -> Self {
        self.refused = Some(because);
        self
    }
}

/// What is in no file and no step: how long a machine waits, see `a_machine_waits_as_long_as_its_deadlines_say`.
pub const WAITS: [&str; 2] = ["deadlines.cluster", "deadlines.ready"];

/// What no machine needs to know.
pub const WITHOUT_TRACE: [(&str, &str); 1] = [("version", "of the file's format: an unknown one is refused")];

fn name_of(runtime: RuntimeName) -> &'static str {
    match runtime {
        RuntimeName::Containerd => "containerd",
        RuntimeName::Docker => "docker",
        RuntimeName::Crio => "crio",
    }
}

pub fn head(minor: u32, patch: u32, runtime: RuntimeName) -> String {
    format!("kubernetes = \"v1.{minor}.{patch}\"\nruntime = \"{}\"\n", name_of(runtime))
}

pub fn rows(minor: u32, (runtime, containerd): Runtime) -> Vec<Row> {
    let mut rows = of_the_cluster(minor, runtime);
    rows.extend(of_machines());
    rows.extend(of_hypervisors());
    rows.extend(of_registries(containerd).into_iter().filter(|row| row.only.is_none_or(|r| r == runtime)));
    rows
}

fn of_the_cluster(minor: u32, runtime: RuntimeName) -> Vec<Row> {
    let socket = match runtime {
        RuntimeName::Containerd => "containerd.sock",
        RuntimeName::Docker => "cri-dockerd.sock",
        RuntimeName::Crio => "crio.sock",
    };
    let other = if runtime == RuntimeName::Crio { RuntimeName::Containerd } else { RuntimeName::Crio };
    let version = format!("v1.{minor}.9");
    let flag = |component: &str, flag: &str| format!("[{component}_args]\n{flag} = \"7h\"");
    let named = |name: &str| format!("\"{name}\"\n");
    vec![
        row("name", "name = \"marked\"", "cp1", File(KUBEADM), "clusterName: \"marked\""),
        row("kubernetes", head(minor, 9, runtime), "cp1", File(KUBEADM), &version),
        row("runtime", head(minor, 1, runtime), "w1", File("/etc/crictl.yaml"), socket)
            .without(head(minor, 1, other))
            .and(File(KUBEADM), socket),
        row("addons", "addons = [\"marked\"]", "cp1", Step("addons"), "marked"),
        row("api_server_args", flag("api_server", "event-ttl"), "cp1", File(KUBEADM), "event-ttl"),
        // The others take them from the cluster's own kubeadm-config.
        row(
            "api_server_args",
            format!("{}\n[nodes.cp2]\nfirst = true", flag("api_server", "event-ttl")),
            "cp2",
            File(KUBEADM),
            "event-ttl",
        )
        .without("[nodes.cp2]\nfirst = true"),
        row("cert_sans", "cert_sans = [\"marked.test\"]", "cp1", File(KUBEADM), "marked.test"),
        row(
            "controller_manager_args",
            flag("controller_manager", "leader-elect-lease-duration"),
            "cp1",
            File(KUBEADM),
            "leader-elect-lease-duration",
        ),
        row("scheduler_args", flag("scheduler", "kube-api-qps"), "cp1", File(KUBEADM), "kube-api-qps"),
        row("etcd_args", "[etcd_args]\nsnapshot-count = \"777\"", "cp1", File(KUBEADM), "snapshot-count"),
        row(
            "etcd_args",
            format!("{EXTERNAL_ETCD}\n[etcd_args]\nsnapshot-count = \"777\""),
            "etcd1",
            File("/etc/default/etcd"),
            "777",
        )
        .without(EXTERNAL_ETCD),
        row("dns_domain", "dns_domain = \"marked.test\"", "cp1", File(KUBEADM), &named("marked.test")),
        row(
            "image_repository",
            "image_repository = \"marked.test/k8s\"",
            "cp1",
            File(KUBEADM),
            "marked.test/k8s",
        ),
        row("pods", "pods = \"10.77.0.0/16\"", "cp1", File(KUBEADM), "podSubnet: \"10.77.0.0/16\""),
        row(
            "services",
            "services = \"10.78.0.0/16\"",
            "cp1",
            File(KUBEADM),
            "serviceSubnet: \"10.78.0.0/16\"",
        ),
        row("token_ttl_hours", "token_ttl_hours = 77", "cp1", File(KUBEADM), "ttl: \"77h\""),
        row("endpoint.by", LOAD_BALANCERS, "lb1", File("/etc/haproxy/haproxy.cfg"), "10.0.0.11:6443")
            .and(File(KEEPALIVED), "10.0.0.10"),
        row("endpoint.host", "[endpoint]\nhost = \"marked.test\"", "cp1", File(KUBEADM), "marked.test:6443")
            .and(File("/etc/hosts"), "marked.test"),
        row(
            "endpoint.host",
            "[endpoint]\nhost = \"marked.test\"",
            "w1",
            File("/etc/kindling/discovery.conf"),
            "marked.test",
        ),
        row(
            "endpoint.port",
            "[endpoint]\nproxy = \"haproxy\"\nport = 7443",
            "w1",
            File("/etc/kindling/discovery.conf"),
            ":7443",
        ),
        row(
            "endpoint.proxy",
            "[endpoint]\nproxy = \"nginx\"",
            "cp2",
            File("/etc/nginx/nginx.conf"),
            "10.0.0.11:6443",
        ),
        row("endpoint.vip", "[endpoint]\nvip = \"10.0.0.77\"", "cp1", File(KEEPALIVED), "10.0.0.77")
            .and(File(KUBEADM), "10.0.0.77"),
        row("vrrp.advert_ms", "[vrrp]\nadvert_ms = 770", "cp2", File(KEEPALIVED), "advert_int 0.77"),
        row("vrrp.vrid", "[vrrp]\nvrid = 177", "cp2", File(KEEPALIVED), "virtual_router_id 177"),
        row("deadlines.kubeadm", "[deadlines]\nkubeadm = 777", "w1", File(KUBEADM), "259s"),
    ]
}

fn of_machines() -> Vec<Row> {
    let network = |line: &str| format!("[network]\n{line}");
    let seed = Place::Seed("network-config");
    vec![
        row("network.gateway", network("gateway = \"10.0.0.77\""), "w1", seed, "via: 10.0.0.77"),
        row("network.dns", network("dns = [\"10.0.0.77\"]"), "w1", seed, "- 10.0.0.77"),
        row("network.interface", network("interface = \"marked\""), "w1", seed, "marked:"),
        row(
            "network.ntp",
            network("ntp = [\"marked.test\"]"),
            "w1",
            File("/etc/chrony/chrony.conf"),
            "marked.test",
        ),
        row(
            "network.timezone",
            network("timezone = \"Asia/Shanghai\""),
            "w1",
            Step("timezone"),
            "Asia/Shanghai",
        ),
        row(
            "nodes.*.role",
            "[nodes]\nw1 = { role = \"control-plane\", address = \"10.0.0.21/24\" }",
            "w1",
            File(KUBEADM),
            "controlPlane:",
        ),
        row(
            "nodes.*.address",
            "[nodes]\nw1 = { role = \"worker\", address = \"10.0.0.77/24\" }",
            "w1",
            seed,
            "- 10.0.0.77/24",
        )
        .and(File("/etc/hosts"), "10.0.0.77"),
        row("nodes.*.first", "[nodes.cp2]\nfirst = true", "cp2", Step("init"), "kubeadm init"),
        row("nodes.*.labels", "[nodes.w1.labels]\nmarked = \"yes\"", "w1", File(KUBEADM), "marked=yes"),
        row("nodes.*.labels", "[nodes.cp1.labels]\nmarked = \"yes\"", "cp1", File(KUBEADM), "marked=yes"),
        row("nodes.*.mac", "[nodes.w1]\nmac = \"52:54:00:77:77:77\"", "w1", seed, "52:54:00:77:77:77"),
        row(
            "nodes.*.taints",
            "[nodes.w1]\ntaints = [\"marked=yes:NoExecute\"]",
            "w1",
            File(KUBEADM),
            "\"marked\"",
        ),
        row("nodes.*.taints", "[nodes.cp1]\ntaints = []", "cp1", File(KUBEADM), "taints: []"),
    ]
}

fn of_hypervisors() -> Vec<Row> {
    let vsphere = |key, line: &str, trace: &str| {
        row(key, format!("[vsphere]\n{line}"), "w1", Render(Target::Vsphere, "vsphere/settings"), trace)
    };
    let libvirt = |key, line: &str, file, trace: &str| {
        row(key, format!("[libvirt]\n{line}"), "w1", Render(Target::Libvirt, file), trace)
    };
    let (domain, settings) = ("libvirt/w1.xml", "libvirt/settings");
    vec![
        vsphere("vsphere.cpus", "cpus = 7", "cpus=7"),
        vsphere("vsphere.memory_mb", "memory_mb = 7776", "memory_mb=7776"),
        vsphere("vsphere.disk_gb", "disk_gb = 77", "disk_gb=77"),
        vsphere("vsphere.datacenter", "datacenter = \"marked\"", "GOVC_DATACENTER='marked'"),
        vsphere("vsphere.datastore", "datastore = \"marked\"", "GOVC_DATASTORE='marked'"),
        vsphere("vsphere.folder", "folder = \"marked\"", "GOVC_FOLDER='marked'"),
        vsphere("vsphere.network", "network = \"marked\"", "GOVC_NETWORK='marked'"),
        vsphere("vsphere.resource_pool", "resource_pool = \"marked\"", "GOVC_RESOURCE_POOL='marked'"),
        libvirt("libvirt.cpus", "cpus = 7", domain, "<vcpu>7</vcpu>"),
        libvirt("libvirt.memory_mb", "memory_mb = 7776", domain, ">7776</memory>"),
        libvirt("libvirt.disk_gb", "disk_gb = 77", settings, "disk_gb=77"),
        libvirt("libvirt.folder", "folder = \"/srv/marked\"", settings, "/srv/marked"),
        libvirt("libvirt.network", "network = \"marked\"", domain, "network='marked'"),
        libvirt("libvirt.bridge", "bridge = \"marked\"", domain, "bridge='marked'"),
    ]
}
