//! Completion of the command line, and manual pages.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};

use crate::cluster;
use crate::status::exit;

/// What tells this binary that a shell asks for completions. Not clap's `COMPLETE`, which other programs may have set.
const VARIABLE: &str = "KINDLING_COMPLETE";

pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Answers a shell that asks for completions, and does not return then.
pub fn complete(command: impl Fn() -> clap::Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// `kindling completions`: the script that makes a shell ask [`complete`]. It calls the `kindling` on the PATH.
pub fn completions(shell: &str) -> u8 {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(shell) else {
        eprintln!(
            "kindling: there is no completion for {shell}\n  remedy: choose one of {}",
            SHELLS.join(", ")
        );
        return exit::FAILED;
    };
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, "kindling", "kindling", "kindling", &mut script);
    match written {
        Ok(()) => {
            print!("{}", String::from_utf8_lossy(&script));
            exit::DONE
        }
        Err(error) => {
            eprintln!("kindling: {error}");
            exit::FAILED
        }
    }
}

/// `kindling man`: a manual page for the program, and one for each of its commands.
pub fn man(command: clap::Command, folder: &Path) -> u8 {
    let written = std::fs::create_dir_all(folder).and_then(|()| pages(command, folder));
    match written {
        Ok(()) => {
            println!(
                "wrote {}; read them with man -l {}",
                folder.display(),
                folder.join("kindling.1").display()
            );
            exit::DONE
        }
        Err(error) => {
            eprintln!(
                "kindling: {}: {error}\n  remedy: name a folder that you may write to",
                folder.display()
            );
            exit::FAILED
        }
    }
}

fn pages(command: clap::Command, folder: &Path) -> std::io::Result<()> {
    // `kindling help` says what the pages say.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, folder)
}

/// The command's own, and those of the commands below it, which its page names.
fn page(command: &clap::Command, folder: &Path) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_uppercase();
    clap_mangen::Man::new(command.clone())
        .title(name)
        // the same at each call; an empty one would leave its place to what follows
        .date(" ")
        .source(concat!("Kindling ", env!("CARGO_PKG_VERSION")))
        .manual("Kindling")
        .generate_to(folder)?;
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).try_for_each(|inner| page(inner, folder))
}

/// The nodes of the cluster file that the command line names, or of the one in this folder.
pub fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let Ok((cluster, _)) = cluster::load(&cluster_file(std::env::args_os().collect())) else {
        return Vec::new();
    };
    cluster
        .nodes
        .iter()
        .filter(|node| node.name.as_str().starts_with(current))
        .map(|node| {
            CompletionCandidate::new(node.name.as_str())
                .help(Some(format!("{}, {}", node.role, node.address.ip()).into()))
        })
        .collect()
}

/// While it completes, the words of the line are this program's arguments.
fn cluster_file(words: Vec<std::ffi::OsString>) -> PathBuf {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--cluster" {
            return words.next().unwrap_or_default().into();
        }
        if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--cluster=")) {
            return file.into();
        }
    }
    "cluster.toml".into()
}

/// What `kindling explain` can be asked for.
pub fn keys() -> Vec<CompletionCandidate> {
    super::keys()
        .iter()
        .map(|key| CompletionCandidate::new(&key.key).help(Some(key.summary().to_owned().into())))
        .collect()
}
