//! What came of it: the nodes' table, the time of each phase, and of a node that failed why, in its own words.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::api::ApiNode;
use super::driver::{Driver, DriverName};
use super::plan::Machine;
use super::process;
use super::state::Place;
use super::table::table;
use super::wait::Watched;
use super::watch::{Phase, Progress};
use crate::status::exit;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every agent is done, every Kubernetes node Ready, and names are resolved in the cluster.
    Ready,
    /// A node failed, and waiting cannot help.
    Failed,
    TimedOut,
    Interrupted,
}

/// All of it can be written as JSON (`--json`).
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub cluster: String,
    pub driver: DriverName,
    pub verdict: Verdict,
    /// To the verdict, from the power-on of the last machine, or of the first where they came in turn.
    pub seconds: f64,
    /// https://127.0.0.1:PORT, from this host.
    pub server: String,
    pub kubeconfig: PathBuf,
    pub state: PathBuf,
    /// Why names are not resolved in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_error: Option<String>,
    pub nodes: Vec<NodeOutcome>,
}

#[derive(Debug, Clone, Serialize)]
pub struct NodeOutcome {
    #[serde(flatten)]
    pub machine: Machine,
    pub is_on: bool,
    pub ready: bool,
    #[serde(flatten)]
    pub progress: Progress,
    pub api: Option<ApiNode>,
    /// Seconds from power-on to Ready in the API.
    pub ready_after: Option<f64>,
    pub console: PathBuf,
    /// The end of the console log, or of the driver's own, of a node that is not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
}

const LAST_WORDS: usize = 25;

impl NodeOutcome {
    pub fn new(place: &Place, driver: &dyn Driver, watched: &Watched) -> Self {
        let machine = watched.machine.clone();
        let console = place.console(&machine.name);
        let mut last_words = Vec::new();
        if !watched.is_ready() {
            last_words = process::tail(&console, LAST_WORDS);
            if watched.ended || last_words.is_empty() {
                last_words.extend(process::tail(&driver.log(&machine), 5));
            }
        }
        Self {
            is_on: !watched.ended && watched.progress.phase != Phase::Waiting,
            ready: watched.is_ready(),
            progress: watched.progress.clone(),
            api: watched.api.clone(),
            ready_after: watched.ready_after,
            console,
            last_words,
            machine,
        }
    }

    /// Why it is not ready, in one line.
    fn trouble(&self) -> String {
        let progress = &self.progress;
        if let Some(reason) = &progress.failure {
            let times =
                if progress.failures > 1 { format!(" ({} times)", progress.failures) } else { String::new() };
            return format!("{}: FAILED{times} at {}: {}", self.machine.name, reason.step, reason.cause);
        }
        let what = match progress.phase {
            Phase::Waiting => "not powered on yet: others come first".to_owned(),
            _ if !self.is_on => "the machine is off: it ended by itself, or somebody stopped it".to_owned(),
            Phase::Booting => "nothing was heard from its agent yet".to_owned(),
            Phase::Done => "its agent is done, but the API does not show it Ready".to_owned(),
            Phase::Working | Phase::Failed => {
                format!("at step {} of {}: {}", progress.step, progress.total, progress.doing)
            }
        };
        format!("{}: {what}", self.machine.name)
    }
}

impl Outcome {
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Ready => exit::DONE,
            Verdict::Failed | Verdict::TimedOut => exit::FAILED,
            Verdict::Interrupted => super::INTERRUPTED,
        }
    }

    /// As `kubectl get nodes -o wide` has it, with the machines that are no Nodes.
    fn nodes_table(&self) -> String {
        let head =
            ["NAME", "ROLES", "READY", "VERSION", "INTERNAL-IP", "SECONDS"].map(str::to_owned).to_vec();
        let row = |node: &NodeOutcome| {
            let (roles, ready, version, address) = match &node.api {
                // A worker has no label that says so, and kubectl shows "<none>".
                Some(api) => (
                    if api.roles.is_empty() { node.machine.role.to_string() } else { api.roles.join(",") },
                    if api.ready { "True" } else { "False" },
                    api.version.clone(),
                    api.internal_ip.clone(),
                ),
                None if node.machine.is_kubernetes_node() => {
                    (node.machine.role.to_string(), "False", String::new(), node.machine.address.to_string())
                }
                // Not a Node: ready when its agent is done.
                None => {
                    let ready = if node.ready { "-" } else { "False" };
                    (node.machine.role.to_string(), ready, String::new(), node.machine.address.to_string())
                }
            };
            let seconds = node.ready_after.into_iter().chain(node.progress.agent_done).reduce(f64::max);
            let seconds = seconds.map(|s| format!("{s:.0}"));
            let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            vec![
                node.machine.name.clone(),
                or_dash(roles),
                ready.to_owned(),
                or_dash(version),
                or_dash(address),
                or_dash(seconds.unwrap_or_default()),
            ]
        };
        table(std::iter::once(head).chain(self.nodes.iter().map(row)).collect(), 5)
    }

    /// A row for each phase, a column for each node, seconds.
    fn phases_table(&self) -> String {
        let mut ids: Vec<&str> = Vec::new();
        for step in self.nodes.iter().flat_map(|n| &n.progress.steps) {
            if !ids.contains(&step.id.as_str()) {
                ids.push(&step.id);
            }
        }
        let names = self.nodes.iter().map(|n| n.machine.name.clone());
        let mut rows = vec![std::iter::once("SECONDS".to_owned()).chain(names).collect::<Vec<_>>()];
        let mut row = |title: &str, value: &dyn Fn(&NodeOutcome) -> Option<f64>| {
            let cells = self.nodes.iter().map(|n| value(n).map_or("-".to_owned(), |s| format!("{s:.1}")));
            rows.push(std::iter::once(title.to_owned()).chain(cells).collect());
        };
        row("power-on to the agent", &|n| n.progress.agent_started);
        for id in ids {
            row(&format!("  {id}"), &|n| n.progress.steps.iter().find(|s| s.id == id).map(|s| s.seconds));
        }
        row("power-on to the agent's end", &|n| n.progress.agent_done);
        row("power-on to Ready", &|n| n.ready_after);
        table(rows, 1)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.nodes_table())?;
        if self.nodes.iter().any(|n| !n.progress.steps.is_empty()) {
            writeln!(f, "{}", self.phases_table())?;
        }
        let state = self.state.display();
        for node in self.nodes.iter().filter(|n| !n.ready && self.verdict != Verdict::Interrupted) {
            writeln!(f, "{}", node.trouble())?;
            // The others would have come up: they were only not waited for.
            let fares_well = node.is_on && node.progress.failure.is_none();
            if self.verdict == Verdict::Failed && fares_well || node.progress.phase == Phase::Waiting {
                writeln!(f)?;
                continue;
            }
            if let Some(reason) = &node.progress.failure {
                writeln!(f, "  remedy: {}", reason.remedy)?;
            }
            writeln!(f, "  console: {}", node.console.display())?;
            for line in &node.last_words {
                writeln!(f, "  | {line}")?;
            }
            writeln!(f)?;
        }
        if let (Some(error), Verdict::Failed | Verdict::TimedOut) = (&self.api_error, self.verdict) {
            writeln!(f, "the API did not answer: {error}")?;
        } else if let (Some(error), Verdict::TimedOut, true) =
            (&self.dns_error, self.verdict, self.nodes.iter().all(|n| n.ready))
        {
            writeln!(f, "every node is Ready, but cluster DNS is not available: {error}")?;
            writeln!(f, "  remedy: {}", crate::dns::REMEDY)?;
        }
        match self.verdict {
            Verdict::Ready => {
                writeln!(f, "{} is up after {:.0} s.", self.cluster, self.seconds)?;
                writeln!(f, "  use it:  kubectl --kubeconfig {} get nodes", self.kubeconfig.display())?;
            }
            Verdict::Failed => {
                writeln!(f, "{} is not up: a node failed. The machines go on running.", self.cluster)?
            }
            Verdict::TimedOut => {
                writeln!(
                    f,
                    "{} is not up after {:.0} s. The machines go on running.",
                    self.cluster, self.seconds
                )?;
                writeln!(f, "  wait on: kindling up with a longer --timeout")?;
            }
            Verdict::Interrupted => {
                writeln!(f, "Interrupted. The machines go on running.")?;
                writeln!(f, "  wait on: the same `kindling up` again")?;
            }
        }
        let off: Vec<&str> = self
            .nodes
            .iter()
            .filter(|n| n.progress.phase == Phase::Waiting)
            .map(|n| n.machine.name.as_str())
            .collect();
        if !off.is_empty() {
            writeln!(
                f,
                "  not powered on yet: {}; the same `kindling up` goes on with them",
                off.join(", ")
            )?;
        }
        // As it was called: it need not be in the PATH.
        let program = std::env::args().next().unwrap_or_else(|| "kindling".into());
        write!(f, "  stop it: {program} down --state {state}")
    }
}
