//! A line for each node while it comes up: redrawn in place on a terminal, printed at each change elsewhere.
//! Everything goes to standard error, as standard output is for the result.

use std::io::{IsTerminal, Write};

use super::wait::Watched;
use super::watch::Phase;

pub struct Screen {
    silent: bool,
    terminal: bool,
    /// Lines that are drawn and will be drawn over.
    drawn: usize,
    /// What was said of each node last.
    said: Vec<String>,
}

impl Screen {
    pub fn new() -> Self {
        Self { silent: false, terminal: std::io::stderr().is_terminal(), drawn: 0, said: Vec::new() }
    }

    pub fn silent() -> Self {
        Self { silent: true, ..Self::new() }
    }

    pub fn say(&mut self, text: &str) {
        if self.silent {
            return;
        }
        self.drawn = 0;
        write(&format!("{text}\n"));
    }

    pub fn show(&mut self, nodes: &[Watched]) {
        if self.silent {
            return;
        }
        let width = nodes.iter().map(|n| n.machine.name.len()).max().unwrap_or(0);
        if self.terminal {
            let lines: Vec<String> =
                nodes.iter().map(|n| format!("{} {}", clock(n), describe(n, width))).collect();
            self.draw(&lines);
            return;
        }
        self.said.resize(nodes.len(), String::new());
        for (node, said) in nodes.iter().zip(&mut self.said) {
            let now = describe(node, width);
            if now != *said {
                write(&format!("{} {now}\n", clock(node)));
                *said = now;
            }
        }
    }

    fn draw(&mut self, lines: &[String]) {
        // Without wrapping (DECAWM), or a long line would take two rows and the count of rows be wrong.
        let mut text = String::from("\u{1b}[?7l");
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A", self.drawn));
        }
        for line in lines {
            text.push_str(&format!("\r\u{1b}[2K{line}\n"));
        }
        text.push_str("\u{1b}[?7h");
        write(&text);
        self.drawn = lines.len();
    }

    /// What is drawn stays.
    pub fn end(&mut self) {
        self.drawn = 0;
    }
}

/// A terminal that went away takes the lines with it, and nothing else.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn clock(node: &Watched) -> String {
    match node.progress.phase {
        Phase::Waiting => "[   off  ]".to_owned(),
        _ => format!("[{:6.1} s]", node.since_power_on()),
    }
}

fn describe(node: &Watched, width: usize) -> String {
    let progress = &node.progress;
    let step = match progress.phase {
        Phase::Waiting | Phase::Booting => String::new(),
        _ => format!("{}/{}", progress.step, progress.total),
    };
    let doing = if node.ended {
        "the machine is off".to_owned()
    } else if progress.phase != Phase::Done || !node.machine.is_kubernetes_node() {
        progress.doing.clone()
    } else {
        match &node.api {
            Some(api) if api.ready => "done, Ready".to_owned(),
            Some(_) => "done; the API shows it not Ready yet".to_owned(),
            None => "done; the API does not show it yet".to_owned(),
        }
    };
    format!("{:width$}  {step:>5}  {doing}", node.machine.name)
}
