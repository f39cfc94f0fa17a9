//! An external etcd for real: the agent brings three members up in network namespaces, with the
//! etcd of the tests' Kubernetes, the rendered file and the certificates that it issues. Root is needed; what cannot
//! run says so.

#[path = "../../tests/netns/disk.rs"]
mod disk;
#[allow(dead_code)] // another test uses the rest
#[path = "../../tests/netns/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use disk::Disk;
use kindling::apply::{Observer, apply};
use kindling::etcd::{Etcd, member_at};
use kindling::facts::{Facts, Interface};
use kindling::host::{Command, Host};
use kindling::kube::{Credentials, KubeError, Server};
use kindling::plan::plan;
use kindling::role::NodeSpec;
use kindling::role::etcd_version::EtcdVersion;
use kindling::role::types::Secret;
use kindling::room;
use kindling::status::{ConsoleLine, State, Status, StepState};
use kindling::step::certificates::Certificates;
use kindling::step::etcd_health::{health, identity};
use world::World;
use world::here::{self, kubeadms};

const CLUSTER: &str = r#"
version = 1
name = "external"
kubernetes = "v1.37.2"

[endpoint]
vip = "10.77.0.10"
by = "stacked"

[network]
gateway = "10.77.0.1"

[deadlines]
cluster = 120
ready = 120

[nodes]
etcd1 = { role = "etcd", address = "10.77.0.21/24" }
etcd2 = { role = "etcd", address = "10.77.0.22/24" }
etcd3 = { role = "etcd", address = "10.77.0.23/24" }
cp1 = { role = "control-plane", address = "10.77.0.11/24" }
"#;

const ETCDS: [&str; 3] = ["etcd1", "etcd2", "etcd3"];

fn possible() -> bool {
    let skip = |why: &str| {
        here::skip(why);
        false
    };
    if !nix::unistd::geteuid().is_root() {
        return skip("network namespaces need root");
    }
    for tool in ["ip", "unshare", "setpriv", "etcd", "etcdctl"] {
        let found = std::process::Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        if !found.unwrap().status.success() {
            return skip(&format!("{tool} is not installed"));
        }
    }
    if !nix::unistd::User::from_name("etcd").is_ok_and(|user| user.is_some()) {
        return skip("there is no user etcd: the package etcd-server makes it");
    }
    let mut namespaces = std::process::Command::new("unshare");
    namespaces.args(["--net", "--mount", "--pid", "--fork", "true"]);
    if !namespaces.output().is_ok_and(|output| output.status.success()) {
        return skip("this machine does not let namespaces be made");
    }
    true
}

/// What the agent said, from whatever thread.
#[derive(Default)]
struct Heard(Mutex<String>);

impl Heard {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for &Heard {
    fn tell(&mut self, line: &ConsoleLine) {
        *self.0.lock().unwrap() += &format!("{line}\n");
    }
}

fn run(world: &World, spec: &NodeSpec, disk: &Disk, mut heard: &Heard) -> Status {
    let interface = Interface {
        name: "eth0".into(),
        mac: None,
        up: true,
        addresses: vec![ipnet::Ipv4Net::new(spec.address(), 24).unwrap()],
    };
    let facts = Facts {
        interfaces: vec![interface],
        machine_id: Some("0123456789abcdef0123456789abcdef".into()),
        etcd: EtcdVersion::read("3.7.0"),
        kindling_began: true,
        ..Facts::default()
    };
    let status = world.inside(spec.name.as_str(), || {
        // It stays open after an earlier run.
        if let Err(error) = room::open(disk, spec, &disk.path(Path::new("/"))) {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
        }
        apply(spec, &facts, &plan(spec, &facts), disk, &mut heard)
    });
    eprintln!("--- {} {:?} after {:.1} s\n{}", spec.name, status.state, status.seconds, heard.text());
    status
}

fn done(world: &World, spec: &NodeSpec, disk: &Disk) -> Status {
    let status = run(world, spec, disk, &Heard::default());
    assert_eq!(status.state, State::Done, "{:?}\n{}", status.failure, disk.log());
    status
}

/// etcdctl on a machine, with the certificate that lies there.
fn etcdctl(
    world: &World,
    machine: &str,
    disk: &Disk,
    at: Ipv4Addr,
    certificate: &str,
    args: &[&str],
) -> Result<String, String> {
    let mut all = vec![
        format!("--endpoints=https://{at}:2379"),
        "--cacert=/etc/etcd-ca.crt".into(),
        format!("--cert={certificate}.crt"),
        format!("--key={certificate}.key"),
        "--command-timeout=10s".into(),
    ];
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    disk.write(Path::new("/etc/etcd-ca.crt"), world.secrets.etcd_ca.certificate.as_bytes(), 0o644).unwrap();
    let command = Command::new("etcdctl", all);
    world.inside(machine, || disk.run(&command)).map(|o| o.stdout).map_err(|e| e.to_string())
}

const MEMBERS_CLIENT: &str = "/etc/etcd/pki/client";

/// Name -> id of the members, by one of them.
fn members(world: &World, name: &str, disk: &Disk) -> BTreeMap<String, String> {
    let address = world.spec(name).address();
    let list = etcdctl(world, name, disk, address, MEMBERS_CLIENT, &["member", "list"]).unwrap();
    let fields = list.lines().map(|line| line.split(", ").map(str::to_owned).collect::<Vec<_>>());
    fields
        .map(|f| {
            assert_eq!(f[1], "started", "{list}");
            (f[2].clone(), f[0].clone())
        })
        .collect()
}

/// What the agent of a control plane asks etcd1.
fn ask_first<T>(
    world: &World,
    disk: &Disk,
    what: impl Fn(&Etcd<'_>, Ipv4Addr) -> Result<T, KubeError>,
) -> Result<T, KubeError> {
    let etcd = Etcd::new(disk, &world.secrets.etcd_ca).unwrap();
    what(&etcd, world.spec("etcd1").address())
}

/// kubeadm's own preflight reaches every member with the certificate that the agent issued, and its API
/// server is started with it.
fn kubeadm_takes_it(world: &World, spec: &NodeSpec, disk: &Disk) {
    let Some(kubeadm) = kubeadms().pop() else { return };
    let facts = Facts { kubeadm: Some("v1.37.2".parse().unwrap()), ..Facts::default() };
    for step in plan(spec, &facts).iter().filter(|step| ["pki", "init"].contains(&step.id)) {
        for file in step.files() {
            disk.write(&file.path, file.content.as_bytes(), file.mode).unwrap();
        }
    }
    let client = disk.read(Path::new("/etc/kubernetes/pki/apiserver-etcd-client.crt")).unwrap();
    let phase = |words: &[&str]| {
        let args = [&["init", "phase"], words, &["--config", "/etc/kindling/kubeadm.yaml"]].concat();
        let command = Command::new(kubeadm.to_str().unwrap(), args).timeout(Duration::from_secs(120));
        world.inside("cp1", || disk.run(&command))
    };
    // It fails here for want of a runtime and a kubelet, and tells all that it finds.
    let said = phase(&["preflight"]).expect_err("there is no runtime here");
    let said = said.output().unwrap().stderr.clone();
    assert!(said.contains("[ERROR") && !said.contains("ExternalEtcd"), "{said}");
    phase(&["certs", "all"]).unwrap();
    phase(&["control-plane", "apiserver"]).unwrap();
    let read = |path: &str| disk.read(Path::new(path)).unwrap();
    assert_eq!(read("/etc/kubernetes/pki/apiserver-etcd-client.crt"), client, "it is the agent's");
    assert_eq!(read("/etc/kubernetes/pki/etcd/server.crt"), None, "no etcd of its own");
    let manifest = String::from_utf8(read("/etc/kubernetes/manifests/kube-apiserver.yaml").unwrap()).unwrap();
    for flag in [
        "--etcd-servers=https://10.77.0.21:2379,https://10.77.0.22:2379,https://10.77.0.23:2379",
        "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt",
        "--etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt",
    ] {
        assert!(manifest.contains(flag), "{flag} is not in\n{manifest}");
    }
}

#[test]
fn three_members_form_survive_and_take_a_rebuilt_one_back() {
    if !possible() {
        return;
    }
    let world = World::new(CLUSTER);
    let folder = std::env::temp_dir().join(world.namespace("disks"));
    let specs: BTreeMap<&str, NodeSpec> = ETCDS.map(|name| (name, world.spec(name))).into();
    let mut disks: BTreeMap<&str, Disk> = ETCDS.map(|name| (name, Disk::fresh(&folder.join(name)))).into();
    let address = |name: &str| specs[name].address();

    // One is powered on long before the others: it waits, and says for whom.
    world.plug_node("etcd1");
    let heard = Heard::default();
    std::thread::scope(|scope| {
        let early = scope.spawn(|| run(&world, &specs["etcd1"], &disks["etcd1"], &heard));
        world.wait_for("etcd1 says that it waits", || {
            heard
                .text()
                .contains("etcd2 (10.77.0.22) does not answer, etcd3 (10.77.0.23) does not answer; 2 of 3")
        });
        let rest: Vec<_> = ["etcd2", "etcd3"]
            .map(|name| {
                world.plug_node(name);
                scope.spawn({
                    let (world, spec, disk) = (&world, &specs[name], &disks[name]);
                    move || done(world, spec, disk)
                })
            })
            .into();
        rest.into_iter().for_each(|thread| drop(thread.join().unwrap()));
        let status = early.join().unwrap();
        assert_eq!(status.state, State::Done, "{:?}\n{}", status.failure, disks["etcd1"].log());
    });
    let before = members(&world, "etcd1", &disks["etcd1"]);
    assert_eq!(before.keys().map(String::as_str).collect::<Vec<_>>(), ETCDS);

    // Keys are for etcd alone.
    let group = nix::unistd::Group::from_name("etcd").unwrap().unwrap().gid.as_raw();
    for (file, gid, mode) in
        [("server.key", group, 0o640), ("peer.key", group, 0o640), ("client.key", group, 0o600)]
    {
        let found = disks["etcd1"].path(&Path::new("/etc/etcd/pki").join(file)).metadata().unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, gid, mode), "{file}");
    }
    let pki = disks["etcd1"].path(Path::new("/etc/etcd/pki")).metadata().unwrap();
    assert_eq!((pki.gid(), pki.mode() & 0o7777), (group, 0o2750));

    // A second run has nothing to do.
    for name in ETCDS {
        for step in done(&world, &specs[name], &disks[name]).steps {
            assert_eq!(step.state, StepState::Unchanged, "{name}: {}", step.id);
        }
    }

    // A control plane's own certificate is good, none and those of other CAs are not.
    let control_plane = world.plug_node("cp1");
    let cp = Disk::fresh(&folder.join("cp1"));
    Certificates::of_etcd_client(&control_plane).unwrap().ensure(&cp).unwrap();
    // Commands see /etc as the machine's own, and that is where the key lies.
    let client = "/etc/kubernetes/pki/apiserver-etcd-client";
    etcdctl(&world, "cp1", &cp, address("etcd1"), client, &["put", "pod", "running"]).unwrap();
    let read =
        |at: &str| etcdctl(&world, "cp1", &cp, address(at), client, &["get", "--print-value-only", "pod"]);
    assert_eq!(read("etcd3").unwrap().trim(), "running");
    let admin = &world.secrets.admin;
    let foreign =
        Credentials::Certificate(Secret::new(format!("{}{}", admin.certificate, admin.key.expose())));
    let ca = &world.secrets.etcd_ca.certificate;
    for (who, credentials) in [("nobody", Credentials::Anonymous), ("the administrator", foreign)] {
        for (port, path) in [(2379, "/version"), (2380, "/members")] {
            let server = Server::at(ca, address("etcd1"), port);
            let answer = world.inside("cp1", || cp.get(&server, &credentials, path, Duration::from_secs(5)));
            assert!(answer.is_err(), "{who} got an answer at {port}: {answer:?}");
        }
    }
    let own = identity(&cp, client).unwrap();
    world.inside("cp1", || health(&cp, ca, &own, address("etcd1"))).unwrap();

    kubeadm_takes_it(&world, &control_plane, &cp);

    // New certificates are taken without a restart.
    let process = disks["etcd2"].etcd();
    disks["etcd2"].remove(Path::new("/etc/etcd/pki/server.key")).unwrap();
    assert!(read("etcd2").is_err());
    done(&world, &specs["etcd2"], &disks["etcd2"]);
    assert_eq!((read("etcd2").unwrap().trim(), disks["etcd2"].etcd()), ("running", process));

    // A member is destroyed and comes back with its old seed on a fresh disk.
    disks.remove("etcd2");
    disks.insert("etcd2", Disk::fresh(&folder.join("etcd2")));
    assert_eq!(read("etcd1").unwrap().trim(), "running", "two of three are a majority");
    done(&world, &specs["etcd2"], &disks["etcd2"]);
    let after = members(&world, "etcd1", &disks["etcd1"]);
    let changed: BTreeSet<&str> = ETCDS.into_iter().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!((after.len(), changed), (3, ["etcd2"].into()));
    assert_eq!(read("etcd2").unwrap().trim(), "running");
    for step in done(&world, &specs["etcd2"], &disks["etcd2"]).steps {
        assert_eq!(step.state, StepState::Unchanged, "a rebuilt etcd2: {}", step.id);
    }

    // Without a majority nothing is changed; a rebuilt member starts no second cluster, and waits.
    disks.remove("etcd3");
    disks.insert("etcd3", Disk::fresh(&folder.join("etcd3")));
    disks["etcd1"].cut_power();
    let heard = Heard::default();
    std::thread::scope(|scope| {
        let rebuilt = scope.spawn(|| run(&world, &specs["etcd3"], &disks["etcd3"], &heard));
        world.wait_for("etcd3 says that there is no majority", || heard.text().contains("has no majority"));
        assert_eq!(disks["etcd3"].etcd(), None);
        world.inside("etcd1", || disks["etcd1"].boot());
        assert_eq!(rebuilt.join().unwrap().state, State::Done);
    });
    assert_eq!(members(&world, "etcd2", &disks["etcd2"]).len(), 3);
    assert_eq!(read("etcd3").unwrap().trim(), "running");

    // While all are off, one loses the disk with what it and a second acknowledged; the third, which missed
    // that, comes first. The two would be a majority.
    disks["etcd2"].cut_power();
    // It may have been the leader.
    world.wait_for("the other two acknowledge a write", || {
        etcdctl(&world, "cp1", &cp, address("etcd1"), client, &["put", "pod", "moved"]).is_ok()
    });
    disks.values().for_each(Disk::cut_power);
    for off in ["etcd1", "etcd2"] {
        world.cable(off, "down");
    }
    disks.remove("etcd3");
    disks.insert("etcd3", Disk::fresh(&folder.join("etcd3")));
    let heard = Heard::default();
    std::thread::scope(|scope| {
        let rebuilt = scope.spawn(|| run(&world, &specs["etcd3"], &disks["etcd3"], &heard));
        world.wait_for("etcd3 says that it is alone", || heard.text().contains("2 of 3 must be there"));
        disks["etcd3"].pass(Duration::from_secs(70));
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(disks["etcd3"].etcd(), None, "it does not start over by itself\n{}", heard.text());
        world.cable("etcd2", "up");
        world.wait_for("etcd3 waits for what etcd2 has", || {
            heard.text().contains("etcd2 was a member before this machine's disk was new")
        });
        world.inside("etcd2", || disks["etcd2"].boot());
        world.wait_for("etcd3 says that there is no majority", || heard.text().contains("has no majority"));
        assert_eq!(disks["etcd3"].etcd(), None);
        world.cable("etcd1", "up");
        world.inside("etcd1", || disks["etcd1"].boot());
        assert_eq!(rebuilt.join().unwrap().state, State::Done);
    });
    assert_eq!(members(&world, "etcd2", &disks["etcd2"]).len(), 3);
    for name in ETCDS {
        assert_eq!(read(name).unwrap().trim(), "moved", "{name}");
    }
    etcdctl(&world, "cp1", &cp, address("etcd1"), client, &["put", "pod", "running"]).unwrap();

    // All off, all on again.
    disks.values().for_each(Disk::cut_power);
    for name in ETCDS {
        world.inside(name, || disks[name].boot());
    }
    for name in ETCDS {
        done(&world, &specs[name], &disks[name]);
    }
    assert_eq!(read("etcd1").unwrap().trim(), "running");

    // What a control plane that joins asks: etcd1 is alone, and a learner comes that nobody gives its vote.
    let change = |args: &[&str]| {
        // etcd wants those that stay to have seen each other for some seconds.
        world.wait_for("etcd1 changes its members", || {
            etcdctl(&world, "cp1", &cp, address("etcd1"), client, &[&["member"], args].concat()).is_ok()
        });
    };
    for name in ["etcd3", "etcd2"] {
        change(&["remove", &members(&world, "etcd1", &disks["etcd1"])[name]]);
        disks.remove(name);
    }
    disks.insert("etcd2", Disk::fresh(&folder.join("etcd2")));
    let peer_urls = |name: &str| format!("--peer-urls=https://{}:2380", address(name));
    change(&["add", "etcd2", "--learner", &peer_urls("etcd2")]);
    let ask = || world.inside("cp1", || ask_first(&world, &cp, |etcd, at| etcd.members(at)));
    let list = || ask().unwrap();
    let learner = member_at(&list(), address("etcd2")).unwrap().clone();
    assert!(learner.learner && !learner.started, "{learner:?}");
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| run(&world, &specs["etcd2"], &disks["etcd2"], &Heard::default()));
        world.wait_for("the learner has caught up", || {
            world.inside("cp1", || ask_first(&world, &cp, |etcd, at| etcd.promote(at, learner.id))).is_ok()
        });
        assert_eq!(joining.join().unwrap().state, State::Done);
    });
    assert!(list().iter().all(|member| member.started && !member.learner), "{:?}", list());

    // One that was announced never comes, and those who know it are started anew: nobody answers a client.
    change(&["remove", &members(&world, "etcd1", &disks["etcd1"])["etcd2"]]);
    disks.remove("etcd2");
    change(&["add", "etcd3", &peer_urls("etcd3")]);
    disks["etcd1"].cut_power();
    world.inside("etcd1", || disks["etcd1"].boot());
    // Its first answers may be older than the end of its log, which it is still reading.
    let announced = || ask().ok().and_then(|list| member_at(&list, address("etcd3")).cloned());
    world.wait_for("etcd1 tells its peers of the announced one", || announced().is_some());
    let announced = announced().unwrap();
    assert!(!announced.started && !announced.learner && announced.name.is_empty(), "{announced:?}");
    let answers = world.inside("cp1", || ask_first(&world, &cp, |etcd, at| etcd.answers(at)));
    assert!(answers.is_err(), "there is no quorum");
    drop(disks);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn members_that_lost_their_power_before_they_recorded_anything_start_over() {
    if !possible() {
        return;
    }
    let world = World::new(&CLUSTER.replace("10.77", "10.78"));
    let folder = std::env::temp_dir().join(world.namespace("blank"));
    let specs = ETCDS.map(|name| world.plug_node(name));
    let disks = ETCDS.map(|name| Disk::fresh(&folder.join(name)));
    let all_come_up = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (specs.iter().zip(&disks))
                .map(|(spec, disk)| scope.spawn(|| done(&world, spec, disk)))
                .collect();
            threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
        });
        assert_eq!(members(&world, "etcd1", &disks[0]).len(), 3);
    };
    all_come_up();

    // One of three is told by the others. All of them would wait for each other without end: that is etcd's.
    for (blank, waits) in [(1, false), (3, true)] {
        disks.iter().for_each(Disk::cut_power);
        disks[..blank].iter().for_each(Disk::blank);
        for (spec, disk) in specs.iter().zip(&disks) {
            world.inside(spec.name.as_str(), || disk.boot());
        }
        let answers = || {
            let own = identity(&disks[0], MEMBERS_CLIENT).unwrap();
            let ca = &world.secrets.etcd_ca.certificate;
            world.inside("etcd1", || health(&disks[0], ca, &own, specs[0].address())).is_ok()
        };
        if waits {
            std::thread::sleep(Duration::from_secs(5));
            assert!(!answers(), "etcd comes up by itself today: nothing has to be removed any more");
        } else {
            world.wait_for("etcd1 is told by the others", answers);
        }
        all_come_up();
    }
    drop(disks);
    std::fs::remove_dir_all(&folder).unwrap();
}
