//! Which API servers the proxy on this machine leads to: those of the role file, and those that came later.
//!
//! The cluster names its control planes ([`crate::published`]); what was heard is kept on the disk, and the proxy is
//! told of what differs, without a restart. A server of the role file stays until the cluster has named it and
//! then names it no more: one that is silent, or has not joined yet, is no reason to forget it.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use super::{Servers, haproxy, nginx};
use crate::host::Host;
use crate::host::linux::{Linux, write_atomic};
use crate::kube::{Credentials, Kube, KubeError, Server};
use crate::published;
use crate::render::API_PORT;
use crate::role::types::{DnsName, ProxyKind};

/// What the cluster named last.
pub const STATE_FILE: &str = "/var/lib/kindling/servers.json";
const PAUSE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(2);
/// After so long without any answer nothing that was heard counts any more: a cluster that is formed anew begins with
/// the servers of the role file.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

pub type List = BTreeMap<DnsName, Ipv4Addr>;

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Learnt {
    named: List,
    /// Named once, and not any more.
    removed: BTreeSet<DnsName>,
}

impl Learnt {
    /// Takes in what the cluster names now; whether that is news. A cluster has a control plane, so an empty list is none.
    pub fn hear(&mut self, named: List) -> bool {
        if named.is_empty() || named == self.named {
            return false;
        }
        self.removed.extend(self.named.keys().cloned());
        self.removed.retain(|name| !named.contains_key(name));
        self.named = named;
        true
    }

    /// Where clients are to be led; `silent` is whether nobody has answered for long.
    pub fn servers(&self, given: &List, silent: bool) -> List {
        let stays = |name: &DnsName| silent || !self.removed.contains(name);
        let mut servers: List =
            given.iter().filter(|(name, _)| stays(name)).map(|(n, ip)| (n.clone(), *ip)).collect();
        servers.extend(self.named.iter().map(|(name, ip)| (name.clone(), *ip)));
        servers
    }

    fn load() -> Self {
        let saved = fs::read(STATE_FILE).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        saved.unwrap_or_default()
    }

    fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        write_atomic(Path::new(STATE_FILE), &text, 0o644)
    }
}

/// Asks and tells until the process ends. Nothing that fails here may end it: it watches the VIP as well.
pub fn run(given: &Servers, ca: &str) {
    let host = Linux::default();
    let mut learnt = Learnt::load();
    let mut clients: BTreeMap<Ipv4Addr, Kube> = BTreeMap::new();
    let mut answered = Instant::now();
    let mut turn = 0;
    let mut told = String::new();
    loop {
        let servers = learnt.servers(&given.given, answered.elapsed() > FORGOTTEN_AFTER);
        let done = match given.proxy {
            ProxyKind::Haproxy => haproxy::lead_to(&servers),
            ProxyKind::Nginx => nginx::lead_to(&servers, &given.given, &host),
            ProxyKind::None => Ok(()),
        };
        // The same trouble is told once, not at every turn.
        let trouble = done.err().map(|error| error.to_string()).unwrap_or_default();
        if !trouble.is_empty() && trouble != told {
            log::warn!("{} cannot be told of its API servers: {trouble}", given.proxy);
        }
        told = trouble;
        thread::sleep(PAUSE.mul_f64(0.5 + host.random()));
        let Some(address) = servers.values().nth(turn % servers.len().max(1)).copied() else { continue };
        match ask(&mut clients, ca, address) {
            Ok(Some(list)) => {
                answered = Instant::now();
                if learnt.hear(list) {
                    let names: Vec<&str> = learnt.named.keys().map(DnsName::as_str).collect();
                    log::info!("the cluster's control planes are {}", names.join(", "));
                    if let Err(error) = learnt.save() {
                        log::warn!("{STATE_FILE}: {error}");
                    }
                }
            }
            // It answers, and has no list: a cluster that is being formed, or was formed by an older Kindling.
            Ok(None) => answered = Instant::now(),
            Err(_) => {
                clients.remove(&address);
                turn += 1;
            }
        }
    }
}

fn ask(
    clients: &mut BTreeMap<Ipv4Addr, Kube>,
    ca: &str,
    address: Ipv4Addr,
) -> Result<Option<List>, KubeError> {
    let kube = match clients.entry(address) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => {
            let server = Server::at(ca, address, API_PORT);
            place.insert(Kube::new(server, Credentials::Anonymous, TIMEOUT)?)
        }
    };
    match kube.get_json(published::PATH) {
        Ok(config_map) => Ok(Some(published::read(&config_map))),
        Err(KubeError::Status { status: 401 | 403 | 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, u8)]) -> List {
        entries.iter().map(|(n, ip)| (n.parse().unwrap(), Ipv4Addr::new(10, 0, 0, *ip))).collect()
    }

    fn names(servers: &List) -> String {
        servers.keys().map(DnsName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_came_later_is_led_to_and_who_left_is_not() {
        let given = list(&[("cp1", 1), ("cp2", 2), ("cp3", 3)]);
        let mut learnt = Learnt::default();
        assert!(learnt.hear(list(&[("cp1", 1)])));
        assert_eq!(names(&learnt.servers(&given, false)), "cp1 cp2 cp3", "the others have not joined yet");
        assert!(learnt.hear(list(&[("cp1", 1), ("cp2", 2), ("cp4", 4)])));
        assert_eq!(names(&learnt.servers(&given, false)), "cp1 cp2 cp3 cp4");
        assert!(learnt.hear(list(&[("cp2", 2), ("cp4", 4)])));
        assert_eq!(
            names(&learnt.servers(&given, false)),
            "cp2 cp3 cp4",
            "cp1 was named, and is not any more"
        );
        assert!(!learnt.hear(list(&[("cp2", 2), ("cp4", 4)])));
        assert!(!learnt.hear(List::new()), "no cluster is without a control plane");
        assert!(learnt.hear(list(&[("cp1", 1), ("cp2", 2)])));
        assert_eq!(names(&learnt.servers(&given, false)), "cp1 cp2 cp3", "cp1 is back, cp4 left");
    }

    #[test]
    fn where_nobody_answers_the_role_files_servers_are_all_tried() {
        let given = list(&[("cp1", 1), ("cp2", 2)]);
        let mut learnt = Learnt::default();
        learnt.hear(given.clone());
        learnt.hear(list(&[("cp2", 2)]));
        assert_eq!(names(&learnt.servers(&given, false)), "cp2");
        assert_eq!(names(&learnt.servers(&given, true)), "cp1 cp2");
    }

    #[test]
    fn an_address_that_changed_is_the_clusters_to_say() {
        let given = list(&[("cp1", 1)]);
        let mut learnt = Learnt::default();
        learnt.hear(list(&[("cp1", 9)]));
        assert_eq!(learnt.servers(&given, false), list(&[("cp1", 9)]));
    }
}
