//! Whether an external etcd is healthy, as its members and its clients ask.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::error::StepError;
use crate::host::{Host, read_text};
use crate::kube::{Credentials, KubeError, Server};
use crate::render::ETCD_CLIENT_PORT;
use crate::retry::Attempt;
use crate::role::etcd_version::EtcdVersion;
use crate::role::types::{DnsName, Secret};

/// For one answer.
pub const ASK: Duration = Duration::from_secs(5);

/// Certificate and key of a client of etcd, in one PEM text.
pub fn identity(host: &dyn Host, path: &str) -> Result<Credentials, String> {
    let read =
        |kind: &str| read_text(host, format!("{path}.{kind}")).ok_or(format!("{path}.{kind} is not there"));
    Ok(Credentials::Certificate(Secret::new(read("crt")? + &read("key")?)))
}

/// Whether the member at this address takes part in a majority: its answer is as hard as a read
/// (<https://etcd.io/docs/v3.5/op-guide/monitoring/#health-check>).
pub fn health(host: &dyn Host, ca: &str, credentials: &Credentials, ip: Ipv4Addr) -> Result<(), String> {
    let server = Server::at(ca, ip, ETCD_CLIENT_PORT);
    match host.get(&server, credentials, "/health", ASK) {
        Ok(body) if serde_json::from_str::<Value>(&body).is_ok_and(|v| v["health"] == "true") => Ok(()),
        Ok(_) | Err(KubeError::Status { status: 503, .. }) => Err("finds no majority".into()),
        Err(KubeError::Unreachable { .. }) => Err("does not answer".into()),
        Err(KubeError::Untrusted { .. }) => Err("has a certificate of another CA".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The version of the member at this address.
fn version(host: &dyn Host, ca: &str, credentials: &Credentials, ip: Ipv4Addr) -> Option<EtcdVersion> {
    let answer = host.get(&Server::at(ca, ip, ETCD_CLIENT_PORT), credentials, "/version", ASK).ok()?;
    EtcdVersion::of_member(&answer)
}

/// A majority of an external etcd cluster answers, and this machine among it where it is a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Healthy {
    pub members: BTreeMap<DnsName, Ipv4Addr>,
    pub own: Option<Ipv4Addr>,
    /// That kubeadm takes.
    pub oldest: EtcdVersion,
    pub ca: String,
    /// The client's certificate and key, without their endings.
    pub identity: String,
}

impl Healthy {
    /// A member that is too old for kubeadm is never ready. kubeadm's own check of that asks all members, where a majority
    /// must be enough, and so only warns.
    pub fn state(&self, host: &dyn Host) -> Attempt<Option<String>> {
        let credentials = match identity(host, &self.identity) {
            Ok(credentials) => credentials,
            Err(reason) => return Attempt::NotYet(reason),
        };
        let mut ill: Vec<(Ipv4Addr, String)> = Vec::new();
        for (name, ip) in &self.members {
            let trouble = match health(host, &self.ca, &credentials, *ip) {
                Err(trouble) => trouble,
                Ok(()) => match version(host, &self.ca, &credentials, *ip) {
                    Some(version) if version < self.oldest => {
                        return Attempt::Never(StepError::lasting(
                            format!(
                                "{name} ({ip}) runs etcd {version}: kubeadm takes an external etcd from {} on",
                                self.oldest
                            ),
                            "bake the image of the etcd machines with the etcd that kubeadm names, and boot them with it",
                        ));
                    }
                    Some(_) => continue,
                    None => "does not say its version".into(),
                },
            };
            ill.push((*ip, format!("{name} ({ip}) {trouble}")));
        }
        let list = ill.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>().join(", ");
        let (all, well) = (self.members.len(), self.members.len() - ill.len());
        let own_is_ill = ill.iter().any(|(ip, _)| Some(*ip) == self.own);
        // Each answer alone is by a majority; that most give it shows that one that fails is not missed.
        if well > all / 2 && !own_is_ill {
            return Attempt::Ready((!ill.is_empty()).then(|| format!("warning: {list}")));
        }
        Attempt::NotYet(format!(
            "etcd: {well} of {all} members are healthy, {} are needed: {list}",
            all / 2 + 1
        ))
    }

    pub fn remedy(&self) -> &'static str {
        match self.own {
            Some(_) => {
                "look at the consoles of the members that are named; `journalctl -b -u etcd` says what this one waits for"
            }
            None => {
                "look at the consoles of the etcd machines that are named, and whether this machine reaches their port 2379"
            }
        }
    }
}
