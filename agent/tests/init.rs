//! The designated first control plane decides whether there is a cluster, on a host in memory.

mod support;

use std::time::Duration;

use kindling::host::Host;
use kindling::host::fake::Cut;
use kindling::room::Peer;
use kindling::status::State;
use support::{machine, run, run_told, spec};

#[test]
fn machines_that_are_off_keep_no_cluster_from_being_formed() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.peers_say.set(Peer::Silent);
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(host.now() >= Duration::from_secs(45), "it did not wait for them");
    assert!(host.log.borrow().iter().any(|l| l.starts_with("run kubeadm init")));
}

#[test]
fn a_first_control_plane_with_a_new_disk_never_makes_a_second_cluster() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.peers_say.set(Peer::Member);
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert!(
        failure.cause.contains("cp2, cp3 had the cluster before this machine's disk was new"),
        "{}",
        failure.cause
    );
    assert!(failure.retry && host.now() >= Duration::from_secs(1800));
    assert!(!host.log.borrow().iter().any(|l| l.contains("kubeadm init")));

    // Their API answers at last.
    host.cluster_is_up.set(true);
    host.cluster.borrow_mut().members = vec![("cp2".into(), "https://10.0.0.12:2380".into())];
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(!host.log.borrow().iter().any(|l| l.contains("kubeadm init")));
}

#[test]
fn machines_that_say_they_are_new_are_not_waited_for() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    assert_eq!(run(&spec, &host).state, State::Done);
    assert!(host.now() < Duration::from_secs(5), "it waited {:?}", host.now());
}

/// January 2020: a battery that is empty, a template that was never set.
const LONG_AGO: u64 = 1_577_836_800;

#[test]
fn nothing_is_made_by_a_clock_that_cannot_be_right() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.wrong_clock.set(Some((LONG_AGO, Duration::MAX)));
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert!(
        failure.cause.contains("clock is wrong: 2020-01-01 is before the cluster's CA was made"),
        "{}",
        failure.cause
    );
    assert!(failure.retry && failure.step == "clock" && failure.remedy.contains("[network] ntp"));
    assert!(!host.log.borrow().iter().any(|l| l.contains("kubeadm init") || l.contains("/etc/kubernetes")));

    host.wrong_clock.set(Some((LONG_AGO, host.now() + Duration::from_secs(100))));
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let clock = status.steps.iter().find(|step| step.id == "clock").unwrap();
    assert!(clock.seconds.unwrap() > 95.0, "it did not wait for the clock");
}

#[test]
fn time_servers_that_do_not_answer_are_waited_for_once() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    host.no_time_server.set(true);
    let (status, told) = run_told(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(told.0.iter().any(|l| l.contains("waiting: no time server has answered yet")), "{:?}", told.0);
    let clock = |status: &kindling::status::Status| {
        status.steps.iter().find(|step| step.id == "clock").cloned().unwrap()
    };
    assert_eq!(
        clock(&status).detail.as_deref(),
        Some("no time server answered within 30 s: the machine's own clock counts")
    );
    assert!(clock(&run(&spec, &host)).seconds.unwrap() < 1.0, "a second run waited again");
}

#[test]
fn an_etcd_that_recorded_nothing_before_the_power_cut_begins_anew() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    let log = "/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal";
    // Each effect in turn, until the cut came in the middle of kubeadm init.
    let cut = (1..200).find(|n| {
        let other = machine("cp1");
        other.cut_power_at(*n, Cut::Half);
        run(&spec, &other);
        other.text(log).is_some()
    });
    host.cut_power_at(cut.expect("kubeadm init is an effect"), Cut::Half);
    run(&spec, &host);
    host.boot();
    let (status, told) = run_told(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let said = "going over it again; removed what was cut short: ";
    let line = told.0.iter().find(|line| line.contains(said)).expect("it says so");
    assert!(line.ends_with("/var/lib/etcd/member (etcd had recorded nothing yet)"), "{line}");
}
