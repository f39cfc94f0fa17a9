//! etcd's members through its JSON gateway (<https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>): what kubeadm does
//! not tell and does not undo.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::client_certificate;
use crate::cluster::pki::Pair;
use crate::error::StepError;
use crate::host::Host;
use crate::kube::{Credentials, KubeError, Method, Request, Server};
use crate::render::{ETCD_CLIENT_PORT, peer_url};
use crate::retry::{Attempt, Patience, wait};
use crate::role::ControlPlaneRole;

const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// A number of 64 bits, which JSON cannot hold.
    pub id: String,
    /// Empty until it was started for the first time.
    pub name: String,
    pub peer_url: String,
}

impl Member {
    pub fn was_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// The address in its peer URL.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.peer_url.strip_prefix("https://")?.split(':').next()?.parse().ok()
    }
}

/// The member of the machine with this address.
pub fn member_at(members: &[Member], address: Ipv4Addr) -> Option<&Member> {
    let url = peer_url(address);
    members.iter().find(|member| member.peer_url == url)
}

pub struct Etcd<'a> {
    host: &'a dyn Host,
    ca: String,
    credentials: Credentials,
}

impl<'a> Etcd<'a> {
    /// Asks with a certificate that `ca`, etcd's own, signs.
    pub fn new(host: &'a dyn Host, ca: &Pair) -> Result<Self, StepError> {
        let credentials = client_certificate(host, ca, "kindling", None)?;
        Ok(Self { host, ca: ca.certificate.clone(), credentials })
    }

    pub fn of_control_plane(host: &'a dyn Host, role: &ControlPlaneRole) -> Result<Self, StepError> {
        Self::new(host, &role.pki.etcd_authority())
    }

    fn post(&self, at: Ipv4Addr, path: &str, body: &Value) -> Result<Value, KubeError> {
        let server = Server::at(&self.ca, at, ETCD_CLIENT_PORT);
        let request = Request { method: Method::Post, path, body: Some(body) };
        let text = self.host.request(&server, &self.credentials, &request, TIMEOUT)?;
        serde_json::from_str(&text).map_err(|error| KubeError::Client(error.to_string()))
    }

    /// The members as the one at this address knows them, also while there is no quorum.
    pub fn members(&self, at: Ipv4Addr) -> Result<Vec<Member>, KubeError> {
        let answer = self.post(at, "/v3/cluster/member/list", &json!({ "linearizable": false }))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let members = answer["members"].as_array().into_iter().flatten();
        Ok(members
            .map(|m| Member { id: text(&m["ID"]), name: text(&m["name"]), peer_url: text(&m["peerURLs"][0]) })
            .collect())
    }

    /// Whether the member at this address answers what needs a quorum.
    pub fn answers(&self, at: Ipv4Addr) -> Result<(), KubeError> {
        // One key that nobody has; the read goes through the leader (base64 of "kindling").
        self.post(at, "/v3/kv/range", &json!({ "key": "a2luZGxpbmc=", "limit": "1" })).map(|_| ())
    }

    /// Removes a member through the one at `at`. etcd wants those that stay to have seen each other for some seconds,
    /// so that is waited for; `meanwhile` is called at every look.
    pub fn remove(
        &self,
        at: Ipv4Addr,
        id: &str,
        waiting: &mut dyn FnMut(&str),
        meanwhile: &dyn Fn(),
    ) -> Result<(), StepError> {
        wait(
            self.host,
            Patience::seconds(60),
            waiting,
            || {
                meanwhile();
                match self.post(at, "/v3/cluster/member/remove", &json!({ "ID": id })) {
                    Ok(_) => Attempt::Ready(()),
                    // Somebody, or an answer that was lost, was faster.
                    Err(error) if error.status() == Some(404) => Attempt::Ready(()),
                    Err(error) => Attempt::NotYet(format!("etcd does not remove the member yet: {error}")),
                }
            },
            |reason| {
                StepError::passing(reason, "etcd removes a member only with a quorum: power the others on")
            },
        )
    }
}
