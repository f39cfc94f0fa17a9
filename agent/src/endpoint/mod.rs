//! The endpoint watcher: says, many times a second, how much this machine should hold the VIP.
//!
//! keepalived runs a check script once a second at most, so a dead or frozen proxy would cost two seconds.
//! It also follows a number in a file by inotify (`track_file` in keepalived.conf(5)) and adds it to its
//! priority: this process writes that number. What it *checks* is told apart in [`health`], what it *writes*
//! is decided in [`weight`]: both are pure. keepalived says who holds the VIP through a FIFO.
//!
//! Beside that it tells the proxy of API servers that came when it ran already ([`learn`]).

mod haproxy;
mod health;
mod learn;
mod nginx;
mod probe;
mod watch;
mod weight;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use crate::role::types::{DnsName, ProxyKind};

pub use watch::{moves, run};
pub use weight::PENALTY;

/// Rendered by [`crate::render::watched`].
pub const CONFIG_FILE: &str = "/etc/kindling/endpoint.toml";
/// Where the number, what must outlive a restart, and the FIFO lie.
pub const FOLDER: &str = "/run/kindling/endpoint";
/// The number that keepalived adds to its priority.
pub const WEIGHT_FILE: &str = "/run/kindling/endpoint/weight";
/// Where keepalived says what it has become (`vrrp_notify_fifo`).
pub const FIFO: &str = "/run/kindling/endpoint/states";

const TAKES: &str = "kindling-endpoint: this machine holds the VIP";
const GIVES: &str = "kindling-endpoint: this machine no longer holds the VIP";

/// On the console, for people and for `kindling report`.
pub fn vip_line(holds: bool) -> &'static str {
    if holds { TAKES } else { GIVES }
}

/// [`vip_line`] in a line of a machine's serial log.
pub fn vip_of(line: &str) -> Option<bool> {
    let line = line.trim_end();
    if line.ends_with(TAKES) { Some(true) } else { line.ends_with(GIVES).then_some(false) }
}

/// What decides on this machine whether it should hold the VIP.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The proxy's own word, by plain HTTP on this machine, or the local API server's, verified against
    /// the cluster's CA.
    ///
    /// Absent where no other machine may hold the VIP.
    pub check: Option<Check>,
    pub address: Option<SocketAddr>,
    /// Present where a proxy runs.
    pub servers: Option<Servers>,
}

/// What the proxy leads to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    pub proxy: ProxyKind,
    /// Those of the role file.
    pub given: BTreeMap<DnsName, Ipv4Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Proxy,
    ApiServer,
}
