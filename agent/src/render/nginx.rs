//! /etc/nginx/nginx.conf with the stream module (<https://nginx.org/en/docs/stream/ngx_stream_core_module.html>).

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::{API_PORT, HEALTH_PATH, WRITTEN_BY};
use crate::role::NodeSpec;
use crate::role::types::{DnsName, ProxyKind};

/// What [`crate::endpoint`] writes. Below /var/lib, as it must outlive a boot.
pub const NGINX_SERVERS: &str = "/var/lib/kindling/nginx-servers.conf";

/// A line of an `upstream`.
pub fn nginx_server(name: &DnsName, address: Ipv4Addr) -> String {
    format!("        server {address}:{API_PORT} max_fails=1 fail_timeout=5s; # {name}\n")
}

/// nginx in front of every control plane. Nothing in it is secret. Empty where the node does not run it.
///
/// As [`super::haproxy`] it listens on the VIP alone. It has no active checks: an API server that refuses is
/// left out for some seconds after a connection that then goes to another one; one that accepts and never
/// answers costs the connections that it gets, and least_conn keeps those few.
pub fn nginx(spec: &NodeSpec) -> String {
    let Some(proxy) = spec.proxy().filter(|p| p.kind == ProxyKind::Nginx) else { return String::new() };
    let port = spec.endpoint.port;
    let vip = spec.endpoint.vip.map(|vip| vip.to_string()).unwrap_or_default();
    let stats_port = proxy.stats_port;
    let mut text = format!(
        "{WRITTEN_BY}
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user www-data;
pid /run/nginx.pid;
worker_processes auto;
# Two descriptors for each connection.
worker_rlimit_nofile 20000;
error_log syslog:server=unix:/dev/log,nohostname warn;

events {{
    worker_connections 8000;
}}

stream {{
    upstream control-planes {{
        # The workers share what they know.
        zone control-planes 64k;
        # An API server that hangs keeps its connections, so new ones go to the others.
        least_conn;
"
    );
    for (name, address) in &proxy.servers {
        text.push_str(&nginx_server(name, *address));
    }
    let _ = writeln!(
        text,
        "        # Those that came later; there is no such file before.\n        include {NGINX_SERVERS}*;"
    );
    let _ = write!(
        text,
        "    }}

    server {{
        listen {vip}:{port} so_keepalive=30s:10s:3;
        proxy_pass control-planes;
        # On one network a connection takes a millisecond; what is not answered goes to another one.
        proxy_connect_timeout 500ms;
        # Watches live for hours without a byte; TCP keep-alive tells the dead from the quiet.
        proxy_timeout 4h;
        proxy_socket_keepalive on;
    }}
}}

http {{
    access_log off;
    # Asked many times a second by Kindling's watcher on this machine.
    server {{
        listen 127.0.0.1:{stats_port};
        location = {HEALTH_PATH} {{
            return 200;
        }}
    }}
}}
"
    );
    text
}
