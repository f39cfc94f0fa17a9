//! The cluster file, key by key. What concerns one value alone is checked here; what spans several is
//! checked in [`super::check`], on a draft in which any value may be missing, so that one mistake does
//! not hide another.

use serde::de::DeserializeOwned;

use super::assemble::LONGEST_TOKEN;
pub use super::draft::{At, Draft, EndpointDraft, NetworkDraft, NodeDraft, VrrpDraft};
use super::{Cluster, arguments, check, labels, placement};
use crate::input::{Problem, Report, Section, Source};
use crate::role::components::Component;
use crate::role::file::{Deadlines, LONGEST_DEADLINE, Registry};
use crate::role::types::*;
use crate::runtime::host_of;

/// The newest cluster file version this binary reads.
pub const VERSION: i64 = 1;

pub fn parse(source: Source) -> Result<(Cluster, Report), Report> {
    crate::input::read(source, |root| {
        let draft = draft(root);
        check::cluster(draft, root.findings())
    })
    .map_err(explain)
}

/// What the TOML parser says of a key that stands twice, in the words of a cluster file.
fn explain(mut report: Report) -> Report {
    for Problem { span, message, remedy, .. } in &mut report.problems {
        if message.contains("duplicate key") {
            let name = report.source.text.get(span.clone()).unwrap_or_default().trim();
            *message = format!("`{name}` stands here a second time");
            *remedy = "keep one of the two; every node needs a name of its own".into();
        }
    }
    report
}

/// A value that may be missing, with its place.
fn at<T: DeserializeOwned>(s: &mut Section<'_, '_>, key: &str, remedy: &str) -> Option<At<T>> {
    let value = s.optional(key, remedy)?;
    Some(At { value, key: s.path_of(key), span: s.span_of(key) })
}

/// A value that must be there, with its place.
fn must<T: DeserializeOwned>(s: &mut Section<'_, '_>, key: &str, remedy: &str) -> Option<At<T>> {
    let value = s.required(key, remedy)?;
    Some(At { value, key: s.path_of(key), span: s.span_of(key) })
}

const TOKEN_HOURS: &str = "write whole hours up to 87600, ten years; 0 means for ever";

fn draft(root: &mut Section<'_, '_>) -> Draft {
    let file_version = root.required("version", "write version = 1 as the first line");
    let name = must(root, "name", "name the cluster: it becomes a part of file and machine names");
    let kubernetes: Option<At<KubernetesVersion>> =
        must(root, "kubernetes", "write the version that is baked into the image, as in v1.37.2");
    let version = kubernetes.as_ref().map(|at| at.value);
    let flags = |component| move |section: Section<'_, '_>| arguments::flags(component, version, section);
    let draft = Draft {
        version: file_version,
        name,
        kubernetes,
        runtime: at(root, "runtime", "write \"containerd\", \"docker\" or \"crio\""),
        pods: at(root, "pods", "write a network that is used nowhere else, as in 10.244.0.0/16"),
        services: at(root, "services", "write a network that is used nowhere else, as in 10.96.0.0/12"),
        dns_domain: at(root, "dns_domain", "write a DNS domain, as in cluster.local"),
        image_repository: root
            .optional("image_repository", "write a host and a path, as in harbor.example.org/k8s"),
        addons: root.optional("addons", "write a list of names, as in [\"flannel\"], or [] for none"),
        token_ttl_hours: root.optional("token_ttl_hours", TOKEN_HOURS),
        cert_sans: root.optional("cert_sans", "write a list of host names and addresses"),
        api_server_args: root.section("api_server_args").map(flags(Component::ApiServer)),
        controller_manager_args: root
            .section("controller_manager_args")
            .map(flags(Component::ControllerManager)),
        scheduler_args: root.section("scheduler_args").map(flags(Component::Scheduler)),
        etcd_args: root.section("etcd_args").map(flags(Component::Etcd)),
        endpoint: root
            .required_section("endpoint", "say in [endpoint] where the API answers: by, vip, host")
            .map(read_endpoint),
        vrrp: root.section("vrrp").map(read_vrrp),
        network: root
            .required_section("network", "say in [network] what the nodes share: gateway, dns, ntp")
            .map(read_network),
        deadlines: root.section("deadlines").map_or_else(Deadlines::default, read_deadlines),
        registries: read_registries(root),
        vsphere: root.section("vsphere").map(placement::read_vsphere),
        libvirt: root.section("libvirt").map(placement::read_libvirt),
        nodes_span: root.span_of("nodes"),
        nodes: root
            .required_section("nodes", "name the machines in [nodes]: NAME = { role = ..., address = ... }")
            .map(read_nodes),
    };
    match draft.version {
        Some(VERSION) | None => {}
        Some(version) if version > VERSION => root.error(
            "version",
            format!("this cluster file has version {version}, this kindling reads up to {VERSION}"),
            "use a newer kindling",
        ),
        Some(_) => root.error("version", "versions start at 1", "write version = 1"),
    }
    if draft.token_ttl_hours.is_some_and(|hours| hours > LONGEST_TOKEN) {
        root.error("token_ttl_hours", "is more than ten years", TOKEN_HOURS);
    }
    for name in draft.addons.iter().flatten() {
        if name.parse::<ClusterName>().is_err() {
            root.error(
                "addons",
                format!("`{name}` is not the name of an add-on"),
                "name an add-on of the image, as in \"flannel\"",
            );
        }
    }
    if let Some(repository) = &draft.image_repository
        && !is_repository(repository)
    {
        root.error(
            "image_repository",
            format!("{} not an image repository", quoted_is(repository)),
            "write a host and a path without `https://`, as in registry.aliyuncs.com/google_containers",
        );
    }
    draft
}

/// A host with an optional port, then a path: a colon after that would be a tag's, and kubeadm adds one of its own.
fn is_repository(text: &str) -> bool {
    let mut parts = text.split('/');
    let lowercase = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    parts.next().is_some_and(is_registry_host)
        && parts.all(|part| !part.is_empty() && part.bytes().all(lowercase))
}

/// What somebody wrote, and the verb after it. What stands before an @ would be a password.
fn quoted_is(text: &str) -> String {
    if text.contains('@') { "has what is".to_owned() } else { format!("`{text}` is") }
}

fn read_endpoint(mut s: Section<'_, '_>) -> EndpointDraft {
    let draft = EndpointDraft {
        span: s.span(),
        has_host: s.has("host"),
        has_vip: s.has("vip"),
        host: at(&mut s, "host", "write a DNS name or an address"),
        port: at(&mut s, "port", "write a TCP port, 1 to 65535"),
        by: must(&mut s, "by", "write \"load-balancer\", \"stacked\" or \"external\""),
        vip: at(&mut s, "vip", "write a free IPv4 address of the nodes' subnet, without a prefix"),
        proxy: at(&mut s, "proxy", "write \"haproxy\", \"nginx\" or \"none\""),
    };
    if draft.port.as_ref().is_some_and(|port| port.value == 0) {
        s.error("port", "0 is not a port", "write a TCP port, 1 to 65535");
    }
    s.finish();
    draft
}

fn read_vrrp(mut s: Section<'_, '_>) -> VrrpDraft {
    let vrid = s.optional("vrid", "write a number from 1 to 255 that no other cluster on this network uses");
    let advert_ms: Option<u32> = s.optional("advert_ms", "write milliseconds, as in 200");
    // RFC 5798, section 5.2.7: 12 bits of centiseconds
    if advert_ms.is_some_and(|ms| !(10..=40_950).contains(&ms) || ms % 10 != 0) {
        s.error(
            "advert_ms",
            "VRRP counts in hundredths of a second, from 10 to 40950 milliseconds",
            "write a multiple of 10, as in 200",
        );
    }
    s.finish();
    VrrpDraft { span: s.span(), vrid, advert_ms }
}

fn read_network(mut s: Section<'_, '_>) -> NetworkDraft {
    let draft = NetworkDraft {
        gateway: must(
            &mut s,
            "gateway",
            "write the subnet's router; a node without a default route cannot reach Service addresses",
        ),
        dns_span: s.span_of("dns"),
        dns: s.optional("dns", "write a list of IPv4 addresses").unwrap_or_default(),
        ntp: s.optional("ntp", "write a list of host names or addresses").unwrap_or_default(),
        timezone: s.optional("timezone", "write a zone of tzdata, as in Asia/Shanghai"),
        interface: s.optional("interface", "write a link's name, as in eth0"),
    };
    if let Some(zone) = &draft.timezone
        && (zone.is_empty()
            || zone.starts_with('/')
            || !zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b)))
    {
        s.error(
            "timezone",
            format!("`{zone}` is not a time zone"),
            "write a zone of tzdata, as in Asia/Shanghai",
        );
    }
    if let Some(link) = &draft.interface
        && (link.is_empty()
            || link.len() > 15
            || !link.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
    {
        s.error(
            "interface",
            format!("`{link}` is not the name of a link (at most 15 letters, digits, `.`, `_`, `-`)"),
            "write what `ip link` shows, as in eth0, or leave it out: the MAC address then says which link",
        );
    }
    s.finish();
    draft
}

/// kubeadm waits four minutes for the API server to answer and, from 1.36.1 on, as long again for the other components.
const PATIENT_KUBEADM: u64 = 480;

fn read_deadlines(mut s: Section<'_, '_>) -> Deadlines {
    let default = Deadlines::default();
    let mut seconds = |key: &str, default: u64| {
        let value = s.optional(key, "write seconds").unwrap_or(default);
        let remedy = format!("write seconds; the default is {default}");
        match value {
            0 => s.error(key, "0 seconds leave no time at all", remedy),
            1..=LONGEST_DEADLINE => {}
            _ => s.error(key, "is more than a day", remedy),
        }
        value
    };
    let deadlines = Deadlines {
        cluster: seconds("cluster", default.cluster),
        kubeadm: seconds("kubeadm", default.kubeadm),
        ready: seconds("ready", default.ready),
    };
    if (1..PATIENT_KUBEADM).contains(&deadlines.kubeadm) {
        s.warning(
            "kubeadm",
            format!("{} s may end before kubeadm itself gives up on a component that does not come up, and says which", deadlines.kubeadm),
            format!("write {PATIENT_KUBEADM} or more; the default is {}", default.kubeadm),
        );
    }
    s.finish();
    deadlines
}

/// All registries, each mirror with its host as the mirror's own entry writes it: runtimes find a host's CA and login by
/// its text, and `https://mirror.test:443` is the same server as `mirror.test`.
fn read_registries(root: &mut Section<'_, '_>) -> Vec<At<Registry>> {
    let mut registries: Vec<_> = root.sections("registries").into_iter().filter_map(read_registry).collect();
    let hosts: Vec<String> = registries.iter().map(|registry| registry.value.host.clone()).collect();
    for mirror in registries.iter_mut().flat_map(|registry| &mut registry.value.mirrors) {
        let host = host_of(mirror).to_owned();
        let port = if mirror.starts_with("http://") { ":80" } else { ":443" };
        let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_owned();
        if !hosts.contains(&host)
            && let Some(own) = hosts.iter().find(|own| plain(own) == plain(&host))
        {
            *mirror = mirror.replacen(&format!("://{host}"), &format!("://{own}"), 1);
        }
    }
    registries
}

/// As in a role file, but the password's place is the secrets file.
fn read_registry(mut s: Section<'_, '_>) -> Option<At<Registry>> {
    let host: Option<String> =
        s.required("host", "write the registry's host, with a port if it has one, as in harbor.example.org");
    let mirrors: Vec<String> = s.optional("mirrors", "write a list of URLs").unwrap_or_default();
    let insecure = s.optional("insecure", "write true or false").unwrap_or_default();
    let ca: Option<String> = s.optional("ca", "write the CA's certificate as PEM between ''' and '''");
    let username: Option<String> = s.optional("username", "write the login's name");
    if s.has("password") {
        let _: Option<serde::de::IgnoredAny> = s.optional("password", "");
        s.error(
            "password",
            "a cluster file holds no secrets",
            format!(
                "move it to the secrets file: [registries.\"{}\"] password = \"...\"",
                host.as_deref().unwrap_or("HOST")
            ),
        );
    }
    if host.as_ref().is_some_and(|h| !is_registry_host(h)) {
        s.error(
            "host",
            "must be a host with an optional port, without `https://` or a path",
            "write harbor.example.org or harbor.example.org:8443",
        );
    }
    for mirror in &mirrors {
        let of_web = mirror.starts_with("https://") || mirror.starts_with("http://");
        let graphic = mirror.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if !of_web || !graphic {
            s.error(
                "mirrors",
                format!("{} not a URL", quoted_is(mirror)),
                "write https://mirror.example.org",
            );
        } else if !is_registry_host(host_of(mirror)) {
            // What stands before an @ would be a password.
            s.error(
                "mirrors",
                "has a URL with something else than a host, an optional port and a path",
                "write https://mirror.example.org; a login stands in a [[registries]] with the mirror's host",
            );
        }
    }
    if ca
        .as_ref()
        .is_some_and(|ca| !super::pki::is_certificate(ca) || !ca.lines().all(super::seed::takes_line))
    {
        s.error(
            "ca",
            "is not a PEM certificate",
            "give the text of the CA's certificate, between ''' and '''",
        );
    }
    if username
        .as_ref()
        .is_some_and(|u| u.is_empty() || !u.bytes().all(|b| b.is_ascii_graphic() && b != b':'))
    {
        s.error("username", "is empty or has characters that a login cannot have", "write the login's name");
    }
    s.finish();
    let (key, span) = (s.path_of("host"), s.span_of("host"));
    let registry = Registry { host: host?, mirrors, insecure, ca, username, password: None };
    Some(At { value: registry, key, span })
}

pub fn is_registry_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    name.parse::<HostOrAddress>().is_ok() && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0))
}

fn read_nodes(mut s: Section<'_, '_>) -> Vec<NodeDraft> {
    let mut nodes = Vec::new();
    for key in s.keys() {
        let name = key.parse::<DnsName>();
        if let Err(message) = &name {
            s.error(&key, message.clone(), "rename the node: Kubernetes takes the name for its Node");
        } else if key.len() > 63 {
            s.error(
                &key,
                "is longer than 63 characters: the kernel's host name and the Node's label cannot hold it",
                "choose a shorter name",
            );
        }
        let Some(section) = s.section(&key) else { continue };
        if let Some(node) = read_node(name.ok(), section) {
            nodes.push(node);
        }
    }
    nodes
}

fn read_node(name: Option<DnsName>, mut s: Section<'_, '_>) -> Option<NodeDraft> {
    let role = must(&mut s, "role", "write \"control-plane\", \"worker\", \"load-balancer\" or \"etcd\"");
    let address = must(&mut s, "address", "write the node's address with its prefix, as in 10.0.0.101/24");
    let mac = at(&mut s, "mac", "write the MAC address of the VM's network card, as in 52:54:00:12:34:56");
    let first = at(&mut s, "first", "write true for the control plane that inits the cluster");
    let taints = at(&mut s, "taints", "write a list, as in [\"dedicated=gpu:NoSchedule\"], or [] for none");
    let (key, span) = (s.path_of("labels"), s.span_of("labels"));
    let labels = s.section("labels").map(|section| At { value: labels::read(section), key, span });
    s.finish();
    let key = s.path_of("");
    Some(NodeDraft {
        name: name?,
        key: key.trim_end_matches('.').to_owned(),
        span: s.span(),
        role,
        address,
        mac,
        first,
        labels,
        taints,
    })
}
