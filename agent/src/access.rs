//! A control plane's own access to the cluster. It holds the CAs' keys, so it issues itself the short-lived
//! certificates that it asks with: for the API as an administrator, for etcd as a client.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::pki::{self, Leaf, Pair};
use crate::error::StepError;
use crate::host::{Host, date};
use crate::kube::{Credentials, KubeError, Method, Request, Server};
use crate::role::types::Secret;
use crate::role::{ControlPlaneRole, NodeSpec};
use crate::step::kubeadm::endpoint_servers;

/// Longer than any wait of one run in which it is used.
const LIFE: time::Duration = time::Duration::hours(12);
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client certificate and its key as [`Credentials`], signed by `ca`.
pub fn client_certificate(
    host: &dyn Host,
    ca: &Pair,
    common_name: &str,
    organization: Option<&str>,
) -> Result<Credentials, StepError> {
    let leaf = Leaf { common_name, organization, names: &[], server: false, life: LIFE };
    let pair = pki::issue(ca, &leaf, date(host)).map_err(|error| {
        StepError::lasting(
            error.to_string(),
            "the CA's key in the role file cannot sign: render the seeds again",
        )
    })?;
    Ok(Credentials::Certificate(Secret::new(pair.certificate + pair.key.expose())))
}

/// What the API takes for an administrator, with a name that audit logs show.
pub fn administrator(
    host: &dyn Host,
    spec: &NodeSpec,
    role: &ControlPlaneRole,
) -> Result<Credentials, StepError> {
    client_certificate(
        host,
        &spec.authority(role),
        &format!("kindling:{}", spec.name),
        Some("system:masters"),
    )
}

/// The API, through the endpoint or, where that does not answer, through any control plane.
pub struct Access<'a> {
    host: &'a dyn Host,
    servers: Vec<Server>,
    credentials: Credentials,
}

impl<'a> Access<'a> {
    pub fn new(host: &'a dyn Host, spec: &NodeSpec, role: &ControlPlaneRole) -> Result<Self, StepError> {
        let mut servers = endpoint_servers(host, spec).unwrap_or_default();
        let others = role.peers.iter().copied().chain([spec.address()]);
        servers.extend(others.map(|address| Server::at(&spec.ca, address, 6443)));
        Ok(Self { host, servers, credentials: administrator(host, spec, role)? })
    }

    /// As [`Access::new`], with this machine's own API server asked first: for what is done once it answers, when the
    /// endpoint and the others may be off.
    pub fn own_first(
        host: &'a dyn Host,
        spec: &NodeSpec,
        role: &ControlPlaneRole,
    ) -> Result<Self, StepError> {
        let mut access = Self::new(host, spec, role)?;
        // The last one of them is this machine's.
        access.servers.rotate_right(1);
        Ok(access)
    }

    pub fn host(&self) -> &'a dyn Host {
        self.host
    }

    pub fn get(&self, path: &str) -> Result<Value, KubeError> {
        self.send(Method::Get, path, None)
    }

    /// As [`Access::get`], with `None` for what is not there.
    pub fn find(&self, path: &str) -> Result<Option<Value>, KubeError> {
        match self.get(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an object; one that is there already stays as it is.
    pub fn create(&self, path: &str, body: &Value) -> Result<(), KubeError> {
        match self.send(Method::Post, path, Some(body)) {
            Err(error) if error.status() != Some(409) => Err(error),
            _ => Ok(()),
        }
    }

    /// The answer of the first server that gives one; a refusal is an answer.
    pub fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, KubeError> {
        let mut last = KubeError::Client("the cluster's endpoint has no address".into());
        for server in &self.servers {
            let request = Request { method, path, body };
            match self.host.request(server, &self.credentials, &request, TIMEOUT) {
                Ok(text) => {
                    return serde_json::from_str(&text).map_err(|error| KubeError::Client(error.to_string()));
                }
                // Not ready, or without its etcd: another one may be.
                Err(error) if error.status().is_none_or(|s| s >= 500) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}
