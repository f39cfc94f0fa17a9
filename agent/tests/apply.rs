//! The agent on a host in memory, where the power can be cut at every single effect.

use std::sync::OnceLock;

use kindling::apply::{Observer, apply, earlier};
use kindling::cluster::{Cluster, Secrets, render};
use kindling::facts::{Facts, Interface};
use kindling::host::fake::{Cut, Fake};
use kindling::input::Source;
use kindling::plan::plan;
use kindling::role::NodeSpec;
use kindling::status::{ConsoleLine, State, Status, StepState};

fn secrets() -> &'static Secrets {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    SECRETS.get_or_init(|| Secrets::generate(time::OffsetDateTime::now_utc()).expect("keys can be made"))
}

const CLUSTER: &str = r#"
version = 1
name = "test"
kubernetes = "v1.32.3"
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

fn cluster(node: &str, proxy: &str) -> Cluster {
    let proxy = format!("proxy = \"{proxy}\"");
    let text = if node.starts_with("ha") {
        CLUSTER.replace("ENDPOINT", "load-balancer").replace("PORT", &format!("6443\n{proxy}"))
            + "ha1 = { role = \"load-balancer\", address = \"10.0.0.31/24\" }\n\
               ha2 = { role = \"load-balancer\", address = \"10.0.0.32/24\" }\n"
    } else {
        CLUSTER.replace("ENDPOINT", "stacked").replace("PORT", &format!("8443\n{proxy}"))
    };
    Cluster::parse(Source::new("cluster.toml", text)).unwrap_or_else(|e| panic!("{e}")).0
}

fn spec(node: &str) -> NodeSpec {
    let cluster = cluster(node, "haproxy");
    let node = cluster.node(node).expect("the node is in the cluster");
    let role = render::role_file(&cluster, secrets(), node).to_toml();
    NodeSpec::parse(Source::new("role.toml", role)).unwrap_or_else(|e| panic!("{e}")).0
}

fn facts(spec: &NodeSpec, host: &Fake) -> Facts {
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
        kubeadm: Some("v1.32.3".parse().expect("a version")),
        containerd: Some((1, 7)),
        addons: vec!["flannel".into()],
        kindling_began: earlier(host).is_some(),
        ..Facts::default()
    }
}

#[derive(Default)]
struct Told(Vec<String>);

impl Observer for Told {
    fn tell(&mut self, line: &ConsoleLine) {
        self.0.push(line.to_string());
    }
}

fn run(spec: &NodeSpec, host: &Fake) -> Status {
    let facts = facts(spec, host);
    apply(spec, &facts, &plan(spec, &facts), host, &mut Told::default())
}

fn machine(node: &str) -> Fake {
    let host = Fake::new();
    // A worker and a joining control plane find a cluster that others made.
    host.cluster_is_up.set(matches!(node, "cp2" | "w1"));
    host
}

const NODES: [&str; 4] = ["cp1", "cp2", "w1", "ha1"];

#[test]
fn every_role_comes_up() {
    for node in NODES {
        let status = run(&spec(node), &machine(node));
        assert_eq!((status.state, &status.failure), (State::Done, &None), "{node}");
    }
}

#[test]
fn a_second_run_changes_nothing() {
    for node in NODES {
        let (spec, host) = (spec(node), machine(node));
        run(&spec, &host);
        let (before, effects) = (host.disk.borrow().clone(), host.log.borrow().len());
        let status = run(&spec, &host);
        assert_eq!(status.state, State::Done, "{node}");
        for step in &status.steps {
            assert_eq!(step.state, StepState::Unchanged, "{node}: {}", step.id);
        }
        let mut after = host.disk.borrow().clone();
        let log: Vec<String> =
            host.log.borrow()[effects..].iter().filter(|l| !l.starts_with("query")).cloned().collect();
        assert!(log.iter().all(|l| l == "write /var/lib/kindling/status.json"), "{node}: {log:?}");
        let status_file = std::path::Path::new("/var/lib/kindling/status.json");
        after.files.insert(status_file.into(), before.files[status_file].clone());
        assert!(before == after, "{node}");
    }
}

#[test]
fn a_reboot_repeats_no_step() {
    for node in NODES {
        let (spec, host) = (spec(node), machine(node));
        run(&spec, &host);
        let enabled_by_kubeadm = host.disk.borrow().enabled.contains("kubelet.service");
        assert_eq!(
            enabled_by_kubeadm,
            node != "ha1",
            "{node}: a kubelet that is not enabled is not there after a reboot"
        );
        host.boot();
        let status = run(&spec, &host);
        assert_eq!(status.state, State::Done, "{node}: {:?}", status.failure);
        for step in status.steps.iter().filter(|s| !matches!(s.id.as_str(), "kernel")) {
            assert_eq!((step.state, step.changed <= 1), (StepState::Unchanged, true), "{node}: {}", step.id);
        }
    }
}

/// The power is cut before, in the middle of and after every single effect; the next run completes, and
/// the machine is what an undisturbed run makes of it.
#[test]
fn a_power_cut_at_any_effect_is_recovered_from() {
    for node in NODES {
        let spec = spec(node);
        let undisturbed = machine(node);
        run(&spec, &undisturbed);
        for cut in [Cut::Before, Cut::Half, Cut::After] {
            for n in 1.. {
                let host = machine(node);
                host.cut_power_at(n, cut);
                let status = run(&spec, &host);
                if !host.was_cut() {
                    assert_eq!(status.state, State::Done, "{node}");
                    assert!(n > 20, "{node}: only {n} effects");
                    break;
                }
                host.boot();
                let status = run(&spec, &host);
                let log = host.log.borrow().join("\n");
                assert_eq!(
                    status.state,
                    State::Done,
                    "{node}, {cut:?} effect {n}: {:?}\n{log}",
                    status.failure
                );
                assert_eq!(
                    host.differences(&undisturbed),
                    Vec::<String>::new(),
                    "{node}, {cut:?} effect {n}\n{log}"
                );
            }
        }
    }
}

#[test]
fn the_first_control_plane_joins_when_the_cluster_is_there() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.cluster_is_up.set(true);
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let log = host.log.borrow().join("\n");
    assert!(log.contains("run kubeadm join") && !log.contains("run kubeadm init"), "{log}");
}

#[test]
fn somebody_elses_data_is_never_touched() {
    for (node, path) in [
        ("cp1", "/var/lib/etcd/member"),
        ("cp2", "/etc/kubernetes/admin.conf"),
        ("w1", "/etc/kubernetes/kubelet.conf"),
    ] {
        let (spec, host) = (spec(node), machine(node));
        host.put(path, "somebody's\n");
        let status = run(&spec, &host);
        let failure = status.failure.expect("it must fail");
        assert!(failure.cause.contains(path) && !failure.retry, "{failure:?}");
        assert_eq!(host.text(path).as_deref(), Some("somebody's\n"));
        assert!(!host.log.borrow().iter().any(|l| l.contains("run kubeadm")));
    }
}

#[test]
fn a_node_whose_cluster_never_answers_says_so_after_its_deadline() {
    let (spec, host) = (spec("w1"), Fake::new());
    let status = run(&spec, &host);
    let failure = status.failure.expect("it must fail");
    assert_eq!(failure.step, "join");
    assert_eq!(failure.cause, "the API at kubeapi.test:8443 does not answer yet (waited 1800 s)");
    assert!(failure.retry);
}

#[test]
fn preflight_names_everything_at_once_and_nothing_is_changed() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    let facts = Facts {
        interfaces: Vec::new(),
        cpus: 1,
        memory_mb: 900,
        machine_id: None,
        listening: [6443, 10250].into(),
        firewalls: vec!["ufw".into()],
        kubeadm: Some("v1.19.0".parse().expect("a version")),
        ..facts(&spec, &host)
    };
    let before = host.outcome();
    let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
    let failure = status.failure.expect("it must fail");
    for part in ["10.0.0.11", "machine-id", "ufw", "1 CPU", "900 MiB", "v1.19.0", "port 6443", "port 10250"] {
        assert!(failure.cause.contains(part), "{part} is not in: {}", failure.cause);
    }
    assert!(!failure.retry);
    assert!(host.outcome() == before);
    assert_eq!(status.steps[0].state, StepState::Failed);
}

#[test]
fn no_secret_reaches_the_record_or_the_plan() {
    for node in NODES {
        let (spec, host) = (spec(node), machine(node));
        let facts = facts(&spec, &host);
        let steps = plan(&spec, &facts);
        let mut told = Told::default();
        apply(&spec, &facts, &steps, &host, &mut told);
        let seen = format!(
            "{steps:?}{spec:?}{}{}",
            told.0.join("\n"),
            host.text("/var/lib/kindling/status.json").unwrap_or_default()
        );
        assert!(!seen.contains("PRIVATE KEY"), "{node}");
        if let Some(kubernetes) = spec.kubernetes() {
            assert!(!seen.contains(&kubernetes.token.expose()[7..]), "{node}");
        }
        for secret in spec
            .vrrp()
            .map(|v| v.password.expose())
            .into_iter()
            .chain(spec.proxy().and_then(|p| p.stats_password.as_ref()).map(|p| p.expose()))
        {
            assert!(!seen.contains(secret), "{node}");
        }
        for line in host.log.borrow().iter() {
            assert!(!line.contains("PRIVATE"), "{line}");
        }
    }
}

#[test]
fn the_proxy_that_is_not_chosen_any_more_does_not_run() {
    let host = machine("ha1");
    let haproxy = spec("ha1");
    let cluster = cluster("ha1", "nginx");
    let file = render::role_file(&cluster, secrets(), cluster.node("ha1").unwrap());
    let nginx = NodeSpec::parse(Source::new("role.toml", file.to_toml())).unwrap_or_else(|e| panic!("{e}")).0;
    for (spec, runs, rests) in [
        (&haproxy, "haproxy.service", "nginx.service"),
        (&nginx, "nginx.service", "haproxy.service"),
        (&haproxy, "haproxy.service", "nginx.service"),
    ] {
        assert_eq!(run(spec, &host).state, State::Done);
        let enabled = host.disk.borrow().enabled.clone();
        assert!(enabled.contains(runs) && !enabled.contains(rests), "{enabled:?}");
    }
}

#[test]
fn in_a_system_container_modules_swap_and_the_clock_are_the_hosts() {
    let (spec, host) = (spec("w1"), machine("w1"));
    let mut facts = facts(&spec, &host);
    facts.container = Some("systemd-nspawn".into());
    facts.modules = ["overlay".into()].into();
    let told = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
    let failure = told.failure.expect("br_netfilter is missing");
    assert_eq!(
        (failure.step.as_str(), failure.remedy.as_str()),
        ("preflight", "modprobe br_netfilter on the host")
    );

    facts.modules.insert("br_netfilter".into());
    let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert_eq!(status.container.as_deref(), Some("systemd-nspawn"));
    let log = host.log.borrow().join("\n");
    for word in ["modprobe", "swapoff", "chrony"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}
