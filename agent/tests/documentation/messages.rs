//! The messages that docs/troubleshooting.md lists.

use std::fs;
use std::path::Path;

use super::help_support::root;

/// A message that nobody says any more helps nobody. Words in capitals stand for what differs.
#[test]
fn every_message_of_troubleshooting_is_said_by_the_code() {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut code = String::new();
    collect(&root().join("agent/src"), &mut code);
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let (mut count, mut problems) = (0, Vec::new());
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let message = line.split('`').next().unwrap();
        count += 1;
        let placeholder = |word: &&str| word.len() > 1 || word == &"N";
        let mut parts = vec![String::new()];
        for word in message.split(' ') {
            let capitals = word.trim_end_matches([',', '.', ':']);
            if !capitals.is_empty()
                && placeholder(&capitals)
                && capitals.bytes().all(|b| b.is_ascii_uppercase())
            {
                // CPU and TWO CLUSTERS under one CA are said so
                if !["CPU", "TWO", "CLUSTERS", "CA", "CA:", "VRID", "VRRP"].contains(&capitals) {
                    parts.push(String::new());
                    continue;
                }
            }
            let part = parts.last_mut().unwrap();
            if !part.is_empty() {
                part.push(' ');
            }
            part.push_str(word);
        }
        let unsaid = parts.iter().filter(|part| part.len() > 3 && !code.contains(part.as_str()));
        problems.extend(unsaid.map(|part| format!("nobody says `{part}` of `{message}`")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count >= 30, "only {count} messages");
}
