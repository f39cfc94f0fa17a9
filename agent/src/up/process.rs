//! The processes that outlive `kindling up`. They are found by a mark in their environment, not by a number
//! in a file: a number goes stale when the host reboots, and is not written when `up` crashes.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::Place;
use super::{UpError, tools};

/// `STATE-FOLDER:WHAT`, in the environment of each process that belongs to a cluster.
const MARK: &str = "KINDLING_MACHINE";

/// What a process is for.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    Machine(&'a str),
    AnyMachine,
    Switch,
    Forwarder,
    /// A program that `up` runs to its end; it goes on for a while when `up` is killed.
    Helper,
    /// Whatever belongs to the cluster.
    Any,
}

fn mark(place: &Place, owner: Owner<'_>) -> String {
    let what = match owner {
        Owner::Machine(name) => format!("machine:{name}\0"),
        Owner::AnyMachine => "machine:".to_owned(),
        Owner::Switch => "switch\0".to_owned(),
        Owner::Forwarder => "forwarder\0".to_owned(),
        Owner::Helper => "helper\0".to_owned(),
        Owner::Any => String::new(),
    };
    format!("{MARK}={}:{what}", place.root().display())
}

/// A process to start: a command line, where it runs and where its words go.
#[derive(Debug, Clone, PartialEq)]
pub struct Daemon {
    pub args: Vec<String>,
    pub folder: PathBuf,
    /// Appended to.
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// Starts a process that lives on by itself, in a session of its own, so that neither the end of `up` nor
/// the terminal's Ctrl-C reaches it.
pub fn start(place: &Place, owner: Owner<'_>, daemon: &Daemon) -> Result<(), UpError> {
    let append = |path: &Path| {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        file.map_err(|error| UpError::file("open", path, &error))
    };
    let mark = mark(place, owner);
    let (key, value) = mark.trim_end_matches('\0').split_once('=').unwrap_or_default();
    let status = Command::new("setsid")
        .args(["--fork", "--"])
        .args(&daemon.args)
        .current_dir(&daemon.folder)
        .env(key, value)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(append(&daemon.stdout)?)
        .stderr(append(&daemon.stderr)?)
        .process_group(0)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(UpError::new(
            format!("`setsid {}` failed ({status})", daemon.args.first().map_or("", String::as_str)),
            format!("read {}", daemon.stderr.display()),
        )),
        Err(error) => {
            Err(UpError::new(format!("cannot start setsid: {error}"), "install the package util-linux"))
        }
    }
}

/// Runs a program that fills a disk. With the mark, so that `down` finds it when `up` was killed meanwhile.
pub fn help(place: &Place, args: &[String], seconds: u64) -> Result<(), UpError> {
    let mark = mark(place, Owner::Helper);
    let marked = ["env".to_owned(), "--".to_owned(), mark.trim_end_matches('\0').to_owned()];
    tools::run(&[&marked, args].concat(), seconds).map(|_| ())
}

/// The processes of `owner` that live; what has ended and was not reaped is not among them.
pub fn find(place: &Place, owner: Owner<'_>) -> Vec<Pid> {
    let mark = mark(place, owner);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let belongs = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            // Each variable ends with a zero byte; the first one has none before it.
            let starts = [0].into_iter().chain(memchr_all(&environment, 0).map(|at| at + 1));
            starts.into_iter().any(|at| environment[at..].starts_with(mark.as_bytes()))
        })
    };
    pids.filter(belongs).map(Pid::from_raw).collect()
}

/// Whether no process of `owner` lives. One that replaces itself by another program has no environment for a moment,
/// so a single look that finds none shows nothing.
pub fn is_gone(place: &Place, owner: Owner<'_>) -> bool {
    (0..20).all(|look| {
        if look > 0 {
            std::thread::sleep(Duration::from_millis(25));
        }
        find(place, owner).is_empty()
    })
}

fn memchr_all(bytes: &[u8], byte: u8) -> impl Iterator<Item = usize> + '_ {
    bytes.iter().enumerate().filter(move |(_, b)| **b == byte).map(|(at, _)| at)
}

/// Kills them at once, and waits until they are gone; answers whether there were any.
pub fn kill_all(place: &Place, owner: Owner<'_>) -> Result<bool, UpError> {
    let mut any = false;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut pids = find(place, owner);
        if pids.is_empty() {
            // As `is_gone`, for the moment that it takes to become another program.
            std::thread::sleep(Duration::from_millis(10));
            pids = find(place, owner);
            if pids.is_empty() {
                return Ok(any);
            }
        }
        any = true;
        if Instant::now() >= deadline {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            return Err(UpError::new(
                format!("these processes do not end: {}", pids.join(", ")),
                "run it as the user who started them; `ps` shows what they are",
            ));
        }
        for pid in pids {
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a log, for an error's text.
pub fn tail(path: &Path, lines: usize) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<String> = text.lines().map(super::watch::plain).filter(|l| !l.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that does nothing but replace itself by another one, as `setsid` and a shell do once at each start.
    #[test]
    fn a_process_that_becomes_another_program_is_not_gone() {
        let root = std::env::temp_dir().join(format!("kindling-process-{}", std::process::id()));
        let place = Place::make(&root).expect("a state folder");
        let script = root.join("again");
        fs::write(&script, "[ $1 = 0 ] || exec sh $0 $(($1 - 1))\nexec sleep 60\n").expect("write");
        let log = root.join("log");
        let daemon = Daemon {
            args: ["sh", &script.to_string_lossy(), "400"].map(str::to_owned).to_vec(),
            folder: root.clone(),
            stdout: log.clone(),
            stderr: log,
        };
        start(&place, Owner::Forwarder, &daemon).expect("start");
        for _ in 0..60 {
            assert!(!is_gone(&place, Owner::Forwarder));
        }
        assert!(kill_all(&place, Owner::Forwarder).expect("kill"));
        assert!(is_gone(&place, Owner::Forwarder));
        fs::remove_dir_all(root).expect("remove");
    }
}
