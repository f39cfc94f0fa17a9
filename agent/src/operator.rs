//! The workstation's commands: they print, and return the exit code.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::cluster::hypervisor::Target;
use crate::cluster::{self, Cluster, Expired, Secrets, SecretsFile};
use crate::facts::{Facts, Interface};
use crate::input::{Report, Source};
use crate::mint::{self, Way};
use crate::plan;
use crate::role::NodeSpec;
use crate::role::types::Moment;
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

pub fn new(folder: &Path, example: Option<&str>, recipients: &[String], files: &[PathBuf]) -> u8 {
    let recipients = match cluster::sealed::recipients(recipients, files) {
        Ok(recipients) => recipients,
        Err(report) => return reject(&report),
    };
    match cluster::new::create_for(folder, example, recipients, OffsetDateTime::now_utc()) {
        Ok(paths) => {
            for path in &paths {
                println!("wrote {}", path.display());
            }
            println!(
                "next: edit cluster.toml, then `kindling render` in the same folder; keep the secrets safe and private"
            );
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

pub fn renew(secrets: &SecretsFile) -> u8 {
    match cluster::new::renew(secrets, OffsetDateTime::now_utc()) {
        Ok(()) => {
            println!(
                "{} has a new bootstrap token and a new administrator's certificate",
                secrets.path().display()
            );
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

pub fn rotate(secrets: &SecretsFile) -> u8 {
    match cluster::new::rotate(secrets, OffsetDateTime::now_utc()) {
        Ok(()) => {
            println!(
                "{} has a new bootstrap token, a new administrator's certificate, and new passwords for VRRP and haproxy's page\n\
                 the CAs and the service accounts' keys are those of before: a cluster that is up goes on\n\
                 next: `kindling render`. A machine that runs knows the new passwords when it boots with its new seed; until then\n\
                 old and new ones work together: VRRP version 3 sends no password, and each haproxy asks for its own",
                secrets.path().display()
            );
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

/// Both files, or the exit code after every mistake in both was told.
fn load(cluster_file: &Path, secrets_file: &SecretsFile) -> Result<(Cluster, Secrets), u8> {
    load_with(cluster_file, secrets_file, Expired::Refused)
}

fn load_with(
    cluster_file: &Path,
    secrets_file: &SecretsFile,
    expired: Expired,
) -> Result<(Cluster, Secrets), u8> {
    let cluster = cluster::load(cluster_file);
    let known = cluster.as_ref().ok().map(|(cluster, _)| cluster);
    let secrets = Secrets::load_with(secrets_file, known, OffsetDateTime::now_utc(), expired);
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

pub fn render(
    cluster_file: &Path,
    secrets_file: &SecretsFile,
    out: &Path,
    node: Option<&str>,
    target: Option<Target>,
    way: &Way,
) -> u8 {
    // Of a single node it may be the cluster that makes its token.
    let expired = if node.is_some() { Expired::Token } else { Expired::Refused };
    let (cluster, secrets) = match load_with(cluster_file, secrets_file, expired) {
        Ok(both) => both,
        Err(code) => return code,
    };
    let minted = match node.and_then(|name| cluster.node(name)).filter(|node| node.role.runs_kubelet()) {
        Some(node) => match mint_for(&cluster, &secrets, node, way) {
            Ok(minted) => minted,
            Err(code) => return code,
        },
        None => None,
    };
    let secrets = match minted {
        Some(minted) => secrets.with_token(minted.token, minted.expires),
        None => secrets,
    };
    let written = match target {
        Some(target) => cluster::hypervisor::all(&cluster, &secrets, out, node, target),
        None => cluster::render::all(&cluster, &secrets, out, node),
    };
    match written {
        Ok(written) => {
            for file in &written {
                println!("{} {}", if file.changed { "wrote    " } else { "unchanged" }, file.path.display());
            }
            exit::DONE
        }
        Err(error) => fail(&error),
    }
}

/// A token of the cluster that is up. `None` where it does not answer and the token of the secrets is good yet.
fn mint_for(
    cluster: &Cluster,
    secrets: &Secrets,
    node: &cluster::Node,
    way: &Way,
) -> Result<Option<mint::Minted>, u8> {
    let now = OffsetDateTime::now_utc();
    let error = match mint::mint(cluster, secrets, way, now) {
        Ok(minted) => {
            println!(
                "token     {}, made by the cluster, until {}",
                minted.token.id(),
                Moment(minted.expires)
            );
            if cluster.vip_holders().any(|holder| holder.name == node.name)
                && cluster.vip_holders().count() > 1
            {
                println!(
                    "note      if {} is not yet known to the other machines that may hold the VIP, it takes part in it only when they have new seeds, too; it joins all the same",
                    node.name
                );
            }
            return Ok(Some(minted));
        }
        Err(error) => error,
    };
    let again = "render where the API can be reached, or name a way to it with --server or --kubeconfig";
    if *way != Way::Endpoint {
        return Err(fail(&format!("{error}\n  remedy: {again}")));
    }
    match secrets.token_expires(cluster) {
        Some(end) if end <= now => Err(fail(&format!(
            "{error}; and the bootstrap token of the secrets expired at {}\n  remedy: {again}; if the cluster was never formed: `kindling new --renew`",
            Moment(end)
        ))),
        end => {
            let life = end.map_or_else(|| "for ever".to_owned(), |end| format!("until {}", Moment(end)));
            eprintln!(
                "kindling: {error}\n  the seed of {} has the token of the secrets, good {life}; if the cluster was formed: {again}",
                node.name
            );
            Ok(None)
        }
    }
}

pub fn check(files: &[PathBuf], secrets: Option<&SecretsFile>, json: bool) -> u8 {
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
            Secrets::load_with(path, last.as_ref(), OffsetDateTime::now_utc(), Expired::Refused)
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
        // A node's own `role` stands below a table's head.
        let mut top = lines.clone().take_while(|line| !line.starts_with('['));
        let has_role =
            top.any(|line| line.strip_prefix("role").is_some_and(|rest| rest.trim_start().starts_with('=')));
        !lines.clone().any(|l| l.starts_with("[nodes")) && (has_role || lines.any(|l| l == "[pki]"))
    }) || path.file_name().is_some_and(|name| name == "role.toml")
}

pub fn plan_node(cluster_file: &Path, secrets_file: &SecretsFile, name: &str, short: bool) -> u8 {
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
        // That of the newest kubeadm.
        etcd: crate::role::etcd_version::EtcdVersion::read("3.7.0"),
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
