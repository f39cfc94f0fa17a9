//! The way from a role file to a [`NodeSpec`], from disk or from memory.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::components::{Component, objections};
use super::types::*;
use super::*;
use crate::host::{Host, read_text};
use crate::input::{Findings, Report, Source};

impl NodeSpec {
    /// Reads, parses and validates a role file. The report holds warnings on success and every mistake on failure.
    pub fn load(path: &Path) -> Result<(Self, Report), Report> {
        let unreadable = |message: String, remedy: &str| {
            let findings = Findings::default();
            findings.error("", 0..0, message, remedy);
            findings.into_report(Source::new(path, ""))
        };
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unreadable(
                "there is no role file, so this machine does not know what to become".into(),
                "boot it with a seed made by `kindling render`; `cloud-init status --long` says whether a seed was found",
            ),
            _ => unreadable(format!("cannot be read: {error}"), "run as root"),
        })?;
        let text = std::fs::read_to_string(path).map_err(|error| {
            unreadable(format!("cannot be read: {error}"), "run as root; the file must be UTF-8")
        })?;
        let parsed = Self::parse(Source::new(path, text));
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 == 0 {
            return parsed;
        }
        let (Ok((_, mut report)) | Err(mut report)) = parsed;
        let open = unreadable(
            format!("its mode is {mode:04o}: others than its owner can read secrets in it"),
            "chmod 0600 it; the seeds of `kindling render` do so. If others had access, make new secrets",
        );
        report.problems.splice(0..0, open.problems);
        Err(report)
    }

    /// Takes the keys that were scrubbed from a control plane's role file from where kubeadm has them. Returns which
    /// are not there.
    pub fn restore_keys(&mut self, host: &dyn Host) -> Vec<String> {
        let Role::ControlPlane(role) = &mut self.role else { return Vec::new() };
        let pki = &mut role.pki;
        let mut missing = Vec::new();
        for (name, key) in [
            ("ca.key", &mut pki.ca_key),
            ("front-proxy-ca.key", &mut pki.front_proxy_ca_key),
            ("etcd/ca.key", &mut pki.etcd_ca_key),
            ("sa.key", &mut pki.sa_key),
        ] {
            if !key.expose().is_empty() {
                continue;
            }
            let path = format!("/etc/kubernetes/pki/{name}");
            match read_text(host, &path) {
                Some(text) => *key = Secret::new(text),
                None => missing.push(path),
            }
        }
        missing
    }

    /// As [`NodeSpec::load`], with the keys of a machine that has joined.
    pub fn load_here(path: &Path, host: &dyn Host) -> Result<(Self, Report), Report> {
        let (mut spec, report) = Self::load(path)?;
        let missing = spec.restore_keys(host);
        if missing.is_empty() {
            return Ok((spec, report));
        }
        let findings = Findings::default();
        findings.error(
            "",
            0..0,
            format!("its keys were taken out when this machine had joined, and {} is gone", missing.join(", ")),
            "restore it from a backup or another control plane; or give the machine a fresh disk and boot it with its seed: it joins again",
        );
        Err(findings.into_report(Source::new(path, "")))
    }

    pub fn parse(source: Source) -> Result<(Self, Report), Report> {
        let (file, warnings) = RoleFile::parse(source)?;
        let source = warnings.source;
        let findings = Findings::default();
        match Self::validate(file, &source, &findings) {
            Some(spec) if !findings.has_errors() => {
                let mut report = findings.into_report(source);
                report.problems.extend(warnings.problems);
                Ok((spec, report))
            }
            _ => Err(findings.into_report(source)),
        }
    }

    /// Checks what spans several keys. All findings carry the place of the key in the file.
    fn validate(file: RoleFile, source: &Source, findings: &Findings) -> Option<Self> {
        let at = |key: &str| place(&source.text, key);
        let missing = |key: &str, role: RoleName| {
            findings.error(
                key,
                at(key),
                match role {
                    RoleName::Etcd => "missing: an etcd machine needs it".to_owned(),
                    role => format!("missing: a {role} needs it"),
                },
                "render the seed again with `kindling render`",
            );
        };
        if file.kubernetes < OLDEST_KUBERNETES {
            findings.error(
                "kubernetes",
                at("kubernetes"),
                format!(
                    "{} is older than {OLDEST_KUBERNETES}, the oldest that is supported",
                    file.kubernetes
                ),
                "choose a newer version in cluster.toml and bake an image with it",
            );
        }
        for (key, component, flags) in own_flags(&file) {
            for objection in objections(component, flags, file.kubernetes) {
                let (key, message) = (format!("{key}.{}", objection.flag), objection.message);
                if objection.stops {
                    findings.error(&key, at(&objection.flag), message, objection.remedy);
                } else {
                    findings.warning(&key, at(&objection.flag), message, objection.remedy);
                }
            }
        }
        if file.hosts.get(&file.name) != Some(&file.network.address.ip()) {
            findings.error(
                "hosts",
                at("hosts"),
                format!("does not name this node as {} {}", file.network.address.ip(), file.name),
                "render the seed again with `kindling render`",
            );
        }
        if let Some(vip) = file.endpoint.vip {
            if !file.network.address.subnet().contains(&vip) && file.vrrp.is_some() {
                findings.error(
                    "endpoint.vip",
                    at("vip"),
                    format!("{vip} is outside this node's subnet {}", file.network.address.subnet()),
                    "choose a free address of the nodes' subnet: a VIP is claimed by ARP",
                );
            }
            if file.hosts.values().any(|address| *address == vip) {
                findings.error(
                    "endpoint.vip",
                    at("vip"),
                    format!("{vip} is also a node's address"),
                    "choose a free address",
                );
            }
        }
        if file.endpoint.by == EndpointBy::Stacked
            && let Some(proxy) = &file.proxy
            && file.endpoint.port == 6443
        {
            findings.error(
                "endpoint.port",
                at("port"),
                format!("{} and the API server cannot both listen on 6443 of one machine", proxy.kind),
                "use another port for the endpoint, 8443 for instance",
            );
        }
        if let Some(etcd) = &file.etcd
            && file.role == RoleName::Etcd
            && etcd.members.get(&file.name) != Some(&file.network.address.ip())
        {
            findings.error(
                "etcd.members",
                at("members"),
                format!("does not name this node as {} {}", file.network.address.ip(), file.name),
                "render the seed again with `kindling render`",
            );
        }
        let role = match file.role {
            RoleName::Etcd => {
                for (key, present) in [
                    ("etcd", file.etcd.is_some()),
                    ("pki.etcd_ca", file.pki.etcd_ca.is_some()),
                    ("pki.etcd_ca_key", file.pki.etcd_ca_key.is_some()),
                ] {
                    if !present {
                        missing(key, file.role);
                    }
                }
                let etcd = file.etcd?;
                Role::Etcd(Box::new(EtcdRole {
                    kubernetes: file.kubernetes,
                    members: etcd.members,
                    args: etcd.args,
                    ca: file.pki.etcd_ca.clone()?,
                    ca_key: file.pki.etcd_ca_key.clone()?,
                }))
            }
            RoleName::LoadBalancer => {
                if file.vrrp.is_none() {
                    missing("vrrp", file.role);
                }
                if file.proxy.is_none() {
                    missing("proxy", file.role);
                }
                Role::LoadBalancer(Box::new(LoadBalancerRole { vrrp: file.vrrp?, proxy: file.proxy? }))
            }
            RoleName::Worker | RoleName::ControlPlane => {
                if file.token.is_none() && !file.scrubbed {
                    missing("token", file.role);
                }
                let token = file.token.or_else(|| file.scrubbed.then(BootstrapToken::nobodys));
                let kubernetes = token.map(|token| Kubernetes {
                    version: file.kubernetes,
                    runtime: file.runtime,
                    pods: file.pods,
                    services: file.services,
                    dns_domain: file.dns_domain,
                    image_repository: file.image_repository,
                    registries: file.registries,
                    labels: file.labels,
                    taints: file.taints,
                    addons: file.addons,
                    token,
                    token_expires: file.token_expires,
                });
                if file.role == RoleName::Worker {
                    Role::Worker(Box::new(kubernetes?))
                } else {
                    let mut pki = file.pki.clone();
                    if file.scrubbed {
                        // Read by `restore_keys`.
                        for key in [
                            &mut pki.ca_key,
                            &mut pki.front_proxy_ca_key,
                            &mut pki.etcd_ca_key,
                            &mut pki.sa_key,
                        ] {
                            key.get_or_insert_with(|| Secret::new(""));
                        }
                    }
                    for (key, present) in [
                        ("pki.ca_key", pki.ca_key.is_some()),
                        ("pki.front_proxy_ca", pki.front_proxy_ca.is_some()),
                        ("pki.front_proxy_ca_key", pki.front_proxy_ca_key.is_some()),
                        ("pki.etcd_ca", pki.etcd_ca.is_some()),
                        ("pki.etcd_ca_key", pki.etcd_ca_key.is_some()),
                        ("pki.sa_public", pki.sa_public.is_some()),
                        ("pki.sa_key", pki.sa_key.is_some()),
                        ("control_plane", file.control_plane.is_some()),
                    ] {
                        if !present {
                            missing(key, file.role);
                        }
                    }
                    let control_plane = file.control_plane?;
                    Role::ControlPlane(Box::new(ControlPlaneRole {
                        kubernetes: kubernetes?,
                        first: control_plane.first,
                        peers: control_plane.peers,
                        cert_sans: control_plane.cert_sans,
                        api_server_args: control_plane.api_server_args,
                        controller_manager_args: control_plane.controller_manager_args,
                        scheduler_args: control_plane.scheduler_args,
                        etcd_args: control_plane.etcd_args,
                        token_ttl_hours: control_plane.token_ttl_hours,
                        pki: ControlPlanePki {
                            ca_key: pki.ca_key?,
                            front_proxy_ca: pki.front_proxy_ca?,
                            front_proxy_ca_key: pki.front_proxy_ca_key?,
                            etcd_ca: pki.etcd_ca?,
                            etcd_ca_key: pki.etcd_ca_key?,
                            sa_public: pki.sa_public?,
                            sa_key: pki.sa_key?,
                        },
                        vrrp: file.vrrp,
                        proxy: file.proxy,
                        etcd: file.etcd.map(|etcd| etcd.members),
                    }))
                }
            }
        };
        Some(Self {
            cluster: file.cluster,
            name: file.name,
            network: file.network,
            endpoint: file.endpoint,
            hosts: file.hosts,
            deadlines: file.deadlines,
            ca: file.pki.ca,
            role,
            scrubbed: file.scrubbed,
        })
    }
}

/// The operator's flags for components of this machine, with the key of their table.
fn own_flags(file: &RoleFile) -> Vec<(&'static str, Component, &BTreeMap<String, String>)> {
    let mut all = Vec::new();
    if let Some(own) = &file.control_plane {
        all.extend([
            ("control_plane.api_server_args", Component::ApiServer, &own.api_server_args),
            (
                "control_plane.controller_manager_args",
                Component::ControllerManager,
                &own.controller_manager_args,
            ),
            ("control_plane.scheduler_args", Component::Scheduler, &own.scheduler_args),
            ("control_plane.etcd_args", Component::Etcd, &own.etcd_args),
        ]);
    }
    all.extend(file.etcd.iter().map(|etcd| ("etcd.args", Component::Etcd, &etcd.args)));
    all
}

/// Where the last part of a dotted key stands at the start of a line: a role file has one key a line.
fn place(text: &str, key: &str) -> std::ops::Range<usize> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let name = line.trim_start_matches('[').split(['=', ']']).next().unwrap_or("").trim();
        if name == last || name == key {
            return start..start + line.trim_end().len();
        }
        start += line.len();
    }
    0..0
}
