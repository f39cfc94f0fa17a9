//! What a control plane asks the API, or tells it, once the cluster is there.

use super::Context;
use crate::access::Access;
use crate::error::StepError;
use crate::kube::KubeError;
use crate::retry::{Attempt, Patience, wait};

/// The API may be silent for a moment: the other control planes' etcd members come and go.
pub fn patiently<T>(
    cx: &mut Context<'_>,
    remedy: &str,
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
        |reason| StepError::passing(reason, remedy),
    )
}
