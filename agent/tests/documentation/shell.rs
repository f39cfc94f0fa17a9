//! Just enough of a shell's grammar to find the commands of a line.

/// One simple command: its words, without assignments before it and redirections behind it.
#[derive(Debug, PartialEq)]
pub struct Command(pub Vec<String>);

impl Command {
    pub fn program(&self) -> &str {
        let name = self.0[0].as_str();
        if name.ends_with("target/release/kindling") { "kindling" } else { name }
    }
}

/// The commands of a line of shell. Comments, assignments, redirections and `sudo` are left out.
pub fn commands(line: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            // a process substitution holds a command of its own
            (None, '<') if characters.peek() == Some(&'(') => {
                characters.next();
                words.extend(word.take());
                end(&mut words, &mut commands);
            }
            (None, ')') => {
                words.extend(word.take());
                end(&mut words, &mut commands);
            }
            (None, '|' | ';' | '&') => {
                words.extend(word.take());
                end(&mut words, &mut commands);
            }
            (None, '<' | '>') => {
                words.extend(word.take());
                words.push(">".into());
                while characters.peek() == Some(&'>') {
                    characters.next();
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {line}");
    words.extend(word);
    end(&mut words, &mut commands);
    commands
}

fn end(words: &mut Vec<String>, commands: &mut Vec<Command>) {
    let mut kept = Vec::new();
    let mut rest = std::mem::take(words).into_iter();
    while let Some(word) = rest.next() {
        if word == ">" {
            rest.next();
        } else {
            kept.push(word);
        }
    }
    let assignment = |word: &String| {
        let name = word.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
    };
    let start = kept.iter().position(|word| !assignment(word) && word != "sudo" && word != "...");
    if let Some(start) = start {
        commands.push(Command(kept.split_off(start)));
    }
}

#[test]
fn a_line_is_taken_apart() {
    let words = |line: &str| -> Vec<Vec<String>> { commands(line).into_iter().map(|c| c.0).collect() };
    assert_eq!(words("A=1 ... sudo make x Y=2   # why"), [["make", "x", "Y=2"]]);
    assert_eq!(words("a 'b c' > d && e|f \\#"), [vec!["a", "b c"], vec!["e"], vec!["f", "#"]]);
    assert_eq!(
        words("source <(kindling completions bash)"),
        [vec!["source"], vec!["kindling", "completions", "bash"]]
    );
    assert_eq!(words("# only a comment"), [[""; 0]; 0]);
}
