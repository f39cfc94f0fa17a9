//! /etc/chrony/chrony.conf (chrony.conf(5)).

use std::fmt::Write;

use super::WRITTEN_BY;
use crate::role::NodeSpec;
use crate::role::types::HostOrAddress;

/// `None` where no servers are given: the distribution's file then stays.
pub fn chrony(spec: &NodeSpec) -> Option<String> {
    if spec.network.ntp.is_empty() {
        return None;
    }
    let mut text = String::from(WRITTEN_BY);
    for server in &spec.network.ntp {
        let _ = match server {
            // A name may stand for many machines; a pool also replaces those that stop answering.
            HostOrAddress::Name(name) => writeln!(text, "pool {name} iburst maxsources 4"),
            HostOrAddress::Address(address) => writeln!(text, "server {address} iburst"),
        };
    }
    text.push_str(
        "
driftfile /var/lib/chrony/chrony.drift
logdir /var/log/chrony
maxupdateskew 100.0
# A clock that is far off at boot is set at once: certificates and etcd suffer from it. Later it is only slewed.
makestep 1 3
rtcsync
",
    );
    Some(text)
}
