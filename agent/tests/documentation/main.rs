//! What the documents say is true: their commands parse and run, their files are accepted, their links lead somewhere.

#[path = "../cluster_support/mod.rs"]
mod cluster_support;
/// The parser itself.
#[path = "../../src/main.rs"]
#[allow(dead_code)]
mod command_line;
#[path = "../help_support/mod.rs"]
mod help_support;
mod markdown;
mod messages;
mod run;
mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use help_support::{merge, root, to_json, validate};
use kindling::cluster::Cluster;
use kindling::help::schema;
use kindling::input::Source;
use markdown::{Block, Document};

/// Blocks that cannot be checked: document, first line, why.
const UNCHECKED: [(&str, &str, &str); 2] = [
    ("docs/vsphere.md", "kang-master1: poweredOn: done in 64 s", "what `tests/vsphere/run` has govc say"),
    ("docs/day-two.md", "Kubernetes v1.37.2 at 10.0.0.10:6443", "tests/survey.rs compares it"),
];

/// Code in the text that looks like a command line and is none: document, code, why.
const NO_COMMAND_LINES: [(&str, &str, &str); 2] = [
    ("README.md", "kindling power off|on|new-disk NODE", "a synopsis: one of the three words is meant"),
    ("CONTRIBUTING.md", "kindling render --target", "only named: one of two words is missing"),
];

/// Programs that documents may name besides ours.
const OTHERS: [&str; 31] = [
    "age",
    "age-keygen",
    "apt-get",
    "cargo",
    "cat",
    "cd",
    "chmod",
    "cp",
    "curl",
    "etcdctl",
    "export",
    "govc",
    "install",
    "journalctl",
    "kindling-slot",
    "kubeadm",
    "kubectl",
    "ls",
    "mkdir",
    "mv",
    "qemu-img",
    "qemu-system-x86_64",
    "read",
    "rm",
    "scp",
    "sed",
    "sha256sum",
    "source",
    "systemctl",
    "virsh",
    "virt-install",
];

fn documents() -> Vec<(String, Document)> {
    let mut names: Vec<String> = ["README.md", "CONTRIBUTING.md", "image/README.md", "cloud-init/README.md"]
        .map(String::from)
        .to_vec();
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.extend(docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let text =
                fs::read_to_string(root().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, Document::read(&text))
        })
        .collect()
}

/// The command lines of a block: all of it, or where output is shown too, what stands behind a prompt.
fn lines(block: &Block) -> Vec<String> {
    let text = block.text.replace("\\\n", " ");
    let prompt = |line: &str| line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")).map(str::to_owned);
    match block.language.as_str() {
        "sh" | "bash" | "" => {
            text.lines().map(str::to_owned).filter(|line| !line.trim().is_empty()).collect()
        }
        "console" => text.lines().filter_map(prompt).collect(),
        _ => Vec::new(),
    }
}

fn checked(name: &str, block: &Block) -> bool {
    let first = block.text.lines().next().unwrap_or_default();
    !UNCHECKED.iter().any(|(document, line, _)| *document == name && *line == first)
}

fn targets() -> BTreeSet<String> {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| {
            !target.is_empty()
                && target.bytes().all(|b| b.is_ascii_lowercase() || b"-0123456789".contains(&b))
        })
        .collect()
}

/// What is wrong with a command, if anything. In the text a command is often only named: `kindling check`.
fn wrong(command: &shell::Command, targets: &BTreeSet<String>, only_named: bool) -> Option<String> {
    let words = &command.0;
    match command.program() {
        "kindling" => {
            let arguments = ["kindling"].into_iter().chain(words[1..].iter().map(String::as_str));
            match command_line::Cli::try_parse_from(arguments) {
                Ok(_) => None,
                // asked for help, or for the version
                Err(error) if !error.use_stderr() => None,
                Err(error) if only_named && error.kind() == ErrorKind::MissingRequiredArgument => None,
                Err(error) => Some(error.to_string()),
            }
        }
        "make" => words[1..]
            .iter()
            .filter(|word| !word.contains('='))
            .find(|word| !targets.contains(*word))
            .map(|target| format!("there is no target {target}")),
        // Whether it is written is seen where the document's commands are run.
        program if run::RENDERED.contains(&program) => None,
        program if program.contains('/') && !program.starts_with('/') => {
            (!root().join(program).is_file()).then(|| format!("there is no {program}"))
        }
        program => (!OTHERS.contains(&program)).then(|| format!("what is {program}? Name it in OTHERS")),
    }
}

#[test]
fn the_parser_itself_is_sound() {
    command_line::Cli::command().debug_assert();
}

#[test]
fn every_command_parses_and_every_target_is_there() {
    let targets = targets();
    let mut problems = Vec::new();
    let (mut commands, mut inline) = (0, 0);
    for (name, document) in documents() {
        for block in document.blocks.iter().filter(|block| checked(&name, block)) {
            let known = ["sh", "bash", "", "console", "toml"].contains(&block.language.as_str());
            if !known {
                problems.push(format!("{name}:{}: nobody checks `{}`", block.line, block.language));
            }
            for command in lines(block).iter().flat_map(|line| shell::commands(line)) {
                commands += 1;
                if let Some(problem) = wrong(&command, &targets, false) {
                    problems.push(format!("{name}:{}: {}: {problem}", block.line, command.0.join(" ")));
                }
            }
        }
        for (line, code) in &document.code {
            let ours = code.starts_with("kindling ") || code.starts_with("make ");
            if !ours || NO_COMMAND_LINES.iter().any(|(document, text, _)| *document == name && text == code) {
                continue;
            }
            inline += 1;
            for command in shell::commands(code) {
                if let Some(problem) = wrong(&command, &targets, true) {
                    problems.push(format!("{name}:{line}: `{code}`: {problem}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(commands >= 40 && inline >= 30, "only {commands} commands and {inline} in the text were found");
}

/// An agent refuses an image of another version than its cluster file's: who bakes and writes what the documents show has one.
#[test]
fn what_is_baked_is_what_the_cluster_files_name() {
    let examples: BTreeSet<&str> = kindling::cluster::new::EXAMPLES
        .iter()
        .flat_map(|(_, text)| {
            text.lines().filter_map(|line| line.strip_prefix("kubernetes = \"v")?.strip_suffix('"'))
        })
        .collect();
    assert_eq!(examples.len(), 1, "the examples name several versions: {examples:?}");
    let mut baked = 0;
    for name in documents().into_iter().map(|(name, _)| name) {
        let text = fs::read_to_string(root().join(&name)).unwrap();
        // CONTRIBUTING.md's are those of tests.
        for rest in text.split("KUBERNETES_VERSION=").skip(1).filter(|_| name != "CONTRIBUTING.md") {
            let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let version = version.trim_end_matches('.');
            assert!(
                version.is_empty() || examples.contains(version),
                "{name} bakes {version}, the examples are {examples:?}"
            );
            baked += usize::from(!version.is_empty());
        }
    }
    assert!(baked > 5, "only {baked} were found");
}

/// What nobody reads of is not there.
#[test]
fn every_command_is_shown_in_a_document() {
    fn names(command: &clap::Command, path: &str, list: &mut Vec<String>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            let path = format!("{path} {}", inner.get_name());
            names(inner, &path, list);
            list.push(path);
        }
    }
    let mut list = Vec::new();
    names(&command_line::Cli::command(), "kindling", &mut list);
    let mut shown = BTreeSet::new();
    for (_, document) in documents() {
        let blocks = document.blocks.iter().flat_map(lines);
        let inline = document.code.iter().map(|(_, code)| code.clone());
        let ours = blocks.chain(inline.filter(|code| code.starts_with("kindling ")));
        shown.extend(ours.flat_map(|text| shell::commands(&text)).map(|command| command.0.join(" ")));
    }
    let missing: Vec<_> = list
        .iter()
        .filter(|name| !shown.iter().any(|text| text == *name || text.starts_with(&format!("{name} "))))
        .collect();
    assert!(list.len() >= 19 && missing.is_empty(), "no document shows {missing:?}");
}

/// The cluster that fragments are a part of.
const AROUND: &str = r#"
version = 1
name = "c"
kubernetes = "v1.37.2"
endpoint = { by = "external", host = "api.example.org", vip = "10.0.0.10" }
network = { gateway = "10.0.0.2" }
nodes.cp1 = { role = "control-plane", address = "10.0.0.11/24" }
"#;

#[test]
fn every_cluster_file_and_every_fragment_is_accepted() {
    let mut fragments = Vec::new();
    for (name, document) in documents() {
        let toml = document.blocks.iter().filter(|block| block.language == "toml" && checked(&name, block));
        for block in toml {
            let place = format!("{name}:{}", block.line);
            if block.text.contains("version =") && block.text.contains("[nodes]") {
                let read = Cluster::parse(Source::new(&place, block.text.clone()));
                read.unwrap_or_else(|report| panic!("{report}"));
                continue;
            }
            let mut whole = to_json(AROUND);
            let fragment = to_json(&block.text);
            assert!(fragment.as_object().is_some_and(|table| !table.is_empty()), "{place} is empty");
            merge(&mut whole, fragment);
            fragments.push((place, whole));
        }
    }
    assert!(fragments.len() >= 30, "only {} fragments were found", fragments.len());
    let wholes: Vec<_> = fragments.iter().map(|(_, whole)| whole.clone()).collect();
    let Some(told) = validate(&schema::cluster(), &wholes) else { return };
    let bad: Vec<String> = fragments
        .iter()
        .zip(told)
        .filter(|(_, told)| !told.is_empty())
        .map(|((place, _), told)| format!("{place}: {}", told.join("; ")))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut problems = Vec::new();
    let mut count = 0;
    for (name, document) in &documents {
        for (line, link) in document.links.iter().filter(|(_, link)| !link.contains("://")) {
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let folder = Path::new(name).parent().unwrap();
            let target = if file.is_empty() { PathBuf::from(name) } else { folder.join(file) };
            let target = normal(&target);
            if !root().join(&target).exists() {
                problems.push(format!("{name}:{line}: {link}: there is no {}", target.display()));
            } else if !anchor.is_empty() {
                let there = documents
                    .iter()
                    .find(|(name, _)| Path::new(name) == target)
                    .is_some_and(|(_, document)| document.anchors.iter().any(|known| known == anchor));
                if !there {
                    problems.push(format!("{name}:{line}: {link}: no heading has this name"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count >= 45, "only {count} links were found");
}

/// Without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}
