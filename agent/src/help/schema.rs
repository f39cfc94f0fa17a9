//! JSON Schemas of the cluster file and the role file, in the dialect that the editors' TOML extensions read
//! (draft 7, <https://json-schema.org/draft-07>), without references to elsewhere.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::cluster::Draft;
use crate::role::RoleFile;

pub fn cluster() -> Value {
    of::<Draft>()
}

pub fn role() -> Value {
    of::<RoleFile>()
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(tidy).transform(&mut schema);
    schema.into()
}

/// Takes from a schema what TOML does not have, and what only Rust knows.
fn tidy(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    without_null(object);
    if let Some(Value::String(format)) = object.get("format")
        && format.trim_start_matches('u').starts_with("int")
    {
        object.remove("format");
    }
    if object.get("pattern").is_some_and(|pattern| pattern == "") {
        object.remove("pattern");
    }
    words(object);
    if let Some(page) = object.get("x-source").and_then(Value::as_str).and_then(link) {
        let links = json!({ "key": page });
        object.entry("x-taplo").or_insert_with(|| json!({}))["links"] = links;
    }
    for text in ["description", "x-default"] {
        if let Some(Value::String(text)) = object.get_mut(text) {
            *text = unwrapped(text);
        }
    }
}

/// There is no null in TOML: what may be missing is missing.
fn without_null(object: &mut Map<String, Value>) {
    let null = json!({ "type": "null" });
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = &types[..] {
            object["type"] = one.clone();
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(options)) = object.get_mut("anyOf") {
        options.retain(|option| *option != null);
        if let [Value::Object(one)] = &options[..] {
            let one = one.clone();
            object.remove("anyOf");
            for (key, value) in one {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// Words with a meaning each: `enum`, which every editor completes and every validator lists, and beside it the
/// meanings where Taplo and VS Code look for them.
fn words(object: &mut Map<String, Value>) {
    let Some(Value::Array(options)) = object.get("oneOf") else { return };
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    for option in options {
        let meaning = unwrapped(option["description"].as_str().unwrap_or_default());
        // words without a meaning come as a list of their own
        let list =
            option.get("const").map(std::slice::from_ref).or(option["enum"].as_array().map(Vec::as_slice));
        let Some(list) = list else { return };
        meanings.extend(list.iter().map(|_| meaning.clone()));
        words.extend_from_slice(list);
    }
    object.remove("oneOf");
    object.insert("type".into(), "string".into());
    object.insert("enum".into(), words.into());
    object.insert("enumDescriptions".into(), meanings.clone().into());
    object.insert("x-taplo".into(), json!({ "docs": { "enumValues": meanings } }));
}

/// The page that an editor opens for a key.
fn link(source: &str) -> Option<&str> {
    source.split_whitespace().find(|word| word.starts_with("https://"))
}

/// Comments are wrapped for the source; paragraphs stay.
fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}
