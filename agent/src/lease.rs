//! One at a time in the whole cluster: a Lease of the API (`coordination.k8s.io/v1`) with a holder that renews it,
//! and that is replaced when it does not.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};
use time::macros::format_description;

use crate::access::Access;
use crate::error::StepError;
use crate::host::{Command, CommandError, Output, date};
use crate::kube::{KubeError, Method};
use crate::retry::{Attempt, Patience, wait};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Held by a control plane whose components are restarted: one lock for whatever does that, or two control planes of three
/// would be away at once.
pub const CONTROL_PLANE: &str = "kindling-control-plane";
/// Held while an etcd member is added: kubeadm's own name for it is a phase, the Lease's is ours.
pub const ETCD_JOIN: &str = "kindling-etcd-join";

/// A holder that was not heard of for so long is gone. Longer than a machine is frozen by a migration or a snapshot.
const LIFE: Duration = Duration::from_secs(30);
const RENEW: Duration = Duration::from_secs(5);

/// A lease that is held. Dropped without [`Lock::release`] it ends by itself.
pub struct Lock<'a> {
    access: &'a Access<'a>,
    path: String,
    holder: String,
    renewed: Cell<Duration>,
}

/// Waits until nobody else holds the lease `name`, and takes it.
pub fn acquire<'a>(
    access: &'a Access<'a>,
    name: &str,
    holder: &str,
    deadline: u64,
    waiting: &mut dyn FnMut(&str),
) -> Result<Lock<'a>, StepError> {
    let host = access.host();
    let path = format!("{LEASES}/{name}");
    let mut seen = Seen::default();
    let patience = Patience { longest: Duration::from_secs(2), ..Patience::seconds(deadline) };
    wait(
        host,
        patience,
        waiting,
        || match attempt(access, &path, name, holder, &mut seen) {
            Ok(None) => {
                let renewed = Cell::new(host.now());
                Attempt::Ready(Lock { access, path: path.clone(), holder: holder.to_owned(), renewed })
            }
            Ok(Some(other)) => Attempt::NotYet(format!(
                "{other} is {}",
                if name == ETCD_JOIN { "adding its etcd member" } else { "renewing its certificates" }
            )),
            Err(error) => {
                // While the API is silent its holder cannot renew, so that time does not count.
                seen = Seen::default();
                Attempt::NotYet(format!("the API does not answer: {error}"))
            }
        },
        |reason| {
            StepError::passing(
                reason,
                format!(
                    "`kubectl -n kube-system get lease {name}` shows the holder: see what its console says"
                ),
            )
        },
    )
}

/// The last change of the lease, by this machine's own clock: no two machines' clocks are compared.
#[derive(Default)]
struct Seen {
    version: String,
    since: Duration,
}

/// `None`: it is ours now. Otherwise who holds it.
fn attempt(
    access: &Access<'_>,
    path: &str,
    name: &str,
    holder: &str,
    seen: &mut Seen,
) -> Result<Option<String>, KubeError> {
    let now = access.host().now();
    let Some(lease) = access.find(path)? else {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name, "namespace": "kube-system" },
            "spec": held(access, holder, &Value::Null),
        });
        return contended(access.send(Method::Post, LEASES, Some(&lease)));
    };
    let other = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    // A machine whose power was cut comes back for its own lease.
    if !other.is_empty() && other != holder {
        let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if version != seen.version {
            *seen = Seen { version: version.to_owned(), since: now };
        }
        if now.saturating_sub(seen.since) < LIFE {
            return Ok(Some(other.to_owned()));
        }
    }
    let mut mine = lease.clone();
    mine["spec"] = held(access, holder, &lease["spec"]);
    contended(access.send(Method::Put, path, Some(&mine)))
}

fn contended(result: Result<Value, KubeError>) -> Result<Option<String>, KubeError> {
    match result {
        Ok(_) => Ok(None),
        // Somebody was faster.
        Err(error) if error.status() == Some(409) => Ok(Some("another control plane".into())),
        Err(error) => Err(error),
    }
}

fn held(access: &Access<'_>, holder: &str, before: &Value) -> Value {
    let now = now(access);
    let transitions = before["leaseTransitions"].as_i64().unwrap_or(-1);
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": LIFE.as_secs(),
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": transitions + 1,
    })
}

/// A `MicroTime` of the API.
fn now(access: &Access<'_>) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000000Z");
    date(access.host()).format(&format).unwrap_or_default()
}

impl Lock<'_> {
    /// To be called every so often: renews the lease when it is time. What cannot be renewed now is tried again at the
    /// next call: adding a member silences the API for a moment.
    pub fn keep(&self) {
        let now = self.access.host().now();
        if now.saturating_sub(self.renewed.get()) < RENEW {
            return;
        }
        if self.change(|access, spec| spec["renewTime"] = self::now(access).into()) {
            self.renewed.set(now);
        }
    }

    /// Runs a command and keeps the lease meanwhile.
    pub fn keep_while(&self, command: &Command) -> Result<Output, CommandError> {
        self.access.host().run_watched(command, Duration::from_secs(1), &mut || {
            self.keep();
            ControlFlow::Continue(())
        })
    }

    pub fn release(self) {
        // If that fails the lease ends by itself.
        self.change(|_, spec| spec["holderIdentity"] = "".into());
    }

    fn change(&self, change: impl FnOnce(&Access<'_>, &mut Value)) -> bool {
        let Ok(Some(mut lease)) = self.access.find(&self.path) else { return false };
        if lease["spec"]["holderIdentity"] != self.holder.as_str() {
            return false;
        }
        change(self.access, &mut lease["spec"]);
        self.access.send(Method::Put, &self.path, Some(&lease)).is_ok()
    }
}
