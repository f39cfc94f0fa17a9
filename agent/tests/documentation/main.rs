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
mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use cluster_support::Scratch;
use help_support::{merge, root, to_json, validate};
use kindling::cluster::{Cluster, new};
use kindling::help::schema;
use kindling::input::Source;
use markdown::{Block, Document};

/// Blocks that cannot be checked: document, first line, why.
const UNCHECKED: [(&str, &str, &str); 0] = [];

/// Code in the text that looks like a command line and is none: document, code, why.
const NO_COMMAND_LINES: [(&str, &str, &str); 1] =
    [("README.md", "kindling power off|on|new-disk NODE", "a synopsis: one of the three words is meant")];

/// Programs that documents may name besides ours.
const OTHERS: [&str; 29] = [
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
    "kubeadm",
    "kubectl",
    "ls",
    "mkdir",
    "mv",
    "qemu-img",
    "qemu-system-x86_64",
    "rm",
    "scp",
    "sed",
    "sha256sum",
    "source",
    "systemctl",
    "virsh",
    "virt-install",
];

/// Documents whose commands are run, in their order, in a folder of their own; all but the first begin with the lecture's
/// cluster in it.
const RUN: [&str; 4] =
    ["docs/quick-start.md", "docs/day-two.md", "docs/troubleshooting.md", "docs/air-gap.md"];

/// Commands that need no machine.
const HARMLESS: [&str; 9] =
    ["new", "check", "render", "plan", "explain", "schema", "completions", "man", "--version"];

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

/// Runs a line, if all of its commands need no machine.
fn run(line: &str, folder: &Path, home: &Path) -> Option<(bool, String)> {
    let harmless = |command: &shell::Command| match command.program() {
        "kindling" => {
            let words = &command.0;
            // without a file it reads this machine's own
            HARMLESS.contains(&words[1].as_str()) && (words[1] != "plan" || words.len() > 2)
        }
        program => ["sed", "mkdir"].contains(&program),
    };
    let commands = shell::commands(line);
    if commands.is_empty() || !commands.iter().all(harmless) {
        return None;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_kindling")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1; {line}")])
        .current_dir(folder)
        .env("PATH", path)
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn what_needs_no_machine_runs_as_it_is_written() {
    let mut count = 0;
    for (name, document) in documents().into_iter().filter(|(name, _)| RUN.contains(&name.as_str())) {
        let scratch = Scratch::new();
        let mut folder = scratch.path("work");
        fs::create_dir(&folder).unwrap();
        if name != RUN[0] {
            // Its token must live today.
            new::create(&folder, Some("lecture"), time::OffsetDateTime::now_utc()).unwrap();
        }
        for block in &document.blocks {
            // A fragment of the cluster file is to be written into it.
            if block.language == "toml" && block.text.starts_with("[nodes]\n") {
                let path = folder.join("cluster.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, text.replace("[nodes]\n", &block.text)).unwrap();
            }
            for line in lines(block) {
                if let Some(into) = line.strip_prefix("cd ") {
                    folder = folder.join(into);
                    continue;
                }
                let Some((good, said)) = run(&line, &folder, &scratch.0) else { continue };
                count += 1;
                if block.language == "console" {
                    let shown = shown_after(&block.text, &line);
                    assert!(
                        said.trim_end() == shown.trim_end() || shown.is_empty(),
                        "{name}: {line} says\n{said}"
                    );
                } else {
                    assert!(good, "{name}:{}: {line}\n{said}", block.line);
                }
            }
        }
    }
    assert!(count >= 16, "only {count} lines were run");
}

/// The output that a document shows below a command.
fn shown_after(block: &str, command: &str) -> String {
    let lines = block.lines().skip_while(|line| !line.ends_with(command)).skip(1);
    lines.take_while(|line| !line.starts_with("$ ")).collect::<Vec<_>>().join("\n")
}

/// The cluster that fragments are a part of.
const AROUND: &str = r#"
version = 1
name = "c"
kubernetes = "v1.32.3"
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

/// A message that nobody says any more helps nobody. Words in capitals stand for what differs.
#[test]
fn every_message_of_troubleshooting_is_said_by_the_code() {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut code = String::new();
    collect(&root().join("agent/src"), &mut code);
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let (mut count, mut problems) = (0, Vec::new());
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let message = line.split('`').next().unwrap();
        count += 1;
        let placeholder = |word: &&str| word.len() > 1 || word == &"N";
        let mut parts = vec![String::new()];
        for word in message.split(' ') {
            let capitals = word.trim_end_matches([',', '.', ':']);
            if !capitals.is_empty()
                && placeholder(&capitals)
                && capitals.bytes().all(|b| b.is_ascii_uppercase())
            {
                // CPU and TWO CLUSTERS under one CA are said so
                if !["CPU", "TWO", "CLUSTERS", "CA", "CA:", "VRID", "VRRP"].contains(&capitals) {
                    parts.push(String::new());
                    continue;
                }
            }
            let part = parts.last_mut().unwrap();
            if !part.is_empty() {
                part.push(' ');
            }
            part.push_str(word);
        }
        let unsaid = parts.iter().filter(|part| part.len() > 3 && !code.contains(part.as_str()));
        problems.extend(unsaid.map(|part| format!("nobody says `{part}` of `{message}`")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count >= 30, "only {count} messages");
}
