//! The Node says which image it runs, and by which hash the kernel verifies it: nodes that match can be told from outside.

use std::time::Duration;

use serde_json::{Value, json};

use super::ask::patiently;
use super::ready::kubelet;
use super::{Context, Found};
use crate::error::StepError;
use crate::image::{Image, ROOT_ANNOTATION, VERSION_LABEL};
use crate::kube::{Method, Request};

/// As the kubelet, which may change its own Node and no other
/// (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).
fn ask(cx: &mut Context<'_>, patch: Option<&Value>) -> Result<Value, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let path = format!("/api/v1/nodes/{}", spec.name);
    let method = if patch.is_some() { Method::Patch } else { Method::Get };
    let attempt = || -> Result<Value, String> {
        let (server, credentials) = kubelet(host, spec)?;
        let request = Request { method, path: &path, body: patch };
        let answer = host
            .request(&server, &credentials, &request, Duration::from_secs(10))
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&answer)
            .map_err(|error| format!("the API answered something else than JSON: {error}"))
    };
    patiently(
        cx,
        "the endpoint must answer; `journalctl -b -u kubelet` says whether the kubelet reaches it",
        attempt,
    )
}

/// What the Node should say. A hash that is no longer true is taken away.
fn wanted(image: &Image) -> Value {
    json!({ "metadata": {
        "labels": { VERSION_LABEL: image.version },
        "annotations": { ROOT_ANNOTATION: image.root_hash },
    } })
}

pub fn look(image: &Image, cx: &mut Context<'_>) -> Result<Found, StepError> {
    let node = &ask(cx, None)?["metadata"];
    let wanted = &wanted(image)["metadata"];
    let same = node["labels"][VERSION_LABEL] == wanted["labels"][VERSION_LABEL]
        && node["annotations"][ROOT_ANNOTATION] == wanted["annotations"][ROOT_ANNOTATION];
    Ok(if same {
        Found::matches()
    } else {
        Found::Differs(format!("the Node does not say {}", image.version))
    })
}

pub fn act(image: &Image, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    ask(cx, Some(&wanted(image)))?;
    Ok(Some(image.version.clone()))
}
