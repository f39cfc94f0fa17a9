//! What is wrong with a machine, told before anything is changed on it.

mod support;

use kindling::apply::apply;
use kindling::facts::Facts;
use kindling::host::fake::Fake;
use kindling::plan::plan;
use kindling::preflight;
use kindling::role::etcd_version::EtcdVersion;
use kindling::role::types::RuntimeName;
use kindling::status::{State, StepState};
use support::{Told, facts, machine, run, spec, with_runtime};

#[test]
fn a_machine_of_an_external_etcd_refuses_an_image_whose_etcd_is_too_old_or_missing() {
    const NONE: &str = "this image has no etcd, or no etcdctl, that runs";
    for (node, etcd, cause) in [
        (
            "etcd1@v1.32.3",
            "3.5.9",
            "this image has etcd 3.5.9: kubeadm v1.32.3 takes an external etcd from 3.5.11 on",
        ),
        (
            "etcd1@v1.34.0",
            "3.5.16",
            "this image has etcd 3.5.16: kubeadm v1.34.0 takes an external etcd from 3.5.21 on",
        ),
        (
            "etcd1@v1.37.2",
            "3.5.16",
            "this image has etcd 3.5.16: kubeadm v1.37.2 takes an external etcd from 3.5.24 on",
        ),
        ("etcd1", "", NONE),
    ] {
        let (spec, host) = (spec(node), machine(node));
        let facts = Facts { etcd: EtcdVersion::read(etcd), ..facts(&spec, &host) };
        let findings = preflight::check(&spec, &facts);
        assert_eq!(findings.iter().map(|f| f.message.as_str()).collect::<Vec<_>>(), [cause]);
        assert_eq!(findings[0].weight, preflight::Weight::Lasting);
        let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
        let failure = status.failure.expect("it must fail");
        assert!(
            failure.step == "preflight" && failure.cause.contains(cause) && !failure.retry,
            "{failure:?}"
        );
    }
    let (spec, host) = (spec("etcd1@v1.32.3"), machine("etcd1@v1.32.3"));
    let facts = Facts { etcd: EtcdVersion::read("3.5.16"), ..facts(&spec, &host) };
    assert_eq!(preflight::check(&spec, &facts), []);
}

#[test]
fn preflight_names_everything_at_once_and_nothing_is_changed() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    let facts = Facts {
        interfaces: Vec::new(),
        cpus: 1,
        memory_mb: 900,
        machine_id: None,
        listening: [6443, 10250].into(),
        firewalls: vec!["ufw".into()],
        kubeadm: Some("v1.31.0".parse().expect("a version")),
        ..facts(&spec, &host)
    };
    let before = host.outcome();
    let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
    let failure = status.failure.expect("it must fail");
    for part in ["10.0.0.11", "machine-id", "ufw", "1 CPU", "900 MiB", "v1.31.0", "port 6443", "port 10250"] {
        assert!(failure.cause.contains(part), "{part} is not in: {}", failure.cause);
    }
    assert!(!failure.retry);
    assert!(host.outcome() == before);
    assert_eq!(status.steps[0].state, StepState::Failed);
}

/// An image with another minor version boots on a machine that is in the cluster, as an update and the way back do.
#[test]
fn another_minor_version_is_a_warning_where_the_machine_has_joined_and_refused_where_it_has_not() {
    for (node, image, word) in [
        ("cp2@v1.36.3", "v1.37.2", "newer than the API servers"),
        ("w1@v1.36.3", "v1.37.2", "newer than the API servers"),
        ("cp2@v1.36.3", "v1.35.4", "must not write manifests"),
        ("w1@v1.36.3", "v1.35.4", "must not write manifests"),
    ] {
        let (spec, host) = (spec(node), machine(node));
        let other = |host: &Fake| Facts { kubeadm: Some(image.parse().unwrap()), ..facts(&spec, host) };
        let boot = |host: &Fake| {
            let facts = other(host);
            apply(&spec, &facts, &plan(&spec, &facts), host, &mut Told::default())
        };
        let failure = boot(&host).failure.expect("it has not joined");
        assert_eq!(
            failure.cause,
            format!("this image has kubeadm {image}, the cluster file says Kubernetes v1.36.3")
        );
        assert!(!failure.retry && failure.remedy.contains("render again"), "{failure:?}");

        assert_eq!(run(&spec, &host).state, State::Done);
        host.boot();
        let efi = "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        host.put(efi, "");
        let status = boot(&host);
        assert_eq!(status.state, State::Done, "{node} {image}: {:?}", status.failure);
        let remark = status.steps[0].detail.clone().unwrap_or_default();
        assert!(remark.contains(&format!("Kubernetes {image}, the cluster's is v1.36.3")), "{remark}");
        assert!(remark.contains(word), "{remark}");
    }
    // Two are too many for a kubelet beside these API servers, or for the way back.
    let (spec, host) = (spec("w1@v1.34.4"), machine("w1@v1.34.4"));
    run(&spec, &host);
    let facts = Facts { kubeadm: Some("v1.36.3".parse().unwrap()), ..facts(&spec, &host) };
    let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
    assert_eq!(status.failure.map(|failure| failure.step).as_deref(), Some("preflight"));
}

#[test]
fn cgroup_v1_is_the_hosts_in_a_system_container_and_refused_elsewhere() {
    for (node, container, refused) in
        [("w1@v1.34.4", false, false), ("w1@v1.35.4", false, true), ("w1", false, true), ("w1", true, false)]
    {
        let (spec, host) = (spec(node), machine(node));
        let mut facts = facts(&spec, &host);
        facts.cgroup_v1 = true;
        facts.modules = ["overlay".into(), "br_netfilter".into()].into();
        facts.container = container.then(|| "systemd-nspawn".to_owned());
        let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
        let told = status.steps[0].detail.clone().unwrap_or_default();
        assert!(told.contains("cgroup v1"), "{node} {container}: {told}");
        assert_eq!(status.state == State::Failed, refused, "{node} {container}: {:?}", status.failure);
    }
    // It is the image's kubelet that runs, after an update another one than the role file's.
    let (spec, host) = (spec("w1@v1.34.4"), machine("w1@v1.34.4"));
    let kubeadm = "v1.35.4".parse().ok();
    let updated = Facts { cgroup_v1: true, joined: true, kubeadm, ..facts(&spec, &host) };
    let findings = preflight::check(&spec, &updated);
    let refusal = findings.iter().find(|finding| finding.weight == preflight::Weight::Lasting);
    assert!(
        refusal.is_some_and(|finding| finding.message.contains("kubelet v1.35.4 refuses")),
        "{findings:?}"
    );
}

#[test]
fn a_runtime_that_this_image_cannot_run_is_refused_with_the_reason() {
    let host = machine("w1");
    for (runtime, have, says) in [
        (RuntimeName::Docker, Facts::default(), "this image has no docker"),
        (RuntimeName::Docker, Facts { docker: true, ..Facts::default() }, "this image has no cri-dockerd"),
        (RuntimeName::Crio, Facts::default(), "this image has no CRI-O"),
    ] {
        let spec = with_runtime("w1", runtime);
        let facts = Facts { docker: have.docker, cri_dockerd: have.cri_dockerd, ..facts(&spec, &host) };
        let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
        let failure = status.failure.expect("it must fail");
        assert!(failure.step == "preflight" && failure.cause.contains(says), "{}", failure.cause);
        assert!(!failure.retry && failure.remedy.contains("runtime = \"containerd\""), "{}", failure.remedy);
    }
}
