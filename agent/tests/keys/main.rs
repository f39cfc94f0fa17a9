//! Whatever a cluster file accepts reaches the machines: each key leaves a trace in the plan of every supported version
//! of Kubernetes with every runtime, or is refused for it with the reason. A key without a row here fails.

#[path = "../cluster_support/mod.rs"]
mod cluster_support;
mod made;
mod registries;
mod samples;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_support::dummies;
use kindling::apply::{Observer, apply};
use kindling::cluster::{Cluster, Secrets, render};
use kindling::help;
use kindling::host::fake::Fake;
use kindling::input::Source;
use kindling::plan::plan;
use kindling::role::types::{RuntimeName, Secret};
use kindling::role::{NEWEST_MINOR, NodeSpec, OLDEST_KUBERNETES};
use kindling::status::ConsoleLine;
use made::{Made, cluster_file, facts};
use samples::{BASE, WAITS, WITHOUT_TRACE, head, rows};

const MINORS: std::ops::RangeInclusive<u32> = OLDEST_KUBERNETES.minor..=NEWEST_MINOR;

/// A runtime, and containerd's version.
pub type Runtime = (RuntimeName, (u32, u32));

const RUNTIMES: [Runtime; 7] = [
    (RuntimeName::Containerd, (1, 7)),
    (RuntimeName::Containerd, (2, 0)),
    (RuntimeName::Containerd, (2, 1)),
    (RuntimeName::Containerd, (2, 3)),
    (RuntimeName::Containerd, (2, 4)),
    (RuntimeName::Docker, (1, 7)),
    (RuntimeName::Crio, (1, 7)),
];

#[test]
fn every_key_has_a_sample() {
    let known: BTreeSet<String> =
        help::keys().into_iter().filter(|key| !key.table).map(|key| key.key).collect();
    let mut shown: BTreeSet<String> = WITHOUT_TRACE.iter().map(|(key, _)| (*key).to_owned()).collect();
    shown.extend(WAITS.map(str::to_owned));
    shown.extend(rows(32, RUNTIMES[0]).iter().map(|row| row.key.to_owned()));
    assert_eq!(shown, known);
}

#[test]
fn every_key_reaches_the_machines_of_every_version_and_runtime_or_is_refused() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for minor in MINORS {
        for runtime in RUNTIMES {
            let head = head(minor, 1, runtime.0);
            for row in rows(minor, runtime) {
                let what = format!("1.{minor}, {runtime:?}: {} on {}", row.key, row.node);
                let made = Made::new(&cluster_file(&[BASE, &head, &row.sample]), row.node, runtime.1);
                seen += 1;
                match (made, row.refused) {
                    (Err(said), Some(because)) if said.contains(because) => {}
                    (Err(said), _) => wrong.push(format!("{what}: refused: {said}")),
                    (Ok(_), Some(because)) => wrong.push(format!("{what}: not refused ({because})")),
                    (Ok(None), None) => wrong.push(format!("{what}: no such machine")),
                    (Ok(Some(made)), None) => {
                        let base =
                            Made::new(&cluster_file(&[BASE, &head, &row.without]), row.node, runtime.1);
                        let base = base.unwrap_or_else(|said| panic!("{what}: {said}"));
                        for (place, trace) in &row.traces {
                            if !made.text(*place).contains(trace.as_str()) {
                                wrong.push(format!(
                                    "{what}: {trace:?} is not in {place:?}:\n{}",
                                    made.text(*place)
                                ));
                            }
                            if base.as_ref().is_some_and(|base| base.text(*place).contains(trace.as_str())) {
                                wrong.push(format!("{what}: {trace:?} is in {place:?} without it, too"));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 2000, "only {seen} samples");
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
}

/// A worker whose cluster never answers, and one whose Node never becomes Ready.
#[test]
fn a_machine_waits_as_long_as_its_deadlines_say() {
    struct Silent;
    impl Observer for Silent {
        fn tell(&mut self, _: &ConsoleLine) {}
    }
    for (key, cluster_is_up, step) in [("cluster", false, "join"), ("ready", true, "ready")] {
        for seconds in [77, 777] {
            let deadline = format!("[deadlines]\n{key} = {seconds}");
            let text = cluster_file(&[BASE, &head(37, 1, RuntimeName::Containerd), &deadline]);
            let (cluster, _) = Cluster::parse(Source::new("cluster.toml", text)).expect("it is right");
            let role = render::role_file(&cluster, &dummies(), cluster.node("w1").expect("it is there"));
            let spec = NodeSpec::parse(Source::new("role.toml", role.to_toml())).expect("it is right").0;
            let host = Fake::new();
            host.put("/etc/kindling/role.toml", &role.to_toml());
            host.cluster_is_up.set(cluster_is_up);
            host.cluster.borrow_mut().lacks_network = true;
            let facts = facts(&spec, (1, 7));
            let status = apply(&spec, &facts, &plan(&spec, &facts), &host, &mut Silent);
            let failure = status.failure.expect("it waits in vain");
            assert_eq!(failure.step, step, "{key}: {failure:?}");
            assert!(failure.cause.contains(&format!("(waited {seconds} s)")), "{key}: {failure:?}");
        }
    }
}

/// A containerd that has no place for logins any more gets none in silence.
#[test]
fn a_login_that_containerd_would_not_read_is_refused() {
    let login = "[[registries]]\nhost = \"marked.test\"\nusername = \"marked-user\"";
    let file = |sample: &str| cluster_file(&[BASE, &head(37, 1, RuntimeName::Containerd), sample]);
    let said = Made::new(&file(login), "w1", (2, 7)).err().expect("it is refused");
    assert!(said.contains("takes no logins to registries from its configuration"), "{said}");
    assert!(Made::new(&file(""), "w1", (2, 7)).is_ok());
    assert!(Made::new(&file(login), "lb1", (2, 7)).is_ok_and(|made| made.is_none()));
}

/// containerd shows what the kubelet brings to each host that it asks, mirrors too.
#[test]
fn with_containerd_the_kubelet_has_no_logins_to_give_away() {
    let login = "[[registries]]\nhost = \"docker.io\"\nmirrors = [\"https://mirror.test\"]\nusername = \"marked-user\"";
    for runtime in RUNTIMES.into_iter().filter(|(name, _)| *name == RuntimeName::Containerd) {
        let text = cluster_file(&[BASE, &head(37, 1, runtime.0), login]);
        let made = Made::new(&text, "w1", runtime.1).expect("it is right").expect("it is there");
        assert!(!made.files.contains_key("/var/lib/kubelet/config.json"), "{runtime:?}");
    }
}

/// What is printed of a plan has no password, however its file writes it.
#[test]
fn no_form_of_a_password_is_shown() {
    let login = "[[registries]]\nhost = \"marked.test\"\nusername = \"marked-user\"";
    for runtime in RUNTIMES {
        let text = cluster_file(&[BASE, &head(37, 1, runtime.0), login]);
        let (cluster, _) = Cluster::parse(Source::new("cluster.toml", text)).expect("it is right");
        for password in ["pass\"word", "a'\"b\\c", "plain-word"] {
            let registries = [("marked.test".to_owned(), Secret::new(password))].into();
            let secrets = Secrets { registries, ..dummies() };
            let role = render::role_file(&cluster, &secrets, cluster.node("w1").expect("it is there"));
            let spec = NodeSpec::parse(Source::new("role.toml", role.to_toml())).expect("it is right").0;
            let plan = plan(&spec, &facts(&spec, runtime.1));
            let mut logins = 0;
            for file in plan.iter().flat_map(|step| step.files()) {
                let shown = spec.mask(&file.content);
                logins += usize::from(shown != file.content && !shown.contains("PRIVATE KEY"));
                let forms = [
                    password.to_owned(),
                    STANDARD.encode(format!("marked-user:{password}")),
                    toml::Value::from(password).to_string(),
                    serde_json::Value::from(password).to_string(),
                ];
                for form in forms {
                    assert!(!shown.contains(&form), "{runtime:?}: {form} in {}", file.path.display());
                }
            }
            assert!(logins > 0, "{runtime:?}: no file has the login");
        }
    }
}
