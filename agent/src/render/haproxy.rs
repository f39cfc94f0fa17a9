//! /etc/haproxy/haproxy.cfg (<https://docs.haproxy.org/2.6/configuration.html>).

use std::fmt::Write;

use super::{API_PORT, WRITTEN_BY};
use crate::plan::CA_FILE;
use crate::role::NodeSpec;
use crate::role::types::ProxyKind;

/// Answers 200 on the statistics' port, without a password, while a control plane is healthy.
pub const HEALTH_PATH: &str = "/healthz";

/// Where the servers' names are unique, and where haproxy is told of others at run time.
pub const HAPROXY_BACKEND: &str = "control-planes";
pub const HAPROXY_SOCKET: &str = "/run/haproxy/admin.sock";
/// How every server is checked; a server that is added at run time has no defaults.
pub fn haproxy_checks() -> [String; 2] {
    [
        format!("check check-ssl verify required ca-file {CA_FILE}"),
        "inter 500ms fastinter 250ms fall 3 rise 2 on-marked-down shutdown-sessions".into(),
    ]
}

/// The user of the statistics' page.
const STATS_USER: &str = "kindling";

/// haproxy in front of every control plane. Holds the statistics' password. Empty where the node does
/// not run it.
///
/// It listens on the VIP alone: the control planes of a stacked cluster have other ports for everybody
/// else, and a load balancer's own address is for its administrators. So `ip_nonlocal_bind` is needed.
pub fn haproxy(spec: &NodeSpec) -> String {
    let Some(proxy) = spec.proxy().filter(|p| p.kind == ProxyKind::Haproxy) else { return String::new() };
    let port = spec.endpoint.port;
    // A load balancer without a VIP cannot be written in a cluster file; it would listen everywhere.
    let vip = spec.endpoint.vip.map(|vip| vip.to_string()).unwrap_or_default();
    let stats_port = proxy.stats_port;
    let [how, how_often] = haproxy_checks();
    // The role file is refused without it.
    let password = quoted(proxy.stats_password.as_ref().map_or("", |p| p.expose()));
    let mut text = format!(
        "{WRITTEN_BY}
global
    # Standard output is the journal; the level in front of each line is its priority.
    log stdout format short daemon info
    chroot /var/lib/haproxy
    stats socket {HAPROXY_SOCKET} mode 660 level admin expose-fd listeners
    user haproxy
    group haproxy
    # Two descriptors each. A kubelet, its kube-proxy and its pods have some five connections a node.
    maxconn 8000
    # In a container that may not raise its limits, fewer connections are better than none.
    no strict-limits

defaults
    log global
    option log-health-checks
    option dontlognull
    # On one network a connection takes a millisecond; what is not answered goes to another control plane.
    timeout connect 500ms
    timeout client 30s
    timeout server 30s

frontend kubernetes-api
    mode tcp
    bind {vip}:{port}
    option tcplog
    # Only what went wrong: every kubectl would be a line in the journal.
    option dontlog-normal
    option clitcpka
    default_backend {HAPROXY_BACKEND}

backend {HAPROXY_BACKEND}
    mode tcp
    # An API server that hangs keeps its connections, so new ones go to the others before a check says so.
    balance leastconn
    option srvtcpka
    # Watches live for hours without a byte; TCP keep-alive tells the dead from the quiet.
    timeout tunnel 4h
    # A connection that is refused or not answered goes to another control plane at once.
    retries 3
    option redispatch 1
    # An answer may take longer than a dead machine's silence: a busy API server is not a dead one. Connecting
    # and the handshake have the time that connections have.
    timeout check 2s
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host kubernetes hdr Connection close
    http-check expect status 200
    default-server {how}
    default-server {how_often}
",
    );
    for (name, address) in &proxy.servers {
        // kubeadm puts the node's name into the API server's certificate.
        let _ = writeln!(text, "    server {name} {address}:{API_PORT} check-sni {name} verifyhost {name}");
    }
    let _ = write!(
        text,
        "
userlist administrators
    user {STATS_USER} insecure-password {password}

frontend statistics
    mode http
    bind :{stats_port}
    timeout http-request 5s
    option httplog
    option dontlog-normal
    # Asked many times a second by Kindling's watcher on this machine.
    monitor-uri {HEALTH_PATH}
    monitor fail if {{ nbsrv({HAPROXY_BACKEND}) lt 1 }}
    http-request auth realm Kindling unless {{ http_auth(administrators) }}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request redirect location /status if {{ path / }}
    stats enable
    stats uri /status
    stats refresh 5s
    stats show-legends
    stats show-node {}
",
        spec.name
    );
    text
}

/// A word in haproxy's strong quotes, inside which only the quote itself means something.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
