//! One axis for machines whose clocks may differ.

use super::Node;

/// What the nodes have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Their clocks, set by NTP or by one host.
    Clock,
    /// The start of their kernels: all were powered on at the same moment.
    Boot,
}

/// From power-on to the kernel: firmware and boot loader, emulated and on a busy host.
const FIRMWARE: f64 = 180.0;

/// Moves each node's times, and says what was done in a note.
pub fn align(nodes: &mut [Node], how: Align, mut shift: impl FnMut(&str, f64)) -> Vec<String> {
    let mut notes = Vec::new();
    match how {
        Align::Clock => {
            for node in nodes.iter_mut().filter(|n| n.exact) {
                let kernel = node.runs.iter().rev().find_map(|r| r.kernel);
                if let (Some(on), Some(kernel)) = (node.powered_on, kernel)
                    && !(on - 2.0..on + FIRMWARE).contains(&kernel)
                {
                    let by = on - kernel;
                    node.shift(by);
                    shift(&node.name, by);
                    notes.push(format!(
                        "{}: its clock says that its kernel started {:.0} s {} it was powered on: moved so that both are one",
                        node.name,
                        by.abs(),
                        if by < 0.0 { "after" } else { "before" },
                    ));
                }
            }
            notes.insert(0, "Times are by the machines' own clocks.".into());
        }
        Align::Boot => {
            let start = |node: &Node| node.runs.first().map(|r| r.kernel.unwrap_or(r.started));
            let first = nodes.iter().filter_map(start).reduce(f64::min);
            for node in nodes.iter_mut() {
                if let (Some(first), Some(own)) = (first, start(node)) {
                    node.shift(first - own);
                    shift(&node.name, first - own);
                }
            }
            notes.push(
                "Times are from the start of each machine's kernel, as if all had started at one moment."
                    .into(),
            );
        }
    }
    notes
}

impl Node {
    /// All but the power-on, which is by the host's clock.
    pub(super) fn shift(&mut self, by: f64) {
        for run in &mut self.runs {
            run.kernel = run.kernel.map(|k| k + by);
            run.started += by;
            run.ended += by;
            for span in &mut run.spans {
                span.started += by;
                span.ended += by;
                for wait in &mut span.waits {
                    wait.from += by;
                    wait.to += by;
                }
            }
        }
    }
}
