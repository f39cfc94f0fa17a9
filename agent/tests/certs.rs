//! `kindling certs` and `kindling certs renew` on a control plane in memory: what is due, in which order it is done, and what
//! a power cut at any instant leaves to the next run.

mod support;

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kindling::certs::{MARK, Renewal, Renewer, due, entries};
use kindling::cluster::{Leaf, issue};
use kindling::error::StepError;
use kindling::host::fake::{Cut, Fake};
use kindling::host::{Host, date};
use kindling::lease;
use kindling::status::State;
use support::{machine, run, secrets, spec};
use time::Duration;

const PAIRS: &[&str] = &[
    "apiserver",
    "apiserver-kubelet-client",
    "apiserver-etcd-client",
    "front-proxy-client",
    "etcd/server",
    "etcd/peer",
    "etcd/healthcheck-client",
];
const CONFS: &[&str] = &["admin", "controller-manager", "scheduler"];

/// The files of a renewal, issued `age` ago.
fn files(host: &Fake, age: Duration) -> Vec<(String, String)> {
    let leaf =
        Leaf { common_name: "x", organization: None, names: &[], server: false, life: Duration::days(365) };
    let pair = || issue(&secrets().ca, &leaf, date(host) - age).expect("the CA signs");
    let mut files = Vec::new();
    for name in PAIRS {
        let pair = pair();
        files.push((format!("/etc/kubernetes/pki/{name}.crt"), pair.certificate));
        files.push((format!("/etc/kubernetes/pki/{name}.key"), pair.key.expose().to_owned()));
    }
    for name in CONFS {
        let certificate = STANDARD.encode(pair().certificate);
        let text = format!("client-certificate-data: {certificate}\nclient-key-data: k\n");
        files.push((format!("/etc/kubernetes/{name}.conf"), text));
    }
    files
}

/// A control plane of three whose certificates are so old, and that kubeadm gives new ones.
fn publish(host: &Fake, list: &[(&str, &str)]) {
    let list = list.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned()));
    host.cluster.borrow_mut().published = Some(list.collect());
}

fn control_plane(age: Duration) -> Fake {
    let host = machine("cp1");
    assert_eq!(run(&spec("cp1"), &host).state, State::Done);
    host.cluster_is_up.set(true);
    publish(&host, &[("cp1", "10.0.0.11"), ("cp2", "10.0.0.12")]);
    for (path, text) in files(&host, age) {
        host.put(&path, &text);
    }
    let admin = host.text("/etc/kubernetes/admin.conf").expect("it was just written");
    host.put("/root/.kube/config", &admin);
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let path = format!("/etc/kubernetes/manifests/{name}.yaml");
        let rest = if name == "etcd" { host.text(&path).expect("kubeadm wrote it") } else { String::new() };
        host.put(&path, &format!("kind: Pod\nmetadata:\n  name: {name}\nspec:\n{rest}"));
    }
    *host.renewed.borrow_mut() = files(&host, Duration::ZERO).into_iter().collect();
    host.log.borrow_mut().clear();
    host
}

/// Another machine in the same state: bringing one up takes longer than a renewal.
fn again(host: &Fake) -> Fake {
    let copy = Fake::new();
    *copy.disk.borrow_mut() = host.disk.borrow().clone();
    *copy.cluster.borrow_mut() = host.cluster.borrow().clone();
    *copy.renewed.borrow_mut() = host.renewed.borrow().clone();
    copy.cluster_is_up.set(true);
    copy.boot();
    copy
}

fn renew_telling(host: &Fake, told: &mut Vec<String>) -> Result<String, StepError> {
    let spec = spec("cp1");
    Renewal { host, spec: &spec, left: 33, now: false }.run(&mut |line| told.push(line.to_owned()))
}

fn renew(host: &Fake) -> Result<String, StepError> {
    renew_telling(host, &mut Vec::new())
}

/// Everything is new, in use, and nothing of the renewal is left.
fn assert_renewed(host: &Fake, why: &str) {
    for (path, text) in &*host.renewed.borrow() {
        assert!(host.text(path).as_ref() == Some(text), "{why}: {path} is not the new one");
    }
    assert_eq!(host.text("/root/.kube/config"), host.text("/etc/kubernetes/admin.conf"), "{why}");
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        assert!(host.uses_new_certificates(name), "{why}: {name} was not started again");
    }
    let disk = host.disk.borrow();
    let left = disk
        .files
        .keys()
        .find(|path| path.starts_with("/var/lib/kindling/certs-before") || path.ends_with("certs-renewal"));
    assert_eq!(left, None, "{why}");
    assert_eq!(host.cluster.borrow().lease_holder(lease::CONTROL_PLANE), Some(""), "{why}");
}

#[test]
fn what_is_not_due_is_left_alone() {
    let host = control_plane(Duration::days(200));
    let before = host.effects();
    assert!(renew(&host).expect("nothing to do").starts_with("nothing is due; the first one ends on "));
    assert_eq!(host.effects(), before);
}

#[test]
fn what_is_due_is_renewed_and_the_pods_restart_one_after_the_other() {
    let host = control_plane(Duration::days(300));
    let manifests = |host: &Fake| {
        let mut disk = host.disk.borrow().clone();
        disk.files.retain(|path, _| path.starts_with("/etc/kubernetes/manifests"));
        disk
    };
    let before = manifests(&host);
    renew(&host).unwrap_or_else(|e| panic!("{e}"));
    assert_renewed(&host, "undisturbed");
    assert_eq!(manifests(&host), before, "what kubeadm wrote, an upgrade finds again");
    let log = host.log.borrow().join("\n");
    let order = [
        "certs-renewal",
        "run kubeadm certs renew all",
        "stop --timeout=30 etcd-",
        "stop --timeout=30 kube-apiserver-",
        "stop --timeout=30 kube-controller-manager-",
        "stop --timeout=30 kube-scheduler-",
    ];
    let places: Vec<_> = order.iter().map(|what| log.find(what)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {log}");
    assert!(renew(&host).expect("nothing to do").starts_with("nothing is due"));
}

/// What kubeadm prints on its way is not its error.
#[test]
fn kubeadms_own_error_comes_first() {
    let host = control_plane(Duration::days(300));
    let said = "W1129 16:01:02.003456 1 a.go:1] deprecated\n\
                error: certificate apiserver can't be renewed: no CA\n\
                To see the stack trace of this error execute with --v=5 or higher\n";
    host.kubeadm_fails.borrow_mut().insert("certs renew all".into(), said.into());
    let error = renew(&host).expect_err("kubeadm fails");
    assert!(
        error.cause.starts_with("certificate apiserver can't be renewed: no CA (kubeadm certs renew: "),
        "{error}"
    );
    assert!(error.remedy.contains("/var/log/kindling/kubeadm.log"), "{}", error.remedy);
    let log = host.text("/var/log/kindling/kubeadm.log").expect("kubeadm's output");
    assert!(log.contains("$ kubeadm certs renew all\nW1129"), "{log}");
}

#[test]
fn a_power_cut_at_any_effect_is_recovered_from() {
    let machine = control_plane(Duration::days(300));
    for cut in [Cut::Before, Cut::Half, Cut::After] {
        for n in 1.. {
            let host = again(&machine);
            host.cut_power_at(n, cut);
            let first = renew(&host);
            if !host.was_cut() {
                first.unwrap_or_else(|e| panic!("{e}"));
                assert!(n > 20, "only {n} effects were counted");
                break;
            }
            host.boot();
            host.sleep(std::time::Duration::from_secs(20));
            let why = format!("{cut:?} {n}: {}", host.log.borrow().last().cloned().unwrap_or_default());
            renew(&host).unwrap_or_else(|e| panic!("{why}: {e}"));
            // What was cut after the lease was given up, or at it, leaves a lease that ends by itself.
            if host.cluster.borrow().lease_holder(lease::CONTROL_PLANE) == Some("") {
                assert_renewed(&host, &why);
            } else {
                assert!(host.text(MARK).is_none(), "{why}");
            }
        }
    }
}

#[test]
fn while_another_control_plane_is_away_nothing_is_touched() {
    let host = control_plane(Duration::days(300));
    host.cluster.borrow_mut().away = Some(Ipv4Addr::new(10, 0, 0, 12));
    let error = renew(&host).expect_err("the others do not answer");
    assert!(error.cause.contains("the API server at 10.0.0.12 is not ready") && error.retry, "{error}");
    assert!(!host.log.borrow().iter().any(|line| line.contains("kubeadm") || line.contains("crictl")));
}

#[test]
fn a_control_plane_that_is_in_the_role_file_and_not_in_the_cluster_is_not_waited_for() {
    let host = control_plane(Duration::days(300));
    host.cluster.borrow_mut().away = Some(Ipv4Addr::new(10, 0, 0, 12));
    // It is away and was there: it is waited for.
    assert!(renew(&host).expect_err("cp2 is away").cause.contains("10.0.0.12"));
    publish(&host, &[("cp1", "10.0.0.11"), ("cp4", "10.0.0.14")]);
    renew(&host).unwrap_or_else(|e| panic!("{e}"));
    assert_renewed(&host, "without cp2");
}

#[test]
fn a_certificate_that_ends_within_days_does_not_wait_for_them() {
    let host = control_plane(Duration::days(360));
    host.cluster.borrow_mut().away = Some(Ipv4Addr::new(10, 0, 0, 12));
    let mut told = Vec::new();
    renew_telling(&host, &mut told).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        told.iter().any(|line| line.ends_with("going on, as a certificate ends within 7 days")),
        "{told:?}"
    );
    assert_renewed(&host, "alone");
}

#[test]
fn nothing_is_issued_by_a_clock_that_cannot_be_right() {
    let host = control_plane(Duration::days(300));
    host.wrong_clock.set(Some((1_577_836_800, std::time::Duration::MAX)));
    let error = renew(&host).expect_err("it is 2020");
    assert!(error.cause.starts_with("this machine's clock says 2020-01-01") && error.retry, "{error}");
    assert!(!host.log.borrow().iter().any(|line| line.contains("kubeadm")));
}

#[test]
fn two_control_planes_never_renew_at_once() {
    let host = control_plane(Duration::days(300));
    host.cluster.borrow_mut().hold_lease(lease::CONTROL_PLANE, "cp2");
    let start = host.now();
    let mut told = Vec::new();
    renew_telling(&host, &mut told).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(told[0], "cp2 is renewing its certificates");
    // Its holder was not heard of any more.
    assert!((host.now() - start).as_secs() >= 30);
}

#[test]
fn each_certificate_is_told_with_who_renews_it_the_first_to_end_first() {
    let host = control_plane(Duration::days(300));
    let list = entries(&host);
    assert!(list.is_sorted_by_key(|e| e.ends));
    let of = |path: &str| list.iter().find(|e| e.path == path).map(|e| e.renewed_by);
    assert_eq!(of("/etc/kubernetes/pki/apiserver.crt"), Some(Renewer::Kubeadm));
    assert_eq!(of("/etc/kubernetes/pki/ca.crt"), Some(Renewer::Hand));
    assert_eq!(of("/root/.kube/config"), Some(Renewer::Copy));
    // Seven pairs, three kubeconfigs and root's.
    assert_eq!(due(&list, date(&host), 33).len(), 11);
    assert_eq!(due(&list, date(&host), 10).len(), 0);
}
