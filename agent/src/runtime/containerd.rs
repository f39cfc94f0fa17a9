//! containerd: /etc/containerd/config.toml and the registries' /etc/containerd/certs.d
//! (<https://github.com/containerd/containerd/blob/main/docs/cri/config.md>, docs/hosts.md).

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{is_docker_hub, path_of, quoted};
use crate::facts::Facts;
use crate::plan::{Action, FileSpec, Step, step};
use crate::render::WRITTEN_BY;
use crate::role::{Kubernetes, Registry};
use crate::step::service::Service;

pub const SOCKET: &str = "unix:///run/containerd/containerd.sock";
pub const UNIT: &str = "containerd.service";
pub const CONFIG: &str = "/etc/containerd/config.toml";

pub fn steps(kubernetes: &Kubernetes, facts: &Facts, pause: &str) -> Vec<Step> {
    let (major, minor) = facts.containerd.unwrap_or((1, 7));
    let version = ContainerdVersion { major, minor };
    let text = config(kubernetes, version, pause, facts.container.is_some());
    let mut files = vec![FileSpec::secret(CONFIG, text)];
    for registry in &kubernetes.registries {
        files.extend(registry_hosts(registry).into_iter().map(|(path, text)| FileSpec::public(path, text)));
    }
    // containerd serves without the kubelet's side of it when that fails to load, for want of inotify instances for one.
    let service = Service::new(UNIT, files)
        .answering("ctr", &["plugins", "ls"])
        .with_part("cri")
        .instead_of(super::docker::UNITS)
        .instead_of(&[super::crio::UNIT]);
    let title = "containerd with systemd cgroups and the given registries";
    vec![step("containerd", title, Action::Service(service))]
}

pub fn lacking(facts: &Facts) -> Option<(&'static str, &'static str)> {
    facts.containerd.is_none().then_some(("this image has no containerd that runs", "bake the image again"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerdVersion {
    pub major: u32,
    pub minor: u32,
}

const CERTS_D: &str = "/etc/containerd/certs.d";

fn server_of(host: &str) -> &str {
    if is_docker_hub(host) { "registry-1.docker.io" } else { host }
}

/// containerd's configuration: version 2 of its format for containerd 1.x, version 3 for 2.x. Holds the
/// registries' passwords, but for containerd 2.3, which has no place for them any more: there only what the
/// kubelet pulls has a login ([`super::registry_logins`]).
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
    let with_login = kubernetes.registries.iter().filter(|_| !at_least(2, 3));
    for registry in with_login {
        if let (Some(username), Some(password)) = (&registry.username, &registry.password) {
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

/// hosts.toml of one registry, and its CA. Neither is secret.
pub fn registry_hosts(registry: &Registry) -> Vec<(PathBuf, String)> {
    let folder = Path::new(CERTS_D).join(&registry.host);
    let authority = folder.join("ca.crt");
    let mut trust = String::new();
    if registry.ca.is_some() {
        let _ = writeln!(trust, "ca = {}", quoted(&authority.display().to_string()));
    }
    if registry.insecure {
        trust.push_str("skip_verify = true\n");
    }
    let mut text = String::from(WRITTEN_BY);
    let _ = writeln!(text, "server = {}", quoted(&format!("https://{}", server_of(&registry.host))));
    text.push_str(&trust);
    for mirror in &registry.mirrors {
        let _ = write!(text, "\n[host.{}]\n", quoted(mirror));
        text.push_str("capabilities = [\"pull\", \"resolve\"]\n");
        if has_api_path(mirror) {
            text.push_str("override_path = true\n");
        }
        // Next to an http:// URL a word about TLS makes containerd 1.7 ask by https.
        if mirror.starts_with("https://") {
            text.push_str(&trust);
        }
    }
    let mut files = vec![(folder.join("hosts.toml"), text)];
    files.extend(registry.ca.clone().map(|ca| (authority, ca)));
    files
}

/// Whether the mirror's URL says where its API is, as a Harbor proxy project's `https://HOST/v2/PROJECT`
/// does; containerd would append a second `/v2`.
fn has_api_path(mirror: &str) -> bool {
    path_of(mirror).strip_prefix("v2/").is_some_and(|project| !project.is_empty())
}
