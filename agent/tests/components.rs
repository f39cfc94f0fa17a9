//! What the tables say of the components, against the programs themselves.

#[path = "../../tests/lib/here.rs"]
mod here;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kindling::role::components::{gates_of, known, names};

/// A program of each minor version that `tests/kubernetes/build` made here.
fn programs(of: &str, program: &str) -> BTreeMap<u32, PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache");
    let cache = std::env::var_os("KINDLING_CACHE").map_or(default, PathBuf::from);
    let folders = std::fs::read_dir(cache.join("kubernetes/programs")).into_iter().flatten().flatten();
    folders
        .filter_map(|folder| {
            // A folder is called NAME-vVERSION-KEY.
            let name = folder.file_name().into_string().ok().filter(|name| !name.ends_with(".new"))?;
            let minor = name.strip_prefix(of)?.strip_prefix("-v")?.split('.').nth(1)?.parse().ok()?;
            Some((minor, folder.path().join(program)))
        })
        .filter(|(_, program)| program.is_file())
        .collect()
}

fn output(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The flags that a program's help shows, each at the start of a line.
fn shown(help: &str) -> BTreeSet<&str> {
    let starts = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line =
            if line.starts_with("--") { line } else { line.get(4..).filter(|_| line.starts_with('-'))? };
        line.strip_prefix("--")
    });
    starts.filter_map(|line| line.split([' ', '=']).next()).filter(|name| !name.is_empty()).collect()
}

/// Calls `compare` with each program of the control plane that is here: its name, its minor version, itself and its help.
fn each_of_the_control_plane(compare: impl Fn(&str, u32, &Path, &str)) {
    let mut compared = 0;
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        for (minor, program) in programs("kubernetes", component) {
            compare(component, minor, &program, &output(&program, &["--help"]));
            compared += 1;
        }
    }
    if compared == 0 {
        here::skip("there are no programs of Kubernetes here (tests/kubernetes/build makes them)");
    }
}

#[test]
fn the_table_of_flags_is_what_the_programs_of_the_control_plane_know() {
    each_of_the_control_plane(|component, minor, program, help| {
        let (shown, table) = (shown(help), names(component, minor).collect::<BTreeSet<_>>());
        let unknown: Vec<_> = shown.difference(&table).collect();
        assert!(unknown.is_empty(), "{component} of 1.{minor} has {unknown:?}: add them to flags.txt");
        let takes = |flag: &&str| {
            let said = output(program, &[&format!("--{flag}=1"), "--help"]);
            !said.contains("unknown flag")
        };
        assert!(!takes(&"no-such-flag"), "{component} of 1.{minor} says of each flag that it knows it");
        // Help hides those that are deprecated.
        let gone: Vec<_> = table.difference(&shown).filter(|flag| !takes(flag)).collect();
        assert!(
            gone.is_empty(),
            "{component} of 1.{minor} does not know {gone:?}: take them out of flags.txt"
        );
    });
}

#[test]
fn the_table_of_gates_has_all_that_the_programs_of_the_control_plane_show() {
    each_of_the_control_plane(|component, minor, _, help| {
        let shown: BTreeSet<&str> = help
            .split_whitespace()
            .filter_map(|word| word.split_once("=true|false"))
            .map(|(name, _)| name.rsplit(':').next().unwrap_or(name))
            // `--runtime-config` has values of that form, too.
            .filter(|name| name.starts_with(char::is_uppercase) && !matches!(*name, "AllAlpha" | "AllBeta"))
            .collect();
        assert!(shown.len() > 50, "{component} of 1.{minor} shows {} gates", shown.len());
        let table: BTreeSet<&str> = gates_of(minor).collect();
        let unknown: Vec<_> = shown.difference(&table).collect();
        assert!(
            unknown.is_empty(),
            "{component} of 1.{minor} has {unknown:?}: add them to feature-gates.txt"
        );
    });
}

#[test]
fn the_table_of_admission_plugins_is_what_kube_apiserver_knows() {
    let all = programs("kubernetes", "kube-apiserver");
    for (minor, program) in &all {
        let help = output(program, &["--help"]);
        let (_, list) = help.split_once("Comma-delimited list of admission plugins: ").expect("the list");
        let (list, _) = list.split_once('.').expect("its end");
        let real: BTreeSet<_> = list.split(',').map(str::trim).collect();
        assert_eq!(names("admission-plugin", *minor).collect::<BTreeSet<_>>(), real, "1.{minor}");
    }
    if all.is_empty() {
        here::skip("there is no kube-apiserver here (tests/kubernetes/build makes one)");
    }
}

#[test]
fn the_table_of_etcds_flags_and_gates_is_what_etcd_knows() {
    let all = programs("etcd", "etcd");
    for (minor, program) in &all {
        let takes = |flag: &str| {
            !output(program, &[&format!("--{flag}=1"), "--version"]).contains("flag provided but not defined")
        };
        assert!(!takes("no-such-flag"), "etcd 3.{minor} says of each flag that it knows it");
        let help = output(program, &["--help"]);
        // Its help is written by hand, and names flags that are gone.
        let unknown: Vec<_> = shown(&help)
            .into_iter()
            .filter(|flag| known("etcd", flag).is_none_or(|(first, last)| !(first..=last).contains(minor)))
            .filter(|flag| *flag != "help" && takes(flag))
            .collect();
        assert!(unknown.is_empty(), "etcd 3.{minor} has {unknown:?}: add them to flags.txt");
        let gone: Vec<_> = names("etcd", *minor).filter(|flag| !takes(flag)).collect();
        assert!(gone.is_empty(), "etcd 3.{minor} does not know {gone:?}: take them out of flags.txt");
        for gate in names("etcd-gate", *minor) {
            let said = output(program, &[&format!("--feature-gates={gate}=true"), "--version"]);
            assert!(
                !said.contains("unrecognized feature gate"),
                "etcd 3.{minor} does not know the gate {gate}"
            );
        }
        let said = output(program, &["--feature-gates=NoSuchGate=true", "--version"]);
        assert!(said.contains("unrecognized feature gate"), "{said}");
    }
    if all.is_empty() {
        here::skip("there is no etcd here (tests/kubernetes/build makes one)");
    }
}
