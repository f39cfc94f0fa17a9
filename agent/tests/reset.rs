//! `kindling reset` on a host in memory: what is left, and what an interrupted one leaves to the next.

mod support;

use std::path::Path;

use kindling::host::fake::{Cut, Fake};
use kindling::reset::{Reset, describe};
use support::{machine, run, spec};

/// What the image starts anyway, or what has nothing to do with the cluster.
const IMAGES_OWN: [&str; 2] = ["chrony.service", "containerd.service"];
const ROLE_FILE: &str = "/etc/kindling/role.toml";

fn reset(force: bool) -> Reset {
    Reset { force, kubeconfig: None, role_file: ROLE_FILE.into() }
}

/// A control plane that joined a cluster of three.
fn member() -> Fake {
    let host = machine("cp2");
    host.cluster.borrow_mut().published = Some([("cp9".to_owned(), "10.0.0.19".to_owned())].into());
    run(&spec("cp2"), &host);
    assert!(host.cluster.borrow().published.as_ref().is_some_and(|list| list["cp2"] == "10.0.0.12"));
    host.cluster.borrow_mut().members.push(("cp3".into(), "https://10.0.0.13:2380".into()));
    host.put(ROLE_FILE, "role");
    // As on an emulated machine.
    kindling::emulated::drop_ins()
        .iter()
        .for_each(|file| host.put(&file.path.to_string_lossy(), &file.content));
    host
}

fn left(host: &Fake) -> Vec<String> {
    let disk = host.disk.borrow();
    let ours = ["/etc/kubernetes", "/var/lib/etcd", "/var/lib/kindling", "/etc/systemd/system", ROLE_FILE];
    let files = disk.files.keys().filter(|path| ours.iter().any(|folder| path.starts_with(folder)));
    files.map(|path| path.display().to_string()).chain(disk.enabled.iter().cloned()).collect()
}

fn members(host: &Fake) -> Vec<String> {
    host.cluster.borrow().members.iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_control_plane_leaves_the_cluster_and_the_machine_clean() {
    let (spec, host) = (spec("cp2"), member());
    assert!(describe(&spec, &host, false).contains("remove this machine's etcd member"));
    reset(false).run(&spec, &host, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(members(&host), ["cp1", "cp3"]);
    assert_eq!(left(&host), IMAGES_OWN);
    assert_eq!(host.cluster.borrow().published, Some([("cp9".to_owned(), "10.0.0.19".to_owned())].into()));
    let log = host.log.borrow().join("\n");
    let order = [
        "kubectl --kubeconfig /etc/kubernetes/admin.conf drain cp2",
        "Patch /api/v1/namespaces/kube-public/configmaps/kindling-endpoints",
        "/v3/cluster/member/remove",
        "delete node cp2",
        "kubeadm reset",
    ];
    let places: Vec<_> = order.iter().map(|what| log.rfind(what)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {log}");
}

/// What kubeadm prints on its way is not its error.
#[test]
fn kubeadms_own_error_comes_first() {
    let (spec, host) = (spec("cp2"), member());
    let said = "[reset] Stopping the kubelet service\n\
                error: failed to remove containers\n\
                To see the stack trace of this error execute with --v=5 or higher\n";
    host.kubeadm_fails.borrow_mut().insert("reset".into(), said.into());
    let error = reset(false).run(&spec, &host, &mut |_| {}).expect_err("kubeadm fails");
    assert!(error.cause.starts_with("failed to remove containers"), "{error}");
    assert!(error.cause.contains("(kubeadm reset: exit status: 1)"), "{error}");
    assert!(error.remedy.contains("/var/log/kindling/kubeadm.log"), "{}", error.remedy);
}

#[test]
fn an_interrupted_reset_is_completed_by_the_next() {
    let spec = spec("cp2");
    for cut in [Cut::Before, Cut::Half, Cut::After] {
        for n in 1.. {
            let host = member();
            host.cut_power_at(n, cut);
            let _ = reset(false).run(&spec, &host, &mut |_| {});
            if !host.was_cut() {
                assert!(n > 10, "only {n} effects");
                break;
            }
            host.boot();
            if host.disk.borrow().files.contains_key(Path::new(ROLE_FILE)) {
                reset(false).run(&spec, &host, &mut |_| {}).unwrap_or_else(|e| panic!("{cut:?} {n}: {e}"));
            }
            assert_eq!(members(&host), ["cp1", "cp3"], "{cut:?} {n}");
            assert_eq!(left(&host), IMAGES_OWN, "{cut:?} {n}");
        }
    }
}

#[test]
fn nothing_is_done_where_the_others_have_no_quorum() {
    let (spec, host) = (spec("cp2"), member());
    host.cluster_is_up.set(false);
    let before = host.outcome();
    let error = reset(false).run(&spec, &host, &mut |_| {}).expect_err("it must be refused");
    assert!(error.cause.contains("no other etcd member answers"), "{error}");
    assert!(host.outcome() == before);

    reset(true).run(&spec, &host, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(left(&host), IMAGES_OWN);
    assert!(!host.log.borrow().iter().any(|l| l.contains("drain")));
}

#[test]
fn a_worker_says_that_it_needs_an_administrators_kubeconfig() {
    let (spec, host) = (spec("w1"), machine("w1"));
    run(&spec, &host);
    let error = reset(false).run(&spec, &host, &mut |_| {}).expect_err("it must be refused");
    assert!(error.remedy.contains("--kubeconfig"), "{}", error.remedy);
}
