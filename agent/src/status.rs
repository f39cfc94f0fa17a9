//! Status: the outcome of every step, with its time, cause and remedy.
//!
//! The same record is the journal that a second run, or a run after a power cut, goes on from: it is
//! on stable storage before a step's effect and after it.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::host::Clock;
use crate::image::Image;

/// Where the agent keeps its record, on stable storage.
pub const STATUS_FILE: &str = "/var/lib/kindling/status.json";

const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: u32,
    pub node: String,
    pub role: String,
    pub state: State,
    /// Seconds since the epoch of the start of the last run.
    pub started: u64,
    /// Seconds that the last run took so far.
    pub seconds: f64,
    /// Processor time of the agent itself in the last run, without the programs that it ran.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// The most memory that the agent itself had resident in the last run, in MiB.
    #[serde(default)]
    pub memory_mb: f64,
    /// How often the agent ran on this machine.
    pub runs: u32,
    /// "systemd-nspawn" and the like, if the node runs in a system container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    pub steps: Vec<StepRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What happened when, over all runs on this machine; the last [`HISTORY`] moments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Moment>,
    /// When this machine took the VIP and gave it up since it booted: `kindling status --json` adds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vip: Vec<VipMove>,
}

/// Some twenty runs that wait a lot; a machine that fails for a week must not fill its disk.
const HISTORY: usize = 600;

/// One moment of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    pub run: u32,
    /// Seconds since the epoch, by this machine's clock.
    pub at: f64,
    /// Seconds since the kernel's start, which a clock that is set right does not move.
    pub up: f64,
    /// As in [`ConsoleLine`].
    pub n: usize,
    pub step: String,
    pub event: MomentKind,
    /// What is waited for, or the cause of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Of a step that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentKind {
    Started,
    Waiting,
    Done,
    Unchanged,
    Failed,
}

/// The machine took the VIP, or gave it up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VipMove {
    pub at: f64,
    pub up: f64,
    pub holds: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Running,
    Done,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub id: String,
    pub title: String,
    pub state: StepState,
    /// Seconds from the start of the run to the start of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What it waits for, or what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How often this step began to act on this machine; more than once after a failure or a power cut.
    #[serde(default)]
    pub begun: u32,
    /// How often it acted to the end.
    #[serde(default)]
    pub changed: u32,
    /// It began to act and did not end.
    #[serde(default)]
    pub half: bool,
    /// It was found or made complete at least once.
    #[serde(default)]
    pub completed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    Pending,
    Running,
    /// The host was changed.
    Done,
    /// The host matched already.
    Unchanged,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub step: String,
    pub cause: String,
    pub remedy: String,
    /// Whether the unit tries again by itself, because waiting can help.
    pub retry: bool,
}

/// One line on the console, for people and for `kindling up`, which follows a machine by them.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsoleLine {
    /// Position of the step, from 1; 0 for the node as a whole.
    pub n: usize,
    pub total: usize,
    /// The step's id, or the node's name for the node as a whole.
    pub step: String,
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A run of the agent, with the machine's clock in seconds since the epoch.
    Begun {
        run: u32,
        at: f64,
    },
    Started,
    Waiting(String),
    Done {
        seconds: f64,
    },
    Unchanged {
        seconds: f64,
    },
    Failed {
        cause: String,
        remedy: String,
    },
}

/// Exit codes of the agent's commands, documented in `kindling --help`.
pub mod exit {
    pub const DONE: u8 = 0;
    /// A step failed, and trying again can help.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// `status`: not finished yet.
    pub const RUNNING: u8 = 3;
    /// `status`: the agent has never run here.
    pub const NEVER_RAN: u8 = 4;
    /// A file is wrong, or the machine cannot be what it should be: somebody must change something
    /// (EX_CONFIG of sysexits.h, on which the unit does not try again).
    pub const CONFIG: u8 = 78;
}

impl Moment {
    pub fn new(run: u32, clock: Clock, line: &ConsoleLine) -> Self {
        let (event, text, remedy, seconds) = match &line.event {
            Event::Begun { .. } | Event::Started => (MomentKind::Started, None, None, None),
            Event::Waiting(what) => (MomentKind::Waiting, Some(what.clone()), None, None),
            Event::Done { seconds } => (MomentKind::Done, None, None, Some(*seconds)),
            Event::Unchanged { seconds } => (MomentKind::Unchanged, None, None, Some(*seconds)),
            Event::Failed { cause, remedy } => {
                (MomentKind::Failed, Some(cause.clone()), Some(remedy.clone()), None)
            }
        };
        let Clock { at, up } = clock;
        Self { run, at, up, n: line.n, step: line.step.clone(), event, text, remedy, seconds }
    }
}

impl Status {
    /// Whether `kubeadm init` or `join` was completed on the machine of this record.
    pub fn has_joined(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.id.as_str(), "init" | "join") && step.completed)
    }

    /// Keeps a moment, and forgets the oldest.
    pub fn remember(&mut self, moment: Moment) {
        self.history.push(moment);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    pub fn exit_code(&self) -> u8 {
        match (self.state, &self.failure) {
            (State::Done, _) => exit::DONE,
            (State::Running, _) => exit::RUNNING,
            (State::Failed, Some(failure)) if !failure.retry => exit::CONFIG,
            (State::Failed, _) => exit::FAILED,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Running => "running",
            State::Done => "done",
            State::Failed => "FAILED",
        };
        writeln!(f, "{} ({}): {state} after {:.1} s, run {}", self.node, self.role, self.seconds, self.runs)?;
        if let Some(container) = &self.container {
            writeln!(
                f,
                "in a system container ({container}): modules, swap and global sysctls are the host's"
            )?;
        }
        if let Some(Image { version, root_hash }) = &self.image {
            let root = root_hash.as_deref().unwrap_or("not sealed");
            writeln!(f, "image {version}, root {root}")?;
        }
        for (n, step) in self.steps.iter().enumerate() {
            let state = match step.state {
                StepState::Pending => "pending",
                StepState::Running => "running",
                StepState::Done => "done",
                StepState::Unchanged => "unchanged",
                StepState::Failed => "FAILED",
            };
            let seconds = step.seconds.map(|s| format!("{s:7.1} s")).unwrap_or_else(|| " ".repeat(9));
            write!(f, "{:>3}  {state:<9} {seconds}  {}", n + 1, step.title)?;
            if let Some(detail) = &step.detail {
                write!(f, "  [{}]", one_line(detail))?;
            }
            writeln!(f)?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "cause:  {}\nremedy: {}", failure.cause, failure.remedy)?;
            writeln!(
                f,
                "{}",
                if failure.retry {
                    "the unit tries again by itself"
                } else {
                    "the unit does not try again: systemctl restart kindling"
                }
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for ConsoleLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kindling[{}/{}] {}: ", self.n, self.total, self.step)?;
        match &self.event {
            Event::Begun { run, at } => write!(f, "started (run {run}, {})", date_text(*at)),
            Event::Started => write!(f, "started"),
            Event::Waiting(what) => write!(f, "waiting: {}", one_line(what)),
            Event::Done { seconds } => write!(f, "done ({seconds:.1} s)"),
            Event::Unchanged { seconds } => write!(f, "unchanged ({seconds:.1} s)"),
            Event::Failed { cause, remedy } => {
                write!(f, "FAILED: {} | remedy: {}", one_line(cause), one_line(remedy))
            }
        }
    }
}

/// `2026-11-24T23:12:01.250Z`
pub fn date_text(at: f64) -> String {
    let date = OffsetDateTime::from_unix_timestamp_nanos((at * 1e3).round() as i128 * 1_000_000);
    date.ok().and_then(|date| date.format(DATE).ok()).unwrap_or_default()
}

fn date_of(text: &str) -> Option<f64> {
    let date = PrimitiveDateTime::parse(text, DATE).ok()?.assume_utc();
    Some((date.unix_timestamp_nanos() / 1_000_000) as f64 / 1e3)
}

pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl ConsoleLine {
    /// Finds a console line in a line of a machine's serial log, where other text may stand before it.
    pub fn parse(line: &str) -> Option<Self> {
        let line = &line[line.find("kindling[")?..];
        let (position, rest) = line.strip_prefix("kindling[")?.split_once("] ")?;
        let (n, total) = position.split_once('/')?;
        let (step, rest) = rest.split_once(": ")?;
        let rest = rest.trim_end();
        let seconds = |text: &str| text.strip_prefix('(')?.strip_suffix(" s)")?.parse().ok();
        let event = if rest == "started" {
            Event::Started
        } else if let Some(text) = rest.strip_prefix("started (run ") {
            let (run, at) = text.strip_suffix(')')?.split_once(", ")?;
            Event::Begun { run: run.parse().ok()?, at: date_of(at)? }
        } else if let Some(what) = rest.strip_prefix("waiting: ") {
            Event::Waiting(what.to_owned())
        } else if let Some(text) = rest.strip_prefix("done ") {
            Event::Done { seconds: seconds(text)? }
        } else if let Some(text) = rest.strip_prefix("unchanged ") {
            Event::Unchanged { seconds: seconds(text)? }
        } else {
            let (cause, remedy) = rest.strip_prefix("FAILED: ")?.split_once(" | remedy: ")?;
            Event::Failed { cause: cause.to_owned(), remedy: remedy.to_owned() }
        };
        Some(Self { n: n.parse().ok()?, total: total.parse().ok()?, step: step.to_owned(), event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_lines_are_read_back_as_they_were_written() {
        for event in [
            Event::Begun { run: 2, at: 1_795_559_660.25 },
            Event::Started,
            Event::Waiting("the API at 10.0.0.10:6443: connection refused".into()),
            Event::Done { seconds: 1.5 },
            Event::Unchanged { seconds: 0.0 },
            Event::Failed { cause: "kubeadm said: no".into(), remedy: "read its output".into() },
        ] {
            let line = ConsoleLine { n: 3, total: 14, step: "kubeadm-init".into(), event };
            assert_eq!(ConsoleLine::parse(&format!("[   12.3] {line}\r\n")), Some(line));
        }
    }

    #[test]
    fn a_failure_of_several_lines_stays_on_one() {
        let line = ConsoleLine {
            n: 1,
            total: 1,
            step: "a".into(),
            event: Event::Failed { cause: "one\n  two".into(), remedy: "three".into() },
        };
        assert_eq!(line.to_string(), "kindling[1/1] a: FAILED: one two | remedy: three");
    }
}
