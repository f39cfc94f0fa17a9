//! CRI-O (crio.conf.d(5), containers-registries.conf(5)).

use std::fmt::Write;

use super::{LOGINS, RUNC_IN_CONTAINER, host_of, logins_file, of_mirror, path_of, quoted};
use crate::facts::Facts;
use crate::plan::{Action, FileSpec, Step, step};
use crate::render::WRITTEN_BY;
use crate::role::Kubernetes;
use crate::step::service::{Leftover, Service};

pub const SOCKET: &str = "unix:///run/crio/crio.sock";
pub const UNIT: &str = "crio.service";
/// Of registries that have a CA of their own, by the host that is asked, a mirror's too (containers-certs.d(5)).
const CERTS_D: &str = "/etc/containers/certs.d";

pub fn steps(kubernetes: &Kubernetes, facts: &Facts, pause: &str) -> Vec<Step> {
    let mut files = vec![
        FileSpec::public(
            "/etc/crio/crio.conf.d/90-kindling.conf",
            config(kubernetes, pause, facts.keeps_oom_scores()),
        ),
        FileSpec::public("/etc/containers/registries.conf.d/90-kindling.conf", registries(kubernetes)),
    ];
    for registry in &kubernetes.registries {
        if let Some(ca) = &registry.ca {
            files.push(FileSpec::public(format!("{CERTS_D}/{}/ca.crt", registry.host), ca.clone()));
        }
    }
    files.extend(logins_file(kubernetes));
    let service = Service::new(UNIT, files)
        .instead_of(super::docker::UNITS)
        .instead_of(&[super::containerd::UNIT])
        .without(Leftover::Json(LOGINS));
    vec![step("crio", "CRI-O with systemd cgroups and the given registries", Action::Service(service))]
}

pub fn lacking(facts: &Facts) -> Option<(&'static str, &'static str)> {
    (!facts.crio).then_some((
        "this image has no CRI-O",
        "write `runtime = \"containerd\"` in cluster.toml, or bake the image with CRI-O's package: by `PACKAGES=` of `make image` (a .deb, or its name where a repository has it), or in debs/ of the Kubernetes folder",
    ))
}

/// One master of the cgroup tree, kubeadm's sandbox image, and the folders of CNI that everything else here uses.
///
/// The kubelet brings the login of an image's own registry; those of mirrors, and of what kubeadm pulls, CRI-O reads
/// from the same file.
///
/// `keeps_oom_scores` is for system containers that may not lower a process's OOM score.
pub fn config(kubernetes: &Kubernetes, pause: &str, keeps_oom_scores: bool) -> String {
    let runtime = if keeps_oom_scores {
        format!(
            "default_runtime = \"kindling\"

[crio.runtime.runtimes.kindling]
runtime_path = {}
runtime_root = \"/run/runc\"
",
            quoted(RUNC_IN_CONTAINER)
        )
    } else {
        String::new()
    };
    let logins = logins_file(kubernetes).map(|_| format!("global_auth_file = {}\n", quoted(LOGINS)));
    format!(
        "{WRITTEN_BY}
[crio.runtime]
cgroup_manager = \"systemd\"
conmon_cgroup = \"pod\"
{runtime}
[crio.image]
# kubeadm's: with another one the kubelet's garbage collection would take it for unused.
pause_image = {}
{}
[crio.network]
network_dir = \"/etc/cni/net.d/\"
plugin_dirs = [\"/opt/cni/bin/\"]
",
        quoted(pause),
        logins.unwrap_or_default()
    )
}

/// Mirrors in the order in which they are asked, the registry itself last.
pub fn registries(kubernetes: &Kubernetes) -> String {
    let mut text = String::from(WRITTEN_BY);
    for registry in &kubernetes.registries {
        let _ = write!(
            text,
            "\n[[registry]]\nprefix = {0}\nlocation = {0}\ninsecure = {1}\n",
            quoted(&registry.host),
            registry.insecure
        );
        for mirror in &registry.mirrors {
            let (host, path) = (host_of(mirror), path_of(mirror).trim_end_matches('/'));
            // Harbor's proxy projects are given with the path of the API, which a location has not.
            let path = path.strip_prefix("v2/").unwrap_or(path);
            let location = if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") };
            let unverified = of_mirror(mirror, &kubernetes.registries).is_some_and(|own| own.insecure);
            // A location has no scheme; without TLS is what is called insecure here.
            let insecure = mirror.starts_with("http://") || unverified;
            let _ = write!(
                text,
                "\n[[registry.mirror]]\nlocation = {}\ninsecure = {insecure}\n",
                quoted(&location)
            );
        }
    }
    text
}
