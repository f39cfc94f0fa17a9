//! What `kindling render` writes: byte-exact goldens, who may know what, and the files on disk.

mod cluster_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cluster_support::*;
use kindling::cluster::seed::Seed;
use kindling::cluster::{Cluster, kubeconfig, new, render};
use kindling::input::Source;
use kindling::role::NodeSpec;
use kindling::role::types::*;

fn seed(cluster: &Cluster, node: &str) -> Seed {
    let node = cluster.node(node).unwrap();
    Seed::new(cluster, node, &render::role_file(cluster, &dummies(), node))
}

#[test]
fn seeds_are_as_recorded() {
    for (example_name, nodes) in [
        ("lecture", &["master1", "master2", "node1", "ha1", "ha2"][..]),
        ("stacked", &["master2", "node2"]),
        ("single", &["master1", "node1"]),
        ("demo", &["cp1", "w1"]),
        ("external-etcd", &["etcd1", "master2", "node1", "ha1"]),
    ] {
        let cluster = example(example_name);
        for node in nodes {
            let seed = seed(&cluster, node);
            let folder = data("golden").join(example_name).join(node);
            assert_golden(&folder.join("role.toml"), seed.role.expose());
            assert_golden(&folder.join("meta-data"), &seed.meta_data);
            assert_golden(&folder.join("network-config"), &seed.network_config);
        }
        let text = kubeconfig(&cluster, &dummies());
        assert_golden(&data("golden").join(example_name).join("admin.conf"), text.expose());
    }
}

/// The folder `cloud-init/` shows one user-data per role; each is what render writes for the lecture, and
/// for its second topology.
#[test]
fn documented_user_data_is_what_render_writes() {
    let cluster = example("lecture");
    let external = example("external-etcd");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud-init");
    for (role, node) in [("control-plane", "master1"), ("worker", "node1"), ("load-balancer", "ha1")] {
        assert_golden(&folder.join(format!("{role}.yaml")), seed(&cluster, node).user_data.expose());
    }
    assert_golden(&folder.join("etcd.yaml"), seed(&external, "etcd1").user_data.expose());
}

#[test]
fn every_role_file_of_every_example_is_a_valid_node() {
    for (name, _) in new::EXAMPLES {
        let cluster = example(name);
        let mut firsts = 0;
        for node in &cluster.nodes {
            let text = render::role_file(&cluster, &REAL, node).to_toml();
            let (spec, report) =
                NodeSpec::parse(Source::new("role.toml", text)).unwrap_or_else(|r| panic!("{name}: {r}"));
            assert!(report.problems.is_empty(), "{name} {}: {report}", node.name);
            assert_eq!(spec.role_name(), node.role);
            firsts += usize::from(spec.control_plane().is_some_and(|c| c.first));
        }
        assert_eq!(firsts, 1, "{name}");
    }
}

#[test]
fn a_node_knows_nothing_that_its_role_does_not_need() {
    let cluster = example("lecture");
    for node in &cluster.nodes {
        let text = render::role_file(&cluster, &REAL, node).to_toml();
        let keys = text.matches("PRIVATE KEY").count();
        let knows = |secret: &str| text.contains(secret);
        let is = |role| node.role == role;
        assert_eq!(
            keys,
            if is(RoleName::ControlPlane) { 8 } else { 0 },
            "{}: BEGIN and END of 4 keys",
            node.name
        );
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), if is(RoleName::ControlPlane) { 3 } else { 1 });
        assert_eq!(knows(REAL.token.expose()), !is(RoleName::LoadBalancer), "{}", node.name);
        assert_eq!(knows(REAL.vrrp_password.expose()), is(RoleName::LoadBalancer), "{}", node.name);
        assert_eq!(knows(REAL.stats_password.expose()), is(RoleName::LoadBalancer), "{}", node.name);
        assert!(!knows(REAL.admin.certificate.lines().nth(1).unwrap()) || keys == 0);
        assert!(!knows(REAL.admin.key.expose().lines().nth(1).unwrap()));
    }
}

#[test]
fn an_etcd_machine_knows_etcds_ca_and_the_members_and_no_secret_of_kubernetes() {
    let cluster = example("external-etcd");
    let members = ["etcd1", "etcd2", "etcd3"].map(|name| cluster.node(name).unwrap());
    for node in &cluster.nodes {
        let file = render::role_file(&cluster, &REAL, node);
        let text = file.to_toml();
        let (etcd, control_plane) = (node.role == RoleName::Etcd, node.role == RoleName::ControlPlane);
        let key = |secret: &Secret| text.contains(secret.expose());
        assert_eq!(key(&REAL.etcd_ca.key), etcd || control_plane, "{}", node.name);
        for secret in [&REAL.ca.key, &REAL.front_proxy_ca.key, &REAL.service_account.key] {
            assert_eq!(key(secret), control_plane, "{}", node.name);
        }
        assert_eq!(text.contains(REAL.token.expose()), node.role.runs_kubelet(), "{}", node.name);
        assert!(file.registries.is_empty() || !etcd);
        let known = file.etcd.map(|etcd| etcd.members).unwrap_or_default();
        let expected = members.map(|m| (m.name.clone(), m.address.ip()));
        assert_eq!(known.into_iter().collect::<Vec<_>>().len(), if etcd || control_plane { 3 } else { 0 });
        assert!(!etcd || render::role_file(&cluster, &REAL, node).etcd.unwrap().members == expected.into());
    }
}

#[test]
fn only_machines_that_may_hold_the_vip_speak_vrrp_and_no_two_tie() {
    for (name, holders) in [("lecture", 2), ("stacked", 3), ("demo", 1), ("single", 0)] {
        let cluster = example(name);
        let mut priorities = Vec::new();
        for node in &cluster.nodes {
            let file = render::role_file(&cluster, &REAL, node);
            if let Some(vrrp) = file.vrrp {
                assert_eq!(vrrp.peers.len(), holders - 1);
                assert!(!vrrp.peers.contains(&node.address.ip()));
                priorities.push(vrrp.priority);
            }
        }
        assert_eq!(priorities, (0..holders).map(|n| 100 - n as u8).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn registries_get_their_passwords_from_the_secrets() {
    let text = new::EXAMPLES[1].1.replace("# username", "username");
    let cluster = cluster(&text);
    let worker = render::role_file(&cluster, &dummies(), cluster.node("node1").unwrap());
    let harbor = worker.registries.iter().find(|r| r.host == "harbor.kang.org").unwrap();
    assert_eq!(harbor.password.as_ref().unwrap().expose(), "dummyharbor");
    let hub = worker.registries.iter().find(|r| r.host == "docker.io").unwrap();
    assert_eq!(hub.password, None);
    let balancer = render::role_file(&cluster, &dummies(), cluster.node("ha1").unwrap());
    assert!(balancer.registries.is_empty());
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_others_do_not() {
    let bytes = |name: &str, secrets| -> Vec<_> {
        let outputs = render::outputs(&example(name), secrets, None).unwrap();
        outputs.into_iter().map(|o| (o.path, o.bytes)).collect()
    };
    let (one, two) = (dummies(), dummies());
    assert!(bytes("lecture", &one) == bytes("lecture", &two));
    assert_ne!(seed(&example("lecture"), "ha1").meta_data, {
        let mut other = dummies();
        other.vrrp_password = Secret::new("another1");
        let cluster = example("lecture");
        let node = cluster.node("ha1").unwrap();
        Seed::new(&cluster, node, &render::role_file(&cluster, &other, node)).meta_data
    });
}

#[test]
fn machines_have_different_addresses_that_survive_a_moved_line() {
    let cluster = example("lecture");
    let macs: BTreeSet<_> = cluster.nodes.iter().map(|n| n.mac).collect();
    assert_eq!(macs.len(), cluster.nodes.len());
    assert!(macs.iter().all(|mac| mac.to_string().starts_with("52:54:00:")));
    let mut lines: Vec<_> = new::EXAMPLES[1].1.lines().collect();
    let last = lines.pop().unwrap();
    let place = lines.iter().position(|l| *l == "[nodes]").unwrap();
    lines.insert(place + 1, last);
    let moved = self::cluster(&lines.join("\n"));
    for node in &cluster.nodes {
        assert_eq!(moved.node(node.name.as_str()).unwrap().mac, node.mac);
    }
}

#[test]
fn a_derived_mac_address_makes_room_for_a_given_one() {
    let before = example("demo");
    let derived = before.node("w1").unwrap().mac;
    let text = new::EXAMPLES[4].1.replace("10.0.0.11/24\"", &format!("10.0.0.11/24\", mac = \"{derived}\""));
    let after = cluster(&text);
    assert_eq!(after.node("cp1").unwrap().mac, derived);
    assert_ne!(after.node("w1").unwrap().mac, derived);
}

#[test]
fn every_file_of_the_examples_can_be_asked_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            new::EXAMPLES.iter().any(|(known, _)| *known == name),
            "{name} is not offered by `kindling new`"
        );
    }
}

#[test]
fn files_are_private_and_a_second_render_changes_nothing() {
    let scratch = Scratch::new();
    let folder = scratch.path("out");
    let cluster = example("demo");
    let written = render::all(&cluster, &REAL, &folder, None).unwrap();
    assert_eq!(written.len(), 1 + 5 * cluster.nodes.len());
    assert!(written.iter().all(|w| w.changed));
    fs::write(folder.join("cp1/notes"), "the operator's own").unwrap();
    for file in &written {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&file.path), 0o600, "{}", file.path.display());
        assert_eq!(mode(file.path.parent().unwrap()), 0o700);
    }
    let again = render::all(&cluster, &REAL, &folder, None).unwrap();
    assert!(again.iter().all(|w| !w.changed));
    assert!(folder.join("cp1/notes").exists());
    let leftovers = fs::read_dir(folder.join("cp1")).unwrap().count();
    assert_eq!(leftovers, 6, "5 files and the notes, no temporary ones");
}

#[test]
fn one_node_alone_can_be_rendered_and_a_wrong_name_writes_nothing() {
    let scratch = Scratch::new();
    let cluster = example("demo");
    let error = render::all(&cluster, &REAL, &scratch.path("none"), Some("w9")).unwrap_err();
    assert_eq!(error.to_string(), "the cluster has no node `w9`\n  remedy: choose one of cp1, w1");
    assert!(!scratch.path("none").exists());
    render::all(&cluster, &REAL, &scratch.path("one"), Some("w1")).unwrap();
    let names: Vec<_> = fs::read_dir(scratch.path("one")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["w1"]);
}

#[test]
fn the_seed_disk_is_labelled_and_holds_the_three_files() {
    let cluster = example("lecture");
    let seed = seed(&cluster, "master1");
    let image = seed.disk().unwrap();
    assert_eq!(image.len(), 1 << 20);
    let volume =
        fatfs::FileSystem::new(std::io::Cursor::new(image.clone()), fatfs::FsOptions::new()).unwrap();
    for (name, text) in [
        ("user-data", seed.user_data.expose()),
        ("meta-data", &seed.meta_data),
        ("network-config", &seed.network_config),
    ] {
        let mut read = String::new();
        volume.root_dir().open_file(name).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, text, "{name}");
    }
    let scratch = Scratch::new();
    fs::write(scratch.path("seed.img"), image).unwrap();
    let path = scratch.path("seed.img");
    if let Some((good, text)) = run("blkid", &["-p", path.to_str().unwrap()]) {
        assert!(good && text.contains(" LABEL=\"CIDATA\"") && text.contains(" TYPE=\"vfat\""), "{text}");
    }
}

/// A character for each byte: texts are searched much faster than bytes.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Every secret in each form that a file could have it in: as text, in base64 (once and twice), DER and hex.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let mut forms = vec![secret.trim_end().as_bytes().to_vec(), STANDARD.encode(secret).into_bytes()];
    let body: String = secret.lines().filter(|line| !line.starts_with("-----")).collect();
    if body != secret {
        // PEM: its lines and its body alone, and what they encode
        let der = STANDARD.decode(&body).unwrap();
        let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
        // the private number lies in the middle of it, whatever stands around
        let middle = der[der.len() / 3..der.len() / 3 + 24].to_vec();
        forms.extend(
            secret.lines().filter(|l| l.len() >= 40 && !l.starts_with('-')).map(|l| l.as_bytes().to_vec()),
        );
        forms.extend([hex.to_uppercase().into_bytes(), hex.into_bytes(), body.into_bytes(), middle, der]);
    } else {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.push(hex.into_bytes());
    }
    forms
}

#[test]
fn the_seeds_of_workers_and_load_balancers_hold_no_key_in_any_form() {
    for name in ["lecture", "stacked", "external-etcd", "demo"] {
        let cluster = example(name);
        let keys = [
            ("the CA's key", REAL.ca.key.expose()),
            ("the front proxy CA's key", REAL.front_proxy_ca.key.expose()),
            ("etcd's CA's key", REAL.etcd_ca.key.expose()),
            ("the service accounts' key", REAL.service_account.key.expose()),
            ("the administrator's key", REAL.admin.key.expose()),
        ];
        let (_, token) = REAL.token.expose().split_once('.').unwrap();
        for node in &cluster.nodes {
            let worker = node.role == RoleName::Worker;
            let balancer = node.role == RoleName::LoadBalancer;
            if !worker && !balancer {
                continue;
            }
            let mut secrets: Vec<(&str, &str)> = keys.to_vec();
            if balancer {
                secrets.push(("the token", token));
            } else {
                secrets.push(("the VRRP password", REAL.vrrp_password.expose()));
                secrets.push(("the password of the page", REAL.stats_password.expose()));
            }
            for output in render::outputs(&cluster, &REAL, Some(node.name.as_str())).unwrap() {
                let text = latin1(&output.bytes);
                for (what, secret) in &secrets {
                    for form in forms(secret) {
                        let found = text.contains(&latin1(&form));
                        assert!(!found, "{name}: {what} is in {}", output.path.display());
                    }
                }
            }
        }
        // The search finds what is there.
        let first = cluster.nodes.iter().find(|n| n.first).unwrap();
        let outputs = render::outputs(&cluster, &REAL, Some(first.name.as_str())).unwrap();
        let disk = outputs.iter().find(|o| o.path.ends_with("seed.img")).unwrap();
        let text = latin1(&disk.bytes);
        assert!(forms(REAL.ca.key.expose()).iter().any(|form| text.contains(&latin1(form))));
    }
}
