//! A role file that is wrong: every mistake at once, with its place and what to do, and nothing is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kindling::cluster::{Cluster, Secrets, render};
use kindling::input::Source;
use kindling::role::NodeSpec;

const CLUSTER: &str = include_str!("../../examples/demo.toml");

fn role_file(node: &str) -> String {
    let (cluster, _) = Cluster::parse(Source::new("cluster.toml", CLUSTER)).unwrap_or_else(|e| panic!("{e}"));
    let secrets = Secrets::generate(time::OffsetDateTime::now_utc()).expect("keys can be made");
    render::role_file(&cluster, &secrets, cluster.node(node).expect("the demo has it")).to_toml()
}

/// Writes a role file and loads it; returns the report with the folder's path taken out.
fn report(name: &str, text: Option<&str>, mode: u32) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("role-file").join(name);
    let path = folder.join("role.toml");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    if let Some(text) = text {
        fs::write(&path, text).expect("the target folder can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    let report = NodeSpec::load(&path).expect_err("it must be refused").to_string();
    report.replace(&folder.display().to_string(), "DIR")
}

#[test]
fn a_good_one_is_read_back_whole() {
    for node in ["cp1", "w1"] {
        let text = role_file(node);
        let (file, _) = kindling::role::RoleFile::parse(Source::new("role.toml", text.clone()))
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(file.to_toml() == text, "{node}: what is read differs from what was written");
    }
}

#[test]
fn missing() {
    assert_eq!(
        report("missing", None, 0),
        "DIR/role.toml:1:1: error: there is no role file, so this machine does not know what to become\n  \
         remedy: boot it with a seed made by `kindling render`; `cloud-init status --long` says whether a seed was found"
    );
}

#[test]
fn empty() {
    assert_eq!(
        report("empty", Some("\n"), 0o600),
        "DIR/role.toml:1:1: error: the file is empty\n  remedy: write it anew with `kindling new` or `kindling render`"
    );
}

#[test]
fn not_toml() {
    let text =
        report("not-toml", Some("version = 1\nrole: worker\ntoken = \"abcdef.0123456789abcdef\"\n"), 0o600);
    assert!(text.starts_with("DIR/role.toml:2:5: error: not valid TOML: "), "{text}");
    assert!(!text.contains("0123456789abcdef"), "{text}");
}

#[test]
fn readable_by_the_group() {
    let open = "DIR/role.toml:1:1: error: its mode is 0640: others than its owner can read secrets in it\n  \
                remedy: chmod 0600 it; the seeds of `kindling render` do so. If others had access, make new secrets";
    let text = role_file("w1");
    assert_eq!(report("group-readable", Some(&text), 0o640), open);
    // It hides nothing else that is wrong with the file.
    let text = text.replace("role = \"worker\"", "role = \"wroker\"");
    let seen = report("group-readable-and-wrong", Some(&text), 0o640);
    assert!(seen.starts_with(open), "{seen}");
    assert!(seen.contains("role: unknown variant `wroker`"), "{seen}");
}

#[test]
fn of_a_newer_version() {
    let text = role_file("w1").replacen("version = 1", "version = 2", 1);
    assert_eq!(
        report("newer-version", Some(&text), 0o600),
        "DIR/role.toml:2:11: error: version: this role file has version 2, this agent reads up to 1\n  \
         remedy: bake the image with a newer Kindling, or render the seed with the one that is in the image"
    );
}

#[test]
fn every_mistake_at_once_and_no_secret_in_the_text() {
    let text = role_file("w1")
        .replace("role = \"worker\"", "role = \"wroker\"\nruntme = 1")
        .replace("pods = \"10.244.0.0/16\"", "pods = \"10.244.1.0/16\"");
    let token = text.lines().find(|l| l.starts_with("token = ")).expect("a worker has a token").to_owned();
    let text = text.replace(&token, &token.replace('.', "-"));
    let seen = report("many", Some(&text), 0o600);
    for part in [
        "role: unknown variant `wroker`",
        "runtme: unknown key",
        "did you mean `runtime`?",
        "has host bits: the network is 10.244.0.0/16",
        "token: not a bootstrap token",
    ] {
        assert!(seen.contains(part), "{part} is not in:\n{seen}");
    }
    assert!(!seen.contains(&token[16..31]), "{seen}");
}

#[test]
fn an_etcd_machine_without_what_it_needs() {
    let text = include_str!("../../examples/external-etcd.toml");
    let (cluster, _) = Cluster::parse(Source::new("cluster.toml", text)).unwrap_or_else(|e| panic!("{e}"));
    let secrets = Secrets::generate(time::OffsetDateTime::now_utc()).expect("keys can be made");
    let file = render::role_file(&cluster, &secrets, cluster.node("etcd1").expect("it has one"));
    let text = file.to_toml();
    let (read, _) = kindling::role::RoleFile::parse(Source::new("role.toml", text.clone()))
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(read.to_toml() == text, "what is read differs from what was written");

    let mut without = kindling::role::RoleFile { etcd: None, ..file };
    without.pki.etcd_ca_key = None;
    let seen = report("etcd-incomplete", Some(&without.to_toml()), 0o600);
    assert!(seen.contains("etcd: missing: an etcd machine needs it"), "{seen}");
    assert!(seen.contains("pki.etcd_ca_key: missing: an etcd machine needs it"), "{seen}");

    let other = text.replace("[etcd.members]\netcd1 = ", "[etcd.members]\netcd9 = ");
    let seen = report("etcd-not-a-member", Some(&other), 0o600);
    assert!(seen.contains("etcd.members: does not name this node as 10.0.0.111 etcd1"), "{seen}");
}

#[test]
fn a_role_without_what_it_needs() {
    let (file, _) = kindling::role::RoleFile::parse(Source::new("role.toml", role_file("cp1")))
        .unwrap_or_else(|e| panic!("{e}"));
    let without = kindling::role::RoleFile { token: None, control_plane: None, ..file };
    let seen = report("incomplete", Some(&without.to_toml()), 0o600);
    assert!(seen.contains("token: missing: a control-plane needs it"), "{seen}");
    assert!(seen.contains("control_plane: missing: a control-plane needs it"), "{seen}");
}

/// It may have been rendered by another kindling than the one in the image.
#[test]
fn flags_that_stop_a_component_of_this_version() {
    let text = role_file("cp1").replace(
        "[control_plane]\n",
        "[control_plane]\netcd_args = { experimental-initial-corrupt-check = \"true\" }\n\
         api_server_args = { feature-gates = \"SidecarContainers=true\" }\n",
    );
    let told = report("flags", Some(&text), 0o600);
    for part in [
        "error: control_plane.api_server_args.feature-gates: the feature gate SidecarContainers went away with v1.37",
        "error: control_plane.etcd_args.experimental-initial-corrupt-check: etcd 3.7, which kubeadm v1.37.2 starts",
        "remedy: write feature-gates = \"InitialCorruptCheck=true\" instead",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}
