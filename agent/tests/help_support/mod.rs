//! What the tests of schemas and documentation share.
#![allow(dead_code)] // each test file uses a part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::cluster_support::here;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a validator that is none of ours (Python's `jsonschema`) says of each document; `None`, and a word about it, where
/// it cannot be had.
pub fn validate(schema: &Value, documents: &[Value]) -> Option<Vec<Vec<String>>> {
    let input = json!({ "schema": schema, "documents": documents }).to_string();
    let mut missing = String::from("there is no python3");
    for python in ["python3", "/usr/bin/python3"] {
        let child = Command::new(python)
            .arg(root().join("tests/lib/json_schema.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else { continue };
        // It may end before it has read: what it says then comes from its output.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => return Some(serde_json::from_slice(&output.stdout).expect("it prints JSON")),
            Some(77) => missing = said,
            _ => panic!("{said}"),
        }
    }
    here::skip(&format!("no JSON Schema validator: {missing}"));
    None
}

pub fn to_json(toml: &str) -> Value {
    let table: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{error}\n{toml}"));
    json_of(toml::Value::Table(table))
}

/// As editors do it: a date is its text.
fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json_of).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json_of(value))).collect(),
        other => serde_json::to_value(other).expect("JSON has the same"),
    }
}

/// Tables become one, and so do the first elements of lists of them; anything else takes the place of what was there.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into @ Value::Array(_), Value::Array(mut from)) if into[0].is_object() && !from.is_empty() => {
            let first = from.remove(0);
            merge(&mut into[0], first);
        }
        (into, from) => *into = from,
    }
}
