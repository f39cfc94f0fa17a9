//! Commands of documents that need no machine are run as they are written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use kindling::cluster::new;

use super::cluster_support::Scratch;
use super::cluster_support::here;
use super::help_support::root;
use super::{documents, lines, shell};

/// Documents whose commands are run, in their order, in a folder of their own; all but the first begin with the lecture's
/// cluster in it, and with the records of a formation.
const RUN: [&str; 7] = [
    "docs/quick-start.md",
    "docs/README.md",
    "docs/day-two.md",
    "docs/troubleshooting.md",
    "docs/air-gap.md",
    "docs/vsphere.md",
    "docs/libvirt.md",
];

/// Commands that need no machine.
const HARMLESS: [&str; 12] = [
    "new",
    "check",
    "render",
    "plan",
    "explain",
    "schema",
    "completions",
    "man",
    "secrets",
    "report",
    "--help",
    "--version",
];

/// What `kindling render` writes, and a document has its reader run: it must be there by then.
pub const RENDERED: [&str; 2] = ["seeds/vsphere/deploy.sh", "seeds/libvirt/define.sh"];

/// Runs something where there is no network: `render --node` would ask the cluster of an example for a token.
static ALONE: LazyLock<Option<Vec<&str>>> = LazyLock::new(|| {
    let ways = [vec!["--net"], vec!["--user", "--map-current-user", "--net"]];
    let works = |way: &Vec<&str>| {
        let output = Command::new("unshare").args(way).args(["--", "true"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    ways.into_iter().find(works)
});

fn harmless(command: &shell::Command) -> bool {
    let words = &command.0;
    match (command.program(), words.get(1).map(String::as_str)) {
        // without a file they read what is this machine's own
        ("kindling", Some("plan")) => words.len() > 2,
        // these ask a cluster that there must be
        ("kindling", Some("render")) => {
            !words.iter().any(|word| word == "--server" || word == "--kubeconfig")
        }
        ("kindling", Some("report")) => words.iter().any(|word| word.ends_with(".json")),
        ("kindling", Some(name)) => HARMLESS.contains(&name),
        (program, _) => ["sed", "mkdir", "age-keygen"].contains(&program),
    }
}

enum Ran {
    /// Whether it ended well, and what it said.
    Yes(bool, String),
    /// Somebody else's, or it needs a machine.
    No,
    /// A program is missing here.
    Skipped,
}

fn run(line: &str, folder: &Path, home: &Path) -> Ran {
    let commands = shell::commands(line);
    for script in commands.iter().map(shell::Command::program).filter(|name| RENDERED.contains(name)) {
        let mode = fs::metadata(folder.join(script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert_eq!(mode.permissions().mode() & 0o777, 0o700, "{script}");
    }
    if commands.is_empty() || !commands.iter().all(harmless) {
        return Ran::No;
    }
    if commands.iter().any(|command| command.program() == "age-keygen")
        && Command::new("age-keygen").arg("--version").output().is_err()
    {
        here::skip(&format!("{line}: there is no age-keygen (apt-get install age)"));
        return Ran::Skipped;
    }
    let Some(alone) = &*ALONE else {
        here::skip(&format!("{line}: no network namespace can be made here"));
        return Ran::Skipped;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_kindling")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("unshare")
        .args(alone)
        .args(["--", "bash", "-c", &format!("exec 2>&1; {line}")])
        .current_dir(folder)
        .env("PATH", path)
        .env("HOME", home)
        .env_remove("KINDLING_AGE_IDENTITY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran::Yes(output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A folder as the reader of a document has it at its beginning.
fn prepared(scratch: &Scratch, document: &str) -> PathBuf {
    let folder = scratch.path("work");
    fs::create_dir(&folder).unwrap();
    if document != RUN[0] {
        // Its token must live today.
        new::create(&folder, Some("lecture"), time::OffsetDateTime::now_utc()).unwrap();
        for record in ["cp1.json", "w1.json", "w2.json"] {
            let from = root().join("agent/tests/data/formation/demo").join(record);
            fs::copy(from, folder.join(record)).unwrap();
        }
    }
    folder
}

/// Does what a reader does with a fragment of the cluster file: it becomes a part of it.
fn written_into(file: &Path, fragment: &str) {
    let text = fs::read_to_string(file).unwrap();
    let table = fragment.lines().next().unwrap_or_default();
    match table {
        "[nodes]" => fs::write(file, text.replace("[nodes]\n", fragment)).unwrap(),
        "[vsphere]" | "[libvirt]" => fs::write(file, format!("{text}\n{fragment}")).unwrap(),
        _ => {}
    }
}

#[test]
fn what_needs_no_machine_runs_as_it_is_written() {
    let (mut count, mut skipped) = (0, 0);
    for (name, document) in documents().into_iter().filter(|(name, _)| RUN.contains(&name.as_str())) {
        let scratch = Scratch::new();
        let mut folder = prepared(&scratch, &name);
        'blocks: for block in &document.blocks {
            if block.language == "toml" && folder.join("cluster.toml").exists() {
                written_into(&folder.join("cluster.toml"), &block.text);
            }
            for line in lines(block) {
                if let Some(into) = line.strip_prefix("cd ") {
                    folder = folder.join(into);
                    continue;
                }
                let (good, said) = match run(&line, &folder, &scratch.0) {
                    Ran::Yes(good, said) => (good, said),
                    Ran::No => continue,
                    Ran::Skipped => {
                        skipped += 1;
                        continue 'blocks;
                    }
                };
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
    assert!(count >= 35 || skipped > 0, "only {count} lines were run");
}

/// The output that a document shows below a command.
fn shown_after(block: &str, command: &str) -> String {
    let lines = block.lines().skip_while(|line| !line.ends_with(command)).skip(1);
    lines.take_while(|line| !line.starts_with("$ ")).collect::<Vec<_>>().join("\n")
}
