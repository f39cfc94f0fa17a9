//! Every fixture under `data/cluster/invalid` is named for what is wrong with it; the text beside it is
//! what an operator reads, to the letter. `UPDATE_GOLDEN=1 cargo test --test invalid` writes the texts anew.

use std::fs;
use std::path::{Path, PathBuf};

use kindling::cluster::Cluster;
use kindling::input::{Severity, Source};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cluster/invalid");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn each_mistake_is_told_in_these_words() {
    let mut differences = Vec::new();
    let mut count = 0;
    for path in fixtures().into_iter().filter(|p| p.extension().is_some_and(|e| e == "toml")) {
        count += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let warns = name.starts_with("warn-");
        let report = match Cluster::parse(Source::new(name, fs::read_to_string(&path).unwrap())) {
            Ok((_, report)) => {
                assert!(warns, "{name} was taken for a good file");
                report
            }
            Err(report) => {
                assert!(!warns, "{name} should only warn:\n{report}");
                assert!(report.has_errors(), "{name} was refused without a reason");
                report
            }
        };
        assert!(!report.problems.is_empty(), "{name}: nothing was said");
        for problem in &report.problems {
            assert!(!problem.remedy.is_empty(), "{name}: `{}` has no remedy", problem.message);
            assert_eq!(warns, problem.severity == Severity::Warning, "{name}: {}", problem.message);
        }
        let text = format!("{report}\n");
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &text).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if text != expected {
            differences.push(format!("{name} says\n{text}\ninstead of\n{expected}"));
        }
    }
    assert!(count >= 50, "only {count} fixtures were found");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is wrong elsewhere, and right here.
#[test]
fn what_only_looks_wrong_is_taken() {
    let file = |top: &str, endpoint: &str, tail: &str| {
        format!(
            "version = 1\nname = \"kang\"\nkubernetes = \"v1.37.2\"\n{top}\n[endpoint]\n{endpoint}\n\n[network]\ngateway = \"10.0.0.2\"\n\n\
             [nodes]\ncp1 = {{ role = \"control-plane\", address = \"10.0.0.11/24\" }}\n{tail}"
        )
    };
    let external = "by = \"external\"\nhost = \"lb.kang.org\"";
    let worker = "w1 = { role = \"worker\", address = \"10.0.0.12/24\", taints = [\"a=1:NoSchedule\", \"a=1:NoExecute\"] }";
    for (why, text) in [
        ("nobody's proxy is on the other port", file("", &format!("{external}\nport = 8888"), "")),
        (
            "one control plane is its own endpoint",
            file("", "by = \"external\"\nhost = \"10.0.0.11\"\nport = 6443", ""),
        ),
        ("the same by its name", file("", "by = \"external\"\nhost = \"cp1\"", "")),
        ("one key, two effects", file("", external, worker)),
        ("a registry's port", file("image_repository = \"harbor.kang.org:8443/k8s/v1.37\"", external, "")),
        (
            "times that fit one another",
            file(
                "",
                external,
                "[scheduler_args]\nleader-elect-lease-duration = \"1m30s\"\nleader-elect-renew-deadline = \"40s\"\n\
                 [controller_manager_args]\nleader-elect-retry-period = \"500ms\"\ncluster-signing-duration = \"720h\"\n\
                 [api_server_args]\nbind-address = \"0.0.0.0\"\n",
            ),
        ),
        (
            "the smallest of pods' networks",
            file(
                "pods = \"10.244.0.0/28\"",
                external,
                "[controller_manager_args]\nnode-cidr-mask-size-ipv4 = \"28\"\n",
            ),
        ),
    ] {
        if let Err(report) = Cluster::parse(Source::new("cluster.toml", text.clone())) {
            panic!("{why}:\n{report}\n{text}");
        }
    }
}

#[test]
fn each_text_has_its_fixture() {
    for text in fixtures().into_iter().filter(|p| p.extension().is_some_and(|e| e == "txt")) {
        assert!(text.with_extension("toml").exists(), "{} is left over", text.display());
    }
}
