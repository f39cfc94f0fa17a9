//! A control plane that is Ready names itself to those who lead clients to API servers ([`crate::published`]).

use super::{Context, Found};
use crate::access::Access;
use crate::error::StepError;
use crate::kube::KubeError;
use crate::published;
use crate::retry::{Attempt, Patience, wait};

/// The API may be silent for a moment: the other control planes' etcd members come and go.
fn patiently<T>(
    cx: &mut Context<'_>,
    ask: impl Fn(&Access<'_>) -> Result<T, KubeError>,
) -> Result<T, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let role = spec.control_plane().expect("only control planes have API servers");
    let access = Access::new(host, spec, role)?;
    wait(
        host,
        Patience::seconds(spec.deadlines.ready),
        cx.waiting,
        || match ask(&access) {
            Ok(value) => Attempt::Ready(value),
            Err(error) => Attempt::NotYet(error.to_string()),
        },
        |reason| {
            StepError::passing(
                reason,
                "`kubectl -n kube-public get configmap kindling-endpoints` shows what the load balancers read",
            )
        },
    )
}

pub fn look(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let (name, address) = (cx.spec.name.clone(), cx.spec.address());
    let list = patiently(cx, published::list)?;
    Ok(if list.get(&name) == Some(&address) {
        Found::matches()
    } else {
        Found::Differs(format!("{name} is not in kube-public/kindling-endpoints"))
    })
}

pub fn act(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let (name, address) = (cx.spec.name.clone(), cx.spec.address());
    patiently(cx, |access| published::set(access, &name, Some(address)))?;
    Ok(None)
}
