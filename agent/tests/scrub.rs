//! What is on a machine's disk after it has joined, and that it comes up with what is left.

mod support;

use std::path::Path;

use kindling::apply::apply;
use kindling::host::fake::Fake;
use kindling::input::Source;
use kindling::plan::plan;
use kindling::role::NodeSpec;
use kindling::status::{State, StepState};
use support::{Told, cloud_init, facts, machine, role_text, run, secrets, spec};

const NODES: [&str; 7] = ["cp1", "cp2", "w1", "ha1", "etcd1", "xcp1", "xcp2"];
const ROLE_FILE: &str = "/etc/kindling/role.toml";

/// Where a file on the machine has the token or a line of a private key, but those where Kubernetes needs them.
fn leaks(host: &Fake, node: &str) -> Vec<String> {
    let secrets = secrets();
    let mut lines = vec![("token", secrets.token.expose()[7..].to_owned())];
    lines.push(("VRRP password", secrets.vrrp_password.expose().to_owned()));
    for (what, pem) in [
        ("ca", secrets.ca.key.expose()),
        ("front-proxy-ca", secrets.front_proxy_ca.key.expose()),
        ("etcd-ca", secrets.etcd_ca.key.expose()),
        ("sa", secrets.service_account.key.expose()),
    ] {
        // Who issues certificates by an external etcd's CA has its key in the role file, and nowhere else.
        lines.extend(
            pem.lines().filter(|l| l.len() > 40 && !l.starts_with('-')).map(|l| (what, l.to_owned())),
        );
    }
    let external = node.starts_with('x') || node.starts_with("etcd");
    let mut found = Vec::new();
    for (path, (bytes, _)) in &host.disk.borrow().files {
        let text = String::from_utf8_lossy(bytes);
        let needed = path.starts_with("/etc/kubernetes/pki");
        for (what, line) in &lines {
            let stays = needed || (external && *what == "etcd-ca" && path == Path::new(ROLE_FILE));
            if text.contains(line) && !stays {
                found.push(format!("{what} in {}", path.display()));
            }
        }
    }
    found.dedup();
    found
}

fn spec_here(host: &Fake) -> NodeSpec {
    let text = host.text(ROLE_FILE).expect("the role file stays");
    let (mut spec, _) = NodeSpec::parse(Source::new(ROLE_FILE, text)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(spec.restore_keys(host), Vec::<String>::new());
    spec
}

#[test]
fn no_key_and_no_token_stays_on_the_disk_after_the_join() {
    for node in NODES {
        let host = machine(node);
        assert!(!leaks(&host, node).is_empty(), "{node}: the search finds what is there");
        assert_eq!(run(&spec(node), &host).state, State::Done, "{node}");
        assert_eq!(leaks(&host, node), Vec::<String>::new(), "{node}");
        assert_eq!(host.disk.borrow().files[Path::new(ROLE_FILE)].1, 0o600);
    }
}

#[test]
fn a_scrubbed_role_file_gives_the_same_plan_and_no_step_is_repeated() {
    for node in NODES {
        let host = machine(node);
        let before = spec(node);
        run(&before, &host);
        host.boot();
        let after = spec_here(&host);
        let facts = facts(&after, &host);
        let (old, new) = (plan(&before, &facts), plan(&after, &facts));
        let names = |steps: &[kindling::plan::Step]| -> Vec<(&str, String)> {
            steps.iter().map(|s| (s.id, s.title.clone())).collect()
        };
        assert_eq!(names(&old), names(&new), "{node}");
        let status = apply(&after, &facts, &new, &host, &mut Told::default());
        assert_eq!(status.state, State::Done, "{node}: {:?}", status.failure);
        for step in status.steps.iter().filter(|s| s.id != "kernel") {
            assert_eq!(step.state, StepState::Unchanged, "{node}: {}", step.id);
        }
    }
}

#[test]
fn what_cloud_init_brings_back_is_taken_out_again() {
    for node in ["cp2", "w1"] {
        let host = machine(node);
        run(&spec(node), &host);
        cloud_init(&host, node);
        let status = run(&spec(node), &host);
        let changed: Vec<_> =
            status.steps.iter().filter(|s| s.state == StepState::Done).map(|s| s.id.as_str()).collect();
        assert_eq!(changed, ["scrub"], "{node}");
        assert_eq!(leaks(&host, node), Vec::<String>::new(), "{node}");
    }
}

/// The record is lost with the token gone: a token that everybody knows must not be made, and nothing be joined twice.
#[test]
fn without_its_record_a_scrubbed_machine_says_what_it_lacks() {
    let host = machine("w1");
    run(&spec("w1"), &host);
    let spec = spec_here(&host);
    host.disk
        .borrow_mut()
        .files
        .retain(|path, _| !path.starts_with("/var/lib/kindling") && !path.starts_with("/etc/kubernetes"));
    let failure = run(&spec, &host).failure.expect("it must fail");
    assert!(failure.remedy.contains("`kindling render --node w1`") && !failure.retry, "{failure:?}");
    let first = machine("cp1");
    run(&support::spec("cp1"), &first);
    let facts = facts(&spec_here(&first), &first);
    for step in plan(&spec_here(&first), &facts) {
        let tokens = step.files().into_iter().filter(|file| file.content.contains("InitConfiguration"));
        assert!(tokens.into_iter().all(|file| !file.content.contains("bootstrapTokens")), "{}", step.id);
    }
    assert!(role_text("cp1").contains("sa_key"));
}
