//! Add-ons: manifests of the image, applied by the first control plane.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, Found, files};
use crate::error::StepError;
use crate::facts::ADDONS_FOLDER;
use crate::host::{Command, Host, read_text};
use crate::plan::FileSpec;
use crate::render;
use crate::retry::{Attempt, Patience, wait};
use crate::role::Kubernetes;

#[derive(Debug, Clone, PartialEq)]
pub struct Addons {
    pub names: Vec<String>,
}

/// Where the manifest lies as it was applied, with the cluster's values in it.
pub fn manifest(name: &str) -> String {
    format!("/var/lib/kindling/addons/{name}.yaml")
}

impl Addons {
    pub fn new(kubernetes: &Kubernetes) -> Self {
        Self { names: kubernetes.addons.clone() }
    }

    fn manifests(&self, host: &dyn Host, kubernetes: &Kubernetes) -> Result<Vec<FileSpec>, StepError> {
        self.names
            .iter()
            .map(|name| {
                let path = PathBuf::from(ADDONS_FOLDER).join(format!("{name}.yaml"));
                let text = read_text(host, &path).ok_or_else(|| {
                    StepError::lasting(
                        format!("{} is not in this image", path.display()),
                        "bake it in, or take it out of `addons`",
                    )
                })?;
                Ok(FileSpec::public(manifest(name), render::substitute(&text, kubernetes)))
            })
            .collect()
    }

    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        let kubernetes = cx.spec.kubernetes().expect("only Kubernetes nodes have add-ons");
        let list = files::differing(cx.host, &self.manifests(cx.host, kubernetes)?)?;
        // Applied once is enough: what people changed in the cluster since then is theirs.
        if cx.completed && list.is_empty() {
            return Ok(Found::matches());
        }
        Ok(Found::Differs(list.join(", ")))
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let kubernetes = cx.spec.kubernetes().expect("only Kubernetes nodes have add-ons");
        let manifests = self.manifests(cx.host, kubernetes)?;
        for file in &manifests {
            apply(cx, &file.path, &file.content)?;
        }
        Ok(None)
    }
}

fn apply(cx: &mut Context<'_>, path: &Path, content: &str) -> Result<(), StepError> {
    files::write(cx.host, &FileSpec::public(path, content))?;
    let path = path.display().to_string();
    let command =
        Command::new("kubectl", ["--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "-f", &path])
            .timeout(Duration::from_secs(90));
    let host = cx.host;
    wait(
        host,
        Patience::seconds(cx.spec.deadlines.ready),
        cx.waiting,
        || match host.run(&command) {
            Ok(_) => Attempt::Ready(()),
            Err(error) => Attempt::NotYet(error.to_string()),
        },
        |reason| {
            StepError::passing(reason, format!("apply {path} by hand to see what the API server says of it"))
        },
    )
}
