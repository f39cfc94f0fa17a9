//! The agent's run on a real machine: from the role file to the exit code.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::apply::{self, Observer};
use crate::banner;
use crate::emulated;
use crate::facts::Facts;
use crate::guestinfo;
use crate::host::linux::Linux;
use crate::host::{Command, Host};
use crate::input::Report;
use crate::plan::{Action, plan};
use crate::report::Lines;
use crate::reset::Reset;
use crate::retry::{Attempt, Patience, wait};
use crate::role::NodeSpec;
use crate::status::{ConsoleLine, Event, Failure, Moment, STATUS_FILE, State, Status, exit};

pub const ROLE_FILE: &str = "/etc/kindling/role.toml";
/// Held by whoever changes this machine.
const LOCK: &str = "/run/kindling.lock";

/// Takes the machine's lock, or says why not: `held`, where somebody else has it.
pub fn lock(held: &str) -> Option<Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(LOCK);
    match file.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock)) {
        Ok(Ok(lock)) => return Some(lock),
        Ok(Err(_)) => eprintln!("kindling: {held}"),
        Err(error) => eprintln!("kindling: cannot open {LOCK}: {error}\n  remedy: run as root"),
    }
    None
}

/// Brings this machine up as its role file says; returns the exit code.
pub fn run(role_file: &Path) -> u8 {
    let host = Linux::default();
    let mut lines = Lines::new();
    let held =
        "another `kindling apply` runs on this machine\n  remedy: follow it with `kindling status --wait`";
    let Some(_lock) = lock(held) else { return exit::FAILED };
    let spec = match NodeSpec::load_here(role_file, &host) {
        Ok((spec, warnings)) => {
            if !warnings.problems.is_empty() {
                log::warn!("{warnings}");
            }
            spec
        }
        Err(report) => return bad_role_file(&host, &mut lines, &report),
    };
    // After a failure all nodes of a starved cluster would come back at the same moment.
    if apply::earlier(&host).is_some_and(|s| s.state == State::Failed) {
        host.sleep(Duration::from_secs_f64(3.0 * host.random()));
    }
    // At once, as others wait for it.
    if let Err(error) = crate::room::open(&host, &spec, Path::new("/")) {
        log::warn!("port {} tells nobody whether this machine is new: {error}", crate::room::PORT);
    }
    let facts = match facts(&spec, &host) {
        Ok(facts) => facts,
        Err(error) => {
            eprintln!("kindling: cannot read this machine's facts: {error}");
            return exit::FAILED;
        }
    };
    if let Some(container) = &facts.container {
        log::info!(
            "this node runs in a system container ({container}): modules, swap and global sysctls are the host's"
        );
    }
    if facts.emulated {
        log::info!("this machine's processor is emulated: it gets more time, and so do its components");
    }
    let spec = emulated::suit(spec, facts.emulated);
    guestinfo::running(&host);
    banner::running(&host, &spec, facts.image.as_ref());
    let steps = plan(&spec, &facts);
    // Its three seconds need nothing of what comes before it.
    for step in &steps {
        if let Action::VipFree(question) = &step.action {
            host.ask_link_ahead(&question.interface, question.addresses());
        }
    }
    let status = apply::apply(&spec, &facts, &steps, &host, &mut lines);
    guestinfo::ended(&host, &status);
    banner::ended(&host, &status);
    status.exit_code()
}

/// Facts, once the network had a minute to give this machine its address.
fn facts(spec: &NodeSpec, host: &dyn Host) -> std::io::Result<Facts> {
    let mut last = Facts::gather(spec, host)?;
    if last.interface_of(spec.address()).is_none() {
        let patience = Patience { longest: Duration::from_secs(1), ..Patience::seconds(60) };
        let address = spec.address();
        // Whether it came or not, preflight says what there is.
        let _ = wait(
            host,
            patience,
            &mut |what| log::info!("waiting: {what}"),
            || match Facts::gather(spec, host) {
                Ok(facts) => {
                    let there = facts.interface_of(address).is_some();
                    last = facts;
                    if there {
                        Attempt::Ready(())
                    } else {
                        Attempt::NotYet(format!("no interface has {address} yet"))
                    }
                }
                Err(error) => Attempt::NotYet(error.to_string()),
            },
            |reason| crate::error::StepError::passing(reason, ""),
        );
    }
    Ok(last)
}

/// A role file that is wrong is a failure like any other: on the console, in the journal, in the status file.
fn bad_role_file(host: &dyn Host, lines: &mut Lines, report: &Report) -> u8 {
    let cause = report.to_string();
    let remedy = "nothing was changed on this machine; render the seed again and boot with it".to_owned();
    let before = apply::earlier(host);
    let node = host.hostname();
    let line = ConsoleLine {
        n: 0,
        total: 0,
        step: node.clone(),
        event: Event::Failed { cause: cause.clone(), remedy: remedy.clone() },
    };
    lines.tell(&line);
    // Somebody's trial by hand is not this machine's state.
    if !systemd_journal_logger::connected_to_journal() {
        return exit::CONFIG;
    }
    let runs = before.as_ref().map_or(0, |s| s.runs) + 1;
    let (steps, history) = before.map(|s| (s.steps, s.history)).unwrap_or_default();
    let mut status = Status {
        version: 1,
        node,
        role: String::new(),
        state: State::Failed,
        started: host.wall_clock(),
        seconds: 0.0,
        cpu_seconds: 0.0,
        memory_mb: 0.0,
        runs,
        container: None,
        image: crate::image::Image::running(host),
        // What earlier runs know must not be lost by a bad file.
        steps,
        failure: Some(Failure { step: "role-file".into(), cause, remedy, retry: false }),
        history,
        vip: Vec::new(),
    };
    status.remember(Moment::new(runs, host.clock(), &line));
    if let Ok(text) = serde_json::to_string_pretty(&status) {
        let _ = host.write(Path::new(STATUS_FILE), text.as_bytes(), 0o644);
    }
    guestinfo::ended(host, &status);
    banner::ended(host, &status);
    exit::CONFIG
}

/// `kindling status`: prints the record, waiting for its end if asked to.
pub fn status(json: bool, wait_seconds: Option<u64>) -> u8 {
    let host = Linux::default();
    let deadline = Duration::from_secs(wait_seconds.unwrap_or(0));
    loop {
        let status = apply::earlier(&host);
        let over = host.now() >= deadline;
        match status {
            Some(mut status)
                if over
                    || status.state == State::Done
                    || status.failure.as_ref().is_some_and(|f| !f.retry) =>
            {
                if json {
                    status.vip = crate::endpoint::moves();
                    println!(
                        "{}",
                        serde_json::to_string_pretty(&status)
                            .expect("a status has only types that JSON knows")
                    );
                } else {
                    print!("{status}");
                }
                return status.exit_code();
            }
            None if over => {
                eprintln!(
                    "kindling: {STATUS_FILE} is not there: the agent has not run on this machine\n  remedy: `systemctl status kindling cloud-init` says why"
                );
                return exit::NEVER_RAN;
            }
            _ => host.sleep(Duration::from_millis(500)),
        }
    }
}

/// `kindling reset`: without `yes` only tells what would be done.
pub fn reset(reset: &Reset, yes: bool) -> u8 {
    let host = Linux::default();
    let spec = match NodeSpec::load(&reset.role_file) {
        Ok((spec, _)) => {
            let mut spec = emulated::suit(spec, emulated::here());
            // Those that are gone were of an earlier reset that was interrupted, and its later parts need none.
            spec.restore_keys(&host);
            spec
        }
        Err(report) => {
            eprintln!("{report}");
            return exit::CONFIG;
        }
    };
    if !yes {
        print!("{}", crate::reset::describe(&spec, &host, reset.force));
        println!("nothing was done: add --yes to do it");
        return exit::USAGE;
    }
    // An agent that still brings this node up would undo it.
    let stopped = host.run(&Command::new("systemctl", ["stop", "kindling.service"]));
    let result = stopped
        .map_err(crate::error::StepError::from)
        .and_then(|_| reset.run(&spec, &host, &mut |line| println!("{line}")));
    match result {
        Ok(()) => {
            println!("{} is reset; a reboot clears what kube-proxy left in the firewall", spec.name);
            exit::DONE
        }
        Err(error) => {
            eprintln!("kindling: {error}\n  remedy: {}", error.remedy);
            if error.retry { exit::FAILED } else { exit::CONFIG }
        }
    }
}

/// `kindling plan` on a node: its own role file and its own facts.
pub fn plan_here(role_file: &Path, short: bool) -> u8 {
    let spec = match NodeSpec::load_here(role_file, &Linux::default()) {
        Ok((spec, _)) => spec,
        Err(report) => {
            eprintln!("{report}");
            return exit::CONFIG;
        }
    };
    match Facts::gather(&spec, &Linux::default()) {
        Ok(facts) => {
            let spec = emulated::suit(spec, facts.emulated);
            crate::operator::print_plan(&spec, &facts, short);
            exit::DONE
        }
        Err(error) => {
            eprintln!("kindling: cannot read this machine's facts: {error}");
            exit::FAILED
        }
    }
}
