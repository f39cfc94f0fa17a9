//! Control planes that join, on a host in memory: the lock, and members that do not start.

mod support;

use std::time::Duration;

use kindling::host::Host;
use kindling::lease::ETCD_JOIN;
use kindling::status::State;
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

#[test]
fn a_kubelet_that_refuses_the_etcd_pod_is_restarted_at_once() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.refuses_etcd.set(1);
    let status = run(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    let log = host.log.borrow();
    assert_eq!(log.iter().filter(|l| *l == "run systemctl restart kubelet.service").count(), 1);
    assert!(!log.iter().any(|l| l.contains("/member/remove")), "nothing had to be removed");
    assert!(host.now() < Duration::from_secs(60), "it took {:?}", host.now());
}

/// kubeadm of 1.20 announces again, is refused because its member does not run, and writes no manifest.
#[test]
fn an_announcement_whose_answer_was_lost_is_not_waited_out() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.loses_answer.set(true);
    let (status, told) = run_told(&spec, &host);
    assert_eq!(status.state, State::Done, "{:?}", status.failure);
    assert!(told.0.iter().any(|line| line.contains("did not hear that it was taken")), "{:?}", told.0);
    assert!(host.now() < Duration::from_secs(60), "the API was silent for {:?}", host.now());
    let manifest = host.text("/etc/kubernetes/manifests/etcd.yaml").unwrap();
    assert!(manifest.contains("cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380"), "{manifest}");
    assert!(manifest.contains("--initial-cluster-state=existing"), "{manifest}");
}

/// By a kubeadm of 1.29 or newer, which would have given it its vote.
#[test]
fn a_learner_whose_join_was_interrupted_gets_its_vote() {
    let (spec, host) = (spec("cp2"), machine("cp2"));
    host.cluster.borrow_mut().learner = Some("https://10.0.0.12:2380".into());
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
    host.refuses_etcd.set(u32::MAX);
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

/// The kubelet has written its kubeconfig by then, and kubeadm has taken the token away.
#[test]
fn a_kubelet_whose_certificate_nobody_signed_is_joined_again() {
    for name in ["w1", "cp2"] {
        let (spec, host) = (spec(name), machine(name));
        host.unsigned.set(2);
        for _ in 0..2 {
            let failure = run(&spec, &host).failure.expect("it must fail");
            assert!(failure.retry && failure.cause.contains("kubelet-start: timed out"), "{}", failure.cause);
        }
        let status = run(&spec, &host);
        assert_eq!(status.state, State::Done, "{name}: {:?}", status.failure);
        assert!(
            host.text("/var/lib/kubelet/pki/kubelet-client-current.pem").is_some(),
            "{name} has no certificate"
        );
    }
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

#[test]
fn a_token_that_was_removed_may_be_made_again() {
    let host = machine("w1");
    host.cluster.borrow_mut().token_is_unknown = true;
    let failure = run(&with_token_until(&host, 3600), &host).failure.expect("it must fail");
    assert!(failure.cause.contains("which would live until") && failure.retry, "{failure:?}");
    host.cluster.borrow_mut().token_is_unknown = false;
    assert_eq!(run(&with_token_until(&host, 3600), &host).state, State::Done);
}
