//! Renderers against golden files: each folder of tests/data/render is a node, its role.toml is what is
//! rendered, everything else beside it is what must come out. `UPDATE_GOLDEN=1` writes the files anew.

#[path = "../../tests/lib/here.rs"]
mod here;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kindling::emulated;
use kindling::input::Source;
use kindling::render::{self, ClusterState, Environment};
use kindling::role::etcd_version::EtcdVersion;
use kindling::role::types::{KubernetesVersion, ProxyKind, RuntimeName};
use kindling::role::{NodeSpec, Role};
use kindling::runtime::{self, containerd, crio, docker};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/render")
}

fn spec(case: &str) -> NodeSpec {
    let path = data().join(case).join("role.toml");
    let text = fs::read_to_string(&path).unwrap();
    NodeSpec::parse(Source::new(&path, text)).unwrap_or_else(|report| panic!("{report}")).0
}

fn cases() -> Vec<String> {
    let folders = fs::read_dir(data()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = folders
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn environment(spec: &NodeSpec, container: bool) -> Environment {
    let kubernetes = spec.kubernetes().unwrap();
    Environment {
        cri_socket: runtime::socket(kubernetes.runtime).into(),
        container,
        runtime: kubernetes.runtime,
        kubeadm: kubernetes.version,
        deadlines: spec.deadlines,
        emulated: false,
    }
}

/// kubeadm's documents of a node, by file name. The designated first control plane has both.
fn kubeadm(spec: &NodeSpec, container: bool) -> Vec<(&'static str, String)> {
    kubeadm_on(spec, container, false)
}

/// Where QEMU emulates.
fn kubeadm_emulated(spec: &NodeSpec) -> Vec<(&'static str, String)> {
    kubeadm_on(&emulated::suit(spec.clone(), true), false, true)
}

fn kubeadm_on(spec: &NodeSpec, container: bool, emulated: bool) -> Vec<(&'static str, String)> {
    let Some(kubernetes) = spec.kubernetes() else { return Vec::new() };
    let env = Environment { emulated, ..environment(spec, container) };
    let cp = spec.control_plane();
    let mut files = vec![("kubeadm-join", render::kubeadm_join(spec, kubernetes, cp, &env))];
    if let Some(cp) = cp.filter(|cp| cp.first) {
        files.push(("kubeadm-init", render::kubeadm_init(spec, cp, &env)));
    }
    files
}

fn rendered(spec: &NodeSpec) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |name: &str, text: String| {
        assert!(files.insert(name.to_owned(), text).is_none(), "{name} is rendered twice");
    };
    add("hosts", render::hosts(spec));
    add("modules.conf", render::modules_conf(spec));
    add("sysctl.conf", render::sysctl_conf(spec));
    if let Some(text) = render::chrony(spec) {
        add("chrony.conf", text);
    }
    if spec.vrrp().is_some() {
        add("keepalived.conf", render::keepalived(spec, "eth0"));
    }
    if let Some(text) = render::watched(spec) {
        add("endpoint.toml", text);
    }
    match spec.proxy().map(|proxy| proxy.kind) {
        Some(ProxyKind::Haproxy) => add("haproxy.cfg", render::haproxy(spec)),
        Some(ProxyKind::Nginx) => add("nginx.conf", render::nginx(spec)),
        Some(ProxyKind::None) | None => {}
    }
    if let Some(role) = spec.etcd() {
        let version = |text| EtcdVersion::read(text).unwrap();
        add("etcd", render::etcd(spec, &role.members, version("3.7.0"), &role.args, ClusterState::New));
        add(
            "etcd-rejoining",
            render::etcd(spec, &role.members, version("3.6.8"), &role.args, ClusterState::Existing),
        );
        add("etcd-3.5", render::etcd(spec, &role.members, version("3.5.24"), &role.args, ClusterState::New));
    }
    // Where QEMU emulates: the lecture's machines, whose operator has flags of his own, and the demo's.
    let slow = emulated::suit(spec.clone(), true);
    let is_lectures = spec.cluster.as_str() == "kang";
    if is_lectures && slow.vrrp().is_some() {
        add("keepalived.emulated.conf", render::keepalived(&slow, "eth0"));
    }
    let Some(kubernetes) = spec.kubernetes() else { return files };
    let in_place = |path: &Path| path.strip_prefix("/etc").unwrap().display().to_string();
    match kubernetes.runtime {
        RuntimeName::Containerd => {
            let pause = "registry.k8s.io/pause:3.10";
            for (name, major, minor, restrict) in [
                ("containerd-1.toml", 1, 7, false),
                ("containerd-2.0.toml", 2, 0, true),
                ("containerd-2.1.toml", 2, 1, false),
            ] {
                let version = containerd::ContainerdVersion { major, minor };
                add(name, containerd::config(kubernetes, version, pause, restrict));
            }
            for (path, text) in kubernetes
                .registries
                .iter()
                .flat_map(|registry| containerd::registry_hosts(registry, &kubernetes.registries))
            {
                add(&in_place(&path), text);
            }
        }
        RuntimeName::Docker => {
            add("daemon.json", docker::config(kubernetes, false));
            for (path, text) in kubernetes.registries.iter().filter_map(docker::certificate) {
                add(&in_place(&path), text);
            }
        }
        RuntimeName::Crio => {
            add("crio.conf", crio::config(kubernetes, "registry.k8s.io/pause:3.10", false));
            add("registries.conf", crio::registries(kubernetes));
        }
    }
    // containerd has them in a table of its own.
    let logins =
        runtime::registry_logins(kubernetes).filter(|_| kubernetes.runtime != RuntimeName::Containerd);
    if let Some(text) = logins {
        add("config.json", text);
    }
    add("discovery.conf", render::discovery_kubeconfig(spec, &kubernetes.token));
    for (name, text) in kubeadm(spec, false) {
        add(&format!("{name}.yaml"), text);
    }
    if is_lectures || spec.cluster.as_str() == "demo" {
        for (name, text) in kubeadm_emulated(spec) {
            add(&format!("{name}.emulated.yaml"), text);
        }
    }
    // The demo also runs in system containers.
    if spec.cluster.as_str() == "demo" {
        for (name, text) in kubeadm(spec, true) {
            add(&format!("{name}.container.yaml"), text);
        }
    }
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn every_node_is_rendered_as_its_golden_files_say() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let folder = data().join(&case);
        let mut expected = rendered(&spec(&case));
        if update {
            for old in files_below(&folder).iter().filter(|path| !path.ends_with("role.toml")) {
                fs::remove_file(old).unwrap();
            }
            for (name, text) in &expected {
                fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
                fs::write(folder.join(name), text).unwrap();
            }
        }
        for path in files_below(&folder) {
            let name = path.strip_prefix(&folder).unwrap().display().to_string();
            match expected.remove(&name) {
                _ if name == "role.toml" => {}
                Some(text) if text == fs::read_to_string(&path).unwrap() => {}
                Some(text) => wrong.push(format!("{} differs:\n{text}", path.display())),
                None => wrong.push(format!("{} is not rendered", path.display())),
            }
        }
        wrong.extend(expected.into_keys().map(|name| format!("{case}/{name} has no golden file")));
    }
    assert!(wrong.is_empty(), "{}\n`UPDATE_GOLDEN=1 cargo test --test render` writes them", wrong.join("\n"));
}

#[test]
fn an_emulated_machine_gets_more_time_and_the_operators_own_flags_win() {
    let own = spec("behind-load-balancer");
    assert_eq!(emulated::suit(own.clone(), false), own, "a real machine gets what its role file says");
    let slow = emulated::suit(own, true);
    assert_eq!(
        (slow.deadlines.cluster, slow.deadlines.kubeadm, slow.deadlines.ready),
        (5400, 2700, 2700),
        "three times the defaults"
    );
    let role = slow.control_plane().unwrap();
    let flag = |args: &BTreeMap<String, String>, name: &str| args.get(name).cloned();
    assert_eq!(flag(&role.api_server_args, "event-ttl").as_deref(), Some("24h"));
    assert_eq!(flag(&role.api_server_args, "enable-priority-and-fairness").as_deref(), Some("false"));
    // One of ours beside the operator's might not fit them.
    assert_eq!(flag(&role.controller_manager_args, "leader-elect-lease-duration").as_deref(), Some("60s"));
    assert_eq!(flag(&role.controller_manager_args, "leader-elect-retry-period"), None);
    assert_eq!(flag(&role.scheduler_args, "leader-elect-lease-duration"), None);

    let mut patient = spec("stacked-single");
    patient.deadlines.kubeadm = 4000;
    let slow = emulated::suit(patient, true);
    assert_eq!(slow.deadlines.kubeadm, 4000, "what is longer already stays");
    let role = slow.control_plane().unwrap();
    assert_eq!(flag(&role.scheduler_args, "leader-elect-lease-duration").as_deref(), Some("120s"));
    assert_eq!(flag(&role.etcd_args, "election-timeout").as_deref(), Some("5000"));

    let mut member = spec("etcd");
    let Role::Etcd(role) = &mut member.role else { panic!("no member of an external etcd") };
    role.args.clear();
    let slow = emulated::suit(member, true);
    assert_eq!(flag(&slow.etcd().unwrap().args, "heartbeat-interval").as_deref(), Some("500"));
}

/// The dotted keys of the YAML that `render::yaml` writes, each with its document's kind in front.
fn keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for document in text.split("---\n").filter(|d| !d.is_empty()) {
        let kind = document.lines().find_map(|l| l.strip_prefix("kind: ")).expect("a kind").trim_matches('"');
        let mut path: Vec<(usize, &str)> = Vec::new();
        for line in document.lines() {
            let content = line.trim_start_matches([' ', '-']);
            // A list's dash indents its items' keys by two, below a key that stands where the dash does.
            let indent = line.len() - content.len();
            path.retain(|(outer, _)| *outer < indent);
            let Some((key, value)) = content.split_once(':').filter(|_| !content.starts_with('"')) else {
                continue;
            };
            path.push((indent, key));
            if !value.is_empty() {
                let dotted: Vec<&str> = path.iter().map(|(_, key)| *key).collect();
                keys.push(format!("{kind}.{}", dotted.join(".")));
            }
        }
    }
    keys
}

fn is_known(table: &str, key: &str) -> bool {
    table.lines().filter(|line| !line.starts_with('#')).any(|pattern| {
        let (mut pattern, mut key) = (pattern.split('.'), key.split('.'));
        loop {
            match (pattern.next(), key.next()) {
                (None, None) => break true,
                (Some("*"), Some(_)) => {}
                (a, b) if a == b => {}
                _ => break false,
            }
        }
    })
}

#[test]
fn no_kubeadm_document_has_a_key_that_its_api_does_not_know() {
    let table = fs::read_to_string(data().join("kubeadm-keys.txt")).unwrap();
    assert!(is_known(&table, "JoinConfiguration.timeouts.discovery"));
    assert!(!is_known(&table, "JoinConfiguration.discovery.timeout"));
    let mut seen = 0;
    for case in cases() {
        let spec = spec(&case);
        let all = [false, true].into_iter().flat_map(|container| kubeadm(&spec, container));
        for (name, text) in all.chain(kubeadm_emulated(&spec)) {
            let keys = keys(&text);
            let unknown: Vec<&String> = keys.iter().filter(|key| !is_known(&table, key)).collect();
            assert!(unknown.is_empty(), "{case}/{name}: kubeadm does not know {unknown:?}\n{text}");
            seen += keys.len();
        }
    }
    assert!(seen > 300, "only {seen} keys were found in all documents: are they read at all?");
}

#[test]
fn the_real_kubeadm_knows_every_key_and_keeps_what_was_written() {
    for program in here::kubeadms() {
        knows_every_key(&program);
    }
}

fn knows_every_key(program: &Path) {
    let version = std::process::Command::new(program).args(["version", "-o", "short"]).output().unwrap();
    let version: KubernetesVersion = String::from_utf8_lossy(&version.stdout).trim().parse().unwrap();
    for case in cases() {
        let spec = spec(&case);
        let all = [false, true].into_iter().flat_map(|c| kubeadm(&spec, c).into_iter().map(move |f| (c, f)));
        for (container, (name, text)) in all.chain(kubeadm_emulated(&spec).into_iter().map(|f| (false, f))) {
            let kubernetes = spec.kubernetes().unwrap();
            let scratch = std::env::temp_dir();
            let path = scratch.join(format!("kindling-{}-{case}-{name}", std::process::id()));
            let discovery = path.with_extension("conf");
            fs::write(&discovery, render::discovery_kubeconfig(&spec, &kubernetes.token)).unwrap();
            // It refuses to plan for another minor version than its own, and looks for the file.
            let text = text
                .replace(&kubernetes.version.to_string(), &version.to_string())
                .replace("/etc/kindling/discovery.conf", discovery.to_str().unwrap());
            fs::write(&path, text).unwrap();
            // It reads strictly, and warns of what it does not know.
            let output = std::process::Command::new(program)
                .args(["config", "migrate", "--old-config"])
                .arg(&path)
                .output()
                .unwrap();
            fs::remove_file(&discovery).unwrap();
            fs::remove_file(&path).unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            let what = format!("{case}/{name} (container: {container}): {errors}");
            assert!(output.status.success(), "{what}");
            assert!(!errors.contains("unknown field") && !errors.contains("strict.go"), "{what}");
            let understood = String::from_utf8_lossy(&output.stdout);
            for part in [spec.name.as_str(), "criSocket", &spec.address().to_string()] {
                assert!(understood.contains(part), "{what}{part} is lost:\n{understood}");
            }
        }
    }
}

/// The first control plane of a cluster of this version and runtime.
fn first(version: &str, runtime: &str) -> NodeSpec {
    let text = fs::read_to_string(data().join("external/role.toml")).unwrap();
    let text = text
        .replace("kubernetes = \"v1.34.4\"", &format!("kubernetes = \"{version}\""))
        .replace("runtime = \"containerd\"", &format!("runtime = \"{runtime}\""));
    NodeSpec::parse(Source::new("role.toml", text)).unwrap_or_else(|report| panic!("{report}")).0
}

fn init(spec: &NodeSpec, container: bool) -> String {
    kubeadm(spec, container).into_iter().find(|(name, _)| *name == "kubeadm-init").unwrap().1
}

/// A kubelet that does not know a gate does not start.
#[test]
fn only_kubelets_of_docker_that_know_the_gate_are_told_to_leave_the_new_way_of_exec() {
    for (version, runtime, told) in [
        ("v1.32.3", "docker", false),
        ("v1.35.4", "docker", false),
        ("v1.36.3", "docker", true),
        ("v1.37.2", "docker", true),
        ("v1.37.2", "containerd", false),
        ("v1.37.2", "crio", false),
    ] {
        let text = init(&first(version, runtime), false);
        let gate = "featureGates:\n  ExtendWebSocketsToKubelet: false\n";
        assert_eq!(text.contains(gate), told, "{version} {runtime}:\n{text}");
    }
}

#[test]
fn cgroup_v1_is_allowed_in_system_containers_alone() {
    for version in ["v1.32.3", "v1.34.4", "v1.37.2"] {
        let spec = first(version, "containerd");
        assert!(init(&spec, true).contains("\nfailCgroupV1: false\n"), "{version}");
        assert!(!init(&spec, false).contains("failCgroupV1"), "{version}");
    }
}

/// etcd 3.6 ends where a flag stands beside its experimental name.
#[test]
fn etcd_is_not_told_twice_what_the_operator_says_by_an_experimental_name() {
    let path = cases().into_iter().find(|case| spec(case).etcd().is_some()).expect("an etcd machine");
    let spec = spec(&path);
    let role = spec.etcd().unwrap();
    let version = EtcdVersion::read("3.6.8").unwrap();
    let file = |flag: &str, value: &str| {
        let own = BTreeMap::from([(flag.to_owned(), value.to_owned())]);
        render::etcd(&spec, &role.members, version, &own, ClusterState::New)
    };
    let text = file("experimental-initial-corrupt-check", "false");
    assert!(text.contains("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK=\"false\"\n"), "{text}");
    assert!(
        !text.contains("FEATURE_GATES") && text.contains("ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL"),
        "{text}"
    );
    let text = file("experimental-watch-progress-notify-interval", "10s");
    assert!(text.contains("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL=\"10s\"\n"), "{text}");
    assert!(!text.contains("ETCD_WATCH_PROGRESS") && text.contains("InitialCorruptCheck=true"), "{text}");
    let text = file("experimental-compact-hash-check-enabled", "true");
    assert!(text.contains("InitialCorruptCheck=true"), "another gate: {text}");
}

#[test]
fn kubeadms_patience_is_never_below_what_a_first_start_takes_nor_long_with_etcd() {
    let timeouts = |kubeadm: u64| {
        let mut spec = first("v1.37.2", "containerd");
        spec.deadlines.kubeadm = kubeadm;
        let text = init(&spec, false);
        let of = |key: &str| {
            let line =
                text.lines().find_map(|line| line.trim().strip_prefix(key)).expect("the key").to_owned();
            line.trim_matches([':', ' ', '"', 's']).parse::<u64>().expect("seconds")
        };
        [of("controlPlaneComponentHealthCheck"), of("kubernetesAPICall"), of("etcdAPICall"), of("discovery")]
    };
    assert_eq!(timeouts(900), [450, 300, 120, 300]);
    assert_eq!(timeouts(300), [240, 240, 100, 100]);
    assert_eq!(timeouts(3600), [1800, 1200, 120, 1200]);
}

#[test]
fn the_sandbox_image_goes_by_the_version_where_kubeadm_could_not_be_asked() {
    for (version, image) in [
        ("v1.32.3", "registry.k8s.io/pause:3.10\""),
        ("v1.33.0", "registry.k8s.io/pause:3.10\""),
        ("v1.34.4", "registry.k8s.io/pause:3.10.1\""),
        ("v1.35.4", "registry.k8s.io/pause:3.10.1\""),
        ("v1.36.3", "registry.k8s.io/pause:3.10.2\""),
        ("v1.37.2", "registry.k8s.io/pause:3.10.2\""),
    ] {
        let spec = first(version, "containerd");
        let facts = kindling::facts::Facts { containerd: Some((1, 7)), ..Default::default() };
        let steps = runtime::steps(spec.kubernetes().unwrap(), &facts);
        let files = steps.iter().flat_map(|step| step.files());
        assert!(files.into_iter().any(|file| file.content.contains(image)), "{version}");
    }
}

#[test]
fn the_manifest_of_an_add_on_gets_the_clusters_values() {
    let text = "pods: @PODS@\nservices: @SERVICES@\nimage: @IMAGE_REPOSITORY@/a:1\nother: @OTHER@\n";
    let substituted = |case: &str| render::substitute(text, spec(case).kubernetes().unwrap());
    assert_eq!(
        substituted("behind-load-balancer"),
        "pods: 10.244.0.0/16\nservices: 10.96.0.0/12\n\
         image: registry.aliyuncs.com/google_containers/a:1\nother: @OTHER@\n"
    );
    assert!(substituted("external").contains("image: registry.k8s.io/a:1"));
}
