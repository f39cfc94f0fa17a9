//! What a node tells its vCenter: a run on a machine of VMware's, and on one that is none.

mod support;

use kindling::guestinfo;
use kindling::host::fake::Fake;
use kindling::status::{Failure, State, Status};
use support::*;

const USER_DATA: &str = "guestinfo.userdata";

/// A node whose seed came by guestinfo.
fn on_vmware(node: &str) -> Fake {
    let host = machine(node);
    host.put("/sys/class/dmi/id/sys_vendor", "VMware, Inc.\n");
    for (key, value) in [
        ("guestinfo.metadata", "bWV0YQ=="),
        ("guestinfo.metadata.encoding", "base64"),
        (USER_DATA, "c2VjcmV0"),
        ("guestinfo.userdata.encoding", "base64"),
    ] {
        host.guestinfo.borrow_mut().insert(key.into(), value.into());
    }
    host
}

fn told(host: &Fake, key: &str) -> Option<String> {
    host.guestinfo.borrow().get(key).cloned()
}

fn status_told(host: &Fake) -> String {
    told(host, "guestinfo.kindling.status").unwrap_or_default()
}

/// As [`kindling::agent::run`] does.
fn run_and_tell(node: &str, host: &Fake) -> Status {
    guestinfo::running(host);
    assert_eq!(status_told(host), "running");
    let status = run(&spec(node), host);
    guestinfo::ended(host, &status);
    status
}

#[test]
fn a_node_that_joined_says_so_and_redacts_its_seed() {
    for node in ["cp1", "w1"] {
        let host = on_vmware(node);
        let status = run_and_tell(node, &host);
        assert_eq!(status.state, State::Done, "{:?}", status.failure);
        assert!(status_told(&host).starts_with("done in "), "{}", status_told(&host));
        // As cloud-init redacts it, so that its next boot reads an empty value.
        assert_eq!(told(&host, USER_DATA).as_deref(), Some("---"));
        assert_eq!(told(&host, "guestinfo.userdata.encoding").as_deref(), Some(" "));
        assert_eq!(told(&host, "guestinfo.metadata").as_deref(), Some("bWV0YQ=="), "it has the network");

        // Nothing is left to redact at the next boot.
        let effects = host.effects();
        guestinfo::ended(&host, &status);
        assert_eq!(host.effects(), effects + 1, "only the status is told again: {:?}", host.log.borrow());
    }
}

#[test]
fn power_that_is_cut_while_the_seed_is_redacted_leaves_no_secret_to_the_next_boot() {
    let status = run(&spec("w1"), &machine("w1"));
    let host = on_vmware("w1");
    // The status is the first effect, the value the second, its encoding the third.
    host.cut_power_at(3, kindling::host::fake::Cut::Before);
    guestinfo::ended(&host, &status);
    assert!(host.was_cut());
    assert_eq!(told(&host, USER_DATA).as_deref(), Some("---"));
    host.boot();
    guestinfo::ended(&host, &status);
    assert_eq!(told(&host, "guestinfo.userdata.encoding").as_deref(), Some(" "));
}

#[test]
fn a_failed_step_is_told_with_cause_and_remedy_and_the_seed_stays() {
    let host = on_vmware("w1");
    host.cluster_is_up.set(false);
    let status = run_and_tell("w1", &host);
    assert_eq!(status.state, State::Failed);
    let text = status_told(&host);
    let failure = status.failure.unwrap();
    assert!(text.starts_with("failed, tries again: step join: "), "{text}");
    assert!(
        text.contains(" | remedy: ") && text.contains(failure.cause.split(['\n', ':']).next().unwrap()),
        "{text}"
    );
    assert!(!text.contains("abcdef") && !text.contains("PRIVATE"), "{text}");
    assert_eq!(told(&host, USER_DATA).as_deref(), Some("c2VjcmV0"), "it may be needed once more");
}

#[test]
fn what_is_told_is_one_short_line() {
    let host = on_vmware("w1");
    let mut status = run(&spec("w1"), &machine("w1"));
    status.state = State::Failed;
    status.failure = Some(Failure {
        step: "role-file".into(),
        cause: format!("one\n  two\t{}\u{1b}[31m", "ä".repeat(3000)),
        remedy: "three".into(),
        retry: false,
    });
    guestinfo::ended(&host, &status);
    let text = status_told(&host);
    assert!(text.starts_with("failed: step role-file: one two ää") && text.ends_with("ä..."), "{text}");
    assert!(text.len() <= 1024 && !text.contains(char::is_control), "{}", text.len());
}

#[test]
fn a_vcenter_that_cannot_be_told_fails_nobody() {
    let host = on_vmware("w1");
    let status = run(&spec("w1"), &machine("w1"));
    host.cut_power_at(1, kindling::host::fake::Cut::Before);
    guestinfo::running(&host);
    guestinfo::ended(&host, &status);
    assert_eq!(told(&host, USER_DATA).as_deref(), Some("c2VjcmV0"));
}

#[test]
fn other_machines_are_not_asked() {
    let host = machine("w1");
    host.put("/sys/class/dmi/id/sys_vendor", "QEMU\n");
    guestinfo::running(&host);
    let status = run(&spec("w1"), &host);
    guestinfo::ended(&host, &status);
    assert_eq!(status.state, State::Done);
    assert!(!host.log.borrow().iter().any(|line| line.contains("vmware-rpctool")));
}
