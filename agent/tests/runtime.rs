//! Container runtimes on a machine: which one runs, what it is told of the machine, and what is left of an earlier role file.

mod cluster_support;
mod support;

use std::path::Path;

use cluster_support::Scratch;
use kindling::apply::apply;
use kindling::facts::Facts;
use kindling::host::Host;
use kindling::host::fake::Fake;
use kindling::plan::plan;
use kindling::role::types::RuntimeName;
use kindling::runtime::socket;
use kindling::status::{State, StepState};
use support::{Told, facts, machine, run, spec, with_runtime};

#[test]
fn only_the_runtime_that_is_chosen_runs() {
    let host = machine("w1");
    for (runtime, runs, rests) in [
        (RuntimeName::Docker, &["containerd", "docker", "cri-docker"][..], &["crio"][..]),
        (RuntimeName::Crio, &["crio"], &["containerd", "docker", "cri-docker"]),
        (RuntimeName::Containerd, &["containerd"], &["crio", "docker", "cri-docker"]),
    ] {
        let spec = with_runtime("w1", runtime);
        let facts = Facts { docker: true, cri_dockerd: true, crio: true, ..facts(&spec, &host) };
        let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Told::default());
        assert_eq!(status.state, State::Done, "{:?}", status.failure);
        let enabled = host.disk.borrow().enabled.clone();
        let has = |name: &&str| enabled.contains(&format!("{name}.service"));
        assert!(runs.iter().all(has) && !rests.iter().any(has), "{runtime:?}: {enabled:?}");
        // kubeadm, the kubelet and crictl are told of one socket.
        let socket = socket(runtime);
        let steps = plan(&spec, &facts);
        for path in ["/etc/crictl.yaml", "/etc/kindling/kubeadm.yaml"] {
            let file = steps.iter().flat_map(|step| step.files()).find(|file| file.path == Path::new(path));
            assert!(file.unwrap().content.contains(socket), "{path} has no {socket}");
        }
    }
}

/// runc would end where a machine's limits forbid what a pod's container asks for.
#[test]
fn where_oom_scores_cannot_be_lowered_the_runtime_is_told_to_leave_them() {
    let host = machine("w1");
    for (runtime, path, word) in [
        (RuntimeName::Docker, "/etc/docker/daemon.json", "runc-in-container"),
        (RuntimeName::Crio, "/etc/crio/crio.conf.d/90-kindling.conf", "runc-in-container"),
        (RuntimeName::Containerd, "/etc/containerd/config.toml", "restrict_oom_score_adj = true"),
    ] {
        let spec = with_runtime("w1", runtime);
        for (container, no_sys_resource, told) in
            [(Some("systemd-nspawn"), true, true), (None, true, false), (None, false, false)]
        {
            let container = container.map(str::to_owned);
            let facts = Facts {
                container,
                no_sys_resource,
                docker: true,
                cri_dockerd: true,
                crio: true,
                ..facts(&spec, &host)
            };
            let steps = plan(&spec, &facts);
            let file = steps.iter().flat_map(|step| step.files()).find(|file| file.path == Path::new(path));
            let content = &file.unwrap_or_else(|| panic!("no {path}")).content;
            assert_eq!(content.contains(word), told, "{runtime:?}: {content}");
        }
    }
}

/// A mirror, its CA or a password that the operator took out of the cluster file.
#[test]
fn what_the_role_file_says_no_more_of_registries_is_gone_from_the_machine() {
    const HOSTS: &str = "/etc/containerd/certs.d/gone.test/hosts.toml";
    const OWN: &str = "/etc/containerd/certs.d/own.test/hosts.toml";
    const LOGINS: &str = "/var/lib/kubelet/config.json";
    let read = |host: &Fake, path: &str| host.read(Path::new(path)).unwrap();
    let (spec, host) = (spec("w1"), machine("w1"));
    run(&spec, &host);
    let logins = "{\n  \"auths\": {\n    \"gone.test\": {\n      \"auth\": \"YTpi\"\n    }\n  },\n  \"x-written-by\": \"kindling\"\n}\n";
    for (path, text) in [
        (
            HOSTS,
            "# Written by Kindling from the role file: changes are lost at the next run.\n\nserver = \"https://gone.test\"\nskip_verify = true\n",
        ),
        ("/etc/containerd/certs.d/gone.test/ca.crt", "a CA"),
        (OWN, "server = \"https://own.test\"\n"),
        (LOGINS, logins),
    ] {
        host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
    }
    let status = run(&spec, &host);
    let step = status.steps.iter().find(|step| step.id == "containerd").unwrap();
    assert_eq!((status.state, step.state), (State::Done, StepState::Done), "{:?}", status.failure);
    assert_eq!(read(&host, HOSTS), None);
    assert_eq!(read(&host, "/etc/containerd/certs.d/gone.test/ca.crt"), None);
    assert_eq!(read(&host, LOGINS), None, "a password is left");
    assert!(read(&host, OWN).is_some(), "an operator's own file");
    // What an operator put there is another matter.
    host.write(Path::new(LOGINS), b"{\"auths\": {}}", 0o600).unwrap();
    assert_eq!(
        run(&spec, &host).steps.iter().find(|step| step.id == "containerd").unwrap().state,
        StepState::Unchanged
    );
    assert!(read(&host, LOGINS).is_some());
}

/// What runc is given is what the machine can do, however it is told where the files are.
#[test]
fn runc_in_a_container_lowers_no_score_and_gives_no_capability_that_it_has_not() {
    let scratch = Scratch::new();
    let bundle = scratch.path("a bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    let fake = scratch.write("runc", "#!/bin/sh\necho \"$@\"\n");
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../image/mkosi.extra/usr/lib/kindling/runc-in-container");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let text = r#"{"process":{"capabilities":{"bounding":["CAP_SYS_RESOURCE","CAP_CHOWN"],"permitted":["CAP_CHOWN","CAP_SYS_RESOURCE"],"effective":["CAP_SYS_RESOURCE"]},"oomScoreAdj":-998}}"#;
    let config = bundle.join("config.json");
    let file = config.to_str().unwrap();
    let folder = bundle.to_str().unwrap();
    for arguments in [
        vec!["--root", "/run/runc", "create", "--bundle", folder, "id"],
        vec!["create", &*format!("--bundle={folder}"), "id"],
        vec!["create", "-b", folder, "id"],
        vec!["exec", "--process", file, "id"],
    ] {
        std::fs::write(&config, text).unwrap();
        let path = format!("{}:/usr/bin:/bin", scratch.0.display());
        let output =
            std::process::Command::new("sh").arg(script).args(&arguments).env("PATH", path).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            arguments.join(" "),
            "runc gets what was given"
        );
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        let process = &json["process"];
        assert_eq!(process["oomScoreAdj"].to_string(), own.trim(), "{arguments:?}");
        for (set, left) in [("bounding", 1), ("permitted", 1), ("effective", 0)] {
            let names = process["capabilities"][set].as_array().unwrap();
            assert!(
                names.len() == left && names.iter().all(|name| name == "CAP_CHOWN"),
                "{arguments:?}: {process}"
            );
        }
    }
}
