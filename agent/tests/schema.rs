//! The JSON Schemas, `kindling explain` and `docs/cluster-file.md` say what the readers do.

mod cluster_support;
mod help_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use cluster_support::{assert_golden, cluster, data, dummies, example};
use help_support::{merge, root, to_json, validate};
use kindling::cluster::{Cluster, new, render};
use kindling::help::{self, schema};
use kindling::input::{Report, Source};
use kindling::role::RoleFile;
use serde_json::Value;

fn pretty(value: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap())
}

#[test]
fn the_committed_copies_are_those_of_the_types() {
    assert_golden(&root().join("docs/schema/cluster.json"), &pretty(&schema::cluster()));
    assert_golden(&root().join("docs/schema/role.json"), &pretty(&schema::role()));
    assert_golden(&root().join("docs/cluster-file.md"), &help::reference());
}

fn files(folder: PathBuf, ending: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    files.into_iter().map(|path| (name(&path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn a_validator_takes_what_check_takes() {
    let mut texts = files(root().join("examples"), ".toml");
    assert!(texts.len() >= 5);
    texts.extend(new::EXAMPLES.map(|(name, text)| (name.to_owned(), text.to_owned())));
    texts.extend(files(data("invalid"), ".toml").into_iter().filter(|(name, _)| name.starts_with("warn-")));
    let documents: Vec<Value> = texts.iter().map(|(_, text)| to_json(text)).collect();
    let Some(told) = validate(&schema::cluster(), &documents) else { return };
    for ((name, _), told) in texts.iter().zip(told) {
        assert!(told.is_empty(), "{name}: {told:#?}");
    }

    let mut roles = Vec::new();
    for (name, _) in new::EXAMPLES {
        let cluster = example(name);
        for node in &cluster.nodes {
            let file = render::role_file(&cluster, &dummies(), node);
            roles.push((format!("{} of {name}", node.name), to_json(&file.to_toml())));
        }
    }
    let documents: Vec<Value> = roles.iter().map(|(_, document)| document.clone()).collect();
    let told = validate(&schema::role(), &documents).expect("it was there a moment ago");
    for ((name, _), told) in roles.iter().zip(told) {
        assert!(told.is_empty(), "{name}: {told:#?}");
    }
}

/// Taplo, the checker behind editors' TOML extensions, finds the schema by the file's first line.
#[test]
fn an_editors_own_checker_takes_what_new_writes_and_refuses_mistakes() {
    let scratch = cluster_support::Scratch::new();
    new::create(&scratch.0, Some("lecture"), cluster_support::NOW).unwrap();
    let lint = |file: &str| {
        let arguments = ["lint", "--colors", "never", file];
        std::process::Command::new("taplo").args(arguments).current_dir(&scratch.0).output()
    };
    let good = match lint("cluster.toml") {
        Ok(good) => good,
        Err(error) => {
            return cluster_support::here::skip(&format!(
                "taplo cannot be run here (pip install taplo): {error}"
            ));
        }
    };
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let text = fs::read_to_string(scratch.path("cluster.toml")).unwrap();
    let text = text.replace("by = \"load-balancer\"", "by = \"loadbalancer\"") + "[vsphere]\nfoldr = \"x\"\n";
    scratch.write("wrong.toml", &text);
    let bad = lint("wrong.toml").unwrap();
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(!bad.status.success());
    for part in ["\"loadbalancer\" is not one of", "'foldr' was unexpected"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}

/// Mistakes that span several keys, or need arithmetic, are `check`'s alone; a schema finds those of one key.
#[test]
fn a_validator_refuses_what_is_wrong_in_one_key() {
    const FOUND: [(&str, &str); 26] = [
        ("bad-addon-and-repository", "addons.0: "),
        ("bad-address", "nodes.master1.address: "),
        ("bad-cidr", "pods: "),
        ("bad-host-name", "does not match any of the regexes"),
        ("bad-label-and-taint", "taints.0: "),
        ("bad-libvirt", "libvirt"),
        ("bad-mac", "nodes.node1.mac: "),
        ("bad-registry", "registries.0.host: "),
        ("bad-role-name", "nodes.node1.role: 'slave' is not one of"),
        ("bad-timezone-and-interface", "network.interface: "),
        ("bad-version", "kubernetes: "),
        ("bad-vrrp", "vrrp.vrid: "),
        ("bad-vsphere", "vsphere."),
        ("deadline-of-zero", "deadlines."),
        ("empty", "'version' is a required property"),
        ("external-without-host", "endpoint: 'host' is a required property"),
        ("many-mistakes", ""),
        ("missing-keys", "is a required property"),
        ("missing-tables", "'nodes' is a required property"),
        ("name-too-long", ""),
        ("newer-file-version", "version: 2 is greater than the maximum of 1"),
        ("no-nodes", "nodes: "),
        ("password-in-the-cluster-file", "'password' was unexpected"),
        ("unknown-key", "'kubernets' was unexpected"),
        ("vip-missing", "endpoint: 'vip' is a required property"),
        ("wrong-type", ""),
    ];
    let fixtures: BTreeMap<String, String> = files(data("invalid"), ".toml").into_iter().collect();
    let documents: Vec<Value> = FOUND
        .iter()
        .map(|(name, _)| to_json(fixtures.get(*name).unwrap_or_else(|| panic!("no fixture {name}"))))
        .collect();
    let Some(told) = validate(&schema::cluster(), &documents) else { return };
    for ((name, expected), told) in FOUND.iter().zip(told) {
        assert!(told.iter().any(|text| text.contains(expected)), "{name}: {expected} is not in {told:#?}");
    }
}

const STRANGER: &str = "zzzzzzzzzzzzzzzzzzzz";

/// The keys that a reader knows, table by table: it names them where it meets one that it does not know.
fn known_to(report: &Report) -> BTreeMap<String, BTreeSet<String>> {
    report
        .problems
        .iter()
        .filter_map(|problem| {
            let table = problem.key.strip_suffix(STRANGER)?.trim_end_matches('.').to_owned();
            let known = problem.remedy.strip_prefix("known keys here: ")?;
            Some((table, known.split(", ").map(str::to_owned).collect()))
        })
        .collect()
}

/// Puts a key that nobody knows into every table; `free` are those whose keys are the operator's.
fn with_strangers(table: &mut toml::Table, path: &str, free: &[&str]) {
    for (key, value) in table.iter_mut() {
        let path = format!("{path}.{key}");
        match value {
            toml::Value::Table(inner) => with_strangers(inner, &path, free),
            toml::Value::Array(items) => {
                items
                    .iter_mut()
                    .filter_map(toml::Value::as_table_mut)
                    .for_each(|t| with_strangers(t, &path, free));
            }
            _ => {}
        }
    }
    if !free.contains(&path) {
        table.insert(STRANGER.into(), 1.into());
    }
}

/// The properties of each table of a schema, by the paths that the reader has in its reports.
fn properties(schema: &Value, path: &str, name: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let Some(known) = schema["properties"].as_object() else { return };
    found.insert(path.to_owned(), known.keys().cloned().collect());
    for (key, inner) in known {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        properties(inner, &path, name, found);
        properties(&inner["items"], &format!("{path}[0]"), name, found);
        for entry in inner["patternProperties"].as_object().into_iter().flat_map(|patterns| patterns.values())
        {
            properties(entry, &format!("{path}.{name}"), name, found);
        }
    }
}

/// A cluster file with every table.
const WHOLE: &str = r#"
version = 1
name = "c"
kubernetes = "v1.37.2"
[endpoint]
by = "stacked"
vip = "10.0.0.10"
[vrrp]
[network]
gateway = "10.0.0.2"
[deadlines]
[[registries]]
host = "docker.io"
[vsphere]
[libvirt]
[nodes]
cp1 = { role = "control-plane", address = "10.0.0.11/24" }
"#;

#[test]
fn the_schema_has_the_keys_that_the_reader_reads() {
    let mut table: toml::Table = WHOLE.parse().unwrap();
    with_strangers(&mut table, "", &[".nodes"]);
    let report = Cluster::parse(Source::new("cluster.toml", table.to_string())).unwrap_err();
    let mut expected = BTreeMap::new();
    properties(&schema::cluster(), "", "cp1", &mut expected);
    assert_eq!(known_to(&report), expected);

    // Every table of a role file, which no single role has.
    let cluster = example("lecture");
    let mut file = render::role_file(&cluster, &dummies(), cluster.node("master1").unwrap());
    let external = example("external-etcd");
    file.etcd = render::role_file(&external, &dummies(), external.node("etcd1").unwrap()).etcd;
    let balancer = render::role_file(&cluster, &dummies(), cluster.node("ha1").unwrap());
    (file.vrrp, file.proxy) = (balancer.vrrp, balancer.proxy);
    let mut table: toml::Table = file.to_toml().parse().unwrap();
    with_strangers(&mut table, "", &[".hosts", ".labels", ".etcd.members", ".proxy.servers"]);
    let report = RoleFile::parse(Source::new("role.toml", table.to_string())).unwrap_err();
    let mut expected = BTreeMap::new();
    properties(&schema::role(), "", "", &mut expected);
    let mut known = known_to(&report);
    known.retain(|table, _| !table.starts_with("registries[1]"));
    assert_eq!(known, expected);
}

/// Writes each default into the file: nothing may change by it.
#[test]
fn the_defaults_that_are_told_are_those_that_are_taken() {
    fn fill(table: &mut toml::Table, schema: &Value, count: &mut usize) {
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            if let (Some(default), false) = (inner.get("default"), table.contains_key(key)) {
                table.insert(key.clone(), toml::Value::try_from(default).unwrap());
                *count += 1;
            }
            match table.get_mut(key) {
                Some(toml::Value::Table(table)) => {
                    fill(table, inner, count);
                    for entry in inner["patternProperties"].as_object().into_iter().flat_map(|p| p.values()) {
                        table
                            .iter_mut()
                            .filter_map(|(_, v)| v.as_table_mut())
                            .for_each(|t| fill(t, entry, count));
                    }
                }
                Some(toml::Value::Array(items)) => {
                    items
                        .iter_mut()
                        .filter_map(|i| i.as_table_mut())
                        .for_each(|t| fill(t, &inner["items"], count));
                }
                _ => {}
            }
        }
    }
    let mut table: toml::Table = WHOLE.parse().unwrap();
    let mut count = 0;
    fill(&mut table, &schema::cluster(), &mut count);
    assert!(count >= 14, "only {count} defaults are told");
    assert_eq!(format!("{:?}", cluster(&table.to_string())), format!("{:?}", cluster(WHOLE)));
}

/// Whoever reads it must find what a key is, whether it must be there, and how it is written.
#[test]
fn every_key_is_told_whole() {
    let keys = help::keys();
    assert!(keys.len() >= 40);
    for key in &keys {
        assert!(key.description.ends_with('.'), "{} has no description", key.key);
        let told = key.table || key.required || key.default.is_some() || key.key == "endpoint.vip";
        assert!(told, "{}: what does it mean when it is missing?", key.key);
        let shown = key.table || key.example.is_some() || key.key.ends_with(".ca");
        assert!(shown, "{} has no example", key.key);
        for value in &key.values {
            assert!(value.meaning.ends_with('.'), "{}: {} has no meaning", key.key, value.value);
        }
    }
    let by = keys.iter().find(|key| key.key == "endpoint.by").unwrap();
    let values: Vec<&str> = by.values.iter().map(|value| value.value.as_str()).collect();
    assert_eq!(values, ["\"load-balancer\"", "\"stacked\"", "\"external\""]);
}

/// An editor shows it where the mouse is.
#[test]
fn every_key_of_both_schemas_has_a_description() {
    fn walk(schema: &Value, path: &str, silent: &mut Vec<String>) {
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            if inner["description"].as_str().is_none_or(str::is_empty) {
                silent.push(path.clone());
            }
            walk(inner, &path, silent);
            walk(&inner["items"], &path, silent);
            for entry in inner["patternProperties"].as_object().into_iter().flat_map(|p| p.values()) {
                walk(entry, &path, silent);
            }
        }
    }
    let mut silent = Vec::new();
    walk(&schema::cluster(), "cluster", &mut silent);
    walk(&schema::role(), "role", &mut silent);
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn the_examples_of_the_keys_are_right() {
    for key in help::keys() {
        let Some(example) = key.example else { continue };
        let mut whole = to_json(WHOLE);
        merge(&mut whole, to_json(&example));
        let text = toml::to_string(&whole).unwrap();
        let read = Cluster::parse(Source::new(&key.key, text));
        read.unwrap_or_else(|report| panic!("{example}\n{report}"));
    }
}
