//! What `kindling render --target` writes: goldens, who may know what, and what real tools say of it.

mod cluster_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_support::*;
use kindling::cluster::hypervisor::{self, Target};
use kindling::cluster::seed::Seed;
use kindling::cluster::{Cluster, Secrets, render};
use kindling::role::types::RoleName;

const VSPHERE: &str = r#"
[vsphere]
datacenter = "dc1"
datastore = "vsanDatastore"
folder = "/dc1/vm/kube's"
resource_pool = "/dc1/host/cluster1/Resources"
network = "VM Network"
cpus = 4
memory_mb = 8192
disk_gb = 40

"#;

const LIBVIRT: &str =
    "\n[libvirt]\nbridge = \"br0\"\nfolder = \"/srv/a&b/\"\ncpus = 4\nmemory_mb = 3072\ndisk_gb = 30\n\n";

/// The lecture with a table more.
fn lecture(table: &str) -> Cluster {
    let text = kindling::cluster::new::EXAMPLES[1].1;
    cluster(&text.replace("[nodes]", &format!("{}[nodes]", table.trim_start())))
}

fn value(outputs: &[render::Output], path: &str) -> String {
    let output = outputs.iter().find(|o| o.path.as_os_str() == path);
    let output = output.unwrap_or_else(|| panic!("no {path}"));
    String::from_utf8(output.bytes.clone()).unwrap()
}

fn decoded(outputs: &[render::Output], path: &str) -> String {
    String::from_utf8(STANDARD.decode(value(outputs, path)).unwrap()).unwrap()
}

fn outputs(cluster: &Cluster, secrets: &Secrets, target: Target) -> Vec<render::Output> {
    hypervisor::outputs(cluster, secrets, None, target).unwrap()
}

#[test]
fn settings_metadata_and_domains_are_as_recorded() {
    let golden = data("golden").join("hypervisor");
    let vsphere = outputs(&lecture(VSPHERE), &dummies(), Target::Vsphere);
    assert_golden(&golden.join("vsphere-settings"), &value(&vsphere, "vsphere/settings"));
    assert_golden(&golden.join("vsphere-metadata"), &decoded(&vsphere, "vsphere/node1/guestinfo.metadata"));
    let libvirt = outputs(&lecture(LIBVIRT), &dummies(), Target::Libvirt);
    assert_golden(&golden.join("libvirt-settings"), &value(&libvirt, "libvirt/settings"));
    assert_golden(&golden.join("libvirt-domain.xml"), &value(&libvirt, "libvirt/node1.xml"));
}

/// Without the table govc's own environment decides.
#[test]
fn what_the_cluster_file_leaves_out_is_left_to_govc() {
    let settings = value(&outputs(&lecture(""), &dummies(), Target::Vsphere), "vsphere/settings");
    assert!(
        !settings.contains("GOVC_") && settings.contains("\ncpus=2\nmemory_mb=4096\ndisk_gb=20\n"),
        "{settings}"
    );
}

#[test]
fn guestinfo_is_the_seed() {
    let cluster = lecture(VSPHERE);
    let outputs = outputs(&cluster, &REAL, Target::Vsphere);
    for node in &cluster.nodes {
        let seed = Seed::new(&cluster, node, &render::role_file(&cluster, &REAL, node));
        let of = |key: &str| format!("vsphere/{}/guestinfo.{key}", node.name);
        assert_eq!(decoded(&outputs, &of("userdata")), seed.user_data.expose());
        assert!(decoded(&outputs, &of("metadata")).starts_with(&seed.meta_data));
        for key in ["userdata.encoding", "metadata.encoding"] {
            // No end of line: it would become a part of the value.
            assert_eq!(value(&outputs, &of(key)), "base64");
        }
        let keys = decoded(&outputs, &of("userdata")).matches("PRIVATE KEY").count();
        assert_eq!(keys > 0, node.role == RoleName::ControlPlane, "{}: {keys} private keys", node.name);
        assert!(!decoded(&outputs, &of("metadata")).contains("PRIVATE KEY"));
    }
    let secret = REAL.token.expose().to_owned();
    for path in ["vsphere/settings", "vsphere/deploy.sh"] {
        assert!(!value(&outputs, path).contains(&secret), "{path}");
    }
}

/// vCenter and ESXi take addresses that people give only from this block, unless told not to look.
#[test]
fn derived_addresses_are_of_vmwares_block() {
    let cluster = lecture(VSPHERE);
    for node in &cluster.nodes {
        let text = node.mac.to_string();
        let fourth = u8::from_str_radix(text.split(':').nth(3).unwrap(), 16).unwrap();
        assert!(text.starts_with("00:50:56:") && fourth <= 0x3f, "{text}");
    }
    assert!(lecture("").nodes.iter().all(|n| n.mac.to_string().starts_with("52:54:00:")));
    assert!(lecture(LIBVIRT).nodes.iter().all(|n| n.mac.to_string().starts_with("52:54:00:")));
}

#[test]
fn files_are_their_owners_alone_and_scripts_can_be_run() {
    let scratch = Scratch::new();
    let cluster = lecture("");
    for target in [Target::Vsphere, Target::Libvirt] {
        let written = hypervisor::all(&cluster, &dummies(), &scratch.path("seeds"), None, target).unwrap();
        assert!(written.iter().any(|w| w.path.ends_with("node1/seed.img")), "the seeds are there, too");
        for file in &written {
            let mode = fs::metadata(&file.path).unwrap().permissions().mode() & 0o7777;
            let script = file.path.extension().is_some_and(|e| e == "sh");
            assert_eq!(mode, if script { 0o700 } else { 0o600 }, "{}", file.path.display());
        }
        let again = hypervisor::all(&cluster, &dummies(), &scratch.path("seeds"), None, target).unwrap();
        assert!(again.iter().all(|w| !w.changed), "the same inputs give the same bytes");
    }
}

#[test]
fn one_node_alone_is_rendered_with_the_settings_of_all() {
    let outputs = hypervisor::outputs(&lecture(VSPHERE), &dummies(), Some("node1"), Target::Vsphere).unwrap();
    let values: Vec<_> = outputs.iter().filter(|o| o.path.to_string_lossy().contains("guestinfo")).collect();
    assert!(values.iter().all(|o| o.path.starts_with("vsphere/node1")) && values.len() == 4);
    assert!(value(&outputs, "vsphere/settings").contains("master1 kang-master1 00:50:56:"));
}

/// A registry's CA as large as a bundle: VMware's tools would cut it.
#[test]
fn a_seed_that_guestinfo_cannot_hold_is_refused_with_a_way_out() {
    let mut cluster = lecture("");
    cluster.registries[0].ca = Some("x".repeat(60_000));
    let error = hypervisor::outputs(&cluster, &dummies(), None, Target::Vsphere).err().unwrap().to_string();
    assert!(error.contains("guestinfo.userdata of ") && error.contains("remedy: "), "{error}");
}

#[test]
fn libvirts_schema_accepts_every_domain() {
    let scratch = Scratch::new();
    for (name, table) in [("plain", ""), ("placed", LIBVIRT)] {
        let cluster = lecture(table);
        hypervisor::all(&cluster, &dummies(), &scratch.path(name), None, Target::Libvirt).unwrap();
        for node in &cluster.nodes {
            let path = scratch.path(name).join(format!("libvirt/{}.xml", node.name));
            let Some((good, text)) = run("virt-xml-validate", &[path.to_str().unwrap(), "domain"]) else {
                return;
            };
            assert!(good && text.contains("validates"), "{text}");
        }
    }
}

/// The data source's own code reads the values, as it does where VMX_GUESTINFO is set, and its renderer writes
/// the network.
#[test]
fn cloud_inits_data_source_reads_guestinfo() {
    let script = r#"
import os, sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
try:
    from cloudinit import distros, helpers, stages
    from cloudinit.net import networkd, network_state
    from cloudinit.sources import DataSourceVMware as vmware
except ImportError as error:
    sys.exit(print(f"skipped: {error}"))
folder, out = sys.argv[1:]
os.environ["VMX_GUESTINFO"] = "1"
for name in os.listdir(folder):
    os.environ["VMX_" + name.upper().replace(".", "_")] = open(f"{folder}/{name}").read()
paths = helpers.Paths({"cloud_dir": out, "run_dir": out})
source = vmware.DataSourceVMware({}, distros.fetch("debian")("debian", {}, paths), paths)
assert source.get_data(), "the data source found nothing"
assert source.data_access_method == "envvar"
state = network_state.parse_net_config_data(source.network_config)
networkd.Renderer().render_network_state(state, target=out)
open(f"{out}/user-data", "w").write(source.get_userdata_raw())
print(source.get_instance_id(), source.metadata["local-hostname"])
"#;
    let scratch = Scratch::new();
    let cluster = lecture(VSPHERE);
    hypervisor::all(&cluster, &REAL, &scratch.path("seeds"), None, Target::Vsphere).unwrap();
    for node in ["master1", "node1", "ha1"] {
        let (folder, out) = (scratch.path("seeds").join("vsphere").join(node), scratch.path(node));
        fs::create_dir_all(&out).unwrap();
        let output =
            Command::new("/usr/bin/python3").args(["-c", script]).arg(&folder).arg(&out).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        if let Some(why) = text.strip_prefix("skipped: ") {
            return cluster_support::here::skip(why.trim());
        }
        let seed = scratch.path("seeds").join(node);
        let meta_data = fs::read_to_string(seed.join("meta-data")).unwrap();
        let told: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(meta_data, format!("instance-id: {}\nlocal-hostname: \"{}\"\n", told[0], told[1]));
        assert_eq!(fs::read(out.join("user-data")).unwrap(), fs::read(seed.join("user-data")).unwrap());
        let files: Vec<_> =
            fs::read_dir(out.join("etc/systemd/network")).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let network = fs::read_to_string(&files[0]).unwrap();
        let node = cluster.node(node).unwrap();
        for line in [
            format!("MACAddress={}", node.mac),
            format!("Address={}", node.address),
            "Gateway=10.0.0.2".into(),
        ] {
            assert!(network.lines().any(|l| l == line), "no line {line} in\n{network}");
        }
    }
}
