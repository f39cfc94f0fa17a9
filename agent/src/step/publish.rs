//! A control plane that is Ready names itself to those who lead clients to API servers ([`crate::published`]).

use super::ask::{access, patiently};
use super::{Context, Found};
use crate::error::StepError;
use crate::published;

const REMEDY: &str =
    "`kubectl -n kube-public get configmap kindling-endpoints` shows what the load balancers read";

pub fn look(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let (name, address) = (cx.spec.name.clone(), cx.spec.address());
    let access = access(cx)?;
    let list = patiently(cx, REMEDY, || published::list(&access))?;
    Ok(if list.get(&name) == Some(&address) {
        Found::matches()
    } else {
        Found::Differs(format!("{name} is not in kube-public/kindling-endpoints"))
    })
}

pub fn act(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let (name, address) = (cx.spec.name.clone(), cx.spec.address());
    let access = access(cx)?;
    patiently(cx, REMEDY, || published::set(&access, &name, Some(address)))?;
    Ok(None)
}
