//! What the domain's words look like, for JSON Schemas. The types in [`super::types`] decide; a pattern says the same
//! as far as a regular expression can.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::types::*;

/// A DNS label, and names of them.
const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
const ADDRESS: &str = r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)";
const PREFIX: &str = r"/(3[0-2]|[12]?\d)";
/// Kubernetes' labels and taints.
pub const LABEL_KEY: &str =
    r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$";
pub const LABEL_VALUE: &str = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$";

/// A text that follows a pattern.
fn text(title: &str, pattern: &str, most: Option<u32>) -> Schema {
    let mut schema = json_schema!({ "type": "string", "title": title, "pattern": pattern });
    if let Some(most) = most {
        schema.insert("maxLength".into(), most.into());
    }
    schema
}

macro_rules! inline {
    ($($type:ty: $schema:expr;)*) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

inline! {
    DnsName: text("DNS name", &format!(r"^{LABEL}(\.{LABEL})*$"), Some(253));
    ClusterName: text("DNS label", &format!("^{LABEL}$"), None);
    HostOrAddress: text("DNS name or IPv4 address", &format!(r"^{LABEL}(\.{LABEL})*$"), Some(253));
    HostAddress: text("IPv4 address with a prefix", &format!("^{ADDRESS}{PREFIX}$"), None);
    Subnet: text("IPv4 network", &format!("^{ADDRESS}{PREFIX}$"), None);
    // the second digit is even: no multicast
    MacAddress: text("MAC address", "^[0-9A-Fa-f][02468ACEace]([:-][0-9A-Fa-f]{2}){5}$", None);
    KubernetesVersion: text("version", r"^v?\d+\.\d+\.\d+$", None);
    BootstrapToken: text("bootstrap token", r"^[a-z0-9]{6}\.[a-z0-9]{16}$", None);
    Secret: text("secret", "", None);
    Taint: text("taint", r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(=([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?)?:(NoSchedule|PreferNoSchedule|NoExecute)$", None);
    // a TOML date, of which JSON has only the text
    Moment: json_schema!({ "type": "string", "format": "date-time" });
    Vrid: json_schema!({ "type": "integer", "minimum": 1, "maximum": 255 });
}
