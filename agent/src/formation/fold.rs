//! From moments to runs and spans.

use super::{Outcome, Run, Span, Wait};
use crate::status::{Moment, MomentKind};

/// A machine that was up for longer before its agent ran was not just powered on, or shares its host's kernel.
const BOOT: f64 = 900.0;
/// Clocks that differ by less show the same boot.
const SAME: f64 = 2.0;

/// `moments` in their order, `over`: nobody will add any (the node is not running now).
pub fn runs(moments: &[Moment], exact: bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut kernel: Option<f64> = None;
    for group in moments.chunk_by(|a, b| a.run == b.run) {
        // A clock may be set while the agent runs, and is right afterwards: the kernel's own goes on evenly.
        let base = group.last().map_or(0.0, |m| m.at - m.up);
        let mut run = fold(group, base);
        if exact && run.started - base < BOOT && kernel.is_none_or(|k| (k - base).abs() > SAME) {
            run.kernel = Some(base);
        }
        kernel = Some(base);
        if let Some(before) = runs.last_mut()
            && before.outcome == Outcome::Running
        {
            before.outcome = Outcome::Cut;
            if let Some(span) = before.spans.last_mut().filter(|s| s.outcome == Outcome::Running) {
                span.outcome = Outcome::Cut;
            }
        }
        let unfinished = |step: &str| {
            let last = runs.iter().rev().find_map(|r| r.spans.iter().rev().find(|s| s.step == step));
            last.is_some_and(|s| matches!(s.outcome, Outcome::Cut | Outcome::Failed))
        };
        for span in &mut run.spans {
            span.again = unfinished(&span.step);
        }
        runs.push(run);
    }
    runs
}

fn fold(moments: &[Moment], base: f64) -> Run {
    let time = |m: &Moment| base + m.up;
    let started = moments.first().map_or(base, |m| time(m) - m.seconds.unwrap_or(0.0));
    let mut run = Run {
        number: moments.first().map_or(0, |m| m.run),
        kernel: None,
        started,
        ended: moments.last().map_or(started, time),
        outcome: Outcome::Running,
        spans: Vec::new(),
    };
    let mut free = started;
    for moment in moments {
        let now = time(moment);
        if moment.n == 0 {
            match moment.event {
                MomentKind::Done | MomentKind::Unchanged => run.outcome = Outcome::Done,
                MomentKind::Failed => {
                    run.outcome = Outcome::Failed;
                    // Before the first step: the role file is wrong.
                    if run.spans.iter().all(|s| s.outcome != Outcome::Failed) {
                        let mut span = Span::open("role-file", started);
                        span.close(now, Outcome::Failed);
                        (span.cause, span.remedy) = (moment.text.clone(), moment.remedy.clone());
                        run.spans.push(span);
                    }
                }
                MomentKind::Started | MomentKind::Waiting => {}
            }
            continue;
        }
        if !run.spans.last().is_some_and(|s| s.step == moment.step && s.outcome == Outcome::Running) {
            let at = moment.seconds.map_or(now, |s| now - s).max(free.min(now));
            run.spans
                .push(Span::open(&moment.step, if moment.event == MomentKind::Failed { free } else { at }));
        }
        let Some(span) = run.spans.last_mut() else { continue };
        span.ended = now;
        match moment.event {
            MomentKind::Started => {}
            MomentKind::Waiting => {
                span.silence(now);
                let what = moment.text.clone().unwrap_or_default();
                let idle = is_idle(&what);
                span.waits.push(Wait { from: now, to: now, what, idle });
            }
            MomentKind::Done | MomentKind::Unchanged => {
                // Looking comes before the first word.
                span.started = moment.seconds.map_or(span.started, |s| span.started.min(now - s));
                let outcome =
                    if moment.event == MomentKind::Done { Outcome::Done } else { Outcome::Unchanged };
                span.close(now, outcome);
            }
            MomentKind::Failed => {
                (span.cause, span.remedy) = (moment.text.clone(), moment.remedy.clone());
                span.close(now, Outcome::Failed);
            }
        }
        free = now;
    }
    run
}

impl Span {
    fn open(step: &str, at: f64) -> Self {
        Self {
            step: step.to_owned(),
            title: None,
            started: at,
            ended: at,
            outcome: Outcome::Running,
            again: false,
            waits: Vec::new(),
            cause: None,
            remedy: None,
        }
    }

    fn silence(&mut self, now: f64) {
        if let Some(wait) = self.waits.last_mut() {
            wait.to = now;
        }
    }

    fn close(&mut self, now: f64, outcome: Outcome) {
        self.silence(now);
        self.ended = now;
        self.outcome = outcome;
    }
}

/// Some of what steps say while they last is about what they do, not about what they wait for.
fn is_idle(what: &str) -> bool {
    let work = what.starts_with("kubeadm ") && what.ends_with(" runs");
    let remark =
        ["warning: ", "removing ", "an earlier kubeadm ", "the cluster exists already", "somebody changed "];
    !work && !remark.iter().any(|r| what.starts_with(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(run: u32, up: f64, n: usize, event: MomentKind, seconds: Option<f64>) -> Moment {
        let text = matches!(event, MomentKind::Waiting | MomentKind::Failed).then(|| format!("text {up}"));
        let step = if n == 0 { "cp1".into() } else { format!("step{n}") };
        Moment { run, at: 1000.0 + up, up, n, step, event, text, remedy: None, seconds }
    }

    #[test]
    fn a_step_begins_where_it_began_to_look_and_its_waits_end_where_the_next_word_came() {
        use MomentKind::*;
        let moments = [
            moment(1, 10.0, 0, Started, None),
            moment(1, 12.0, 1, Started, None),
            moment(1, 13.0, 1, Waiting, None),
            moment(1, 17.0, 1, Waiting, None),
            moment(1, 20.0, 1, Done, Some(9.5)),
            moment(1, 20.0, 0, Done, Some(10.0)),
        ];
        let runs = runs(&moments, true);
        assert_eq!((runs[0].kernel, runs[0].outcome), (Some(1000.0), Outcome::Done));
        let span = &runs[0].spans[0];
        assert_eq!((span.started, span.ended, span.outcome), (1010.5, 1020.0, Outcome::Done));
        let waits: Vec<(f64, f64)> = span.waits.iter().map(|w| (w.from, w.to)).collect();
        assert_eq!(waits, [(1013.0, 1017.0), (1017.0, 1020.0)]);
    }

    #[test]
    fn a_run_that_another_follows_without_an_end_was_cut_and_its_step_is_done_again() {
        use MomentKind::*;
        let moments = [
            moment(1, 10.0, 0, Started, None),
            moment(1, 12.0, 1, Started, None),
            moment(2, 8.0, 0, Started, None),
            moment(2, 9.0, 1, Done, Some(0.5)),
            moment(2, 30.0, 2, Started, None),
        ];
        let mut moments = moments.to_vec();
        moments[2..].iter_mut().for_each(|m| m.at += 500.0);
        let runs = runs(&moments, true);
        assert_eq!([runs[0].outcome, runs[0].spans[0].outcome], [Outcome::Cut, Outcome::Cut]);
        assert_eq!((runs[1].kernel, runs[1].outcome), (Some(1500.0), Outcome::Running));
        assert!(runs[1].spans[0].again && !runs[1].spans[1].again);
    }

    #[test]
    fn a_clock_that_is_set_during_a_run_does_not_stretch_it() {
        use MomentKind::*;
        let mut moments = [
            moment(1, 10.0, 0, Started, None),
            moment(1, 12.0, 1, Started, None),
            moment(1, 14.0, 1, Done, Some(2.0)),
        ];
        moments[2].at += 3600.0;
        let runs = runs(&moments, true);
        assert_eq!((runs[0].started, runs[0].ended), (4610.0, 4614.0));
    }

    #[test]
    fn a_wrong_role_file_is_a_failure_of_its_own() {
        let runs = runs(&[moment(1, 5.0, 0, MomentKind::Failed, None)], true);
        assert_eq!(runs[0].outcome, Outcome::Failed);
        assert_eq!(runs[0].spans[0].step, "role-file");
        assert_eq!(runs[0].spans[0].cause.as_deref(), Some("text 5"));
    }
}
