//! Cluster DNS on hosts in memory: it works without an upstream, it is waited for, and it does not stay on one machine.

mod support;

use kindling::host::Host;
use kindling::host::fake::{Cut, Fake, FakeDns};
use kindling::role::{NodeSpec, Role};
use kindling::status::{State, Status, StepRecord, StepState};
use support::{machine, run, run_told, spec};

fn record(status: &Status, id: &str) -> StepRecord {
    status.steps.iter().find(|step| step.id == id).unwrap_or_else(|| panic!("no step {id}")).clone()
}

fn dns(host: &Fake) -> FakeDns {
    host.cluster.borrow().dns.clone().expect("somebody made it")
}

fn change_dns(host: &Fake, change: impl FnOnce(&mut FakeDns)) {
    change(host.cluster.borrow_mut().dns.get_or_insert_with(|| FakeDns::on("cp1")));
}

fn nodes_of(host: &Fake) -> Vec<String> {
    dns(host).pods.into_iter().map(|(_, node)| node).collect()
}

fn evictions(host: &Fake) -> usize {
    host.log.borrow().iter().filter(|line| line.ends_with("/eviction")).count()
}

/// A machine that knows no DNS server, as its own resolver says it.
fn without_upstream(node: &str) -> Fake {
    let host = machine(node);
    host.put("/etc/resolv.conf", "nameserver 127.0.0.53\n");
    host.put("/run/systemd/resolve/resolv.conf", "# No DNS servers known.\nsearch .\n");
    host.put(
        "/var/lib/kubelet/config.yaml",
        "kind: KubeletConfiguration\nresolvConf: /run/systemd/resolve/resolv.conf\n",
    );
    host
}

#[test]
fn without_a_dns_server_coredns_answers_for_the_cluster_alone() {
    let (spec, host) = (spec("cp1"), without_upstream("cp1"));
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let corefile = dns(&host).corefile;
    assert!(!corefile.contains("forward") && corefile.contains("kubernetes cluster.local"), "{corefile}");
    let said = record(&status, "upstream").detail.expect("a remark");
    assert!(said.starts_with("/run/systemd/resolve/resolv.conf names no DNS server"), "{said}");
    assert_eq!(record(&status, "dns").state, StepState::Unchanged, "it was there at once");
}

#[test]
fn with_a_dns_server_the_corefile_is_kubeadms() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    assert_eq!(run(&spec, &host).state, State::Done);
    assert!(dns(&host).corefile.contains("forward . /etc/resolv.conf {"));
}

#[test]
fn what_an_operator_writes_into_the_corefile_later_stays() {
    let (spec, host) = (spec("cp1"), without_upstream("cp1"));
    run(&spec, &host);
    let theirs = dns(&host).corefile.replace("    cache 30", "    forward . 10.0.0.53\n    cache 30");
    change_dns(&host, |dns| dns.corefile = theirs.clone());
    host.boot();
    run(&spec, &host);
    assert_eq!(dns(&host).corefile, theirs);
    // Even where it is kubeadm's own once more, whose pods end.
    let made = FakeDns::on("cp1").corefile;
    change_dns(&host, |dns| dns.corefile = made.clone());
    host.boot();
    host.put("/run/systemd/resolve/resolv.conf", "");
    let status = run(&spec, &host);
    assert_eq!(dns(&host).corefile, made);
    let said = record(&status, "dns").detail.expect("a warning");
    assert!(said.starts_with("warning: cluster DNS is not available: CrashLoopBackOff"), "{said}");
    assert_eq!(status.state, State::Done, "a machine that was up once is not at fault");
}

#[test]
fn a_new_machine_does_not_touch_the_corefile_of_a_cluster_whose_names_are_resolved() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.cluster_is_up.set(true);
    host.cluster.borrow_mut().members = vec![("cp2".into(), "https://10.0.0.12:2380".into())];
    change_dns(&host, |dns| *dns = FakeDns { has_upstream: true, ..FakeDns::on("cp2") });
    host.put("/etc/resolv.conf", "");
    let before = dns(&host).corefile;
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert_eq!(dns(&host).corefile, before);
}

/// The effects around the one that changes the Corefile; `tests/apply.rs` cuts the power at all others.
#[test]
fn a_power_cut_while_the_corefile_is_changed_leaves_one_that_works() {
    let spec = spec("cp1");
    let undisturbed = without_upstream("cp1");
    run(&spec, &undisturbed);
    let log = undisturbed.log.borrow();
    let effects = log.iter().filter(|line| !line.starts_with("query"));
    let changed =
        effects.into_iter().position(|line| line.starts_with("Patch ") && line.ends_with("/coredns"));
    let changed = changed.expect("the Corefile was changed") + 1;
    for cut in [Cut::Before, Cut::Half, Cut::After] {
        for n in changed - 1..=changed + 1 {
            let host = without_upstream("cp1");
            host.cut_power_at(n, cut);
            run(&spec, &host);
            assert!(host.was_cut());
            host.boot();
            host.put("/run/systemd/resolve/resolv.conf", "");
            let status = run(&spec, &host);
            assert_eq!(status.state, State::Done, "{cut:?} effect {n}: {:?}", status.failure);
            assert!(!dns(&host).corefile.contains("forward"), "{cut:?} effect {n}");
        }
    }
}

/// After a power cut the pods are ready before kube-controller-manager is, which keeps the Service's list of them.
#[test]
fn a_cluster_is_up_when_the_service_leads_to_cluster_dns() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    change_dns(&host, |dns| dns.unled = 5);
    let (status, told) = run_told(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let said = |line: &&String| line.contains("the Service kube-dns does not lead to them");
    assert_eq!(told.0.iter().filter(said).count(), 1, "{:?}", told.0);
    assert_eq!(dns(&host).unled, 0, "it did not wait");
}

#[test]
fn a_cluster_without_names_is_not_up_and_says_why() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    change_dns(&host, |dns| dns.trouble = Some("ImagePullBackOff".into()));
    let (status, told) = run_told(&spec, &host);
    let failure = status.failure.expect("it must fail");
    assert_eq!(
        (failure.step.as_str(), failure.cause.as_str()),
        ("dns", "cluster DNS is not available: ImagePullBackOff (waited 900 s)")
    );
    assert!(failure.retry && failure.remedy.contains("kubectl -n kube-system describe pod"), "{failure:?}");
    let line = "dns: waiting: cluster DNS is not available: ImagePullBackOff";
    assert!(told.0.iter().any(|said| said.ends_with(line)), "{:?}", told.0);
    change_dns(&host, |dns| dns.trouble = None);
    assert_eq!(run(&spec, &host).state, State::Done);
}

#[test]
fn only_the_first_control_plane_waits_for_cluster_dns() {
    for node in ["cp2", "w1"] {
        let host = machine(node);
        change_dns(&host, |dns| dns.trouble = Some("ImagePullBackOff".into()));
        let status = run(&spec(node), &host);
        assert_eq!(status.state, State::Done, "{node}: {:?}", status.failure);
        assert!(host.now().as_secs() < 200, "{node} waited {:?}", host.now());
    }
}

#[test]
fn cluster_dns_that_kubeadm_was_told_not_to_make_is_not_waited_for_and_one_that_is_gone_is() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    change_dns(&host, |dns| {
        *dns = FakeDns { has_deployment: false, is_disabled: true, pods: Vec::new(), ..FakeDns::on("cp1") }
    });
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert_eq!(record(&status, "dns").detail.as_deref(), Some("kubeadm was told to make no DNS"));

    let host = machine("cp1");
    change_dns(&host, |dns| *dns = FakeDns { has_deployment: false, pods: Vec::new(), ..FakeDns::on("cp1") });
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert!(failure.cause.contains("there is no Deployment coredns in kube-system"), "{}", failure.cause);
}

/// Without add-ons: somebody else brings the pod network.
fn without_addons(node: &str) -> NodeSpec {
    let mut spec = spec(node);
    let Role::ControlPlane(role) = &mut spec.role else { panic!("{node} is no control plane") };
    role.kubernetes.addons.clear();
    spec
}

#[test]
fn where_the_operator_brings_the_pod_network_cluster_dns_waits_for_it_elsewhere() {
    let (spec, host) = (without_addons("cp1"), machine("cp1"));
    change_dns(&host, |dns| dns.trouble = Some("ContainerCreating".into()));
    host.cluster.borrow_mut().lacks_network = true;
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert_eq!(
        record(&status, "dns").detail.as_deref(),
        Some("cluster DNS waits for the pod network that you apply (addons = [])")
    );
}

#[test]
fn a_control_plane_that_joins_takes_one_of_two_pods() {
    for node in ["cp2", "xcp2"] {
        let (spec, host) = (spec(node), machine(node));
        let status = run(&spec, &host);
        assert_eq!(status.state, State::Done, "{:?}", status.failure);
        assert_eq!((nodes_of(&host), evictions(&host)), (vec!["cp1".to_owned(), "cp2".to_owned()], 1));
        assert_eq!(record(&status, "dns-spread").detail.as_deref(), Some("CoreDNS runs on cp1, cp2"));
        run(&spec, &host);
        assert_eq!(evictions(&host), 1, "a second run moved one again");
    }
}

#[test]
fn a_pod_that_cannot_move_holds_nobody_up() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    change_dns(&host, |dns| dns.sticks = true);
    let status = run(&spec, &host);
    assert_eq!((status.state, evictions(&host)), (State::Done, 1));
    assert_eq!(
        record(&status, "dns-spread").detail.as_deref(),
        Some("CoreDNS runs on cp1 alone: the scheduler placed it there again")
    );

    let host = machine("cp2");
    change_dns(&host, |dns| dns.has_budget = true);
    let status = run(&spec, &host);
    let said = record(&status, "dns-spread").detail.expect("a remark");
    assert_eq!((status.state, said.contains("PodDisruptionBudget")), (State::Done, true), "{said}");
}

#[test]
fn no_pod_is_moved_while_not_all_of_them_are_ready() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    change_dns(&host, |dns| dns.trouble = Some("CrashLoopBackOff".into()));
    let status = run(&spec, &host);
    assert_eq!((status.state, evictions(&host)), (State::Done, 0));
    let said = record(&status, "dns-spread").detail.expect("a warning");
    assert!(said.starts_with("warning: CoreDNS runs on cp1 alone, and not all"), "{said}");
}

/// The API goes on saying that the pods of machines without power are ready, until it has missed them for a while.
#[test]
fn pods_of_machines_that_did_not_come_back_resolve_no_names() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    run(&spec, &host);
    host.boot();
    change_dns(&host, |dns| {
        dns.pods = vec![("coredns-1".into(), "cp2".into()), ("coredns-2".into(), "w1".into())];
        dns.dark = ["cp2", "w1"].map(str::to_owned).into();
    });
    let status = run(&spec, &host);
    let said = record(&status, "dns").detail.expect("a warning");
    assert!(said.contains("its pods have not reported since their machines started"), "{said}");
    change_dns(&host, |dns| dns.dark.clear());
    host.boot();
    assert_eq!(record(&run(&spec, &host), "dns").state, StepState::Unchanged);
}
