//! What a node says of the image that it runs: on its Node, on the console, and in the survey of a cluster.

mod support;

use kindling::apply::apply;
use kindling::banner;
use kindling::facts::Facts;
use kindling::host::fake::Fake;
use kindling::host::{Command, Host};
use kindling::image::Image;
use kindling::plan::plan;
use kindling::role::NodeSpec;
use kindling::status::{State, Status, StepState};
use support::{Told, facts, machine, spec};

fn run(spec: &NodeSpec, host: &Fake, version: &str, root: Option<&str>) -> Status {
    let image = Some(Image { version: version.into(), root_hash: root.map(str::to_owned) });
    let facts = Facts { image, ..facts(spec, host) };
    apply(spec, &facts, &plan(spec, &facts), host, &mut Told::default())
}

fn state(status: &Status) -> StepState {
    status.steps.iter().find(|step| step.id == "image").expect("the step is there").state
}

#[test]
fn a_node_says_its_image_once_and_anew_after_an_update() {
    let (spec, host) = (spec("cp1"), machine("cp1"));
    let says = |key: &str| host.cluster.borrow().node_says.get(key).cloned().unwrap_or_default();
    let first = run(&spec, &host, "1.37.2-old", Some("sha256:aa"));
    assert_eq!((first.state, state(&first)), (State::Done, StepState::Done));
    assert_eq!(says("labels kindling/image"), "1.37.2-old");
    assert_eq!(says("annotations kindling/root-hash"), "sha256:aa");
    assert_eq!(state(&run(&spec, &host, "1.37.2-old", Some("sha256:aa"))), StepState::Unchanged);

    // The same version from another root is not the same image.
    assert_eq!(state(&run(&spec, &host, "1.37.2-old", Some("sha256:bb"))), StepState::Done);
    assert_eq!(says("annotations kindling/root-hash"), "sha256:bb");
    // A hash that is not verified any more must not stay there.
    assert_eq!(state(&run(&spec, &host, "1.37.3-new", None)), StepState::Done);
    assert_eq!(says("labels kindling/image"), "1.37.3-new");
    assert!(says("annotations kindling/root-hash").is_null());
    assert_eq!(state(&run(&spec, &host, "1.37.3-new", None)), StepState::Unchanged);
}

#[test]
fn the_login_banner_names_the_node_its_image_its_state_and_where_to_look() {
    let (spec, host) = (spec("w1"), Fake::new());
    let shown = || {
        let banner = host.text("/run/issue.d/kindling.issue").expect("it is written");
        assert_eq!(host.text("/run/motd.d/kindling").as_ref(), Some(&banner));
        assert!(banner.contains("kindling status") && banner.contains("journalctl -u kindling"), "{banner}");
        banner
    };
    banner::running(&host, &spec, None);
    assert!(shown().contains("Kindling: w1 (worker): it is being brought up\n"), "{}", shown());
    // No cluster ever answers.
    let status = run(&spec, &host, "1.37.2-old", None);
    banner::ended(&host, &status);
    assert!(shown().contains("Kindling: w1 (worker): FAILED in join: the API at"), "{}", shown());
    assert!(shown().contains("  remedy: ") && shown().contains("image 1.37.2-old\n"), "{}", shown());
}

/// What an operator lays into /var/lib/kindling/images: nobody waits for its import, and none that fails stops a node.
#[test]
fn archives_that_come_later_are_imported_beside_all_else() {
    const UNIT: &str = "kindling-import.service";
    let (spec, host) = (spec("w1"), machine("w1"));
    host.cluster_is_up.set(true);
    let images = |status: &Status| {
        assert_eq!(status.state, State::Done, "{:?}", status.failure);
        let step = status.steps.iter().find(|step| step.id == "images").expect("the step is there");
        (step.state, step.detail.clone().unwrap_or_default())
    };
    let again = || images(&run(&spec, &host, "1.37.2-old", None));
    again();
    host.put("/var/lib/kindling/images/later.tar", "");
    let background = "later.tar imported in the background".to_owned();
    assert_eq!(again(), (StepState::Done, background.clone()));
    assert_eq!(again(), (StepState::Unchanged, background.clone()));
    host.run(&Command::new("systemctl", ["stop", UNIT])).expect("it ends");
    let (state, said) = again();
    assert_eq!(state, StepState::Unchanged);
    assert!(said.starts_with("warning: later.tar not imported: `journalctl -u"), "{said}");
    // Another one, and another boot.
    host.put("/var/lib/kindling/images/more.tar", "");
    assert_eq!(again().0, StepState::Done);
    host.boot();
    assert_eq!(again(), (StepState::Done, "later.tar, more.tar imported in the background".into()));
    host.put("/var/lib/kindling/images.imported", "later.tar\nmore.tar\n");
    assert_eq!(again(), (StepState::Unchanged, String::new()));
}
