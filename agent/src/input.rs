//! Reads a TOML file key by key and collects everything that is wrong with it.
//!
//! serde stops at the first mistake, and an operator who mends one only to be told of the next one
//! loses patience. So a [`Section`] hands out one key at a time: each value is still deserialized by
//! serde, and each failure becomes a [`Problem`] with the span of its value.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::suggest;

/// One mistake (or one warning) in a file, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, `nodes.master1.address`; empty for the file as a whole.
    pub key: String,
    /// Byte range in the file.
    pub span: Range<usize>,
    pub message: String,
    pub remedy: String,
    pub severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// A file's text with its name, to turn byte offsets into lines and columns.
#[derive(Clone)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

impl Source {
    pub fn new(path: impl AsRef<Path>, text: impl Into<String>) -> Self {
        Self { path: path.as_ref().to_path_buf(), text: text.into() }
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

// The text may hold secrets, so it never reaches a Debug output.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

/// All problems of one file, ready to be printed.
#[derive(Debug, Clone)]
pub struct Report {
    pub source: Source,
    pub problems: Vec<Problem>,
}

/// One problem as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct ProblemRecord<'a> {
    pub file: &'a Path,
    pub line: usize,
    pub column: usize,
    pub key: &'a str,
    pub severity: Severity,
    pub message: &'a str,
    pub remedy: &'a str,
}

impl Report {
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    pub fn records(&self) -> Vec<ProblemRecord<'_>> {
        self.problems
            .iter()
            .map(|p| {
                let (line, column) = self.source.line_column(p.span.start);
                ProblemRecord {
                    file: &self.source.path,
                    line,
                    column,
                    key: &p.key,
                    severity: p.severity,
                    message: &p.message,
                    remedy: &p.remedy,
                }
            })
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, r) in self.records().iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            let word = match r.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            write!(f, "{}:{}:{}: {word}: ", r.file.display(), r.line, r.column)?;
            if !r.key.is_empty() {
                write!(f, "{}: ", r.key)?;
            }
            write!(f, "{}", r.message)?;
            if !r.remedy.is_empty() {
                write!(f, "\n  remedy: {}", r.remedy)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Where sections put what they find; shared by all sections of one file.
#[derive(Debug, Default)]
pub struct Findings(RefCell<Vec<Problem>>);

impl Findings {
    pub fn error(
        &self,
        key: &str,
        span: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(key, span, message.into(), remedy.into(), Severity::Error);
    }

    pub fn warning(
        &self,
        key: &str,
        span: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(key, span, message.into(), remedy.into(), Severity::Warning);
    }

    fn push(&self, key: &str, span: Range<usize>, message: String, remedy: String, severity: Severity) {
        self.0.borrow_mut().push(Problem { key: key.to_owned(), span, message, remedy, severity });
    }

    pub fn has_errors(&self) -> bool {
        self.0.borrow().iter().any(|p| p.severity == Severity::Error)
    }

    /// The problems in the order of the file.
    pub fn into_report(self, source: Source) -> Report {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|p| p.span.start);
        Report { source, problems }
    }
}

/// Parses `source` and calls `read` with its root. Syntax errors (all of them) are reported alone:
/// what follows a broken line is guesswork.
///
/// Returns the value together with the warnings, or every problem.
pub fn read<T>(
    source: Source,
    read: impl FnOnce(&mut Section<'_, '_>) -> Option<T>,
) -> Result<(T, Report), Report> {
    let text = source.text.clone();
    let findings = Findings::default();
    if text.trim().is_empty() {
        findings.error(
            "",
            0..0,
            "the file is empty",
            "write it anew with `kindling new` or `kindling render`",
        );
        return Err(findings.into_report(source));
    }
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        // Only the message: toml's own Display quotes the line, and a line may hold a secret.
        let span = error.span().unwrap_or(0..0);
        findings.error(
            "",
            span,
            format!("not valid TOML: {}", error.message()),
            "see https://toml.io for the syntax",
        );
    }
    if findings.has_errors() {
        return Err(findings.into_report(source));
    }
    let mut root = Section::new(String::new(), 0..0, table.get_ref(), &findings);
    let value = read(&mut root);
    root.finish();
    match value {
        Some(value) if !findings.has_errors() => Ok((value, findings.into_report(source))),
        _ => Err(findings.into_report(source)),
    }
}

/// One table of a file: every key is asked for once, and [`Section::finish`] names those nobody asked for.
pub struct Section<'a, 'i> {
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'i>,
    asked: BTreeSet<String>,
    findings: &'a Findings,
}

impl<'a, 'i> Section<'a, 'i> {
    fn new(path: String, span: Range<usize>, table: &'a DeTable<'i>, findings: &'a Findings) -> Self {
        Self { path, span, table, asked: BTreeSet::new(), findings }
    }

    /// The dotted path of `key` in the file.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the value of `key` stands, or the table itself where the key is missing.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span(), Spanned::span)
    }

    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The keys in the order of the file.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.table.keys().collect();
        keys.sort_by_key(|k| k.span().start);
        keys.into_iter().map(|k| k.get_ref().to_string()).collect()
    }

    pub fn findings(&self) -> &'a Findings {
        self.findings
    }

    pub fn error(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.error(&self.path_of(key), self.span_of(key), message, remedy);
    }

    pub fn warning(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.warning(&self.path_of(key), self.span_of(key), message, remedy);
    }

    fn value(&mut self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.asked.insert(key.to_owned());
        self.table.get(key)
    }

    /// A key that must be there. `None` means that a problem was recorded.
    pub fn required<T: DeserializeOwned>(&mut self, key: &str, remedy: &str) -> Option<T> {
        if self.value(key).is_none() {
            self.error(key, "missing", remedy);
            return None;
        }
        self.take(key, remedy, false)
    }

    /// A key that may be missing. A wrong value is a problem all the same.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str, remedy: &str) -> Option<T> {
        self.value(key)?;
        self.take(key, remedy, false)
    }

    /// As [`Section::required`], for secrets: the problem never quotes the value.
    pub fn required_secret<T: DeserializeOwned>(&mut self, key: &str, remedy: &str) -> Option<T> {
        if self.value(key).is_none() {
            self.error(key, "missing", remedy);
            return None;
        }
        self.take(key, remedy, true)
    }

    /// As [`Section::optional`], for secrets.
    pub fn optional_secret<T: DeserializeOwned>(&mut self, key: &str, remedy: &str) -> Option<T> {
        self.value(key)?;
        self.take(key, remedy, true)
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str, remedy: &str, secret: bool) -> Option<T> {
        let value = self.value(key)?;
        match T::deserialize(value.clone().into_deserializer()) {
            Ok(value) => Some(value),
            Err(error) => {
                let span = error.span().unwrap_or_else(|| value.span());
                let message = if secret && !value.get_ref().is_str() {
                    // serde would quote the value here
                    format!("must be a string, not {}", value.get_ref().type_str())
                } else {
                    match text_at(value, &span).filter(|_| !secret) {
                        Some(text) if error.message() == no_address() => {
                            format!("`{text}` is not an IPv4 address")
                        }
                        _ => error.message().to_owned(),
                    }
                };
                let hint = match value.get_ref().as_str() {
                    Some(word) if !secret => {
                        suggest::hint(word, suggest::variants::<T>(word).iter().copied())
                    }
                    _ => String::new(),
                };
                self.findings.error(&self.path_of(key), span, message, format!("{hint}{remedy}"));
                None
            }
        }
    }

    /// A table that must be there.
    pub fn required_section(&mut self, key: &str, remedy: &str) -> Option<Section<'a, 'i>> {
        if self.value(key).is_none() {
            self.error(key, "missing", remedy);
            return None;
        }
        self.section(key)
    }

    /// A table that may be missing.
    pub fn section(&mut self, key: &str) -> Option<Section<'a, 'i>> {
        let value = self.value(key)?;
        self.as_section(self.path_of(key), value)
    }

    /// An array of tables that may be missing.
    pub fn sections(&mut self, key: &str) -> Vec<Section<'a, 'i>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.error(
                key,
                format!("must be an array of tables, not {}", value.get_ref().type_str()),
                format!("write [[{}]]", self.path_of(key)),
            );
            return Vec::new();
        };
        array
            .iter()
            .enumerate()
            .filter_map(|(n, item)| self.as_section(format!("{}[{n}]", self.path_of(key)), item))
            .collect()
    }

    fn as_section(&self, path: String, value: &'a Spanned<DeValue<'i>>) -> Option<Section<'a, 'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(path, value.span(), table, self.findings)),
            other => {
                self.findings.error(
                    &path,
                    value.span(),
                    format!("must be a table, not {}", other.type_str()),
                    format!("write [{path}]"),
                );
                None
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub fn finish(&mut self) {
        for (key, _) in self.table {
            if self.asked.contains(key.get_ref().as_ref()) {
                continue;
            }
            let remedy = match suggest::nearest(key.get_ref(), self.asked.iter().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    format!("known keys here: {}", self.asked.iter().cloned().collect::<Vec<_>>().join(", "))
                }
            };
            self.findings.error(&self.path_of(key.get_ref()), key.span(), "unknown key", remedy);
        }
    }
}

/// What std says of a text that is no address, without the text.
fn no_address() -> String {
    "".parse::<Ipv4Addr>().map_or_else(|error| error.to_string(), |_| String::new())
}

/// The text in `value`, at any depth, that stands at `span`.
fn text_at<'v>(value: &'v Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<&'v str> {
    match value.get_ref() {
        DeValue::String(text) if value.span() == *span => Some(text),
        DeValue::Array(items) => items.iter().find_map(|item| text_at(item, span)),
        DeValue::Table(table) => table.values().find_map(|item| text_at(item, span)),
        _ => None,
    }
}
