//! Machines in namespaces, on one network that leads nowhere, for `agent/tests/netns.rs`.

#[path = "../lib/here.rs"]
pub mod here;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kindling::cluster::{Cluster, Secrets};
use kindling::input::Source;
use kindling::kube::{Credentials, Kube, Server};
use kindling::render;
use kindling::role::NodeSpec;
use kindling::role::types::ProxyKind;
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, Issuer, KeyPair};

/// Real keys take their time: once is enough for all tests.
static SECRETS: LazyLock<Secrets> =
    LazyLock::new(|| Secrets::generate(time::OffsetDateTime::now_utc()).unwrap());

/// Two load balancers before three control planes.
pub const BALANCED: &str = r#"
version = 1
name = "balanced"
kubernetes = "v1.32.3"

[endpoint]
host = "kubeapi.kang.org"
vip = "10.77.0.10"
by = "load-balancer"

[network]
gateway = "10.77.0.1"

[nodes]
lb1 = { role = "load-balancer", address = "10.77.0.2/24" }
lb2 = { role = "load-balancer", address = "10.77.0.3/24" }
api1 = { role = "control-plane", address = "10.77.0.11/24" }
api2 = { role = "control-plane", address = "10.77.0.12/24" }
api3 = { role = "control-plane", address = "10.77.0.13/24" }
"#;

/// What must be installed, and root. `None`, and a word about it, where the test cannot run.
pub fn possible() -> Option<()> {
    let skip = |why: &str| {
        here::skip(why);
        None
    };
    if !nix::unistd::geteuid().is_root() {
        return skip("network namespaces need root");
    }
    for tool in ["ip", "unshare", "keepalived", "haproxy", "nginx", "curl", "pgrep", "python3"] {
        if !ok(Command::new("sh").args(["-c", &format!("command -v {tool}")])) {
            return skip(&format!("{tool} is not installed"));
        }
    }
    if !ok(Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"])) {
        return skip("this machine does not let namespaces be made");
    }
    Some(())
}

fn ok(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn proxy(spec: &NodeSpec) -> Option<&'static str> {
    spec.proxy().map(|proxy| if proxy.kind == ProxyKind::Nginx { "nginx" } else { "haproxy" })
}

/// Paths below /etc, and texts.
pub type Files = Vec<(&'static str, String)>;

pub struct World {
    prefix: String,
    scratch: PathBuf,
    pub cluster: Cluster,
    pub secrets: Secrets,
    processes: BTreeMap<String, Child>,
}

/// Certificates that an API server may have.
#[derive(Clone, Copy, PartialEq)]
pub enum Certificate {
    /// As kubeadm issues it.
    Own,
    /// Another cluster's CA signed it.
    Foreign,
    /// Of this cluster, but of another node.
    OfAnother,
}

impl World {
    /// As [`World::new`], with a client, and API servers that answer.
    pub fn with_servers(cluster: &str, servers: &[&str]) -> Self {
        let mut world = Self::new(cluster);
        world.plug("client", "10.77.0.99/24");
        for name in servers {
            let spec = world.plug_node(name);
            world.serve(&spec, Certificate::Own);
        }
        world
    }

    /// A network without machines, for the cluster of this file.
    pub fn new(cluster: &str) -> Self {
        // The tests of one process run at the same time.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let cluster = Cluster::parse(Source::new("cluster.toml", cluster))
            .unwrap_or_else(|report| panic!("{report}"))
            .0;
        let secrets = SECRETS.clone();
        let prefix = format!("kt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = std::env::temp_dir().join(&prefix);
        let world = Self { prefix, scratch, cluster, secrets, processes: BTreeMap::new() };
        let switch = world.namespace("switch");
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add bridge type bridge"));
        ip(&format!("-n {switch} link set bridge up"));
        world
    }

    pub fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.prefix)
    }

    pub fn spec(&self, name: &str) -> NodeSpec {
        let node = self.cluster.node(name).unwrap();
        let role = kindling::cluster::render::role_file(&self.cluster, &self.secrets, node).to_toml();
        NodeSpec::parse(Source::new("role.toml", role)).unwrap_or_else(|report| panic!("{report}")).0
    }

    /// A machine with one interface, eth0, whose other end lies on the switch under the machine's name.
    pub fn plug(&self, name: &str, address: &str) {
        let (machine, switch) = (self.namespace(name), self.namespace("switch"));
        ip(&format!("netns add {machine}"));
        ip(&format!("link add eth0 netns {machine} type veth peer name {name} netns {switch}"));
        ip(&format!("-n {switch} link set {name} master bridge up"));
        ip(&format!("-n {machine} addr add {address} dev eth0"));
        ip(&format!("-n {machine} link set lo up"));
        ip(&format!("-n {machine} link set eth0 up"));
    }

    /// Plugs in a node of the cluster file and sets those of its sysctls that are a network namespace's own.
    pub fn plug_node(&self, name: &str) -> NodeSpec {
        let spec = self.spec(name);
        self.plug(name, &spec.network.address.to_string());
        for (key, value) in render::sysctls(&spec).iter().filter(|(key, _)| key.starts_with("net.ipv4.")) {
            self.sysctl(name, &format!("{key}={value}"));
        }
        spec
    }

    pub fn sysctl(&self, machine: &str, set: &str) {
        let namespace = self.namespace(machine);
        let output =
            Command::new("ip").args(["netns", "exec", &namespace, "sysctl", "-qw", set]).output().unwrap();
        assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn cable(&self, name: &str, state: &str) {
        ip(&format!("-n {} link set {name} {state}", self.namespace("switch")));
    }

    /// What the agent would write for the endpoint, below /etc.
    fn endpoint_files(&self, spec: &NodeSpec) -> Files {
        let mut files = vec![("kindling/ca.crt", self.secrets.ca.certificate.clone())];
        files.extend(proxy(spec).map(|name| match name {
            "nginx" => ("nginx/nginx.conf", render::nginx(spec)),
            _ => ("haproxy/haproxy.cfg", render::haproxy(spec)),
        }));
        files.extend(spec.vrrp().map(|_| ("keepalived/keepalived.conf", render::keepalived(spec, "eth0"))));
        files.extend(render::watched(spec).map(|text| ("kindling/endpoint.toml", text)));
        files
    }

    fn write_files(&self, files: &Files, folder: &Path) {
        fs::create_dir_all(folder.join("live")).unwrap();
        for (name, text) in files {
            let path = folder.join("etc").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn machine_command(&self, name: &str, folder: &Path) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/netns/machine");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name), "unshare"]);
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        let kindling = std::env::var_os("KINDLING").unwrap_or(env!("CARGO_BIN_EXE_kindling").into());
        command.arg(script).arg(folder).env("KINDLING", kindling);
        command
    }

    /// The output of one command on a machine that has this spec's files.
    pub fn run(&self, name: &str, spec: &NodeSpec, command: &[&str]) -> Output {
        let folder = self.scratch.join(format!("{name}-run"));
        let _ = fs::remove_dir_all(&folder);
        self.write_files(&self.endpoint_files(spec), &folder);
        self.machine_command(name, &folder).args(command).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts what holds the endpoint on this node, in the agent's order.
    pub fn start(&mut self, spec: &NodeSpec) {
        let files = self.endpoint_files(spec);
        let mut daemons: Vec<&str> = proxy(spec).into_iter().collect();
        daemons.extend(render::watched(spec).map(|_| "endpoint"));
        daemons.push("keepalived");
        self.boot(spec.name.as_str(), &files, &daemons);
    }

    /// Starts a machine with these files and daemons.
    pub fn boot(&mut self, name: &str, files: &Files, daemons: &[&str]) {
        let folder = self.scratch.join(name);
        self.write_files(files, &folder);
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = self
            .machine_command(name, &folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes.insert(name.to_owned(), child);
        for daemon in daemons {
            self.tell(name, &format!("start {daemon}"));
        }
    }

    /// Starts the node's API server.
    pub fn serve(&mut self, spec: &NodeSpec, certificate: Certificate) {
        let name = spec.name.as_str();
        let folder = self.scratch.join(format!("{name}-api"));
        fs::create_dir_all(&folder).unwrap();
        let ca = match certificate {
            Certificate::Own | Certificate::OfAnother => &self.secrets.ca,
            // Any other CA; this one is at hand.
            Certificate::Foreign => &self.secrets.etcd_ca,
        };
        let own = if certificate == Certificate::OfAnother { "somebody-else" } else { name };
        let mut names = vec![own.to_owned(), spec.address().to_string(), spec.endpoint.host.to_string()];
        names.extend(spec.endpoint.vip.map(|vip| vip.to_string()));
        let issuer =
            Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(ca.key.expose()).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(folder.join("tls.crt"), leaf.pem()).unwrap();
        fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace(name), "python3"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/netns/api.py"))
            .arg(name)
            .args([folder.join("tls.crt"), folder.join("tls.key")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.processes.insert(format!("{name}-api"), child);
    }

    /// One line to a process's standard input: the machine's `machine`, or NAME-api's `api.py`.
    pub fn tell(&mut self, process: &str, line: &str) {
        let input = self.processes.get_mut(process).unwrap().stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    /// Stops a process without ending it, or lets it go on: its kernel still accepts connections.
    pub fn signal(&self, process: &str, signal: Signal) {
        let pid = i32::try_from(self.processes[process].id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    pub fn kill(&mut self, process: &str) {
        let mut child = self.processes.remove(process).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The processes of this name on a machine, as this machine numbers them.
    pub fn pids(&self, machine: &str, name: &str) -> Vec<u32> {
        let args = ["netns", "pids", &self.namespace(machine)];
        let output = Command::new("ip").args(args).output().unwrap();
        let is_it =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|l| l.parse().ok()).filter(is_it).collect()
    }

    /// The one of them that started the others. Not the lowest number: numbers begin anew at the kernel's highest.
    pub fn first_process(&self, machine: &str, name: &str) -> Option<u32> {
        let pids = self.pids(machine, name);
        let parent = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in parentheses, may hold anything; then come the state and the parent.
            stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<u32>().ok()
        };
        pids.iter().copied().find(|pid| parent(pid).is_some_and(|parent| !pids.contains(&parent)))
    }

    /// Who has the VIP on its interface.
    pub fn holders(&self) -> Vec<String> {
        let vip = format!(" {}/", self.cluster.endpoint.vip.unwrap().address);
        let has = |name: &str| {
            let args = ["-n", &self.namespace(name), "-4", "-o", "addr", "show", "dev", "eth0"];
            let output = Command::new("ip").args(args).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains(&vip)
        };
        self.cluster.vip_holders().map(|n| n.name.to_string()).filter(|name| has(name)).collect()
    }

    pub fn mac(&self, machine: &str) -> String {
        let args = ["-n", &self.namespace(machine), "-o", "link", "show", "dev", "eth0"];
        let output = Command::new("ip").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
    }

    /// How often a machine has claimed the VIP since it was started.
    pub fn claims(&self, name: &str) -> usize {
        let log = fs::read_to_string(self.scratch.join(name).join("log")).unwrap_or_default();
        log.matches("Entering MASTER STATE").count()
    }

    /// Two machines that do not reach each other, while everybody else reaches both.
    pub fn part(&self, a: &str, b: &str, apart: bool) {
        for (from, to) in [(a, b), (b, a)] {
            let to = self.cluster.node(to).unwrap().address.ip();
            // Frames for a MAC address that nobody has are lost.
            let how = if apart { "replace" } else { "del" };
            let nobody = "lladdr 02:00:00:00:00:01 nud permanent";
            ip(&format!("-n {} neigh {how} {to} dev eth0 {nobody}", self.namespace(from)));
        }
    }

    /// A new connection from `client` to the VIP: the name of the API server that answers, verified
    /// against the cluster's CA.
    pub fn ask(&self, client: &str) -> Result<String, String> {
        let vip = self.cluster.endpoint.vip.unwrap().address;
        let server = Server::at(&self.secrets.ca.certificate, vip, self.cluster.endpoint.port);
        self.inside(client, || {
            let kube = Kube::new(server, Credentials::Anonymous, Duration::from_secs(3));
            kube.and_then(|kube| kube.get("/whoami")).map_err(|error| error.to_string())
        })
    }

    /// Enough connections, one after the other, to meet every server that is in use: who answered, and how
    /// many requests nobody answered.
    fn who_answers(&self) -> (BTreeSet<String>, usize) {
        let answers: Vec<_> = (0..12).map(|_| self.ask("client")).collect();
        let lost = answers.iter().filter(|answer| answer.is_err()).count();
        (answers.into_iter().flatten().collect(), lost)
    }

    /// Asks until exactly these servers answer and no request is lost any more; returns how many were lost
    /// until then.
    pub fn wait_for_answers(&self, names: &[&str], when: &str) -> usize {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut all_lost = 0;
        self.wait_for(&format!("{when}: {names:?} answer"), || {
            let (found, lost) = self.who_answers();
            all_lost += lost;
            lost == 0 && found == wanted
        });
        all_lost
    }

    /// What curl prints on `client`.
    pub fn curl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace("client"), "curl", "--silent", "--max-time", "5"]);
        String::from_utf8_lossy(&command.args(args).output().unwrap().stdout).into_owned()
    }

    /// Runs `work` in a thread of the machine's network namespace.
    pub fn inside<T: Send>(&self, machine: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(format!("/run/netns/{}", self.namespace(machine))).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Waits for what must become true; with the machines' logs if it does not. The bound is far above
    /// what is needed, so that a starved machine does not fail the test.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            if start.elapsed() > Duration::from_secs(40) {
                self.fail(&format!("not within 40 s: {what}; the VIP is held by {:?}", self.holders()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{:5.1} s  {what}", start.elapsed().as_secs_f32());
    }

    pub fn fail(&self, what: &str) -> ! {
        let mut logs = String::new();
        for name in self.processes.keys() {
            if let Ok(log) = fs::read_to_string(self.scratch.join(name).join("log")) {
                logs += &format!("\n--- {name}\n{log}");
            }
        }
        panic!("{what}{logs}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            drop(child.stdin.take());
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in namespaces().filter(|name| name.starts_with(&format!("{}-", self.prefix))) {
            ok(Command::new("ip").args(["netns", "del", &name]));
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

fn namespaces() -> impl Iterator<Item = String> {
    let folder = fs::read_dir("/run/netns").into_iter().flatten();
    folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// What a test that was killed could not remove.
fn remove_leftovers() {
    for name in namespaces() {
        let Some(pid) = name.strip_prefix("kt").and_then(|rest| rest.split('-').next()) else { continue };
        if pid.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(pid).exists() {
            ok(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}
