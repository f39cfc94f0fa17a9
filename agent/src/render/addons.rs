//! Manifests of the image with the cluster's values put in.

use crate::role::Kubernetes;
use crate::role::types::KubernetesVersion;

/// Replaces `@PODS@`, `@SERVICES@` and `@IMAGE_REPOSITORY@`. Every other text stays as it is.
pub fn substitute(text: &str, kubernetes: &Kubernetes) -> String {
    let repository = kubernetes.image_repository.as_deref().unwrap_or(default_repository(kubernetes.version));
    text.replace("@PODS@", &kubernetes.pods.to_string())
        .replace("@SERVICES@", &kubernetes.services.to_string())
        .replace("@IMAGE_REPOSITORY@", repository)
}

/// kubeadm's own default, which changed its name with 1.25.
fn default_repository(version: KubernetesVersion) -> &'static str {
    if version.minor < 25 { "k8s.gcr.io" } else { "registry.k8s.io" }
}
