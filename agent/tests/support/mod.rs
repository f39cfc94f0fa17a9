//! A cluster's nodes on hosts in memory. Shared by several test programs, none of which uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use kindling::apply::{Observer, apply, earlier};
use kindling::cluster::{Cluster, Secrets, render};
use kindling::facts::{Facts, Interface};
use kindling::host::fake::Fake;
use kindling::input::Source;
use kindling::plan::plan;
use kindling::role::etcd_version::EtcdVersion;
use kindling::role::types::RuntimeName;
use kindling::role::{NodeSpec, Role};
use kindling::status::{ConsoleLine, Status};

pub fn secrets() -> &'static Secrets {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    SECRETS.get_or_init(|| Secrets::generate(time::OffsetDateTime::now_utc()).expect("keys can be made"))
}

const NEWEST: &str = "v1.37.2";
const CLUSTER: &str = r#"
version = 1
name = "test"
kubernetes = "v1.37.2"
[endpoint]
host = "kubeapi.test"
vip = "10.0.0.10"
by = "ENDPOINT"
port = PORT
[network]
gateway = "10.0.0.2"
ntp = ["ntp.test"]
timezone = "Asia/Shanghai"
[nodes]
cp1 = { role = "control-plane", address = "10.0.0.11/24" }
cp2 = { role = "control-plane", address = "10.0.0.12/24" }
cp3 = { role = "control-plane", address = "10.0.0.13/24" }
w1 = { role = "worker", address = "10.0.0.21/24", labels = { zone = "a" } }
"#;

/// `cp2@v1.32.3` is cp2 of a cluster of that version; without one it is the newest.
fn split(node: &str) -> (&str, &str) {
    node.split_once('@').unwrap_or((node, NEWEST))
}

/// `xcp1` is cp1 of the same cluster with an external etcd.
pub fn cluster(node: &str, proxy: &str) -> Cluster {
    let proxy = format!("proxy = \"{proxy}\"");
    let (node, version) = split(node);
    let text = if node.starts_with("etcd") || node.starts_with('x') {
        CLUSTER.replace("ENDPOINT", "stacked").replace("PORT", "6443")
            + "etcd1 = { role = \"etcd\", address = \"10.0.0.41/24\" }\n\
               etcd2 = { role = \"etcd\", address = \"10.0.0.42/24\" }\n\
               etcd3 = { role = \"etcd\", address = \"10.0.0.43/24\" }\n"
    } else if node.starts_with("ha") {
        CLUSTER.replace("ENDPOINT", "load-balancer").replace("PORT", &format!("6443\n{proxy}"))
            + "ha1 = { role = \"load-balancer\", address = \"10.0.0.31/24\" }\n\
               ha2 = { role = \"load-balancer\", address = \"10.0.0.32/24\" }\n"
    } else {
        CLUSTER.replace("ENDPOINT", "stacked").replace("PORT", &format!("8443\n{proxy}"))
    };
    let text = text.replace(NEWEST, version);
    Cluster::parse(Source::new("cluster.toml", text)).unwrap_or_else(|e| panic!("{e}")).0
}

pub fn spec(node: &str) -> NodeSpec {
    spec_with(node, "haproxy")
}

/// With this in front of the API servers.
pub fn spec_with(node: &str, proxy: &str) -> NodeSpec {
    let cluster = cluster(node, proxy);
    let node = cluster.node(split(node).0.trim_start_matches('x')).expect("the node is in the cluster");
    let role = render::role_file(&cluster, secrets(), node).to_toml();
    NodeSpec::parse(Source::new("role.toml", role)).unwrap_or_else(|e| panic!("{e}")).0
}

pub fn facts(spec: &NodeSpec, host: &Fake) -> Facts {
    let interface = Interface {
        name: "eth0".into(),
        mac: None,
        up: true,
        addresses: vec![ipnet::Ipv4Net::new(spec.address(), 24).expect("24 is a prefix")],
    };
    Facts {
        interfaces: vec![interface],
        cpus: 2,
        memory_mb: 2048,
        machine_id: Some("0123456789abcdef0123456789abcdef".into()),
        kubeadm: spec.kubernetes().map(|kubernetes| kubernetes.version),
        containerd: Some((1, 7)),
        etcd: EtcdVersion::read("3.7.0"),
        addons: vec!["flannel".into()],
        kindling_began: earlier(host).is_some(),
        joined: earlier(host).is_some_and(|status| status.has_joined()),
        ..Facts::default()
    }
}

#[derive(Default)]
pub struct Told(pub Vec<String>);

impl Observer for Told {
    fn tell(&mut self, line: &ConsoleLine) {
        self.0.push(line.to_string());
    }
}

pub fn run(spec: &NodeSpec, host: &Fake) -> Status {
    run_told(spec, host).0
}

/// The outcome, and what was said on the way to it.
pub fn run_told(spec: &NodeSpec, host: &Fake) -> (Status, Told) {
    let (facts, mut told) = (facts(spec, host), Told::default());
    let status = apply(spec, &facts, &plan(spec, &facts), host, &mut told);
    (status, told)
}

/// The role file of a node, as cloud-init writes it and keeps it.
pub fn role_text(node: &str) -> String {
    static TEXTS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let render = || {
        let cluster = cluster(node, "haproxy");
        let node = cluster.node(split(node).0.trim_start_matches('x')).expect("the node is in the cluster");
        render::role_file(&cluster, secrets(), node).to_toml()
    };
    // Thousands of machines are made of few texts.
    TEXTS.lock().expect("nobody panics with it").entry(node.to_owned()).or_insert_with(render).clone()
}

pub fn cloud_init(host: &Fake, node: &str) {
    let text = role_text(node);
    let indented: String = text.lines().map(|line| format!("      {line}\n")).collect();
    host.put("/etc/kindling/role.toml", &text);
    host.put("/var/lib/cloud/instances/i-1/user-data.txt", &format!("#cloud-config\n{indented}"));
    host.put("/var/lib/cloud/instances/i-1/obj.pkl", &format!("\u{1}X{indented}\u{2}"));
    host.put("/var/lib/cloud/seed/nocloud/user-data", &indented);
    host.put("/var/lib/cloud/data/instance-id", "i-1\n");
    let json = serde_json::json!({ "write_files": [{ "content": text }] }).to_string();
    host.put("/run/cloud-init/combined-cloud-config.json", &json);
    host.put("/run/cloud-init/instance-data-sensitive.json", "{}");
}

pub fn machine(node: &str) -> Fake {
    let host = Fake::new();
    cloud_init(&host, node);
    let (node, version) = split(node);
    host.kubeadm.set(Some(version.parse().expect("a version")));
    // A worker and a joining control plane find a cluster that others made.
    let joins = matches!(node, "cp2" | "xcp2" | "w1");
    host.cluster_is_up.set(joins);
    if joins {
        host.cluster.borrow_mut().members = vec![("cp1".into(), "https://10.0.0.11:2380".into())];
    }
    host.etcd_is_up.set(node.starts_with('x'));
    host
}

pub fn with_runtime(node: &str, runtime: RuntimeName) -> NodeSpec {
    let mut spec = spec(node);
    let Role::Worker(kubernetes) = &mut spec.role else { panic!("{node} is no worker") };
    kubernetes.runtime = runtime;
    spec
}
