//! The records: from the state folder of `kindling up`, or from files that somebody brought.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Align, Document, Node, align, fold, serial, vip};
use crate::status::{Moment, MomentKind, Status, StepState, VipMove};
use crate::up::Running;

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{0} is neither a status file nor a serial log with lines of the agent (`kindling[1/13] ...`)\n  remedy: give what `kindling status --json` prints on a node, a VM's serial log, or what `kindling report --json` printed"
    )]
    Unknown(PathBuf),
    #[error(
        "{0}; or, for machines that `kindling up` did not start, give files: what `kindling status --json` printed on each, or their serial logs"
    )]
    State(#[from] crate::up::UpError),
}

/// What is known of one machine.
#[derive(Debug, Default)]
struct Record {
    role: Option<String>,
    powered_on: Option<f64>,
    titles: BTreeMap<String, String>,
    status: Vec<Moment>,
    serial: Vec<Moment>,
    serial_exact: bool,
    vip: Vec<VipMove>,
}

#[derive(Debug, Default)]
struct Records {
    cluster: Option<String>,
    nodes: Vec<(String, Record)>,
}

/// Reads all files, or the state folder where there are none.
pub fn read(files: &[PathBuf], state: Option<&Path>, how: Align) -> Result<Document, Trouble> {
    let mut records = Records::default();
    if let Some(state) = state {
        records.take_state(state)?;
    }
    for path in files {
        let bytes = fs::read(path).map_err(|source| Trouble::Read { path: path.clone(), source })?;
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(document) = serde_json::from_str::<Document>(&text) {
            return Ok(document);
        }
        if let Ok(status) = serde_json::from_str::<Status>(&text) {
            records.take_status(status);
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !records.take_serial(None, &stem, &text) {
            return Err(Trouble::Unknown(path.clone()));
        }
    }
    Ok(records.document(how))
}

impl Records {
    fn of(&mut self, name: &str) -> &mut Record {
        let n = self.nodes.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.nodes.push((name.to_owned(), Record::default()));
            self.nodes.len() - 1
        });
        &mut self.nodes[n].1
    }

    fn take_state(&mut self, state: &Path) -> Result<(), Trouble> {
        let running = Running::open(state, None)?;
        self.cluster = Some(running.cluster().to_owned());
        for machine in running.records() {
            let record = self.of(&machine.name);
            record.role = Some(machine.role);
            record.powered_on = machine.powered_on;
            if let Some(status) = machine.status {
                self.take_status(status);
            }
            // A machine that never started has no console.
            let bytes = fs::read(&machine.console).unwrap_or_default();
            self.take_serial(Some(&machine.name), "", &String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }

    fn take_status(&mut self, status: Status) {
        let record = self.of(&status.node);
        record.titles = status.steps.iter().map(|s| (s.id.clone(), s.title.clone())).collect();
        if !status.role.is_empty() {
            record.role = Some(status.role.clone());
        }
        record.vip.extend(&status.vip);
        record.status = if status.history.is_empty() { last_run(&status) } else { status.history };
    }

    /// Whether it is a log of the agent; `stem` names the node where the log does not.
    fn take_serial(&mut self, name: Option<&str>, stem: &str, text: &str) -> bool {
        let serial = serial::read(text);
        if serial.moments.is_empty() {
            return false;
        }
        let name = name.map(str::to_owned).or(serial.node).unwrap_or_else(|| stem.to_owned());
        let record = self.of(&name);
        record.serial = serial.moments;
        record.serial_exact = serial.exact;
        record.vip.extend(serial.vip);
        true
    }

    fn document(self, how: Align) -> Document {
        let mut nodes = Vec::new();
        let mut moves: Vec<(String, Vec<VipMove>)> = Vec::new();
        let mut notes = Vec::new();
        for (name, mut record) in self.nodes {
            // The status file knows each run, the log may have been cut; unless it is of an older agent.
            let by_status =
                !record.status.is_empty() && (record.status.len() > 1 || record.serial.is_empty());
            let (moments, exact) =
                if by_status { (&record.status, true) } else { (&record.serial, record.serial_exact) };
            let mut runs = fold::runs(moments, exact);
            for span in runs.iter_mut().flat_map(|r| &mut r.spans) {
                span.title = record.titles.get(&span.step).cloned();
            }
            if !exact {
                notes.push(name.clone());
            }
            // Both sources may tell of the same move.
            record.vip.sort_by(|a, b| a.at.total_cmp(&b.at));
            record.vip.dedup_by(|a, b| a.holds == b.holds && (a.at - b.at).abs() < 0.5);
            moves.push((name.clone(), record.vip));
            nodes.push(Node { name, role: record.role, powered_on: record.powered_on, runs, exact });
        }
        let without = if notes.is_empty() {
            None
        } else {
            place_inexact(&mut nodes);
            Some(format!(
                "{}: the record has no times (an older agent wrote it), so the steps are drawn one after the other from power-on.",
                notes.join(", ")
            ))
        };
        let mut notes = align::align(&mut nodes, how, |name, by| {
            for step in moves.iter_mut().filter(|(n, _)| n == name).flat_map(|(_, list)| list) {
                step.at += by;
            }
        });
        notes.extend(without);
        let mut document = Document { version: 1, cluster: self.cluster, notes, nodes, vip: Vec::new() };
        if let Some((_, end)) = document.extent() {
            let boots = |name: &str| -> Vec<f64> {
                let node = document.nodes.iter().find(|n| n.name == name);
                let kernels = node.into_iter().flat_map(|n| n.runs.iter().filter_map(|r| r.kernel));
                kernels.chain(node.and_then(|n| n.powered_on)).collect()
            };
            let end = moves.iter().flat_map(|(_, list)| list.iter().map(|m| m.at)).fold(end, f64::max);
            document.vip = vip::holds(&moves, boots, end);
        }
        if document.vip.is_empty() {
            document.notes.push("Nothing in these records says who held a VIP.".into());
        }
        document
    }
}

/// Those whose times were added up begin at their power-on, or with the others.
fn place_inexact(nodes: &mut [Node]) {
    let known = nodes.iter().filter(|n| n.exact).filter_map(Node::begin);
    let on = nodes.iter().filter_map(|n| n.powered_on);
    let first = known.chain(on).reduce(f64::min).unwrap_or(0.0);
    for node in nodes.iter_mut().filter(|n| !n.exact) {
        node.shift(node.powered_on.unwrap_or(first) - node.runs.first().map_or(0.0, |r| r.started));
    }
}

/// A status file without a history, as older agents wrote it, has the last run's times all the same.
fn last_run(status: &Status) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut add =
        |up: f64, n: usize, step: &str, event: MomentKind, seconds: Option<f64>, text: Option<String>| {
            let (run, at) = (status.runs, status.started as f64 + up);
            let remedy = status.failure.as_ref().filter(|f| f.step == step).map(|f| f.remedy.clone());
            moments.push(Moment { run, at, up, n, step: step.to_owned(), event, text, remedy, seconds });
        };
    add(0.0, 0, &status.node, MomentKind::Started, None, None);
    for (n, step) in status.steps.iter().enumerate() {
        let Some(at) = step.at else { continue };
        let end = at + step.seconds.unwrap_or(0.0);
        match step.state {
            StepState::Done => add(end, n + 1, &step.id, MomentKind::Done, step.seconds, None),
            StepState::Unchanged => add(end, n + 1, &step.id, MomentKind::Unchanged, step.seconds, None),
            StepState::Failed => {
                add(status.seconds, n + 1, &step.id, MomentKind::Failed, None, step.detail.clone())
            }
            StepState::Running => {
                add(at, n + 1, &step.id, MomentKind::Started, None, None);
                add(status.seconds, n + 1, &step.id, MomentKind::Waiting, None, step.detail.clone());
            }
            StepState::Pending => {}
        }
    }
    match status.state {
        crate::status::State::Done => add(status.seconds, 0, &status.node, MomentKind::Done, None, None),
        crate::status::State::Failed => add(status.seconds, 0, &status.node, MomentKind::Failed, None, None),
        crate::status::State::Running => {}
    }
    moments
}
