//! etcd's members, and its JSON gateway (<https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>): what kubeadm does not
//! tell and does not undo.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::client_certificate;
use crate::cluster::pki::Pair;
use crate::error::StepError;
use crate::host::Host;
use crate::kube::{Credentials, KubeError, Method, Request, Server};
use crate::render::{ETCD_CLIENT_PORT, ETCD_PEER_PORT, peer_url};
use crate::retry::{Attempt, Patience, wait};
use crate::role::ControlPlaneRole;
use crate::role::etcd_version::EtcdVersion;

const TIMEOUT: Duration = Duration::from_secs(3);

/// A member in the list that another one keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty in one that was announced to a running cluster, until it has started.
    pub name: String,
    pub peer_urls: Vec<String>,
    /// It was started at least once, with a majority.
    pub started: bool,
    /// It has no vote yet.
    pub learner: bool,
}

impl Member {
    fn read(value: &Value) -> Option<Self> {
        let texts = |key: &str| value[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        Some(Self {
            id: value["id"].as_u64()?,
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            peer_urls: texts("peerURLs").map(str::to_owned).collect(),
            started: texts("clientURLs").next().is_some(),
            learner: value["isLearner"] == true,
        })
    }

    pub fn is_at(&self, address: Ipv4Addr) -> bool {
        self.peer_urls.contains(&peer_url(address))
    }

    /// The address in its peer URL.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.peer_urls.first()?.strip_prefix("https://")?.split(':').next()?.parse().ok()
    }
}

/// The member of the machine with this address.
pub fn member_at(members: &[Member], address: Ipv4Addr) -> Option<&Member> {
    members.iter().find(|member| member.is_at(address))
}

/// The members as the one at this address knows them. It is asked as its peers ask it: one that was started while there
/// is no majority answers them, and nobody at its port for clients.
pub fn list(
    host: &dyn Host,
    ca: &str,
    credentials: &Credentials,
    at: Ipv4Addr,
    timeout: Duration,
) -> Result<Vec<Member>, KubeError> {
    let text = host.get(&Server::at(ca, at, ETCD_PEER_PORT), credentials, "/members", timeout)?;
    let value: Option<Value> = serde_json::from_str(&text).ok();
    value
        .as_ref()
        .and_then(|value| value.as_array()?.iter().map(Member::read).collect())
        .ok_or_else(|| KubeError::Client("answers with something else than its members".into()))
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

    /// As [`list`] tells them.
    pub fn members(&self, at: Ipv4Addr) -> Result<Vec<Member>, KubeError> {
        list(self.host, &self.ca, &self.credentials, at, TIMEOUT)
    }

    /// Whether the member at this address answers what needs a quorum.
    pub fn answers(&self, at: Ipv4Addr) -> Result<(), KubeError> {
        // One key that nobody has; the read goes through the leader (base64 of "kindling").
        self.post(at, "/v3/kv/range", &json!({ "key": "a2luZGxpbmc=", "limit": "1" })).map(|_| ())
    }

    /// The minor version of the etcd 3 at this address, which it tells also without a quorum.
    pub fn minor_version(&self, at: Ipv4Addr) -> Result<u32, KubeError> {
        let server = Server::at(&self.ca, at, ETCD_PEER_PORT);
        let text = self.host.get(&server, &self.credentials, "/version", TIMEOUT)?;
        let version = EtcdVersion::of_member(&text).map(|version| version.minor);
        version.ok_or_else(|| KubeError::Client(format!("{at} tells no version of etcd")))
    }

    /// Gives a learner its vote, through the member at `at`; etcd refuses until it has caught up.
    pub fn promote(&self, at: Ipv4Addr, id: u64) -> Result<(), KubeError> {
        self.post(at, "/v3/cluster/member/promote", &json!({ "ID": id.to_string() })).map(|_| ())
    }

    /// Removes a member through the one at `at`. etcd wants those that stay to have seen each other for some seconds,
    /// so that is waited for; `meanwhile` is called at every look.
    pub fn remove(
        &self,
        at: Ipv4Addr,
        id: u64,
        waiting: &mut dyn FnMut(&str),
        meanwhile: &dyn Fn(),
    ) -> Result<(), StepError> {
        wait(
            self.host,
            Patience::seconds(60),
            waiting,
            || {
                meanwhile();
                match self.post(at, "/v3/cluster/member/remove", &json!({ "ID": id.to_string() })) {
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
