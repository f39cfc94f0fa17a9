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

macro_rules! text {
    ($($type:ty, $title:literal, $pattern:expr $(, $maximum:literal)?;)*) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": $title, "pattern": $pattern $(, "maxLength": $maximum)? })
            }
        }
    )*};
}

text! {
    DnsName, "DNS name", format!(r"^{LABEL}(\.{LABEL})*$"), 253;
    ClusterName, "DNS label", format!("^{LABEL}$");
    HostOrAddress, "DNS name or IPv4 address", format!(r"^{LABEL}(\.{LABEL})*$"), 253;
    HostAddress, "IPv4 address with a prefix", format!("^{ADDRESS}{PREFIX}$");
    Subnet, "IPv4 network", format!("^{ADDRESS}{PREFIX}$");
    // the second digit is even: no multicast
    MacAddress, "MAC address", "^[0-9A-Fa-f][02468ACEace]([:-][0-9A-Fa-f]{2}){5}$";
    KubernetesVersion, "version", r"^v?\d+\.\d+\.\d+$";
    BootstrapToken, "bootstrap token", r"^[a-z0-9]{6}\.[a-z0-9]{16}$";
    Secret, "secret", "";
    Taint, "taint",
        r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(=([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?)?:(NoSchedule|PreferNoSchedule|NoExecute)$";
}

/// A TOML date, of which JSON has only the text.
impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl JsonSchema for Vrid {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Vrid".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 255 })
    }
}
