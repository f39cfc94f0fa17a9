//! What real cloud-init says of the seeds.

mod cluster_support;

use std::fs;

use cluster_support::*;
use kindling::cluster::{Cluster, new, render};
use kindling::role::types::RoleName;

const CLOUD_INIT: &str = "cloud-init";

/// A lecture with every optional part of a seed: a dotted name, a named link, a registry with a login.
fn rich() -> Cluster {
    let text = new::EXAMPLES[1]
        .1
        .replace("# username", "username")
        .replace("[network]\n", "[network]\ninterface = \"eth0\"\n")
        .replace("node1   =", "\"node1.kang.org\" =");
    cluster(&text)
}

#[test]
fn its_schema_accepts_every_user_data() {
    let scratch = Scratch::new();
    let clusters = new::EXAMPLES.map(|(name, _)| example(name));
    for (n, cluster) in clusters.iter().chain([&rich()]).enumerate() {
        let folder = scratch.path(&n.to_string());
        render::all(cluster, &dummies(), &folder, None).unwrap();
        // each call takes a third of a second: one node of a role will do
        let of = |role| cluster.with_role(role).last();
        for node in [RoleName::ControlPlane, RoleName::Worker, RoleName::LoadBalancer, RoleName::Etcd]
            .into_iter()
            .filter_map(of)
        {
            let path = folder.join(node.name.as_str()).join("user-data");
            let Some((good, text)) = run(CLOUD_INIT, &["schema", "--config-file", path.to_str().unwrap()])
            else {
                return;
            };
            assert!(good && !text.contains("deprecat"), "{}: {text}", path.display());
        }
    }
}

/// The images have no netplan: cloud-init's own renderer writes systemd-networkd's files.
#[test]
fn its_networkd_renderer_sets_address_route_and_servers() {
    let scratch = Scratch::new();
    for (n, (cluster, node)) in [(example("lecture"), "node1"), (rich(), "node1.kang.org")].iter().enumerate()
    {
        let folder = scratch.path(&n.to_string());
        render::all(cluster, &dummies(), &folder, None).unwrap();
        let input = folder.join(node).join("network-config");
        let output = scratch.path(&format!("{n}-networkd"));
        let args = ["devel", "net-convert", "--kind", "yaml", "-O", "networkd", "-D", "debian", "-p"];
        let files = [input.to_str().unwrap(), "-d", output.to_str().unwrap()];
        let Some((good, text)) = run(CLOUD_INIT, &[&args[..], &files].concat()) else { return };
        assert!(good, "{text}");
        let folder = output.join("etc/systemd/network");
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let network = fs::read_to_string(&files[0]).unwrap();
        let mac = format!("MACAddress={}", cluster.node(node).unwrap().mac);
        let matches = if n == 0 { mac.as_str() } else { "Name=eth0" };
        for line in [
            matches,
            "Address=10.0.0.104/24",
            "DHCP=no",
            "DNS=180.76.76.76 223.6.6.6",
            "Destination=0.0.0.0/0",
            "Gateway=10.0.0.2",
        ] {
            assert!(network.lines().any(|l| l == line), "no line {line} in\n{network}");
        }
    }
}

/// cloud-init writes the role file that render wrote, to the byte.
#[test]
fn yaml_gives_the_role_file_back() {
    let cluster = rich();
    let script = "import sys, yaml; d = yaml.safe_load(open(sys.argv[1])); f = d['write_files'][0]; \
                  assert f['permissions'] == '0600' and f['owner'] == 'root:root'; \
                  assert f['path'] == '/etc/kindling/role.toml'; print(d['hostname'], d.get('fqdn')); \
                  sys.exit(f['content'] != open(sys.argv[2]).read())";
    let scratch = Scratch::new();
    render::all(&cluster, &real_with_harbor(), &scratch.path("out"), None).unwrap();
    for node in &cluster.nodes {
        let folder = scratch.path("out").join(node.name.as_str());
        let (user_data, role) = (folder.join("user-data"), folder.join("role.toml"));
        let args = ["-c", script, user_data.to_str().unwrap(), role.to_str().unwrap()];
        let Some((good, text)) = run("/usr/bin/python3", &args) else { return };
        if text.contains("No module named 'yaml'") {
            return cluster_support::here::skip("/usr/bin/python3 has no yaml");
        }
        assert!(good, "{}: {text}", node.name);
        if node.name.as_str() == "node1.kang.org" {
            assert_eq!(text, "node1 node1.kang.org\n");
        }
    }
}

/// Names that YAML would take for a number or a switch.
#[test]
fn whatever_the_cluster_file_takes_cloud_init_reads_as_text() {
    let mut text = new::EXAMPLES[1].1.replace("# username", "username");
    let names = ["101", "010", "0x1f", "1e3", "on", "true", "null"];
    for (n, name) in names.iter().enumerate() {
        text += &format!("\n{name} = {{ role = \"worker\", address = \"10.0.0.{}/24\" }}", 120 + n);
    }
    let cluster = cluster(&(text + "\n"));
    let scratch = Scratch::new();
    render::all(&cluster, &real_with_harbor(), &scratch.path("out"), None).unwrap();
    let script = "import sys, yaml; folder = sys.argv[1]; d = yaml.safe_load(open(folder + '/user-data')); \
                  m = yaml.safe_load(open(folder + '/meta-data')); \
                  assert d['hostname'] == m['local-hostname'] == sys.argv[2], (d['hostname'], m)";
    for name in names {
        let folder = scratch.path("out").join(name);
        let args = ["-c", script, folder.to_str().unwrap(), name];
        let Some((good, text)) = run("/usr/bin/python3", &args) else { return };
        if text.contains("No module named 'yaml'") {
            return cluster_support::here::skip("/usr/bin/python3 has no yaml");
        }
        assert!(good, "{name}: {text}");
    }
    let path = scratch.path("out").join("101/user-data");
    let Some((good, text)) = run(CLOUD_INIT, &["schema", "--config-file", path.to_str().unwrap()]) else {
        return;
    };
    assert!(good, "{text}");
}

fn real_with_harbor() -> kindling::cluster::Secrets {
    kindling::cluster::Secrets { registries: dummies().registries, ..REAL.clone() }
}
