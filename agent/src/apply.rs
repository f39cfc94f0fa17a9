//! Applies a plan: look, act, look again; with a record on stable storage before each act and after it.

use std::path::Path;
use std::time::Duration;

use crate::error::StepError;
use crate::facts::Facts;
use crate::host::{Host, read_text};
use crate::plan::Step;
use crate::role::NodeSpec;
use crate::status::{ConsoleLine, Event, Failure, Moment, STATUS_FILE, State, Status, StepRecord, StepState};
use crate::step::{Context, Found};

/// Somebody who is told what happens, as it happens.
pub trait Observer {
    fn tell(&mut self, line: &ConsoleLine);
}

/// The record of earlier runs on this machine. A record that cannot be read counts as none: every step
/// looks at the host anyway, and those that cannot be looked at have markers of their own.
pub fn earlier(host: &dyn Host) -> Option<Status> {
    serde_json::from_str(&read_text(host, STATUS_FILE)?).ok()
}

struct Run<'a> {
    host: &'a dyn Host,
    observer: &'a mut dyn Observer,
    status: Status,
    start: Duration,
}

/// Runs every step. The status that is returned is also on the disk, and has been told to the observer.
pub fn apply(
    spec: &NodeSpec,
    facts: &Facts,
    steps: &[Step],
    host: &dyn Host,
    observer: &mut dyn Observer,
) -> Status {
    let before = earlier(host);
    let status = Status {
        version: 1,
        node: spec.name.to_string(),
        role: spec.role_name().to_string(),
        state: State::Running,
        started: host.wall_clock(),
        seconds: 0.0,
        cpu_seconds: 0.0,
        memory_mb: 0.0,
        runs: before.as_ref().map_or(0, |s| s.runs) + 1,
        container: facts.container.clone(),
        image: facts.image.clone(),
        steps: steps.iter().map(|step| record(step, before.as_ref())).collect(),
        failure: None,
        history: before.map(|s| s.history).unwrap_or_default(),
        vip: Vec::new(),
    };
    let mut run = Run { host, observer, status, start: host.now() };
    let begun = run.node_line(Event::Begun { run: run.status.runs, at: host.clock().at });
    run.remember(&begun);
    run.observer.tell(&begun);
    let result = run.steps(spec, steps);
    run.finish(result)
}

/// A step's record, with what earlier runs know of it.
fn record(step: &Step, before: Option<&Status>) -> StepRecord {
    let old = before.and_then(|s| s.steps.iter().find(|r| r.id == step.id));
    StepRecord {
        id: step.id.to_owned(),
        title: step.title.clone(),
        state: StepState::Pending,
        at: None,
        seconds: None,
        detail: None,
        begun: old.map_or(0, |r| r.begun),
        changed: old.map_or(0, |r| r.changed),
        half: old.is_some_and(|r| r.half),
        completed: old.is_some_and(|r| r.completed),
    }
}

impl Run<'_> {
    fn elapsed(&self) -> f64 {
        self.host.now().saturating_sub(self.start).as_secs_f64()
    }

    fn save(&mut self) -> Result<(), StepError> {
        self.status.seconds = self.elapsed();
        (self.status.cpu_seconds, self.status.memory_mb) = self.host.usage();
        let text =
            serde_json::to_string_pretty(&self.status).expect("a status has only types that JSON knows");
        let path = Path::new(STATUS_FILE);
        self.host.write(path, text.as_bytes(), 0o644).map_err(|error| StepError::file("write", path, &error))
    }

    fn line(&self, n: usize, event: Event) -> ConsoleLine {
        ConsoleLine { n: n + 1, total: self.status.steps.len(), step: self.status.steps[n].id.clone(), event }
    }

    fn node_line(&self, event: Event) -> ConsoleLine {
        ConsoleLine { n: 0, total: self.status.steps.len(), step: self.status.node.clone(), event }
    }

    /// Into the record, before it is saved and told.
    fn remember(&mut self, line: &ConsoleLine) {
        let moment = Moment::new(self.status.runs, self.host.clock(), line);
        self.status.remember(moment);
    }

    fn steps(&mut self, spec: &NodeSpec, steps: &[Step]) -> Result<(), (usize, StepError)> {
        for (n, step) in steps.iter().enumerate() {
            self.step(spec, n, step).map_err(|error| (n, error))?;
        }
        Ok(())
    }

    fn step(&mut self, spec: &NodeSpec, n: usize, step: &Step) -> Result<(), StepError> {
        let at = self.elapsed();
        self.status.steps[n].at = Some(at);
        self.status.steps[n].state = StepState::Running;
        if let Found::Matches(remark) = self.look(spec, n, step)? {
            return self.end(n, StepState::Unchanged, remark, at);
        }
        let waits = step.only_waits();
        if !waits {
            let record = &mut self.status.steps[n];
            record.begun += 1;
            record.half = true;
        }
        let started = self.line(n, Event::Started);
        self.remember(&started);
        // On stable storage before the first effect, so that a power cut is known for what it is.
        self.save()?;
        self.observer.tell(&started);
        let remark = self.act(spec, n, step)?;
        if !waits {
            // Looked at with fresh eyes: what was just done is neither interrupted nor taken on trust.
            self.status.steps[n].half = false;
            self.status.steps[n].completed = true;
            if let Found::Differs(what) = self.look(spec, n, step)? {
                self.status.steps[n].half = true;
                return Err(StepError::passing(
                    format!("done, but the machine still differs: {what}"),
                    "somebody else may be changing the same thing; it is tried again",
                ));
            }
            self.status.steps[n].changed += 1;
        }
        self.end(n, StepState::Done, remark, at)
    }

    fn end(&mut self, n: usize, state: StepState, remark: Option<String>, at: f64) -> Result<(), StepError> {
        let seconds = self.elapsed() - at;
        let record = &mut self.status.steps[n];
        record.state = state;
        record.seconds = Some(seconds);
        record.detail = remark;
        record.half = false;
        let news = !record.completed || state == StepState::Done;
        record.completed = true;
        let event =
            if state == StepState::Done { Event::Done { seconds } } else { Event::Unchanged { seconds } };
        let line = self.line(n, event);
        self.remember(&line);
        if news {
            self.save()?;
        }
        self.observer.tell(&line);
        Ok(())
    }

    fn look(&mut self, spec: &NodeSpec, n: usize, step: &Step) -> Result<Found, StepError> {
        self.with_context(spec, n, |cx| step.look(cx))
    }

    fn act(&mut self, spec: &NodeSpec, n: usize, step: &Step) -> Result<Option<String>, StepError> {
        self.with_context(spec, n, |cx| step.act(cx))
    }

    fn with_context<T>(&mut self, spec: &NodeSpec, n: usize, work: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let record = &self.status.steps[n];
        let (completed, interrupted) = (record.completed, record.half);
        let host = self.host;
        let mut waiting = |what: &str| {
            self.status.steps[n].detail = Some(what.to_owned());
            let line = self.line(n, Event::Waiting(what.to_owned()));
            self.remember(&line);
            // The record of a wait is for people; the next save that matters reports its own failure.
            let _ = self.save();
            self.observer.tell(&line);
        };
        work(&mut Context { host, spec, completed, interrupted, waiting: &mut waiting })
    }

    fn finish(mut self, result: Result<(), (usize, StepError)>) -> Status {
        let event = match result {
            Ok(()) => {
                self.status.state = State::Done;
                Event::Done { seconds: self.elapsed() }
            }
            Err((n, error)) => {
                let record = &mut self.status.steps[n];
                record.state = StepState::Failed;
                record.detail = Some(error.cause.clone());
                self.status.state = State::Failed;
                let event = Event::Failed { cause: error.cause.clone(), remedy: error.remedy.clone() };
                let line = self.line(n, event.clone());
                self.remember(&line);
                self.observer.tell(&line);
                self.status.failure = Some(Failure {
                    step: self.status.steps[n].id.clone(),
                    cause: error.cause,
                    remedy: error.remedy,
                    retry: error.retry,
                });
                event
            }
        };
        let line = self.node_line(event);
        self.remember(&line);
        if let Err(error) = self.save() {
            // The console and the journal are told all the same.
            self.status.failure.get_or_insert(Failure {
                step: "status".into(),
                cause: error.cause,
                remedy: error.remedy,
                retry: true,
            });
            self.status.state = State::Failed;
        }
        self.observer.tell(&line);
        self.status
    }
}
