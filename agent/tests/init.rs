//! The designated first control plane decides whether there is a cluster, on a host in memory.

mod support;

use std::time::Duration;

use kindling::host::Host;
use kindling::room::Peer;
use kindling::status::State;
use support::{machine, run, spec};

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
