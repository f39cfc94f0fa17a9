//! containerd: /etc/containerd/config.toml and the registries' /etc/containerd/certs.d
//! (<https://github.com/containerd/containerd/blob/main/docs/cri/config.md>, docs/hosts.md).

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{LOGINS, is_docker_hub, login, of_mirror, path_of, quoted};
use crate::facts::Facts;
use crate::plan::{Action, FileSpec, Step, step};
use crate::render::WRITTEN_BY;
use crate::role::{Kubernetes, Registry};
use crate::step::service::{Leftover, Service};

pub const SOCKET: &str = "unix:///run/containerd/containerd.sock";
pub const UNIT: &str = "containerd.service";
pub const CONFIG: &str = "/etc/containerd/config.toml";

pub fn steps(kubernetes: &Kubernetes, facts: &Facts, pause: &str) -> Vec<Step> {
    let (major, minor) = facts.containerd.unwrap_or((1, 7));
    let version = ContainerdVersion { major, minor };
    let text = config(kubernetes, version, pause, facts.container.is_some());
    let mut files = vec![FileSpec::secret(CONFIG, text)];
    for registry in &kubernetes.registries {
        let hosts = registry_hosts(registry, &kubernetes.registries);
        files.extend(hosts.into_iter().map(|(path, text)| FileSpec::public(path, text)));
    }
    // containerd serves without the kubelet's side of it when that fails to load, for want of inotify instances for one.
    let service = Service::new(UNIT, files)
        .answering("ctr", &["plugins", "ls"])
        .with_part("cri")
        .instead_of(super::docker::UNITS)
        .instead_of(&[super::crio::UNIT])
        .without(Leftover::Hosts(CERTS_D))
        .without(Leftover::Json(LOGINS));
    let title = "containerd with systemd cgroups and the given registries";
    vec![step("containerd", title, Action::Service(service))]
}

pub fn lacking(kubernetes: &Kubernetes, facts: &Facts) -> Option<(&'static str, &'static str)> {
    let Some((major, minor)) = facts.containerd else {
        return Some(("this image has no containerd that runs", "bake the image again"));
    };
    let takes_logins = ContainerdVersion { major, minor } < WITHOUT_LOGINS;
    (!takes_logins && kubernetes.registries.iter().any(|registry| login(registry).is_some())).then_some((
        "this image's containerd takes no logins to registries from its configuration: 2.6 is the last that does",
        "bake the image with containerd 2.6 or older; or take `username` out of [[registries]] and give the pods `imagePullSecrets`",
    ))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerdVersion {
    pub major: u32,
    pub minor: u32,
}

/// The first version that is announced to know no `registry.configs` any more (containerd 2.4's
/// pkg/deprecation/deprecation.go). Up to 2.4 it was put off with each release.
const WITHOUT_LOGINS: ContainerdVersion = ContainerdVersion { major: 2, minor: 7 };

const CERTS_D: &str = "/etc/containerd/certs.d";

fn server_of(host: &str) -> &str {
    if is_docker_hub(host) { "registry-1.docker.io" } else { host }
}

/// containerd's configuration: version 2 of its format for containerd 1.x, version 3 for 2.x. Holds the registries'
/// passwords, each for its own host alone, so that kubeadm's pulls, which bring no login, have one too.
///
/// `restrict_oom_score_adj` is for system containers that may not lower a process's OOM score.
pub fn config(
    kubernetes: &Kubernetes,
    version: ContainerdVersion,
    sandbox_image: &str,
    restrict_oom_score_adj: bool,
) -> String {
    let (format, runtime, images) = if version.major < 2 {
        (2, "io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri")
    } else {
        (3, "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images")
    };
    let sandbox = quoted(sandbox_image);
    let at_least = |major, minor| version >= ContainerdVersion { major, minor };
    // The one word went away in 2.3, the other came with 2.1.
    let plugins = if at_least(2, 1) { "bin_dirs = [\"/opt/cni/bin\"]" } else { "bin_dir = \"/opt/cni/bin\"" };
    let mut text = format!("{WRITTEN_BY}version = {format}\n");
    if version.major < 2 {
        let _ = write!(
            text,
            "
[plugins.\"{runtime}\"]
  # kubeadm's: with another one the kubelet's garbage collection would take it for unused.
  sandbox_image = {sandbox}
  restrict_oom_score_adj = {restrict_oom_score_adj}
"
        );
    } else {
        let _ = write!(
            text,
            "
[plugins.\"{images}\".pinned_images]
  # kubeadm's: with another one the kubelet's garbage collection would take it for unused.
  sandbox = {sandbox}

[plugins.\"{runtime}\"]
  restrict_oom_score_adj = {restrict_oom_score_adj}
"
        );
    }
    let _ = write!(
        text,
        "
[plugins.\"{runtime}\".containerd.runtimes.runc]
  runtime_type = \"io.containerd.runc.v2\"
  [plugins.\"{runtime}\".containerd.runtimes.runc.options]
    # The kubelet's cgroup driver, too: two masters of one tree make nodes unstable.
    SystemdCgroup = true

[plugins.\"{runtime}\".cni]
  {plugins}
  conf_dir = \"/etc/cni/net.d\"

[plugins.\"{images}\".registry]
  config_path = \"{CERTS_D}\"
"
    );
    for registry in &kubernetes.registries {
        if let Some((username, password)) = login(registry) {
            let _ = write!(
                text,
                "
[plugins.\"{images}\".registry.configs.{}.auth]
  username = {}
  password = {}
",
                quoted(server_of(&registry.host)),
                quoted(username),
                quoted(password.expose())
            );
        }
    }
    text
}

/// hosts.toml of one registry, and its CA. Neither is secret. `all` are those of the cluster file, by which its mirrors
/// are trusted.
pub fn registry_hosts(registry: &Registry, all: &[Registry]) -> Vec<(PathBuf, String)> {
    let mut text = String::from(WRITTEN_BY);
    let own = quoted(&format!("https://{}", server_of(&registry.host)));
    let _ = writeln!(text, "server = {own}");
    text.push_str(&trust(registry));
    // Without any host containerd 1.7 calls the file invalid, and verifies as if it were not there.
    if registry.mirrors.is_empty() {
        let _ = write!(text, "\n[host.{own}]\n");
        text.push_str("capabilities = [\"pull\", \"resolve\", \"push\"]\n");
        text.push_str(&trust(registry));
    }
    for mirror in &registry.mirrors {
        let _ = write!(text, "\n[host.{}]\n", quoted(mirror));
        text.push_str("capabilities = [\"pull\", \"resolve\"]\n");
        if has_api_path(mirror) {
            text.push_str("override_path = true\n");
        }
        // Next to an http:// URL a word about TLS makes containerd 1.7 ask by https.
        if mirror.starts_with("https://") {
            text.push_str(&of_mirror(mirror, all).map(trust).unwrap_or_default());
        }
    }
    let mut files = vec![(folder(registry).join("hosts.toml"), text)];
    files.extend(registry.ca.clone().map(|ca| (authority(registry), ca)));
    files
}

fn folder(registry: &Registry) -> PathBuf {
    Path::new(CERTS_D).join(&registry.host)
}

fn authority(registry: &Registry) -> PathBuf {
    folder(registry).join("ca.crt")
}

/// How a host is verified that has a `[[registries]]` of its own.
fn trust(registry: &Registry) -> String {
    let mut text = String::new();
    if registry.ca.is_some() {
        let _ = writeln!(text, "ca = {}", quoted(&authority(registry).display().to_string()));
    }
    if registry.insecure {
        text.push_str("skip_verify = true\n");
    }
    text
}

/// Whether the mirror's URL says where its API is, as a Harbor proxy project's `https://HOST/v2/PROJECT`
/// does; containerd would append a second `/v2`.
fn has_api_path(mirror: &str) -> bool {
    path_of(mirror).strip_prefix("v2/").is_some_and(|project| !project.is_empty())
}
