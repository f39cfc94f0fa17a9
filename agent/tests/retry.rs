//! How long a node that waits for its cluster lets pass between two looks, by the fake host's clock.

use std::time::Duration;

use kindling::error::StepError;
use kindling::host::Host;
use kindling::host::fake::Fake;
use kindling::retry::{Attempt, Patience, wait};

/// Waits for an API that is silent for `silent` seconds and then refuses for `refuses`; answers how often it was asked
/// before it could say yes, and for how long it could have.
fn waits(nodes: usize, silent: u64, refuses: u64) -> (usize, Duration) {
    let host = Fake::new();
    let (answers, ready) = (Duration::from_secs(silent), Duration::from_secs(silent + refuses));
    let mut asked = 0;
    let attempt = || {
        if host.now() >= ready {
            return Attempt::Ready(host.now() - ready);
        }
        if host.now() < answers {
            return Attempt::Silent("nobody".into());
        }
        asked += 1;
        Attempt::NotYet("not yet".into())
    };
    let late = |reason| StepError::passing(reason, "");
    let found = wait(&host, Patience::shared(1800, nodes), &mut |_| {}, attempt, late);
    (asked, found.expect("it was ready in time"))
}

#[test]
fn a_small_cluster_is_found_at_once_however_long_it_was_silent() {
    for silent in [0, 17, 600] {
        let (_, late) = waits(4, silent, 0);
        assert!(late < Duration::from_millis(750), "after {silent} s of silence: {late:?}");
        let (_, late) = waits(4, silent, 5);
        assert!(late < Duration::from_millis(2250), "after {silent} s of silence: {late:?}");
    }
}

#[test]
fn a_thousand_nodes_ask_an_api_that_answers_no_more_than_a_few_times_each() {
    let (asked, late) = waits(1003, 17, 12);
    assert!(asked <= 3, "asked {asked} times");
    assert!(late < Duration::from_secs(23), "{late:?}");
}
