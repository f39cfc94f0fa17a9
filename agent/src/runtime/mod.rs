//! Container runtimes, one file each: its socket, its configuration, its services, and what an image without it lacks.
//! All are in one image; the role file chooses, and the others do not run.

pub mod containerd;
pub mod crio;
pub mod docker;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::facts::Facts;
use crate::plan::{Action, FileSpec, Step, step};
use crate::render::{WRITTEN_BY, WRITTEN_BY_KEY};
use crate::role::types::{RuntimeName, Secret};
use crate::role::{Kubernetes, Registry};

/// Of the image: runc for a system container without CAP_SYS_RESOURCE, which containerd does without.
const RUNC_IN_CONTAINER: &str = "/usr/lib/kindling/runc-in-container";

/// Where kubeadm, the kubelet and crictl find the runtime. With several in the image kubeadm refuses to guess, so it is
/// always named.
pub fn socket(runtime: RuntimeName) -> &'static str {
    match runtime {
        RuntimeName::Containerd => containerd::SOCKET,
        RuntimeName::Docker => docker::SOCKET,
        RuntimeName::Crio => crio::SOCKET,
    }
}

/// The sandbox image that kubeadm of this version wants (its constants.PauseVersion), where it could not be asked.
fn pause_image(kubernetes: &Kubernetes) -> String {
    let tag = match kubernetes.version.minor {
        ..34 => "3.10",
        34..36 => "3.10.1",
        _ => "3.10.2",
    };
    format!("{}/pause:{tag}", kubernetes.image_repository.as_deref().unwrap_or("registry.k8s.io"))
}

/// From a machine that has the programs to one whose runtime the kubelet can use.
pub fn steps(kubernetes: &Kubernetes, facts: &Facts) -> Vec<Step> {
    let pause = facts.pause_image.clone().unwrap_or_else(|| pause_image(kubernetes));
    let pause = pause.as_str();
    let mut steps = match kubernetes.runtime {
        RuntimeName::Containerd => containerd::steps(kubernetes, facts, pause),
        RuntimeName::Docker => docker::steps(kubernetes, facts, pause),
        RuntimeName::Crio => crio::steps(kubernetes, facts, pause),
    };
    let file = FileSpec::public("/etc/crictl.yaml", crictl(socket(kubernetes.runtime)));
    steps.push(step("crictl", "crictl knows the runtime", Action::Files(vec![file])));
    // Docker shares containerd's store; CRI-O has one of its own, and pulls.
    if kubernetes.runtime != RuntimeName::Crio {
        steps.push(step("images", "preloaded images pinned", Action::Images));
    }
    steps
}

/// What this image lacks for the runtime, and what can be done about it.
pub fn lacking(kubernetes: &Kubernetes, facts: &Facts) -> Option<(&'static str, &'static str)> {
    match kubernetes.runtime {
        RuntimeName::Containerd => containerd::lacking(kubernetes, facts),
        RuntimeName::Docker => docker::lacking(facts),
        RuntimeName::Crio => crio::lacking(facts),
    }
}

/// /etc/crictl.yaml (<https://github.com/kubernetes-sigs/cri-tools/blob/master/docs/crictl.md>).
fn crictl(socket: &str) -> String {
    format!("{WRITTEN_BY}runtime-endpoint: {socket}\nimage-endpoint: {socket}\ntimeout: 10\n")
}

/// Where the kubelet looks for logins to registries (its root folder, kubernetes/pkg/credentialprovider/config.go).
pub const LOGINS: &str = "/var/lib/kubelet/config.json";

/// A registry's login as user and password.
fn login(registry: &Registry) -> Option<(&str, &Secret)> {
    registry.username.as_deref().zip(registry.password.as_ref())
}

/// The logins to registries as docker writes them ([`LOGINS`], containers-auth.json(5)). Holds passwords. `None`
/// where no registry needs a login.
pub fn registry_logins(kubernetes: &Kubernetes) -> Option<String> {
    let mut logins = serde_json::Map::new();
    for registry in &kubernetes.registries {
        if let Some((username, password)) = login(registry) {
            // Docker Hub's login goes by its old address.
            let host =
                if is_docker_hub(&registry.host) { "https://index.docker.io/v1/" } else { &registry.host };
            logins.insert(host.to_owned(), json!({ "auth": basic(username, password) }));
        }
    }
    (!logins.is_empty()).then(|| pretty(&json!({ "auths": logins, WRITTEN_BY_KEY.0: WRITTEN_BY_KEY.1 })))
}

/// For a runtime to which the kubelet brings the logins.
///
/// Not for containerd: it shows what the kubelet brings to each host that it asks for the image, mirrors too, so that
/// a registry's password would reach its mirrors and a mirror's own login would not be used.
fn logins_file(kubernetes: &Kubernetes) -> Option<FileSpec> {
    registry_logins(kubernetes).map(|text| FileSpec::secret(LOGINS, text))
}

/// User and password in one word (RFC 7617).
fn basic(username: &str, password: &Secret) -> String {
    STANDARD.encode(format!("{username}:{}", password.expose()))
}

/// The texts of a registry's password as the files of all runtimes have them: whoever shows such a file hides these.
pub fn password_texts(registry: &Registry) -> Vec<String> {
    let Some((username, password)) = login(registry) else { return Vec::new() };
    vec![basic(username, password), quoted(password.expose()), password.expose().to_owned()]
}

/// What the cluster file says of the mirror itself: its CA, its login, and whether it is verified, are never those of
/// the registry that it mirrors.
fn of_mirror<'a>(mirror: &str, registries: &'a [Registry]) -> Option<&'a Registry> {
    registries.iter().find(|registry| registry.host == host_of(mirror))
}

/// The host and port of a URL.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

/// Docker Hub is called docker.io and answers somewhere else.
fn is_docker_hub(host: &str) -> bool {
    host == "docker.io"
}

/// What follows the host of a URL, without the first `/`.
pub fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

/// A TOML basic string with its quotes.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
