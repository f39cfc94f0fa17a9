//! Just enough YAML to write: block style, every text quoted, so that no value is taken for a number or
//! a boolean, and the same model gives the same bytes.

#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<Yaml>),
    Map(Map),
}

/// A mapping in the order in which it was built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(Vec<(String, Yaml)>);

impl Map {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. Keys are ours: plain words that need no quotes.
    pub fn with(mut self, key: &str, value: impl Into<Yaml>) -> Self {
        self.0.push((key.to_owned(), value.into()));
        self
    }

    /// Adds an entry if there is a value.
    pub fn with_some(self, key: &str, value: Option<impl Into<Yaml>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Yaml {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Yaml {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Map> for Yaml {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl<T: Into<Yaml>> From<Vec<T>> for Yaml {
    fn from(list: Vec<T>) -> Self {
        Self::List(list.into_iter().map(Into::into).collect())
    }
}

/// A stream of documents, each with its `---`.
pub fn documents(documents: impl IntoIterator<Item = Map>) -> String {
    let mut text = String::new();
    for document in documents {
        text.push_str("---\n");
        for line in Yaml::Map(document).lines() {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

impl Yaml {
    fn lines(&self) -> Vec<String> {
        match self {
            // A JSON string is a double-quoted YAML scalar (YAML 1.2, section 1.3).
            Self::Text(text) => vec![serde_json::Value::from(text.as_str()).to_string()],
            Self::Number(number) => vec![number.to_string()],
            Self::Flag(flag) => vec![flag.to_string()],
            Self::List(list) if list.is_empty() => vec!["[]".to_owned()],
            Self::Map(map) if map.0.is_empty() => vec!["{}".to_owned()],
            Self::List(list) => list.iter().flat_map(|item| prefixed("- ", "  ", item.lines())).collect(),
            Self::Map(map) => map.0.iter().flat_map(|(key, value)| value.entry(key)).collect(),
        }
    }

    fn entry(&self, key: &str) -> Vec<String> {
        let lines = self.lines();
        let indent = match self {
            Self::Map(map) if !map.0.is_empty() => "  ",
            Self::List(list) if !list.is_empty() => "",
            _ => return vec![format!("{key}: {}", lines[0])],
        };
        std::iter::once(format!("{key}:")).chain(prefixed(indent, indent, lines)).collect()
    }
}

fn prefixed<'a>(first: &'a str, rest: &'a str, lines: Vec<String>) -> impl Iterator<Item = String> + use<'a> {
    lines
        .into_iter()
        .enumerate()
        .map(move |(n, line)| if n == 0 { format!("{first}{line}") } else { format!("{rest}{line}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_lists_and_mappings_are_indented_and_texts_are_quoted() {
        let taint = Map::new().with("key", "a").with("effect", "No\"Schedule");
        let inner = Map::new().with("empty", Vec::<Yaml>::new()).with("none", Map::new()).with("port", 6443);
        let text = documents([
            Map::new()
                .with("version", "1.30")
                .with("taints", vec![taint.clone(), taint])
                .with("inner", inner),
            Map::new().with("on", true).with_some("left-out", None::<String>),
        ]);
        assert_eq!(
            text,
            "---\n\
             version: \"1.30\"\n\
             taints:\n\
             - key: \"a\"\n  effect: \"No\\\"Schedule\"\n\
             - key: \"a\"\n  effect: \"No\\\"Schedule\"\n\
             inner:\n  empty: []\n  none: {}\n  port: 6443\n\
             ---\n\
             on: true\n"
        );
    }
}
