//! Control planes that join, on a host in memory: the lock, and members that do not start.

mod support;

use std::time::Duration;

use kindling::host::Host;
use kindling::lease::ETCD_JOIN;
use kindling::status::{State, StepState};
use support::{machine, run, run_told, spec};

#[test]
fn a_holder_that_died_is_replaced_after_its_lease_ends() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.cluster.borrow_mut().hold_lease(ETCD_JOIN, "cp3");
    let (status, told) = run_told(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(
        told.0.iter().any(|line| line.contains("waiting: cp3 is adding its etcd member")),
        "{:?}",
        told.0
    );
    assert!(host.now() >= Duration::from_secs(30), "it did not wait for the end of the lease");
    assert_eq!(host.cluster.borrow().lease_holder(ETCD_JOIN), Some(""), "the lock was not given back");
}

/// kubeadm would have given it its vote.
#[test]
fn a_learner_whose_join_was_interrupted_gets_its_vote() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.dies_before_promotion.set(true);
    let (status, told) = run_told(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(told.0.iter().any(|line| line.contains("has got its vote")), "{:?}", told.0);
    assert_eq!(host.cluster.borrow().learner, None);
}

/// Only its own member, only where the others have a quorum, and not for ever.
#[test]
fn a_member_that_never_starts_is_taken_out_a_few_times_and_then_told() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    // With three members the others go on without it.
    host.cluster.borrow_mut().members.push(("cp3".into(), "https://10.0.0.13:2380".into()));
    host.etcd_never_starts.set(true);
    let mut failures = Vec::new();
    for _ in 0..6 {
        let failure = run(&spec, &host).failure.expect("it must fail");
        failures.push(failure.retry);
        if !failure.retry {
            assert!(failure.cause.contains("taken out again 3 times"), "{}", failure.cause);
            break;
        }
        let members: Vec<_> = host.cluster.borrow().members.iter().map(|m| m.0.clone()).collect();
        assert_eq!(members, ["cp1", "cp3"], "{}", failure.cause);
    }
    assert_eq!(failures, [true, true, true, false]);
}

/// etcd may refuse for longer than a lease lives: nobody else may take it for dead meanwhile.
#[test]
fn the_lock_is_kept_while_an_old_member_is_removed() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.cluster.borrow_mut().members.push(("cp2".into(), "https://10.0.0.12:2380".into()));
    host.cluster.borrow_mut().members.push(("cp3".into(), "https://10.0.0.13:2380".into()));
    host.cluster.borrow_mut().refuses_removal = 15;
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let written = host.cluster.borrow().lease_written.clone();
    let (first, last) = (written[0], written[written.len() - 1]);
    assert!(last - first > Duration::from_secs(30), "the removal did not last: {written:?}");
    assert!(written.windows(2).all(|w| w[1] - w[0] < Duration::from_secs(20)), "{written:?}");
}

/// kubeadm#3310: the certificates of these have no group, and a join makes no binding, as an init does.
#[test]
fn a_control_plane_that_joins_a_cluster_of_an_earlier_patch_may_ask_the_kubelets() {
    for (name, is_made) in
        [("cp2@v1.35.4", false), ("cp2@v1.36.3", true), ("cp2@v1.37.2", true), ("cp1", true)]
    {
        let (spec, host) = (spec(name), machine(name));
        assert_eq!(run(&spec, &host).state, State::Done);
        let bindings = host.cluster.borrow().bindings.clone();
        assert_eq!(bindings.contains("kubeadm:apiserver-kubelet-client"), is_made, "{name}: {bindings:?}");
        let again = run(&spec, &host);
        let step = again.steps.iter().find(|step| step.id == "kubelet-access");
        let unchanged = step.is_none_or(|step| step.state == StepState::Unchanged);
        assert!(again.state == State::Done && unchanged, "{name}: {step:?}");
    }
}

/// The kubelet has written its kubeconfig by then, and kubeadm has taken the token away.
#[test]
fn a_kubelet_whose_certificate_nobody_signed_is_joined_again() {
    for name in ["w1", "cp2@v1.32.3", "xcp2"] {
        let (spec, host) = (spec(name), machine(name));
        host.unsigned.set(2);
        for _ in 0..2 {
            let failure = run(&spec, &host).failure.expect("it must fail");
            assert!(failure.retry && failure.cause.contains("timed out waiting"), "{}", failure.cause);
        }
        let status = run(&spec, &host);
        assert_eq!(status.state, State::Done, "{name}: {:?}", status.failure);
        assert!(
            host.text("/var/lib/kubelet/pki/kubelet-client-current.pem").is_some(),
            "{name} has no certificate"
        );
        assert_eq!(host.cluster.borrow().is_marked, name != "w1", "{name}");
    }
}

/// kubeadm took the bootstrap token away, and the kubelet that was started after that ends at once: without it this
/// machine's etcd member does not run, and without that the cluster of two members has no API to ask.
#[test]
fn a_kubelet_that_was_started_again_before_its_certificate_was_signed_gets_its_token_again() {
    for name in ["cp2", "cp2@v1.34.4"] {
        let (mut spec, host) = (spec(name), machine(name));
        spec.deadlines.kubeadm = 30;
        host.unsigned.set(u32::MAX);
        let failure = run(&spec, &host).failure.expect("it must fail");
        assert!(failure.retry && failure.cause.contains("kubelet-wait-bootstrap"), "{}", failure.cause);
        assert_eq!(host.text("/etc/kubernetes/bootstrap-kubelet.conf"), None);
        host.boot();
        host.unsigned.set(0);
        let (status, told) = run_told(&spec, &host);
        assert_eq!(status.state, State::Done, "{name}: {:?}", status.failure);
        assert!(told.0.iter().any(|line| line.contains("lost its bootstrap token")), "{:?}", told.0);
        assert!(host.text("/var/lib/kubelet/pki/kubelet-client-current.pem").is_some());
        assert_eq!(host.text("/etc/kubernetes/bootstrap-kubelet.conf"), None, "the token stays");
    }
}

/// kubeadm would start an etcd of its own version beside the others'.
#[test]
fn a_control_plane_of_another_minor_version_than_the_clusters_does_not_join() {
    for (name, cluster) in [("cp2", "v1.36.3"), ("cp2@v1.36.3", "v1.37.2"), ("w1", "v1.36.3")] {
        let (spec, host) = (spec(name), machine(name));
        host.cluster.borrow_mut().kubernetes = Some(cluster.parse().unwrap());
        let failure = run(&spec, &host).failure.expect("it must fail");
        assert!(
            failure
                .cause
                .starts_with(&format!("the cluster is of Kubernetes {cluster}, this image has v1.3"))
                && !failure.retry,
            "{name}: {failure:?}"
        );
        assert!(!host.log.borrow().iter().any(|line| line.starts_with("run kubeadm")), "{name}");
    }
    // A kubelet may be older than the API servers.
    let (spec, host) = (spec("w1@v1.36.3"), machine("w1@v1.36.3"));
    host.cluster.borrow_mut().kubernetes = Some("v1.37.2".parse().unwrap());
    assert_eq!(run(&spec, &host).state, State::Done);
}

/// A control plane whose etcd manifest the power cut took with it, and whose data is there.
fn without_its_manifest(name: &str) -> kindling::host::fake::Fake {
    let host = machine(name);
    assert_eq!(run(&spec(name), &host).state, State::Done);
    host.put("/var/lib/kindling/joining", "prepared\n");
    for path in ["/var/lib/kindling/status.json", "/etc/kubernetes/manifests/etcd.yaml"] {
        host.disk.borrow_mut().files.remove(std::path::Path::new(path));
    }
    // What was scrubbed at the end is there in the middle.
    host.put("/etc/kindling/kubeadm.yaml", "controlPlane:\n");
    host.log.borrow_mut().clear();
    host
}

#[test]
fn a_lost_etcd_manifest_is_written_again_by_a_kubeadm_of_the_clusters_version_alone() {
    let name = "cp2@v1.36.3";
    let host = without_its_manifest(name);
    // The two members have no quorum without this one, so the API is silent; the other member says its version.
    let (status, told) = run_told(&spec(name), &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(told.0.iter().any(|line| line.contains("its manifest was lost")), "{:?}", told.0);
    let manifest = host.text("/etc/kubernetes/manifests/etcd.yaml").unwrap();
    assert!(manifest.contains("cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380"), "{manifest}");
    assert!(manifest.contains("--initial-cluster-state=existing"), "{manifest}");

    // The cluster was upgraded, and this machine went back to the slot before.
    for members in [2, 3] {
        let host = without_its_manifest(name);
        host.cluster.borrow_mut().kubernetes = Some("v1.37.2".parse().unwrap());
        if members == 3 {
            host.cluster.borrow_mut().members.push(("cp3".into(), "https://10.0.0.13:2380".into()));
        }
        let failure = run(&spec(name), &host).failure.expect("it must fail");
        let cause = if members == 3 {
            "the cluster is of Kubernetes v1.37.2"
        } else {
            "the other etcd members are of version 3.7"
        };
        assert!(failure.cause.starts_with(cause) && !failure.retry, "{failure:?}");
        assert_eq!(host.text("/etc/kubernetes/manifests/etcd.yaml"), None);
        assert!(!host.log.borrow().iter().any(|line| line.contains("init phase etcd")));
    }
}

/// Only what this version knows is run, and each phase once.
#[test]
fn every_kubeadm_is_asked_for_phases_that_it_knows() {
    for minor in 32..=37 {
        let name = format!("cp2@v1.{minor}.0");
        let (spec, host) = (spec(&name), machine(&name));
        let status = run(&spec, &host);
        assert_eq!(status.state, State::Done, "{name}: {:?}", status.failure);
        assert!(host.cluster.borrow().is_marked, "{name}");
    }
}

/// Each machine that is powered on with the first control plane comes by here.
#[test]
fn tokens_that_are_not_made_yet_are_no_fault_of_the_seed() {
    let host = machine("w1");
    host.cluster.borrow_mut().until_tokens = 5;
    let (status, told) = run_told(&with_token_until(&host, 3600), &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let waits: Vec<_> = told.0.iter().filter(|line| line.contains("token")).collect();
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert!(waits[0].ends_with("answers; `kubeadm init` has not made its bootstrap tokens yet"), "{waits:?}");
}

/// The seed was rendered by secrets whose token has expired since, or is good for long.
fn with_token_until(host: &kindling::host::fake::Fake, seconds: i64) -> kindling::role::NodeSpec {
    use kindling::role::types::Moment;
    let mut spec = spec("w1");
    let end = kindling::host::date(host) + time::Duration::seconds(seconds);
    let kindling::role::Role::Worker(worker) = &mut spec.role else { panic!("w1 is a worker") };
    worker.token_expires = Some(Moment(end));
    spec
}

#[test]
fn a_token_that_expired_is_told_with_its_end_and_the_way_to_a_new_one() {
    let host = machine("w1");
    host.cluster.borrow_mut().token_is_unknown = true;
    let failure = run(&with_token_until(&host, -3600), &host).failure.expect("it must fail");
    let cause = &failure.cause;
    assert_eq!(failure.step, "join");
    assert!(cause.contains("of this seed expired at 2030-03-17T"), "{cause}");
    assert!(
        failure.remedy.starts_with("`kindling render --node w1` on the workstation"),
        "{}",
        failure.remedy
    );
    assert!(!failure.retry, "waiting cannot help");
    assert!(
        host.now() < Duration::from_secs(120),
        "it waited {:?} for a token that does not come",
        host.now()
    );
    assert!(!host.log.borrow().iter().any(|l| l.starts_with("run kubeadm join")));
}

/// The token of the seed before ended while the machine was off, in the middle of its join.
#[test]
fn a_join_that_was_interrupted_goes_on_with_the_token_of_a_fresh_seed() {
    let (mut spec, host) = (spec("cp2"), machine("cp2"));
    host.etcd_never_starts.set(true);
    let first = run(&spec, &host).failure.expect("it must fail");
    assert!(first.retry, "{first:?}");
    host.cluster.borrow_mut().token_is_unknown = true;
    let second = run(&spec, &host).failure.expect("it must fail");
    assert!(
        second.cause.starts_with("the bootstrap token ") && second.cause.contains("does not know it"),
        "{second:?}"
    );
    assert!(second.remedy.starts_with("`kindling render --node cp2`"), "{second:?}");
    host.cluster.borrow_mut().token_is_unknown = false;
    let kindling::role::Role::ControlPlane(role) = &mut spec.role else { panic!("cp2 is a control plane") };
    role.kubernetes.token = "fresh1.0123456789abcdef".parse().expect("a token");
    let third = run(&spec, &host).failure.expect("it must fail");
    let discovery = host.text("/etc/kindling/discovery.conf").expect("kubeadm reads it");
    assert!(discovery.contains("fresh1.0123456789abcdef"), "{third:?}");
}

#[test]
fn a_token_that_was_removed_may_be_made_again() {
    let host = machine("w1");
    host.cluster.borrow_mut().token_is_unknown = true;
    let failure = run(&with_token_until(&host, 3600), &host).failure.expect("it must fail");
    assert!(failure.cause.contains("which would live until") && failure.retry, "{failure:?}");
    host.cluster.borrow_mut().token_is_unknown = false;
    assert_eq!(run(&with_token_until(&host, 3600), &host).state, State::Done);
}
