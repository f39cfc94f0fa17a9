//! The agent on a host in memory, where the power can be cut at every single effect.

mod support;

use std::path::Path;

use kindling::apply::apply;
use kindling::emulated;
use kindling::facts::Facts;
use kindling::host::Host;
use kindling::host::fake::{Cut, Fake};
use kindling::plan::plan;
use kindling::status::{State, StepState};
use kindling::step::certificates::Certificates;
use support::{Told, facts, machine, run, spec, spec_with};

const NODES: [&str; 7] = ["cp1", "cp2", "w1", "ha1", "etcd1", "xcp1", "xcp2"];
/// Those that an older kubeadm joins in another way: 1.32 has the kubelet's certificate before the etcd member, and 1.34
/// hides phases.
const OLDER: [&str; 3] = ["cp2@v1.32.3", "w1@v1.32.3", "cp2@v1.34.4"];

#[test]
fn every_role_comes_up() {
    for node in NODES.into_iter().chain(OLDER) {
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
            !matches!(node, "ha1" | "etcd1"),
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

#[test]
fn an_updated_control_plane_is_good_when_its_scheduler_runs_too() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    run(&spec, &host);
    host.boot();
    let manifest = Path::new("/etc/kubernetes/manifests/kube-scheduler.yaml");
    host.disk.borrow_mut().files.remove(manifest);
    assert_eq!(run(&spec, &host).state, State::Done, "the way back is gone: it has what it has");
    host.put("/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", "");
    let status = run(&spec, &host);
    let failure = format!("{:?}", status.failure);
    assert!(status.state == State::Failed && failure.contains("kube-scheduler"), "{failure}");
    host.put(manifest.to_str().unwrap(), "pod");
    assert_eq!(run(&spec, &host).state, State::Done);
}

/// The power is cut at every single effect; the next run completes, and the machine is what an undisturbed run makes of
/// it.
fn recovers(nodes: &[&str], cut: Cut) {
    for node in nodes {
        let spec = spec(node);
        let undisturbed = machine(node);
        run(&spec, &undisturbed);
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
            assert_eq!(status.state, State::Done, "{node}, {cut:?} effect {n}: {:?}\n{log}", status.failure);
            assert_eq!(
                host.differences(&undisturbed),
                Vec::<String>::new(),
                "{node}, {cut:?} effect {n}\n{log}"
            );
        }
    }
}

#[test]
fn a_power_cut_before_any_effect_is_recovered_from() {
    recovers(&NODES, Cut::Before);
}

#[test]
fn a_power_cut_in_the_middle_of_any_effect_is_recovered_from() {
    recovers(&NODES, Cut::Half);
    recovers(&OLDER, Cut::Half);
}

#[test]
fn a_power_cut_after_any_effect_is_recovered_from() {
    recovers(&NODES, Cut::After);
}

#[test]
fn the_first_control_plane_joins_when_the_cluster_is_there() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.cluster_is_up.set(true);
    // What is left of the machine that it replaces.
    host.cluster.borrow_mut().members = [("cp1", 11), ("cp2", 12), ("cp3", 13)]
        .map(|(n, ip)| (n.into(), format!("https://10.0.0.{ip}:2380")))
        .into();
    host.cluster.borrow_mut().has_old_node = true;
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let log = host.log.borrow().join("\n");
    assert!(log.contains("run kubeadm join") && !log.contains("run kubeadm init"), "{log}");
    let removed = ["Delete /api/v1/nodes/cp1", "Post /v3/cluster/member/remove", "--skip-phases=preflight"];
    let places: Vec<_> = removed.iter().map(|what| log.find(what)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {log}");
    let members: Vec<String> = host.cluster.borrow().members.iter().map(|m| m.0.clone()).collect();
    assert_eq!(members, ["cp2", "cp3", "cp1"]);
    // A join does not make it, and the cluster may be of an earlier patch that needed none.
    assert!(host.cluster.borrow().bindings.contains("kubeadm:apiserver-kubelet-client"));
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

/// What the other members know: this one by its address, with an id of its own.
fn etcd_members(host: &Fake, name: &str, started: bool) {
    let member = |id: u64, name: &str, ip: &str, started: bool| {
        let clients = if started { vec![format!("https://{ip}:2379")] } else { Vec::new() };
        serde_json::json!({ "id": id, "name": name, "peerURLs": [format!("https://{ip}:2380")], "clientURLs": clients })
    };
    *host.etcd_members.borrow_mut() = Some(vec![
        member(1, "etcd2", "10.0.0.42", true),
        member(0xab, name, "10.0.0.41", started),
        member(3, "etcd3", "10.0.0.43", true),
    ]);
}

fn changes_of_members(host: &Fake) -> Vec<String> {
    let log = host.log.borrow();
    log.iter()
        .filter_map(|l| Some(l.strip_prefix("run etcdctl ")?.split_once(" member ")?.1.to_owned()))
        .collect()
}

#[test]
fn a_new_disk_of_a_known_etcd_member_becomes_a_new_member() {
    let spec = spec("etcd1");
    let undisturbed = machine("etcd1");
    run(&spec, &undisturbed);
    for cut in [Cut::Before, Cut::Half, Cut::After] {
        for n in 1.. {
            let host = machine("etcd1");
            host.etcd_is_up.set(true);
            etcd_members(&host, "etcd1", true);
            host.cut_power_at(n, cut);
            run(&spec, &host);
            let was_cut = host.was_cut();
            if was_cut {
                host.boot();
                let status = run(&spec, &host);
                assert_eq!(status.state, State::Done, "{cut:?} effect {n}: {:?}", status.failure);
            }
            let what = format!("{cut:?} effect {n}: {}", host.log.borrow().join("\n"));
            assert_eq!(host.differences(&undisturbed), Vec::<String>::new(), "{what}");
            let members = host.etcd_members.borrow().clone().expect("they are known");
            let ids: Vec<u64> = members.iter().filter_map(|m| m["id"].as_u64()).collect();
            assert_eq!(ids, [1, 3, 99], "{what}");
            if !was_cut {
                let changes = changes_of_members(&host);
                assert_eq!(changes, ["remove ab", "add etcd1 --peer-urls=https://10.0.0.41:2380"]);
                break;
            }
        }
    }
}

#[test]
fn an_etcd_member_that_the_others_wait_for_changes_nothing_there() {
    let (spec, host) = (spec("etcd1"), machine("etcd1"));
    host.etcd_is_up.set(true);
    etcd_members(&host, "etcd1", false);
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert_eq!(changes_of_members(&host), Vec::<String>::new());
}

#[test]
fn without_a_majority_a_known_etcd_member_with_a_new_disk_waits_and_starts_nothing() {
    let (spec, host) = (spec("etcd1"), machine("etcd1"));
    etcd_members(&host, "etcd1", true);
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert_eq!(
        failure.cause,
        "the cluster knows this machine from before its disk was new, and has no majority to change its members (waited 1800 s)"
    );
    assert!(failure.retry && changes_of_members(&host).is_empty());
    assert_eq!(host.text("/var/lib/etcd/member/wal/0.wal"), None);
}

#[test]
fn etcd_data_that_kindling_did_not_write_is_left_alone() {
    let (spec, host) = (spec("etcd1"), machine("etcd1"));
    host.put("/var/lib/etcd/member/wal/0.wal", "somebody's");
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert!(failure.cause.starts_with("/var/lib/etcd/member is there") && !failure.retry, "{failure:?}");
    assert_eq!(host.text("/var/lib/etcd/member/wal/0.wal").as_deref(), Some("somebody's"));
}

#[test]
fn a_control_plane_says_which_members_of_an_external_etcd_it_waits_for() {
    let (spec, host) = (spec("xcp1"), machine("xcp1"));
    host.etcd_is_up.set(false);
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert_eq!(
        failure.cause,
        "etcd: 0 of 3 members are healthy, 2 are needed: etcd1 (10.0.0.41) does not answer, \
         etcd2 (10.0.0.42) does not answer, etcd3 (10.0.0.43) does not answer (waited 1800 s)"
    );
    assert!(failure.retry && !host.log.borrow().iter().any(|line| line.contains("run kubeadm")));
}

#[test]
fn a_control_plane_refuses_an_external_etcd_that_kubeadm_excludes() {
    let (spec, host) = (spec("xcp1"), machine("xcp1"));
    *host.etcd_version.borrow_mut() = "3.5.16".into();
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert_eq!(
        failure.cause,
        "etcd1 (10.0.0.41) runs etcd 3.5.16: kubeadm takes an external etcd from 3.5.24 on"
    );
    assert!(!failure.retry && !host.log.borrow().iter().any(|line| line.contains("run kubeadm")));
}

#[test]
fn certificates_are_issued_again_in_the_second_half_of_their_life() {
    let (spec, host) = (spec("etcd1"), machine("etcd1"));
    run(&spec, &host);
    let certificate = || host.text("/etc/etcd/pki/server.crt");
    let first = certificate();
    let day = std::time::Duration::from_secs(86_400);
    host.sleep(180 * day);
    run(&spec, &host);
    assert_eq!(certificate(), first);
    host.sleep(4 * day);
    let status = run(&spec, &host);
    let record = status.steps.iter().find(|s| s.id == "certificates").expect("the step");
    assert_eq!(record.detail.as_deref(), Some("issued server, peer, client"));
    assert_ne!(certificate(), first);
    assert!(status.steps.iter().all(|s| s.id == "certificates" || s.state == StepState::Unchanged));
}

#[test]
fn certificates_with_other_names_are_issued_again() {
    let host = machine("etcd1");
    let issue = |node: &str| {
        Certificates::of_etcd_member(&spec(node)).expect("it is one").ensure(&host).expect("a CA")
    };
    assert_eq!(issue("etcd1"), ["server", "peer", "client"]);
    assert_eq!(issue("etcd1"), Vec::<String>::new());
    assert_eq!(issue("etcd2"), ["server", "peer"]);
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
    let nginx = spec_with("ha1", "nginx");
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

#[test]
fn two_clusters_under_one_ca_are_told_apart_loudly() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.cluster.borrow_mut().foreign = Some([10, 0, 0, 13].into());
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert_eq!(failure.step, "one-cluster");
    assert_eq!(
        failure.cause,
        "TWO CLUSTERS under one CA: 10.0.0.12, 10.0.0.11 have kube-system 1d2e; 10.0.0.13 have kube-system 5c0f"
    );
    assert!(!failure.retry);
}

#[test]
fn a_containerd_without_its_cri_plugin_is_restarted() {
    let (spec, host) = (spec("w1"), machine("w1"));
    run(&spec, &host);
    host.boot();
    host.cri_restarts.set(2);
    let status = run(&spec, &host);
    let failure = status.failure.expect("one restart is not enough");
    assert_eq!(failure.step, "containerd");
    assert!(
        failure.cause.contains("containerd.service runs, but without its part `cri`"),
        "{}",
        failure.cause
    );
    assert!(failure.retry);
    assert_eq!(run(&spec, &host).state, State::Done);
}

/// What systemd has not read, and what was started before, is without it.
#[test]
fn on_an_emulated_machine_the_runtime_and_the_kubelet_run_with_their_drop_ins() {
    let spec = emulated::suit(spec("w1"), true);
    let (runtime, kubelet) = ("containerd.service", "kubelet.service");
    let apply_emulated = |host: &Fake| {
        let facts = Facts { emulated: true, ..facts(&spec, host) };
        apply(&spec, &facts, &plan(&spec, &facts), host, &mut Told::default())
    };
    let drop_in = |unit: &str| vec![format!("/etc/systemd/system/{unit}.d/50-kindling-emulated.conf").into()];
    for cut in [Cut::Before, Cut::Half, Cut::After] {
        for n in 1.. {
            let host = machine("w1");
            host.disk.borrow_mut().enabled.insert(runtime.into());
            host.boot();
            assert_eq!(host.runs_with(runtime), Some(vec![]), "the image starts it as it is");
            host.cut_power_at(n, cut);
            let status = apply_emulated(&host);
            let was_cut = host.was_cut();
            if was_cut {
                host.boot();
                assert_eq!(apply_emulated(&host).state, State::Done, "{cut:?} effect {n}");
            } else {
                assert_eq!(status.state, State::Done, "{:?}", status.failure);
            }
            for unit in [runtime, kubelet] {
                assert_eq!(host.runs_with(unit), Some(drop_in(unit)), "{unit}, {cut:?} effect {n}");
            }
            if !was_cut {
                assert!(n > 20, "only {n} effects");
                break;
            }
        }
    }
}

#[test]
fn no_runtime_runs_where_there_is_nothing_to_run_in_it() {
    let (spec, host) = (spec("ha1"), machine("ha1"));
    host.disk.borrow_mut().enabled.insert("containerd.service".into());
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(!host.disk.borrow().enabled.contains("containerd.service"));
}
