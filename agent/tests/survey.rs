//! `kindling status --cluster`, on what the API of a real cluster answered: a control plane and two workers, and its Nodes again
//! after one machine was powered off (`data/survey/record`).

use kindling::survey::{
    Answers, Certificate, Expected, PlaneAnswer, Reached, Refusal, Survey, Token, VipAnswer, judge,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

fn recorded(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/survey").join(name);
    serde_json::from_slice(&std::fs::read(path).expect(name)).expect(name)
}

fn answers() -> Answers {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    let certificate = Certificate { ends: now + Duration::days(364), serial: "1".into() };
    let mut pods = recorded("pods.json");
    let led_to =
        |pod: &mut Value| json!({ "addresses": [pod["status"]["podIP"]], "conditions": { "ready": true } });
    let endpoints: Vec<Value> = dns_pods(&mut pods).map(led_to).collect();
    Answers {
        now,
        server: "10.0.0.10:6443".into(),
        endpoint_error: None,
        version: recorded("version.json"),
        nodes: recorded("nodes.json"),
        dns_slices: json!({ "items": [{ "endpoints": endpoints }] }),
        pods,
        kubeadm: Some(recorded("kubeadm-config.json")),
        coredns: Some(json!({ "spec": { "replicas": 2 } })),
        tokens: vec![Token { id: "abcdef".into(), ends: Some(now + Duration::hours(20)) }],
        readyz: Ok("[+]ping ok\n[+]etcd ok\nreadyz check passed\n".into()),
        ca: Some(now + Duration::days(3600)),
        admin: Some(now + Duration::days(300)),
        forwarded: false,
        planes: vec![PlaneAnswer { node: "cp1".into(), certificate: Ok(certificate) }],
        vip: Some(VipAnswer { address: "10.0.0.10".into(), holder: Ok(("cp1".into(), "it says so")) }),
        expected: ["cp1", "w1", "w2"]
            .map(|name| Expected { name: name.into(), control_plane: name == "cp1" })
            .to_vec(),
        external_etcd: Vec::new(),
    }
}

fn found(survey: &Survey) -> Vec<String> {
    survey.findings.iter().map(|f| format!("{}: {}", f.about, f.what)).collect()
}

#[test]
fn a_whole_cluster_is_well() {
    let survey = judge(&answers());
    assert_eq!(found(&survey), Vec::<String>::new());
    assert!(survey.well);
    let text = survey.to_string();
    assert!(text.ends_with("all is well"), "{text}");
    assert!(text.contains("cp1             ok           ok            ok          ok"), "{text}");
    assert!(text.contains("VIP 10.0.0.10: cp1"), "{text}");
}

#[test]
fn a_machine_that_is_off_is_named_once_and_its_pods_are_not() {
    let mut answers = answers();
    answers.nodes = recorded("nodes-off.json");
    let survey = judge(&answers);
    assert_eq!(found(&survey), ["w2: the Node is not Ready: Kubelet stopped posting node status."]);
    assert!(!survey.well && survey.findings[0].remedy.contains("kindling status"));
}

/// One change to what was recorded, and what is found then.
fn after(change: impl FnOnce(&mut Answers)) -> Vec<String> {
    let mut answers = answers();
    change(&mut answers);
    let survey = judge(&answers);
    assert!(survey.findings.iter().all(|f| !f.remedy.is_empty()));
    found(&survey)
}

fn node<'a>(answers: &'a mut Answers, name: &str) -> &'a mut Value {
    let items = answers.nodes["items"].as_array_mut().expect("a list");
    items.iter_mut().find(|n| n["metadata"]["name"] == name).expect("the node is there")
}

fn pod<'a>(answers: &'a mut Answers, name: &str) -> &'a mut Value {
    let items = answers.pods["items"].as_array_mut().expect("a list");
    items
        .iter_mut()
        .find(|p| p["metadata"]["name"].as_str().is_some_and(|n| n.starts_with(name)))
        .expect(name)
}

#[test]
fn a_component_that_was_started_again_is_told_with_its_times_and_to_wait_for() {
    let mut answers = answers();
    pod(&mut answers, "etcd-")["status"] = json!({
        "phase": "Running",
        "containerStatuses": [{ "ready": false, "state": { "running": { "startedAt": "2026-11-29T08:00:20Z" } },
            "lastState": { "terminated": { "exitCode": 255, "finishedAt": "2026-11-29T08:00:03Z" } } }],
    });
    let survey = judge(&answers);
    assert_eq!(
        found(&survey),
        [
            "etcd on cp1: ended with exit code 255 at 2026-11-29T08:00:03Z, runs since 2026-11-29T08:00:20Z, not ready"
        ]
    );
    assert!(survey.findings[0].remedy.starts_with("wait a minute"), "{}", survey.findings[0].remedy);
}

#[test]
fn each_fault_is_told() {
    let kubelet = |version: &'static str| {
        after(move |a| node(a, "w1")["status"]["nodeInfo"]["kubeletVersion"] = version.into())
    };
    assert_eq!(kubelet("v1.38.0"), ["w1: its kubelet v1.38.0 is newer than the API server v1.37.2"]);
    assert_eq!(kubelet("v1.33.9"), ["w1: its kubelet v1.33.9 is too old for the API server v1.37.2"]);
    assert!(kubelet("v1.34.0").is_empty());

    let missing = after(|a| a.expected.push(Expected { name: "w3".into(), control_plane: false }));
    assert_eq!(missing, ["w3: is in the cluster file, but no Node of this name is in the API"]);

    let cordoned = after(|a| node(a, "w1")["spec"]["unschedulable"] = true.into());
    assert_eq!(cordoned, ["w1: cordoned: no new pod is placed on it"]);

    let pressed = after(|a| {
        let list = node(a, "w1")["status"]["conditions"].as_array_mut().expect("a list");
        list.iter_mut().filter(|c| c["type"] == "DiskPressure").for_each(|c| {
            (c["status"], c["message"]) = ("True".into(), "the disk is full".into());
        });
    });
    assert_eq!(pressed, ["w1: DiskPressure: the disk is full"]);

    let etcd = after(|a| {
        pod(a, "etcd-")["status"] = json!({
            "phase": "Running",
            "containerStatuses": [{ "ready": false, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "exitCode": 2 } } }],
        });
    });
    assert_eq!(etcd, ["etcd on cp1: CrashLoopBackOff, ended with exit code 2"]);

    let gone = after(|a| {
        let items = a.pods["items"].as_array_mut().expect("a list");
        items.retain(|p| p["metadata"]["labels"]["component"] != "kube-scheduler");
    });
    assert_eq!(gone, ["kube-scheduler on cp1: missing"]);

    let pending = after(|a| {
        let dns = pod(a, "coredns-");
        dns["spec"]["nodeName"] = Value::Null;
        dns["status"] = json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }] });
    });
    assert!(pending.len() == 1 && pending[0].ends_with(": 0/3 nodes are available"), "{pending:?}");

    let readyz = after(|a| a.readyz = Ok("[+]ping ok\n[-]etcd failed: reason withheld\n".into()));
    assert_eq!(readyz, ["API: not ready: etcd failed: reason withheld"]);

    let noted = after(|a| {
        let config = a.kubeadm.as_mut().expect("it was recorded");
        let text =
            config["data"]["ClusterConfiguration"].as_str().expect("text").replace("v1.37.2", "v1.36.3");
        config["data"]["ClusterConfiguration"] = text.into();
    });
    assert_eq!(noted, ["kubeadm-config: says 1.36, the API server is v1.37.2"]);
}

/// What CoreDNS ends with, as the API has it.
fn looping() -> Value {
    json!({ "phase": "Running", "containerStatuses": [
        { "ready": false, "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] })
}

fn dns_pods(pods: &mut Value) -> impl Iterator<Item = &mut Value> {
    let items = pods["items"].as_array_mut().expect("a list");
    items.iter_mut().filter(|pod| pod["metadata"]["labels"]["k8s-app"] == "kube-dns")
}

#[test]
fn cluster_dns_that_is_not_available_is_told_once_and_a_part_of_it_by_its_pod() {
    let all = after(|a| dns_pods(&mut a.pods).for_each(|pod| pod["status"] = looping()));
    assert_eq!(all, ["cluster DNS: not available: CrashLoopBackOff"]);

    let one = after(|a| dns_pods(&mut a.pods).take(1).for_each(|pod| pod["status"] = looping()));
    assert!(one.len() == 1 && one[0].starts_with("pod coredns-"), "{one:?}");

    let unled = after(|a| a.dns_slices = json!({ "items": [] }));
    assert!(unled.len() == 1 && unled[0].contains("the Service kube-dns does not lead to them"), "{unled:?}");

    let gone = after(|a| {
        a.coredns = None;
        a.pods["items"]
            .as_array_mut()
            .expect("a list")
            .retain(|p| p["metadata"]["labels"]["k8s-app"] != "kube-dns");
    });
    assert_eq!(gone, ["cluster DNS: not available: there is no Deployment coredns in kube-system"]);

    let mut answers = answers();
    answers.coredns = None;
    dns_pods(&mut answers.pods).for_each(|pod| pod["metadata"]["labels"] = json!({}));
    let config = answers.kubeadm.as_mut().expect("it was recorded");
    config["data"]["ClusterConfiguration"] = "dns:\n  disabled: true\nkubernetesVersion: v1.37.2\n".into();
    let survey = judge(&answers);
    assert!(survey.well && survey.to_string().contains("cluster DNS: disabled"), "{survey}");
}

#[test]
fn cluster_dns_on_one_machine_alone_is_noted_where_another_one_could_have_a_part_of_it() {
    let mut answers = answers();
    for pod in dns_pods(&mut answers.pods) {
        pod["spec"]["nodeName"] = "cp1".into();
        pod["spec"]["affinity"] = json!({ "podAntiAffinity": {} });
    }
    let survey = judge(&answers);
    assert!(
        survey.well && survey.notes.iter().any(|n| n.starts_with("all CoreDNS pods run on cp1")),
        "{survey}"
    );
}

#[test]
fn nodes_of_one_image_version_have_one_root_and_versions_may_differ() {
    let say = |a: &mut Answers, name: &str, version: &str, root: &str| {
        let metadata = &mut node(a, name)["metadata"];
        metadata["labels"]["kindling/image"] = version.into();
        metadata["annotations"]["kindling/root-hash"] = root.into();
    };
    let told = after(|a| {
        say(a, "cp1", "1.37.2-a", "sha256:aa");
        say(a, "w1", "1.37.2-a", "sha256:bb");
    });
    assert_eq!(told, ["image 1.37.2-a: not one and the same root: cp1 sha256:aa; w1 sha256:bb"]);

    let mut answers = answers();
    say(&mut answers, "cp1", "1.37.2-a", "sha256:aa");
    say(&mut answers, "w1", "1.37.3-b", "sha256:bb");
    say(&mut answers, "w2", "1.37.2-a", "sha256:aa");
    let survey = judge(&answers);
    assert!(survey.well, "{survey}");
    assert!(survey.notes.contains(&"2 images: 1.37.2-a on cp1, w2; 1.37.3-b on w1".to_owned()), "{survey}");
    assert!(survey.to_string().contains("1.37.3-b"), "{survey}");
}

#[test]
fn certificates_near_their_end_and_of_another_ca_are_told_and_an_unreachable_server_is_not_a_fault() {
    let soon = after(|a| a.admin = Some(a.now + Duration::days(12)));
    assert_eq!(soon, ["this kubeconfig: ends in 12 days"]);
    let ended = after(|a| a.admin = Some(a.now - Duration::days(1)));
    assert_eq!(ended, ["this kubeconfig: has ended"]);
    let stranger = after(|a| a.planes[0].certificate = Err(Refusal::Bad("UnknownIssuer".into())));
    assert_eq!(stranger, ["API server of cp1: its certificate is not good: UnknownIssuer"]);
    let silent = after(|a| a.planes[0].certificate = Err(Refusal::Unreachable("timed out".into())));
    assert!(silent.is_empty());
}

#[test]
fn a_token_that_has_ended_is_no_fault_but_is_said() {
    let mut answers = answers();
    answers.tokens[0].ends = Some(answers.now - Duration::hours(1));
    let survey = judge(&answers);
    assert!(survey.well && survey.notes.iter().any(|n| n.starts_with("no bootstrap token is valid")));
}

#[test]
fn one_member_of_an_external_etcd_that_is_silent_is_told_all_of_them_are_only_out_of_reach() {
    let members = |silent: usize| {
        after(|a| {
            a.external_etcd = (0..3)
                .map(|n| Reached { name: format!("etcd{n}"), error: (n < silent).then(|| "refused".into()) })
                .collect();
        })
    };
    assert_eq!(members(1), ["etcd0: etcd does not listen: refused"]);
    assert!(members(3).is_empty());
}

#[test]
fn the_document_shows_what_is_printed() {
    let mut answers = answers();
    answers.nodes = recorded("nodes-off.json");
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/day-two.md");
    let page = std::fs::read_to_string(page).expect("the document");
    let text = judge(&answers).to_string();
    assert!(page.contains(&format!("```text\n{text}\n```")), "docs/day-two.md does not show\n{text}");
}
