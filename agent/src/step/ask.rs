//! What a control plane asks the API, or tells it, once the cluster is there.

use std::fmt::Display;

use super::Context;
use crate::access::Access;
use crate::error::StepError;
use crate::retry::{Attempt, Patience, wait};

/// Through the endpoint, or any control plane.
pub fn access<'a>(cx: &Context<'a>) -> Result<Access<'a>, StepError> {
    let role = cx.spec.control_plane().expect("only control planes have API servers");
    Access::new(cx.host, cx.spec, role)
}

/// The API may be silent for a moment: it was just made, or the other control planes' etcd members come and go.
pub fn patiently<T, E: Display>(
    cx: &mut Context<'_>,
    remedy: &str,
    ask: impl Fn() -> Result<T, E>,
) -> Result<T, StepError> {
    wait(
        cx.host,
        Patience::seconds(cx.spec.deadlines.ready),
        cx.waiting,
        || ask().map_or_else(|error| Attempt::NotYet(error.to_string()), Attempt::Ready),
        |reason| StepError::passing(reason, remedy),
    )
}
