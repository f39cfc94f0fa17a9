//! What is in a Markdown document that can be wrong: fenced blocks, code in the text, links, headings.

use std::collections::BTreeMap;

pub struct Block {
    /// As written behind the fence; empty where nothing is.
    pub language: String,
    pub line: usize,
    pub text: String,
}

#[derive(Default)]
pub struct Document {
    pub blocks: Vec<Block>,
    /// Code between backquotes, with the line where it begins.
    pub code: Vec<(usize, String)>,
    /// Where links and pictures lead.
    pub links: Vec<(usize, String)>,
    /// Names of headings, as GitHub makes them for links.
    pub anchors: Vec<String>,
}

impl Document {
    pub fn read(text: &str) -> Self {
        let mut document = Self::default();
        let mut prose = String::new();
        let mut open: Option<Block> = None;
        // A fence in a list is indented, and what is in it with it.
        let mut indent = 0;
        let mut headings: BTreeMap<String, usize> = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            if let Some(fence) = line.trim_start().strip_prefix("```") {
                match open.take() {
                    Some(block) => document.blocks.push(block),
                    None => {
                        let language = fence.trim().to_owned();
                        indent = line.len() - line.trim_start().len();
                        open = Some(Block { language, line: n + 1, text: String::new() });
                    }
                }
            } else if let Some(block) = &mut open {
                let margin = line.len() - line.trim_start().len();
                block.text.push_str(&line[margin.min(indent)..]);
                block.text.push('\n');
            } else {
                if line.starts_with('#') {
                    let name = anchor(line.trim_start_matches('#').trim());
                    let times = headings.entry(name.clone()).or_default();
                    document.anchors.push(if *times == 0 { name } else { format!("{name}-{times}") });
                    *times += 1;
                }
                prose.push_str(line);
            }
            prose.push('\n');
        }
        assert!(open.is_none(), "a fence is not closed");
        document.code = spans(&prose);
        document.links = links(&prose);
        document
    }
}

/// Lower case, blanks as hyphens, without punctuation.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// A span may be wrapped, but does not go over an empty line.
fn spans(prose: &str) -> Vec<(usize, String)> {
    let mut spans = Vec::new();
    let mut offset = 0;
    for paragraph in prose.split("\n\n") {
        let mut parts = paragraph.split('`');
        let mut at = offset + parts.next().unwrap_or("").len();
        while let (Some(code), Some(rest)) = (parts.next(), parts.next()) {
            spans.push((line_of(prose, at), code.split_whitespace().collect::<Vec<_>>().join(" ")));
            at += code.len() + rest.len() + 2;
        }
        offset += paragraph.len() + 2;
    }
    spans
}

fn links(prose: &str) -> Vec<(usize, String)> {
    prose
        .match_indices("](")
        .filter_map(|(at, _)| {
            let target = prose[at + 2..].split(')').next()?;
            Some((line_of(prose, at), target.to_owned()))
        })
        .collect()
}

#[test]
fn a_document_is_read() {
    let text =
        "# A `b` c\n\nSee [x](y.md#z) and `kindling\nplan`.\n\n  ```sh\n  make \\\n    a\n  ```\n## A b c\n";
    let document = Document::read(text);
    assert_eq!(document.anchors, ["a-b-c", "a-b-c-1"]);
    assert_eq!(document.links, [(3, "y.md#z".to_owned())]);
    assert_eq!(document.code, [(1, "b".to_owned()), (3, "kindling plan".to_owned())]);
    let block = &document.blocks[0];
    assert_eq!((block.language.as_str(), block.line, block.text.as_str()), ("sh", 6, "make \\\n  a\n"));
}
