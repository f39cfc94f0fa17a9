//! The command line as somebody meets it who does not know it yet: what it explains, what it guesses, what it completes.

mod cluster_support;

use std::path::Path;
use std::process::{Command, Output};

use cluster_support::Scratch;
use kindling::cluster::new;

fn kindling(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kindling")).args(args).current_dir(folder).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with the lecture's cluster in it, whose token lives.
fn lecture() -> Scratch {
    let scratch = Scratch::new();
    new::create(&scratch.0, Some("lecture"), time::OffsetDateTime::now_utc()).unwrap();
    scratch
}

#[test]
fn explain_tells_one_key_some_keys_or_all() {
    let scratch = Scratch::new();
    let said = |args: &[&str]| {
        let output = kindling(&scratch.0, args);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        out(&output)
    };
    let text = said(&["explain", "endpoint.by"]);
    for part in ["one word of a list", "\"load-balancer\"", "by = \"stacked\"", "source: https://"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    // as an error message names a key, and as somebody remembers it
    assert!(said(&["explain", "nodes.master1.labels"]).starts_with("nodes.*.labels\n"));
    assert!(said(&["explain", "nodes.master1.labels.zone"]).starts_with("nodes.*.labels\n"));
    assert!(said(&["explain", "registries[0].host"]).starts_with("registries[].host\n"));
    assert!(said(&["explain", "vip"]).starts_with("endpoint.vip\n"));
    assert!(said(&["explain", "vrrp"]).contains("vrrp.advert_ms"), "a table tells what is in it");
    let all = said(&["explain"]);
    assert!(all.lines().any(|line| line.starts_with("version ")) && all.contains("nodes.*.taints"), "{all}");
    let json: serde_json::Value = serde_json::from_str(&said(&["explain", "vrrp.vrid", "--json"])).unwrap();
    assert_eq!((&json[0]["limits"], &json[0]["required"]), (&"1 to 255".into(), &false.into()));
}

#[test]
fn what_was_meant_is_guessed_everywhere() {
    let scratch = lecture();
    let typo = Scratch::new();
    let text = new::EXAMPLES[1].1.replace("by = \"load-balancer\"", "by = \"loadbalancer\"");
    typo.write(
        "cluster.toml",
        &text.replace("role = \"worker\"", "role = \"Worker\"").replace("gateway", "gatway"),
    );
    for (folder, args, code, expected) in [
        (&scratch, &["explain", "endpiont.by"][..], 78, "did you mean `endpoint.by`?"),
        (&scratch, &["render", "--node", "mastre1"], 78, "did you mean `master1`? choose one of master1, "),
        (&scratch, &["plan", "--cluster", "cluster.toml", "--node", "node11"], 78, "did you mean `node1`?"),
        (&scratch, &["new", "other", "--example", "lectrue"], 2, "'lecture'"),
        (&scratch, &["rendre"], 2, "'render'"),
        (&scratch, &["render", "--target", "vshpere"], 2, "'vsphere'"),
        (&scratch, &["secrets", "rotat"], 2, "'rotate'"),
        (&typo, &["check", "cluster.toml"], 78, "did you mean `load-balancer`? write "),
        (&typo, &["check", "cluster.toml"], 78, "did you mean `worker`? write "),
        (&typo, &["check", "cluster.toml"], 78, "did you mean `gateway`?"),
    ] {
        let output = kindling(&folder.0, args);
        let said = out(&output) + &told(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {expected} is not in:\n{said}");
    }
}

/// What a shell offers after these words, as the shell itself says it.
fn completed(shell: &str, folder: &Path, words: &[&str]) -> Option<Vec<String>> {
    let program = Path::new(env!("CARGO_BIN_EXE_kindling")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let script = match shell {
        // As readline calls the function that `complete` has for the command.
        "bash" => {
            r#"source <(kindling completions bash)
function=$(complete -p kindling | grep -oP -- '-F \K\S+')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9 COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
"$function" kindling "${@: -1}" "${@: -2:1}"
printf '%s\n' "${COMPREPLY[@]}""#
        }
        "fish" => "kindling completions fish | source\ncomplete -C \"$argv\"",
        // compadd, which would show them, prints them instead.
        "zsh" => {
            r#"autoload -Uz compinit && compinit -D -u
source <(kindling completions zsh)
_describe() { local -a list=(${(P)${@[-1]}}); print -rl -- ${list%%:*} }
words=("$@") CURRENT=$#
${_comps[kindling]}"#
        }
        _ => unreachable!("no such shell"),
    };
    let mut command = Command::new(shell);
    match shell {
        "bash" => command.args(["--norc", "-c", script, "bash"]),
        "fish" => command.args(["--no-config", "-c", script]),
        _ => command.args(["-f", "-c", script, "zsh"]),
    };
    let output = match command.args(words).current_dir(folder).env("PATH", path).env("HOME", folder).output()
    {
        Ok(output) => output,
        Err(error) => {
            cluster_support::here::skip(&format!("{shell} cannot be run here: {error}"));
            return None;
        }
    };
    assert!(output.status.success(), "{shell}: {}", told(&output));
    // fish shows what a word means behind a tab
    let mut lines: Vec<String> = out(&output)
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default().trim().to_owned())
        .collect();
    lines.retain(|line| !line.is_empty());
    Some(lines)
}

#[test]
fn shells_complete_commands_options_and_the_names_of_nodes() {
    let scratch = lecture();
    std::fs::rename(scratch.path("cluster.toml"), scratch.path("mine.toml")).unwrap();
    let demo = new::EXAMPLES.iter().find(|(name, _)| *name == "demo").unwrap().1;
    scratch.write("cluster.toml", demo);
    for shell in ["bash", "zsh", "fish"] {
        for (words, expected) in [
            (&["kindling", "compl"][..], &["completions"][..]),
            (&["kindling", "render", "--no"], &["--node"]),
            (&["kindling", "render", "--node", ""], &["cp1", "w1"]),
            (&["kindling", "power", "off", "c"], &["cp1"]),
            (&["kindling", "secrets", "ro"], &["rotate"]),
            (&["kindling", "render", "--target", "l"], &["libvirt"]),
            (&["kindling", "render", "--cluster", "mine.toml", "--node", "ha"], &["ha1", "ha2"]),
            (&["kindling", "explain", "endpoint.b"], &["endpoint.by"]),
            (&["kindling", "new", "--example", "lec"], &["lecture"]),
        ] {
            let Some(offered) = completed(shell, &scratch.0, words) else { break };
            assert_eq!(offered, expected, "{shell}: {words:?}");
        }
    }
}

#[test]
fn a_broken_cluster_file_completes_nothing_and_says_nothing() {
    let scratch = Scratch::new();
    scratch.write("cluster.toml", "version = ");
    let Some(offered) = completed("bash", &scratch.0, &["kindling", "render", "--node", ""]) else { return };
    assert_eq!(offered, [""; 0]);
}

#[test]
fn manual_pages_are_there_and_without_warnings() {
    let scratch = Scratch::new();
    let pages = scratch.path("man");
    let output = kindling(&scratch.0, &["man", pages.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let mut count = 0;
    for entry in std::fs::read_dir(&pages).unwrap() {
        let page = entry.unwrap().path();
        let name = page.file_stem().unwrap().to_string_lossy().into_owned();
        count += 1;
        let shown = Command::new("man").args(["--warnings", "-l"]).arg(&page).env("MANWIDTH", "80").output();
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => return cluster_support::here::skip(&format!("man cannot be run here: {error}")),
        };
        assert!(shown.status.success(), "{name}: {}", told(&shown));
        assert_eq!(told(&shown), "", "{name}");
        assert!(out(&shown).contains(&name.replacen('-', " ", 1)) || out(&shown).contains(&name), "{name}");
    }
    assert!(count >= 20, "only {count} pages");
    for name in ["render", "secrets-rotate", "certs-renew"] {
        assert!(pages.join(format!("kindling-{name}.1")).exists(), "{name}");
    }
    assert!(!pages.join("kindling-switch.1").exists(), "what `up` runs by itself has no page");
}
