//! The control planes as the cluster itself names them: ConfigMap `kube-public/kindling-endpoints`, a name and an
//! address for each. A control plane writes itself in when it is Ready, and `kindling reset` takes it out.
//!
//! Machines with a proxy read it without any credentials, as every joining node may read `cluster-info`: it says no
//! more than /etc/hosts does, and who says it is verified by the cluster's CA.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::access::Access;
use crate::kube::{KubeError, Method};
use crate::role::types::DnsName;

const NAME: &str = "kindling-endpoints";
const FOLDER: &str = "/api/v1/namespaces/kube-public/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-public";
pub const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/kindling-endpoints";

/// The list in the ConfigMap. What is not a name with an address is not for us.
pub fn read(config_map: &Value) -> BTreeMap<DnsName, Ipv4Addr> {
    let entry = |(name, address): (&String, &Value)| {
        Some((name.parse::<DnsName>().ok()?, address.as_str()?.parse().ok()?))
    };
    config_map["data"].as_object().into_iter().flatten().filter_map(entry).collect()
}

pub fn list(access: &Access<'_>) -> Result<BTreeMap<DnsName, Ipv4Addr>, KubeError> {
    Ok(access.find(PATH)?.as_ref().map(read).unwrap_or_default())
}

/// Writes one control plane in, or takes it out; the others' entries are not touched.
pub fn set(access: &Access<'_>, name: &DnsName, address: Option<Ipv4Addr>) -> Result<(), KubeError> {
    let address = address.map(|ip| ip.to_string());
    let patch = json!({ "data": { name.as_str(): address } });
    let missing = |error: &KubeError| error.status() == Some(404);
    match access.send(Method::Patch, PATH, Some(&patch)) {
        Err(error) if missing(&error) && address.is_none() => Ok(()),
        Err(error) if missing(&error) => {
            make(access)?;
            access.send(Method::Patch, PATH, Some(&patch)).map(|_| ())
        }
        result => result.map(|_| ()),
    }
}

/// Who may read it comes first, so that where it is there it can be read. Any of it may be there already: another
/// control plane makes it at the same moment, or the power was cut in between.
fn make(access: &Access<'_>) -> Result<(), KubeError> {
    let metadata = json!({ "name": NAME, "namespace": "kube-public" });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous" }],
    });
    let config_map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    let (roles, bindings) = (format!("{RBAC}/roles"), format!("{RBAC}/rolebindings"));
    for (path, body) in [(roles.as_str(), role), (bindings.as_str(), binding), (FOLDER, config_map)] {
        access.create(path, &body)?;
    }
    Ok(())
}
