//! `docs/cluster-file.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::keys::Key;

const HEAD: &str = "\
<!-- Written by `kindling explain --markdown` from the types that read the file; not by hand. -->
# The cluster file

`cluster.toml` says all there is to say of a cluster, and holds nothing secret: keys and passwords stand in
`secrets.toml`. `kindling new` writes a commented one to begin with, `kindling check` tells all that is wrong with it,
`kindling explain KEY` shows on the terminal what stands here.

Editors check and complete it as it is typed: `kindling new` writes a JSON Schema beside it and names it in its first
line, which Taplo and the extensions built on it (Even Better TOML) read. `kindling schema cluster` prints that schema.

";

pub fn reference(all: &[Key]) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("| key | what | |\n|---|---|---|\n");
    let mut seen = BTreeMap::new();
    for key in all {
        let must = if key.required { "required" } else { "" };
        let anchor = anchor(key, &mut seen);
        let _ = writeln!(text, "| [`{}`](#{anchor}) | {} | {must} |", key.key, cell(key.summary()));
    }
    for key in all {
        let _ = write!(text, "\n{} {}\n\n{}", if key.table { "##" } else { "###" }, heading(key), body(key));
    }
    text
}

fn heading(key: &Key) -> String {
    match key.kind.as_str() {
        "list of tables" => format!("`[[{}]]`", key.key),
        "table" if key.table => format!("`[{}]`", key.key),
        _ => format!("`{}`", key.key),
    }
}

/// As GitHub makes it of a heading: lower case, without punctuation, and with a number from the second time on.
fn anchor(key: &Key, seen: &mut BTreeMap<String, usize>) -> String {
    let plain: String = heading(key)
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    let times = seen.entry(plain.clone()).or_default();
    *times += 1;
    if *times == 1 { plain } else { format!("{plain}-{}", *times - 1) }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn body(key: &Key) -> String {
    let mut text = format!("{}\n\n", key.description);
    let kind = match &key.limits {
        Some(limits) => format!("{}, {limits}", key.kind),
        None => key.kind.clone(),
    };
    let default = match (&key.default, key.required) {
        (_, true) => "required".to_owned(),
        (Some(default), _) if default.parse::<toml::Value>().is_ok() => format!("default: `{default}`"),
        (Some(default), _) => format!("default: {default}"),
        (None, _) => "may be left out".to_owned(),
    };
    let _ = writeln!(text, "*{kind}* · {default}");
    if !key.values.is_empty() {
        text.push_str("\n| value | meaning |\n|---|---|\n");
        for value in &key.values {
            let _ = writeln!(text, "| `{}` | {} |", value.value, cell(&value.meaning));
        }
    }
    if let Some(example) = &key.example {
        let _ = write!(text, "\n```toml\n{example}\n```\n");
    }
    if let Some(source) = &key.source {
        let _ = write!(text, "\nSource: {}\n", linked(source));
    }
    text
}

/// Addresses as Markdown makes links of them.
fn linked(source: &str) -> String {
    source
        .split(' ')
        .map(|word| if word.starts_with("https://") { format!("<{word}>") } else { word.to_owned() })
        .collect::<Vec<_>>()
        .join(" ")
}
