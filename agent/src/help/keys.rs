//! The cluster file's keys, one by one, out of its schema.

use serde::Serialize;
use serde_json::Value;

use super::schema;

/// A key of the cluster file, or a table of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Key {
    /// As in `endpoint.by`, `nodes.*.labels`, `registries[].host`.
    pub key: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub required: bool,
    /// What a missing key means: a value as TOML, or words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    pub description: String,
    /// The words that are allowed, where there are but a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Meaning>,
    /// Bounds of a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// A regular expression that a text must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Lines of a cluster file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
    /// Whose rule it is: an RFC, a manual page, a document of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip)]
    pub table: bool,
}

/// A word that is allowed, and what it means.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Meaning {
    pub value: String,
    pub meaning: String,
}

impl Key {
    /// The table that the key is in; empty for the file itself.
    pub fn parent(&self) -> &str {
        self.key.rsplit_once('.').map_or("", |(parent, _)| parent)
    }

    pub fn name(&self) -> &str {
        self.key.rsplit_once('.').map_or(self.key.as_str(), |(_, name)| name)
    }

    /// The beginning of the description, for lists.
    pub fn summary(&self) -> &str {
        let text = &self.description;
        let end = [". ", ": ", "; "].iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
        text[..end].trim_end_matches('.')
    }
}

/// Every key: those of the file itself first, then table after table; what must be there before what may.
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    table("", &schema::cluster(), &mut keys);
    keys
}

/// The entry that examples show of a table whose names are the operator's.
const ENTRY: &str = "cp1";

fn table(path: &str, schema: &Value, keys: &mut Vec<Key>) {
    let must: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut entries: Vec<(&String, &Value)> =
        schema["properties"].as_object().into_iter().flatten().collect();
    let place = |name: &str| must.iter().position(|known| *known == name).unwrap_or(usize::MAX);
    entries.sort_by_key(|(name, schema)| (inner(schema).is_some(), place(name)));
    let examples: Vec<(&str, &Value)> =
        must.iter().map(|name| (*name, &schema["properties"][*name]["examples"][0])).collect();
    for (name, schema) in entries {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let required = must.contains(&name.as_str());
        match inner(schema) {
            None => keys.push(key(path, schema, required, &examples)),
            Some((suffix, within)) => {
                keys.push(key(path.clone(), schema, required, &[]));
                let path = format!("{path}{suffix}");
                if suffix == ".*" {
                    keys.push(key(path.clone(), within, false, &[]));
                }
                table(&path, within, keys);
            }
        }
    }
}

/// The table with known keys that a table consists of: itself, its entries, or its elements.
fn inner(schema: &Value) -> Option<(&'static str, &Value)> {
    let known = |schema: &Value| schema["properties"].is_object();
    if known(schema) {
        return Some(("", schema));
    }
    let entries = schema["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
    match (entries, &schema["items"]) {
        (Some(entry), _) if known(entry) => Some((".*", entry)),
        (_, items) if known(items) => Some(("[]", items)),
        _ => None,
    }
}

fn key(key: String, schema: &Value, required: bool, must: &[(&str, &Value)]) -> Key {
    let text = |name: &str| schema[name].as_str().map(str::to_owned);
    let values: Vec<Meaning> = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(n, value)| Meaning {
            value: toml(value),
            meaning: schema["enumDescriptions"][n].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    Key {
        kind: kind(schema),
        required,
        default: text("x-default").or_else(|| schema.get("default").map(toml)),
        description: text("description").unwrap_or_default(),
        values,
        limits: limits(schema),
        pattern: text("pattern").or_else(|| schema["items"]["pattern"].as_str().map(str::to_owned)),
        example: schema["examples"].get(0).map(|value| example(&key, value, must)),
        source: text("x-source"),
        table: inner(schema).is_some(),
        key,
    }
}

fn kind(schema: &Value) -> String {
    let named = |schema: &Value| -> Option<String> {
        let title = schema["title"].as_str().map(str::to_owned);
        title.or_else(|| (schema["format"] == "ipv4").then(|| "IPv4 address".to_owned()))
    };
    match schema["type"].as_str().unwrap_or_default() {
        "array" if inner(schema).is_some() => "list of tables".to_owned(),
        "array" => format!("list of: {}", kind(&schema["items"])),
        "object" => "table".to_owned(),
        "string" if schema["enum"].is_array() => "one word of a list".to_owned(),
        "string" => named(schema).unwrap_or_else(|| "text".to_owned()),
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    }
}

fn limits(schema: &Value) -> Option<String> {
    let number = |name: &str| schema.get(name).and_then(Value::as_i64);
    let range = match (number("minimum"), number("maximum")) {
        (Some(from), Some(to)) if from == to => Some(from.to_string()),
        (Some(from), Some(to)) => Some(format!("{from} to {to}")),
        (Some(from), None) => Some(format!("{from} or more")),
        (None, Some(to)) => Some(format!("at most {to}")),
        (None, None) => None,
    };
    match (range, number("multipleOf")) {
        (Some(range), Some(step)) => Some(format!("{range}, a multiple of {step}")),
        (range, _) => range,
    }
}

/// A value as TOML writes it on one line.
fn toml(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

/// Lines of a cluster file that give `key` this value; `must` is what an entry of its table cannot be without.
fn example(key: &str, value: &Value, must: &[(&str, &Value)]) -> String {
    let Some((parent, name)) = key.rsplit_once('.') else { return format!("{key} = {}", toml(value)) };
    let mut pairs = must.to_vec();
    match pairs.iter_mut().find(|(other, _)| *other == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    }
    let lines: Vec<String> = pairs.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
    if let Some(list) = parent.strip_suffix("[]") {
        return format!("[[{list}]]\n{}", lines.join("\n"));
    }
    match parent.strip_suffix(".*") {
        Some(table) => format!("[{table}]\n{ENTRY} = {{ {} }}", lines.join(", ")),
        None if name == "*" => format!("[{parent}]\n{ENTRY} = {}", toml(value)),
        None => format!("[{parent}]\n{name} = {}", toml(value)),
    }
}
