//! The formation of a cluster as its nodes recorded it, and one picture of it (`kindling report`).
//!
//! *Moments* come from status files and serial logs ([`collect`]), become *runs* of *spans* ([`fold`]), are set on one
//! axis ([`align`]), and the *document* is drawn as SVG ([`draw`]) or as a page around it ([`page`]). All but
//! the collecting is pure.

mod align;
mod collect;
mod command;
mod draw;
mod fold;
mod label;
mod page;
mod scale;
mod serial;
mod vip;

use serde::{Deserialize, Serialize};

pub use align::Align;
pub use collect::{Trouble, read};
pub use command::{Options, report};
pub use draw::{Shape, svg};
pub use page::page;

/// Everything that was collected. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// How the nodes' clocks were brought together, and what the records lack.
    pub notes: Vec<String>,
    pub nodes: Vec<Node>,
    /// Who held the VIP when.
    pub vip: Vec<Hold>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// When it was powered on last, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub powered_on: Option<f64>,
    pub runs: Vec<Run>,
    /// Whether the times were recorded; otherwise they are only added up.
    pub exact: bool,
}

/// One run of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub number: u32,
    /// The kernel's start before this run, where this is the first run after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<f64>,
    pub started: f64,
    /// The last that is known of it.
    pub ended: f64,
    pub outcome: Outcome,
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Unchanged,
    Failed,
    /// It ended without a word: the power was cut, or the agent was killed.
    Cut,
    /// Not ended when it was recorded.
    Running,
}

/// A step in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    pub step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub started: f64,
    pub ended: f64,
    pub outcome: Outcome,
    /// An earlier run had begun with it and did not end it.
    pub again: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a step said, and until when it held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub from: f64,
    pub to: f64,
    pub what: String,
    /// Whether the step waited for others meanwhile; otherwise it worked.
    pub idle: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    pub node: String,
    pub from: f64,
    pub to: f64,
    pub end: HoldEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldEnd {
    GivenUp,
    /// Its holder said nothing more, and somebody else took it.
    Taken,
    /// It was held when the record ended.
    Open,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Failed => "FAILED",
            Self::Cut => "cut short",
            Self::Running => "running",
        }
    }
}

impl Span {
    pub fn seconds(&self) -> f64 {
        (self.ended - self.started).max(0.0)
    }

    /// Seconds in which it waited for others.
    pub fn waited(&self) -> f64 {
        self.waits.iter().filter(|w| w.idle).map(|w| w.to - w.from).sum()
    }

    pub fn longest_wait(&self) -> Option<&Wait> {
        self.waits.iter().filter(|w| w.idle).max_by(|a, b| (a.to - a.from).total_cmp(&(b.to - b.from)))
    }
}

impl Node {
    /// Its last run, which says how it fares.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// Where its record begins: at the power-on, where that belongs to its first run.
    pub fn begin(&self) -> Option<f64> {
        let run = self.runs.first()?;
        let on = self.powered_on.filter(|on| *on <= run.started);
        let single = self.runs.iter().filter(|r| r.kernel.is_some()).count() <= 1;
        Some(on.filter(|_| single).or(run.kernel).unwrap_or(run.started).min(run.started))
    }
}

impl Document {
    /// The moments between which everything lies.
    pub fn extent(&self) -> Option<(f64, f64)> {
        let begin = self.nodes.iter().filter_map(Node::begin).reduce(f64::min)?;
        let ends = self.nodes.iter().flat_map(|n| n.runs.iter().map(|r| r.ended));
        let end = ends.chain(self.vip.iter().map(|h| h.to)).fold(begin, f64::max);
        Some((begin, end))
    }

    /// In one sentence, how it went.
    pub fn headline(&self) -> String {
        let Some((begin, _)) = self.extent() else { return "no run of the agent was recorded".into() };
        let last = |outcome: &[Outcome]| {
            let nodes = self.nodes.iter();
            let list = nodes.filter(|n| n.last().is_some_and(|r| outcome.contains(&r.outcome)));
            list.map(|n| n.name.as_str()).collect::<Vec<_>>()
        };
        let failed = last(&[Outcome::Failed]);
        let open = last(&[Outcome::Running, Outcome::Cut]);
        let silent = self.nodes.iter().filter(|n| n.runs.is_empty()).map(|n| n.name.as_str());
        let open: Vec<&str> = open.into_iter().chain(silent).collect();
        let count = self.nodes.len();
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        if !failed.is_empty() {
            format!("{nodes}: {} failed", failed.join(", "))
        } else if !open.is_empty() {
            format!("{nodes}: {} not done", open.join(", "))
        } else {
            // What came later, a reboot for example, is no part of the formation.
            let first = self.nodes.iter().filter_map(|n| n.runs.iter().find(|r| r.outcome == Outcome::Done));
            let end = first.map(|r| r.ended).fold(begin, f64::max);
            format!("{nodes}, all done after {}", duration(end - begin))
        }
    }
}

/// For people: `0.3 s`, `5 min 12 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=119 => format!("{seconds:.1} s"),
        120..=7199 => format!("{} min {} s", whole / 60, whole % 60),
        7200..=172_799 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// Characters that XML gives a meaning, and those that it does not allow, taken out of a text.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
