//! Follows a machine by the lines that the agent writes to its console.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Serialize;

use crate::status::{ConsoleLine, Event};

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its power is still off: others come first.
    Waiting,
    /// Nothing was heard from the agent.
    Booting,
    Working,
    /// The agent failed; it may try again by itself.
    Failed,
    Done,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTime {
    pub id: String,
    /// Seconds that the agent spent in it, over all its tries since power-on.
    pub seconds: f64,
    /// Whether it changed the node since power-on.
    pub acted: bool,
}

/// Why a node failed, in the agent's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub step: String,
    pub cause: String,
    pub remedy: String,
}

/// One node since it was powered on. Times are seconds since then; `None` where nobody was watching.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    pub phase: Phase,
    /// The step it is at, from 1, and how many there are.
    pub step: usize,
    pub total: usize,
    /// The step's id and what it does or waits for.
    pub doing: String,
    pub steps: Vec<StepTime>,
    pub agent_started: Option<f64>,
    pub agent_done: Option<f64>,
    /// The last failure; it stays when the agent tries again, until the node is done.
    pub failure: Option<Reason>,
    /// How often the agent failed since power-on.
    pub failures: u32,
    #[serde(skip)]
    pub last_heard: Option<f64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Phase::Booting,
            step: 0,
            total: 0,
            doing: "boots".into(),
            steps: Vec::new(),
            agent_started: None,
            agent_done: None,
            failure: None,
            failures: 0,
            last_heard: None,
        }
    }
}

impl Progress {
    /// Takes in a line that was seen `at` seconds after power-on.
    pub fn hear(&mut self, line: &ConsoleLine, at: Option<f64>) {
        if self.step == 0 && self.phase == Phase::Booting {
            self.agent_started = at;
        }
        self.last_heard = at.or(self.last_heard);
        self.total = line.total;
        if line.n == 0 {
            return self.hear_node(line, at);
        }
        self.phase = Phase::Working;
        self.step = line.n;
        match &line.event {
            Event::Begun { .. } | Event::Started => self.doing = line.step.clone(),
            Event::Waiting(what) => self.doing = format!("{}: {what}", line.step),
            Event::Done { seconds } => self.spent(&line.step, *seconds, true),
            Event::Unchanged { seconds } => self.spent(&line.step, *seconds, false),
            Event::Failed { cause, remedy } => self.fail(&line.step, cause, remedy),
        }
    }

    fn hear_node(&mut self, line: &ConsoleLine, at: Option<f64>) {
        match &line.event {
            Event::Done { .. } | Event::Unchanged { .. } => {
                self.phase = Phase::Done;
                self.step = line.total;
                self.doing = "done".into();
                self.agent_done = at;
                self.failure = None;
            }
            Event::Failed { cause, remedy } => {
                self.failures += 1;
                // The step's own line came before it and knows which step it was.
                if self.phase != Phase::Failed {
                    self.fail(&line.step, cause, remedy);
                }
            }
            Event::Begun { .. } | Event::Started | Event::Waiting(_) => {}
        }
    }

    fn fail(&mut self, step: &str, cause: &str, remedy: &str) {
        self.phase = Phase::Failed;
        self.doing = format!("{step}: FAILED: {cause}");
        self.failure = Some(Reason { step: step.into(), cause: cause.into(), remedy: remedy.into() });
    }

    fn spent(&mut self, id: &str, seconds: f64, acted: bool) {
        self.doing = format!("{id}: {}", if acted { "done" } else { "unchanged" });
        match self.steps.iter_mut().find(|s| s.id == id) {
            Some(step) => {
                step.seconds += seconds;
                step.acted |= acted;
            }
            None => self.steps.push(StepTime { id: id.into(), seconds, acted }),
        }
    }
}

/// Reads what was appended to a console log, line by line.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    /// A line that has no end yet.
    rest: Vec<u8>,
}

impl Tail {
    pub fn new(path: PathBuf, offset: u64) -> Self {
        Self { path, offset, rest: Vec::new() }
    }

    /// The lines that came since the last call.
    pub fn lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut bytes)
        });
        // A log that is not there yet has no lines yet.
        self.offset += read.unwrap_or(0) as u64;
        self.rest.append(&mut bytes);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        String::from_utf8_lossy(&whole).lines().map(plain).collect()
    }
}

/// A console's line without colours, cursor movements and carriage returns.
pub fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            if !c.is_control() || c == '\t' {
                text.push(c);
            }
            continue;
        }
        match chars.next() {
            // CSI: up to its final byte (ECMA-48, 5.4)
            Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            // OSC: up to BEL or ESC \
            Some(']') => {
                while let Some(c) = chars.next() {
                    if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(progress: &mut Progress, line: &str, at: f64) {
        progress.hear(&ConsoleLine::parse(line).expect(line), Some(at));
    }

    #[test]
    fn a_node_is_followed_from_its_first_line_to_done() {
        let mut progress = Progress::default();
        hear(&mut progress, "kindling[1/2] identity: unchanged (0.0 s)", 8.0);
        hear(&mut progress, "kindling[2/2] kubeadm-join: started", 8.5);
        hear(&mut progress, "kindling[2/2] kubeadm-join: waiting: 10.0.0.10:6443 does not answer", 9.0);
        assert_eq!(progress.doing, "kubeadm-join: 10.0.0.10:6443 does not answer");
        assert_eq!((progress.step, progress.total, progress.phase), (2, 2, Phase::Working));
        hear(&mut progress, "kindling[2/2] kubeadm-join: done (31.5 s)", 40.0);
        hear(&mut progress, "kindling[0/2] w1: done (32.0 s)", 40.5);
        assert_eq!((progress.agent_started, progress.agent_done), (Some(8.0), Some(40.5)));
        assert_eq!(progress.phase, Phase::Done);
        assert_eq!(progress.steps[1], StepTime { id: "kubeadm-join".into(), seconds: 31.5, acted: true });
    }

    #[test]
    fn a_failure_keeps_its_step_and_words_until_a_later_try_is_done() {
        let mut progress = Progress::default();
        hear(&mut progress, "kindling[1/1] runtime: started", 5.0);
        hear(&mut progress, "kindling[1/1] runtime: FAILED: no space | remedy: a larger disk", 6.0);
        hear(&mut progress, "kindling[0/1] w1: FAILED: no space | remedy: a larger disk", 6.0);
        let reason =
            Reason { step: "runtime".into(), cause: "no space".into(), remedy: "a larger disk".into() };
        assert_eq!((progress.phase, progress.failures), (Phase::Failed, 1));
        assert_eq!(progress.failure, Some(reason.clone()));
        hear(&mut progress, "kindling[1/1] runtime: started", 22.0);
        assert_eq!((progress.phase, progress.failure.clone()), (Phase::Working, Some(reason)));
        hear(&mut progress, "kindling[1/1] runtime: done (2.0 s)", 24.0);
        hear(&mut progress, "kindling[0/1] w1: done (2.0 s)", 24.0);
        assert_eq!((progress.phase, progress.failure), (Phase::Done, None));
    }

    #[test]
    fn a_bad_role_file_has_no_step() {
        let mut progress = Progress::default();
        hear(&mut progress, "kindling[0/0] cp1: FAILED: role.toml: empty | remedy: render it again", 5.0);
        assert_eq!(progress.phase, Phase::Failed);
        assert_eq!(progress.failure.expect("a reason").step, "cp1");
    }

    #[test]
    fn a_line_counts_when_it_is_whole_and_without_its_colours() {
        let path = std::env::temp_dir().join(format!("kindling-tail-{}", std::process::id()));
        std::fs::write(&path, "old\n\u{1b}[0;32m  OK  \u{1b}[0m] Started \u{1b}[1mx\u{1b}[0m.\r\r\nkindl")
            .expect("write");
        let mut tail = Tail::new(path.clone(), 4);
        assert_eq!(tail.lines(), ["  OK  ] Started x."]);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
        std::io::Write::write_all(&mut file, b"ing[1/2] a: started\r\n").expect("append");
        assert_eq!(tail.lines(), ["kindling[1/2] a: started"]);
        assert_eq!(tail.lines(), Vec::<String>::new());
        std::fs::remove_file(path).expect("remove");
    }
}
