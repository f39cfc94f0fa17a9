//! The workstation's commands: they print, and return the exit code.

use std::path::Path;

use time::OffsetDateTime;

use crate::cluster::{self, Cluster, Secrets};
use crate::facts::{Facts, Interface};
use crate::input::{Report, Source};
use crate::plan;
use crate::role::NodeSpec;
use crate::status::exit;

fn fail(error: &dyn std::fmt::Display) -> u8 {
    eprintln!("kindling: {error}");
    exit::CONFIG
}

/// Prints a report whole, so that all mistakes can be mended at once.
fn reject(report: &Report) -> u8 {
    eprintln!("{report}");
    exit::CONFIG
}

fn warn(report: &Report) {
    if !report.problems.is_empty() {
        eprintln!("{report}");
    }
}

pub fn new(folder: &Path, example: Option<&str>) -> u8 {
    match cluster::new::create(folder, example, OffsetDateTime::now_utc()) {
        Ok(paths) => {
            for path in &paths {
                println!("wrote {}", path.display());
            }
            println!(
                "next: edit cluster.toml, then `kindling render` in the same folder; keep secrets.toml safe and private"
            );
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

pub fn renew(folder: &Path) -> u8 {
    let path = folder.join("secrets.toml");
    match cluster::new::renew(&path, OffsetDateTime::now_utc()) {
        Ok(()) => {
            println!("{} has a new bootstrap token and a new administrator's certificate", path.display());
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

/// Both files, or the exit code after every mistake in both was told.
fn load(cluster_file: &Path, secrets_file: &Path) -> Result<(Cluster, Secrets), u8> {
    let cluster = cluster::load(cluster_file);
    let known = cluster.as_ref().ok().map(|(cluster, _)| cluster);
    let secrets = Secrets::load(secrets_file, known, OffsetDateTime::now_utc());
    match (cluster, secrets) {
        (Ok((cluster, warnings)), Ok((secrets, more))) => {
            warn(&warnings);
            warn(&more);
            Ok((cluster, secrets))
        }
        (cluster, secrets) => {
            for report in [cluster.err(), secrets.err()].into_iter().flatten() {
                reject(&report);
            }
            Err(exit::CONFIG)
        }
    }
}

pub fn render(cluster_file: &Path, secrets_file: &Path, out: &Path, node: Option<&str>) -> u8 {
    let (cluster, secrets) = match load(cluster_file, secrets_file) {
        Ok(both) => both,
        Err(code) => return code,
    };
    match cluster::render::all(&cluster, &secrets, out, node) {
        Ok(written) => {
            for file in &written {
                println!("{} {}", if file.changed { "wrote    " } else { "unchanged" }, file.path.display());
            }
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

pub fn check(files: &[std::path::PathBuf], secrets: Option<&Path>, json: bool) -> u8 {
    let mut reports = Vec::new();
    let mut last = None;
    for file in files {
        if is_role_file(file) {
            reports.push(NodeSpec::load(file).map_or_else(|e| e, |(_, report)| report));
            continue;
        }
        match cluster::load(file) {
            Ok((cluster, report)) => {
                last = Some(cluster);
                reports.push(report);
            }
            Err(report) => reports.push(report),
        }
    }
    if let Some(path) = secrets {
        reports.push(
            Secrets::load(path, last.as_ref(), OffsetDateTime::now_utc())
                .map_or_else(|e| e, |(_, report)| report),
        );
    }
    if json {
        let records: Vec<_> = reports.iter().flat_map(Report::records).collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&records).expect("records have only types that JSON knows")
        );
    } else {
        for report in &reports {
            if report.problems.is_empty() {
                println!("{}: ok", report.source.path.display());
            } else {
                println!("{report}");
            }
        }
    }
    if reports.iter().any(Report::has_errors) { exit::CONFIG } else { exit::DONE }
}

/// A role file says what one node is; everything else is taken for a cluster file, whose mistakes are likelier.
fn is_role_file(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim);
        !lines.clone().any(|l| l.starts_with("[nodes"))
            && (lines.clone().any(|l| l.starts_with("role =")) || lines.any(|l| l == "[pki]"))
    }) || path.file_name().is_some_and(|name| name == "role.toml")
}

pub fn plan_node(cluster_file: &Path, secrets_file: &Path, name: &str, short: bool) -> u8 {
    let (cluster, secrets) = match load(cluster_file, secrets_file) {
        Ok(both) => both,
        Err(code) => return code,
    };
    let node = match cluster.named(name) {
        Ok(node) => node,
        Err(error) => return fail(&error),
    };
    let text = cluster::render::role_file(&cluster, &secrets, node).to_toml();
    match NodeSpec::parse(Source::new(format!("role file of {name}"), text)) {
        Ok((spec, _)) => {
            print_plan(&spec, &assumed(&spec), short);
            exit::DONE
        }
        Err(report) => reject(&report),
    }
}

/// Facts of a machine that has what its role needs.
fn assumed(spec: &NodeSpec) -> Facts {
    let interface = Interface {
        name: "eth0".into(),
        mac: None,
        up: true,
        addresses: ipnet::Ipv4Net::new(spec.address(), spec.network.address.prefix()).into_iter().collect(),
    };
    Facts {
        interfaces: vec![interface],
        cpus: 2,
        memory_mb: 2048,
        machine_id: Some("0".repeat(32)),
        kubeadm: spec.kubernetes().map(|k| k.version),
        containerd: Some((1, 7)),
        // Only the image's kubeadm knows it.
        pause_image: spec.kubernetes().map(|k| format!("(the pause image of kubeadm {})", k.version)),
        docker: true,
        cri_dockerd: true,
        crio: true,
        etcd: true,
        addons: spec.kubernetes().map(|k| k.addons.clone()).unwrap_or_default(),
        ..Facts::default()
    }
}

/// Every step, every command and every file, without what is secret in them.
pub fn print_plan(spec: &NodeSpec, facts: &Facts, short: bool) {
    println!("{} ({}) of cluster {}", spec.name, spec.role_name(), spec.cluster);
    for (n, step) in plan::plan(spec, facts).iter().enumerate() {
        println!("\n{:>2}. {}: {}", n + 1, step.id, step.title);
        if let plan::Action::Preflight(findings) = &step.action {
            for finding in findings {
                println!("    {:?}: {} (remedy: {})", finding.weight, finding.message, finding.remedy);
            }
        }
        for command in step.commands() {
            println!("    run   {command}");
        }
        for file in step.files() {
            println!("    write {} {:04o}", file.path.display(), file.mode);
            if short {
                continue;
            }
            for line in spec.mask(&file.content).lines() {
                println!("          {line}");
            }
        }
    }
}
