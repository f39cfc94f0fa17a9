//! `kindling explain`, as text.

use std::fmt::Write;

use super::keys::Key;
use crate::suggest;

/// The keys that `name` means: the one, or where only its last part was given, each that ends with it. Names of nodes
/// and numbers of list elements, as error messages have them, stand for all of them.
pub fn find<'k>(all: &'k [Key], name: &str) -> Result<Vec<&'k Key>, String> {
    let wanted = parts(name);
    if let Some(key) = all.iter().find(|key| same(&parts(&key.key), &wanted)) {
        return Ok(vec![key]);
    }
    let ends: Vec<&Key> = all.iter().filter(|key| key.parent() != "" && key.name() == name).collect();
    if !ends.is_empty() {
        return Ok(ends);
    }
    // an entry of a table whose names are the operator's, as a label is
    if let Some(key) = all
        .iter()
        .find(|key| key.kind == "table" && !key.table && same(&parts(&key.key), &wanted[..wanted.len() - 1]))
    {
        return Ok(vec![key]);
    }
    let known = all.iter().map(|key| key.key.as_str()).chain(all.iter().map(Key::name));
    let remedy = format!("{}`kindling explain` lists all", suggest::hint(name, known));
    Err(format!("cluster.toml has no key `{name}`\n  remedy: {remedy}"))
}

/// `registries[0].host` is `registries`, `host`.
fn parts(key: &str) -> Vec<&str> {
    key.split('.').map(|part| part.split_once('[').map_or(part, |(name, _)| name)).collect()
}

fn same(known: &[&str], wanted: &[&str]) -> bool {
    known.len() == wanted.len()
        && known.iter().zip(wanted).all(|(known, part)| known == part || *known == "*")
}

/// One line for each key.
pub fn list(keys: &[&Key]) -> String {
    let width = keys.iter().map(|key| key.key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for key in keys {
        let must = if key.required { " (required)" } else { "" };
        let _ = writeln!(text, "{:width$}  {}{must}", key.key, key.summary());
    }
    text
}

/// All that is known of `chosen`, and of a table also what is in it.
pub fn text(all: &[Key], chosen: &[&Key]) -> String {
    chosen.iter().map(|key| one(all, key)).collect::<Vec<_>>().join("\n")
}

fn one(all: &[Key], key: &Key) -> String {
    let mut text = format!("{}\n", key.key);
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "  {:9}{value}", format!("{name}:"));
    };
    let kind = match &key.limits {
        Some(limits) => format!("{}, {limits}", key.kind),
        None => key.kind.clone(),
    };
    field("type", &kind);
    match &key.default {
        _ if key.required => field("default", "none: the key must be there"),
        Some(default) => field("default", default),
        None => {}
    }
    if let Some(pattern) = &key.pattern {
        field("pattern", pattern);
    }
    for paragraph in key.description.split("\n\n") {
        let _ = write!(text, "\n{}", wrapped(paragraph, "  "));
    }
    if !key.values.is_empty() {
        text.push_str("\n  values:\n");
        for value in &key.values {
            let _ = write!(text, "    {}\n{}", value.value, wrapped(&value.meaning, "      "));
        }
    }
    let within: Vec<&Key> = all
        .iter()
        .filter(|other| {
            other.parent().trim_end_matches("[]") == key.key || other.parent() == format!("{}.*", key.key)
        })
        .collect();
    if key.table && !within.is_empty() {
        text.push_str("\n  keys:\n");
        for line in list(&within).lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    if let Some(example) = &key.example {
        text.push_str("\n  example:\n");
        for line in example.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    if let Some(source) = &key.source {
        let _ = write!(text, "\n  source: {source}\n");
    }
    text
}

/// Lines of at most 80 characters, where words allow it.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > 80 {
            let _ = writeln!(lines, "{indent}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(lines, "{indent}{line}");
    lines
}
