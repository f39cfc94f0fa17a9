//! Manifests of the image with the cluster's values put in.

use crate::role::Kubernetes;

/// Replaces `@PODS@`, `@SERVICES@` and `@IMAGE_REPOSITORY@`. Every other text stays as it is.
pub fn substitute(text: &str, kubernetes: &Kubernetes) -> String {
    let repository = kubernetes.image_repository.as_deref().unwrap_or("registry.k8s.io");
    text.replace("@PODS@", &kubernetes.pods.to_string())
        .replace("@SERVICES@", &kubernetes.services.to_string())
        .replace("@IMAGE_REPOSITORY@", repository)
}
