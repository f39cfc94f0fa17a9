//! `kindling report`: pictures of recorded formations, byte for byte. `demo` are the status files of three machines that came
//! up together, one of which lost its power later; `qemu` the serial logs of four, by an agent that wrote no times; `vip`
//! the logs of two load balancers, written by hand.

use std::fs;
use std::path::{Path, PathBuf};

use kindling::formation::{Align, Document, HoldEnd, Outcome, Shape, page, read, svg};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formation").join(name)
}

fn recorded(name: &str, how: Align) -> Document {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder(name)).expect(name).map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "log" || e == "json"));
    files.sort();
    read(&files, None, how).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, text).expect("a golden file can be written");
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs: UPDATE_GOLDEN=1 writes it, then read the difference",
        path.display()
    );
}

#[test]
fn the_pictures_are_as_recorded() {
    for name in ["demo", "qemu", "vip"] {
        let document = recorded(name, Align::Clock);
        assert_golden(&folder(name).join("wide.svg"), &svg(&document, Shape::Wide));
        assert_golden(&folder(name).join("narrow.svg"), &svg(&document, Shape::Narrow));
    }
}

#[test]
fn the_steps_of_a_formation_follow_each_other_and_their_waits_lie_in_them() {
    let document = recorded("demo", Align::Clock);
    let names: Vec<&str> = document.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["cp1", "w1", "w2"]);
    assert!(document.nodes.iter().flat_map(|n| &n.runs).all(|r| r.outcome == Outcome::Done));
    for run in document.nodes.iter().flat_map(|n| &n.runs) {
        for pair in run.spans.windows(2) {
            assert!(pair[0].ended <= pair[1].started + 0.01, "{} and {}", pair[0].step, pair[1].step);
        }
        for span in &run.spans {
            assert!(span.waits.iter().all(|w| w.from >= span.started && w.to <= span.ended), "{}", span.step);
        }
    }
    // A worker's join waits for the control plane's API.
    let span = |node: usize, step: &str| {
        document.nodes[node].runs[0].spans.iter().find(|s| s.step == step).expect("the step was recorded")
    };
    let join = span(1, "join");
    let begun = join.waits.iter().find(|w| !w.idle).expect("kubeadm ran");
    assert!(begun.from > span(0, "init").started + 10.0 && join.waited() > 10.0);
}

#[test]
fn what_was_printed_as_json_draws_the_same_picture() {
    let document = recorded("vip", Align::Clock);
    let path = std::env::temp_dir().join(format!("kindling-report-{}.json", std::process::id()));
    fs::write(&path, serde_json::to_string_pretty(&document).expect("JSON")).expect("a file");
    let again = read(std::slice::from_ref(&path), None, Align::Clock);
    fs::remove_file(&path).expect("it was there");
    assert_eq!(svg(&again.expect("it is a document"), Shape::Wide), svg(&document, Shape::Wide));
}

#[test]
fn the_vip_moves_at_a_power_cut_and_back_and_a_failed_step_is_tried_again() {
    let document = recorded("vip", Align::Clock);
    let zero = document.extent().expect("there are runs").0;
    let holds: Vec<_> =
        document.vip.iter().map(|h| (h.node.as_str(), (h.from - zero).round(), h.end)).collect();
    assert_eq!(
        holds,
        [("ha1", 10.0, HoldEnd::Taken), ("ha2", 61.0, HoldEnd::GivenUp), ("ha1", 110.0, HoldEnd::Open)]
    );
    let runs = &document.nodes[1].runs;
    assert_eq!(runs[0].spans[0].outcome, Outcome::Failed);
    assert_eq!(runs[0].spans[0].remedy.as_deref(), Some("render the seed again"));
    assert!(runs[1].spans[0].again);
    let page = page(&document);
    assert!(page.contains("haproxy refuses its configuration: unknown keyword"));
}

#[test]
fn machines_whose_clocks_differ_are_brought_together_by_their_boot() {
    let document = recorded("vip", Align::Boot);
    let kernels: Vec<Option<f64>> = document.nodes.iter().map(|n| n.runs[0].kernel).collect();
    assert!(kernels[0].is_some() && kernels[0] == kernels[1], "{kernels:?}");
    assert!(document.notes[0].starts_with("Times are from the start of each machine's kernel"));
}

#[test]
fn the_page_asks_nobody_for_anything() {
    let page = page(&recorded("demo", Align::Clock));
    for word in ["src=", "href=", "@import", "url(http", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn a_file_that_is_no_record_is_named() {
    let error = read(&[folder("vip").join("wide.svg")], None, Align::Clock).expect_err("an SVG is no record");
    assert!(error.to_string().contains("wide.svg is neither a status file nor a serial log"), "{error}");
}
