//! The keys of registries: each runtime has its own places for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kindling::role::types::RuntimeName;

use crate::cluster_support::REAL;
use crate::samples::{File, Place, Row, row};

/// The password of each registry that has a login.
pub const PASSWORD: &str = "pass\"word";

/// A registry's keys, and the same of a mirror, whose own entry has them.
pub fn of_registries((major, _): (u32, u32)) -> Vec<Row> {
    use RuntimeName::*;
    const CONTAINERD: &str = "/etc/containerd/config.toml";
    const LOGINS: &str = "/var/lib/kubelet/config.json";
    const CRIO: &str = "/etc/containers/registries.conf.d/90-kindling.conf";
    let registry = |lines: &str| format!("[[registries]]\nhost = \"marked.test\"\n{lines}\n");
    let mirrored = |lines: &str| {
        format!(
            "[[registries]]\nhost = \"docker.io\"\nmirrors = [\"https://marked.test\"]\n{}",
            registry(lines)
        )
    };
    // The same server, with the port that its scheme has in any case.
    let with_port = |lines: &str| mirrored(lines).replace("https://marked.test", "https://marked.test:443");
    let of_http = |lines: &str| mirrored(lines).replace("https://marked.test", "http://marked.test:80");
    let port_in_entry =
        |lines: &str| mirrored(lines).replace("host = \"marked.test\"", "host = \"marked.test:443\"");
    let ca = REAL.ca.certificate.clone();
    let line_of_ca = ca.lines().nth(1).expect("a certificate has lines").to_owned();
    let ca = format!("ca = '''\n{ca}'''");
    let user = "username = \"marked-user\"";
    let auth = STANDARD.encode(format!("marked-user:{PASSWORD}"));
    let plugin = if major < 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.images" };
    let table = |host: &str| {
        format!("[plugins.\"{plugin}\".registry.configs.\"{host}\".auth]\n  username = \"marked-user\"")
    };
    let authority = |host: &str| format!("ca = \"/etc/containerd/certs.d/{host}/ca.crt\"");
    let hub = "[[registries]]\nhost = \"docker.io\"\n";
    let mirror = "mirrors = [\"https://mirror.test\"]";
    vec![
        row(
            "registries[].host",
            registry(""),
            "w1",
            File("/etc/containerd/certs.d/marked.test/hosts.toml"),
            "https://marked.test",
        )
        .only(Containerd),
        row("registries[].host", registry(""), "w1", File(CRIO), "prefix = \"marked.test\"").only(Crio),
        row("registries[].host", registry(user), "w1", File(LOGINS), "marked.test").only(Docker),
        row(
            "registries[].ca",
            registry(&ca),
            "w1",
            File("/etc/containerd/certs.d/marked.test/ca.crt"),
            &line_of_ca,
        )
        .and(File("/etc/containerd/certs.d/marked.test/hosts.toml"), &authority("marked.test"))
        .only(Containerd),
        row(
            "registries[].ca",
            mirrored(&ca),
            "w1",
            File("/etc/containerd/certs.d/docker.io/hosts.toml"),
            &authority("marked.test"),
        )
        .without(mirrored(""))
        .only(Containerd),
        row(
            "registries[].ca",
            mirrored(&ca),
            "w1",
            File("/etc/docker/certs.d/marked.test/ca.crt"),
            &line_of_ca,
        )
        .only(Docker),
        row(
            "registries[].ca",
            mirrored(&ca),
            "w1",
            File("/etc/containers/certs.d/marked.test/ca.crt"),
            &line_of_ca,
        )
        .only(Crio),
        row(
            "registries[].insecure",
            registry("insecure = true"),
            "w1",
            File("/etc/containerd/certs.d/marked.test/hosts.toml"),
            "skip_verify = true",
        )
        .only(Containerd),
        row(
            "registries[].insecure",
            mirrored("insecure = true"),
            "w1",
            File("/etc/containerd/certs.d/docker.io/hosts.toml"),
            "skip_verify = true",
        )
        .without(mirrored(""))
        .only(Containerd),
        row(
            "registries[].insecure",
            mirrored("insecure = true"),
            "w1",
            File("/etc/docker/daemon.json"),
            "marked.test\"\n  ],\n  \"",
        )
        .without(mirrored(""))
        .only(Docker),
        row(
            "registries[].insecure",
            mirrored("insecure = true"),
            "w1",
            File(CRIO),
            "location = \"marked.test\"\ninsecure = true\n\n[[registry]]",
        )
        .without(mirrored(""))
        .only(Crio),
        row(
            "registries[].insecure",
            with_port("insecure = true"),
            "w1",
            File("/etc/containerd/certs.d/docker.io/hosts.toml"),
            "skip_verify = true",
        )
        .without(with_port(""))
        .only(Containerd),
        row(
            "registries[].insecure",
            with_port("insecure = true"),
            "w1",
            File("/etc/docker/daemon.json"),
            "\"registry-mirrors\": [\n    \"https://marked.test\"\n  ]",
        )
        .and(File("/etc/docker/daemon.json"), "marked.test\"\n  ],\n  \"")
        .only(Docker),
        row(
            "registries[].insecure",
            with_port("insecure = true"),
            "w1",
            File(CRIO),
            "location = \"marked.test\"\ninsecure = true\n\n[[registry]]",
        )
        .without(with_port(""))
        .only(Crio),
        row(
            "registries[].mirrors",
            format!("{hub}{mirror}"),
            "w1",
            File("/etc/containerd/certs.d/docker.io/hosts.toml"),
            "[host.\"https://mirror.test\"]",
        )
        .only(Containerd),
        row(
            "registries[].mirrors",
            registry(mirror),
            "w1",
            File("/etc/containerd/certs.d/marked.test/hosts.toml"),
            "[host.\"https://mirror.test\"]",
        )
        .only(Containerd),
        row(
            "registries[].mirrors",
            format!("{hub}{mirror}"),
            "w1",
            File("/etc/docker/daemon.json"),
            "https://mirror.test",
        )
        .only(Docker),
        row("registries[].mirrors", registry(mirror), "w1", Place::Step("docker"), "")
            .refused("Docker knows mirrors for docker.io only, not for marked.test")
            .only(Docker),
        row(
            "registries[].mirrors",
            format!("{hub}mirrors = [\"https://mirror.test/v2/hub\"]"),
            "w1",
            Place::Step("docker"),
            "",
        )
        .refused("Docker takes no mirror with a path, as https://mirror.test/v2/hub is")
        .only(Docker),
        row("registries[].mirrors", registry(mirror), "w1", File(CRIO), "location = \"mirror.test\"")
            .only(Crio),
        // The path of the API is none of a location's; such a folder of somebody's own is.
        row(
            "registries[].mirrors",
            format!("{hub}mirrors = [\"https://mirror.test/v2/hub\", \"https://mirror.test/a/v2/b\"]"),
            "w1",
            File(CRIO),
            "location = \"mirror.test/hub\"",
        )
        .and(File(CRIO), "location = \"mirror.test/a/v2/b\"")
        .only(Crio),
        row("registries[].username", mirrored(user), "w1", File(CONTAINERD), &table("marked.test"))
            .and(File(CONTAINERD), "password = 'pass\"word'")
            .only(Containerd),
        row(
            "registries[].username",
            format!("{hub}{user}"),
            "w1",
            File(CONTAINERD),
            &table("registry-1.docker.io"),
        )
        .only(Containerd),
        row("registries[].username", with_port(user), "w1", File(CONTAINERD), &table("marked.test"))
            .and(File("/etc/containerd/certs.d/docker.io/hosts.toml"), "[host.\"https://marked.test\"]")
            .only(Containerd),
        row("registries[].username", of_http(user), "w1", File(CONTAINERD), &table("marked.test"))
            .and(File("/etc/containerd/certs.d/docker.io/hosts.toml"), "[host.\"http://marked.test\"]")
            .only(Containerd),
        row("registries[].username", port_in_entry(user), "w1", File(CONTAINERD), &table("marked.test:443"))
            .and(File("/etc/containerd/certs.d/docker.io/hosts.toml"), "[host.\"https://marked.test:443\"]")
            .only(Containerd),
        row("registries[].username", registry(user), "w1", File(LOGINS), &auth).only(Docker),
        row(
            "registries[].username",
            format!("{hub}{user}"),
            "w1",
            File(LOGINS),
            "https://index.docker.io/v1/",
        )
        .and(File(LOGINS), &auth)
        .only(Docker),
        row("registries[].username", mirrored(user), "w1", Place::Step("docker"), "")
            .refused("Docker asks https://marked.test, a mirror of docker.io, without a login")
            .only(Docker),
        row("registries[].username", with_port(user), "w1", Place::Step("docker"), "")
            .refused("a mirror of docker.io, without a login")
            .only(Docker),
        row("registries[].username", with_port(user), "w1", File(CRIO), "location = \"marked.test\"")
            .and(File(LOGINS), "\"marked.test\"")
            .only(Crio),
        row("registries[].username", mirrored(user), "w1", File(LOGINS), &auth)
            .and(
                File("/etc/crio/crio.conf.d/90-kindling.conf"),
                "global_auth_file = \"/var/lib/kubelet/config.json\"",
            )
            .only(Crio),
    ]
}
