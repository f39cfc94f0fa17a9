//! The picture: a row for each node, a bar for each step, one axis, and who held the VIP.

use std::fmt::Write;

use super::label::{Label, place, shorten, width};
use super::scale::Scale;
use super::{Document, Hold, HoldEnd, Node, Outcome, Run, Span, duration, escape};

/// For a screen, or for a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Wide,
    Narrow,
}

const TEXT: f64 = 12.0;
const LINE: f64 = 15.0;
const BAR: f64 = 22.0;
/// Narrower bars that follow each other share a label.
const SMALL: f64 = 16.0;
/// A wait that takes this part of the axis is named.
const NOTABLE: f64 = 0.04;

pub(super) const STYLE: &str = "\
.kp{--bg:#fff;--ink:#1b2330;--dim:#5b6675;--grid:#e3e7ed;--work:#2f6fd6;--work2:#5b90e6;--wait:#f0a92b;--wait2:#c97f00;--waitink:#8a5600;\
--again:#8a56c9;--bad:#cc2b3d;--idle:#c3cad4;--boot:#e8ebf0;--vip:#12866f;--on:#fff;font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
@media(prefers-color-scheme:dark){.kp{--bg:#12171f;--ink:#e6eaf0;--dim:#9aa6b5;--grid:#262e3a;--work:#3f7fe4;--work2:#2b5cb0;--wait:#d9951f;--wait2:#ffd27a;--waitink:#f2b54a;\
--again:#9f72da;--bad:#f0616f;--idle:#4a5463;--boot:#222a35;--vip:#1c9a80;--on:#fff}}\
.kp .bg{fill:var(--bg)}.kp text{fill:var(--ink)}.kp .h{font-size:17px;font-weight:600}.kp .n{font-size:14px;font-weight:600}\
.kp .dim{fill:var(--dim)}.kp .w{fill:var(--waitink)}.kp .bad{fill:var(--bad);font-weight:600}.kp .badbar{fill:var(--bad)}.kp .in{fill:var(--on);font-weight:600}\
.kp .g{stroke:var(--grid)}.kp .l{stroke:var(--dim);stroke-opacity:.55}.kp .work{fill:var(--work)}.kp .work2{fill:var(--work2)}.kp .again{fill:var(--again)}\
.kp .idle{fill:var(--idle)}.kp .boot{fill:var(--boot)}.kp .wait{fill:var(--wait)}.kp .stripe{stroke:var(--wait2);stroke-width:2;stroke-opacity:.6}\
.kp .vip{fill:var(--vip);stroke:var(--bg)}.kp .cut{fill:none;stroke:var(--bad);stroke-width:1.5;stroke-dasharray:3 2}.kp .x{fill:none;stroke:var(--bad);stroke-width:2.5}\
.kp [tabindex]{outline:none;cursor:pointer}.kp [tabindex]:focus rect:first-of-type,.kp [tabindex]:hover rect:first-of-type{stroke:var(--ink);stroke-width:1.5}";

struct Canvas {
    out: String,
    y: f64,
    scale: Scale,
    zero: f64,
    wide: bool,
    /// Of the hatching, which must have another one in each picture of a page.
    id: &'static str,
}

/// A picture that stands alone. The golden files are read by people, so each thing has a line.
pub fn svg(document: &Document, shape: Shape) -> String {
    let wide = shape == Shape::Wide;
    let (total, margin) = if wide { (1200.0, 24.0) } else { (360.0, 10.0) };
    let (zero, end) = document.extent().unwrap_or((0.0, 1.0));
    let mut busy: Vec<(f64, f64)> = Vec::new();
    for node in &document.nodes {
        busy.extend(node.begin().zip(node.runs.first()).map(|(begin, run)| (begin, run.started)));
        busy.extend(node.runs.iter().map(|r| (r.kernel.unwrap_or(r.started).min(r.started), r.ended)));
    }
    busy.extend(document.vip.iter().flat_map(|h| [(h.from, h.from + 1.0), (h.to - 1.0, h.to)]));
    if busy.is_empty() {
        busy.push((zero, end));
    }
    let scale = Scale::new(busy, margin, total - margin);
    let id = if wide { "kw" } else { "kn" };
    let mut canvas = Canvas { out: String::new(), y: 12.0, scale, zero, wide, id };
    canvas.head(document, total - 2.0 * margin);
    let top = canvas.y;
    canvas.y += 20.0;
    if !document.vip.is_empty() {
        canvas.vip(&document.vip);
    }
    for node in &document.nodes {
        canvas.node(node);
    }
    let height = canvas.y + 6.0;
    let axis = canvas.axis(top, height - 6.0);
    let title = escape(&title(document));
    let headline = escape(&document.headline());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"kp\" viewBox=\"0 0 {total} {height:.0}\" width=\"{total}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{title}: {headline}\">\n\
         <style>{STYLE}</style>\n\
         <defs><pattern id=\"{id}\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect class=\"wait\" width=\"7\" height=\"7\"/><line class=\"stripe\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"7\"/></pattern></defs>\n\
         <rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n{axis}{}</svg>\n",
        canvas.out
    )
}

pub(super) fn title(document: &Document) -> String {
    match &document.cluster {
        Some(name) => format!("Formation of {name}"),
        None => "Formation".into(),
    }
}

/// Neighbours in a run that are named together.
struct Item<'a> {
    spans: &'a [Span],
}

/// A step with its time, where it is known.
fn named(span: &Span) -> String {
    if span.seconds() >= 0.05 {
        format!("{} {}", span.step, duration(span.seconds()))
    } else {
        span.step.clone()
    }
}

impl Canvas {
    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let _ =
            writeln!(self.out, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text));
    }

    fn rect(&self, from: f64, to: f64, y: f64, height: f64, class: &str) -> String {
        let (x, width) = (self.scale.x(from), (self.scale.x(to) - self.scale.x(from)).max(1.5));
        format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        )
    }

    fn since(&self, at: f64) -> String {
        duration(at - self.zero)
    }

    fn head(&mut self, document: &Document, room: f64) {
        let left = self.scale.left;
        let mut label = Label::new(left, 17.0, room, &[("h", title(document))]);
        label.lines.extend(Label::new(left, 13.0, room, &[("dim", document.headline())]).lines);
        for (n, (class, line)) in label.lines.iter().enumerate() {
            self.y += if n == 0 { 12.0 } else { 19.0 };
            let (y, line) = (self.y, line.clone());
            self.text(left, y, class, &line);
        }
        self.y += 12.0;
        // What stands for what; only what there is.
        let spans = || document.nodes.iter().flat_map(|n| &n.runs).flat_map(|r| &r.spans);
        let mut keys = vec![("boot", "power-on and boot"), ("work", "a step works"), ("idle", "unchanged")];
        keys.extend(spans().any(|s| s.waited() > 0.0).then_some(("wait", "waits")));
        keys.extend(spans().any(|s| s.again).then_some(("again", "tried again")));
        keys.extend(spans().any(|s| s.outcome == Outcome::Failed).then_some(("badbar", "failed")));
        keys.extend(spans().any(|s| s.outcome == Outcome::Cut).then_some(("cut", "cut short")));
        keys.extend((!document.vip.is_empty()).then_some(("vip", "holds the VIP")));
        let mut x = left;
        for (class, text) in keys {
            let wide = 18.0 + width(text, TEXT) + 16.0;
            if x + wide > self.scale.right + 16.0 && x > left {
                x = left;
                self.y += 19.0;
            }
            let y = self.y;
            let fill = if class == "wait" { format!(" fill=\"url(#{})\"", self.id) } else { String::new() };
            let class = if class == "wait" { "" } else { class };
            let _ = writeln!(
                self.out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\" class=\"{class}\"{fill}/>",
                y
            );
            self.text(x + 18.0, y + 10.5, "dim", text);
            x += wide;
        }
        self.y += 24.0;
    }

    fn axis(&self, top: f64, bottom: f64) -> String {
        let mut out = String::new();
        for (seconds, x) in self.scale.ticks(self.zero) {
            let text = if seconds < 120.0 && seconds.fract().abs() > 1e-9 {
                format!("{seconds:.1} s")
            } else if seconds <= 600.0 {
                format!("{seconds:.0} s")
            } else {
                duration(seconds).replace(" 0 s", "").replace(" 0 min", "")
            };
            let half = width(&text, 11.0) / 2.0;
            let at = x.clamp(self.scale.left + half - 2.0, self.scale.right - half + 2.0);
            let _ = writeln!(
                out,
                "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" class=\"dim\" text-anchor=\"middle\" font-size=\"11\">{text}</text>",
                top + 14.0,
                top + 9.0
            );
        }
        for (x, seconds) in self.scale.folds() {
            let _ = writeln!(
                out,
                "<path class=\"l\" fill=\"none\" d=\"M{:.1} {:.1}V{bottom:.1}M{:.1} {:.1}V{bottom:.1}\" stroke-dasharray=\"2 3\">\
                 <title>{} in which nothing happened are left out</title></path>",
                x - 4.0,
                top + 14.0,
                x + 4.0,
                top + 14.0,
                duration(seconds)
            );
        }
        out
    }

    fn vip(&mut self, holds: &[Hold]) {
        self.y += 14.0;
        let (left, y) = (self.scale.left, self.y);
        self.text(left, y, "n", "VIP");
        let last = holds.last().map_or(String::new(), |h| match h.end {
            HoldEnd::Open => format!("{} holds it", h.node),
            _ => format!("{} held it last", h.node),
        });
        self.text(left + width("VIP", 14.0) + 12.0, y, "dim", &last);
        self.y += 7.0;
        let top = self.y;
        let mut labels = Vec::new();
        for hold in holds {
            let (x, wide) = (self.scale.x(hold.from), self.scale.x(hold.to) - self.scale.x(hold.from));
            let end = match hold.end {
                HoldEnd::GivenUp => "then it gave it up",
                HoldEnd::Taken => "then another took it, or it booted",
                HoldEnd::Open => "and still held it when this was recorded",
            };
            let about = format!(
                "{} held the VIP from {} to {}, {end}",
                hold.node,
                self.since(hold.from),
                self.since(hold.to)
            );
            let bar = self.rect(hold.from, hold.to, top, BAR, "vip");
            let _ = write!(self.out, "<g tabindex=\"0\"><title>{}</title>{bar}", escape(&about));
            if width(&hold.node, TEXT) + 12.0 <= wide {
                self.text(x + 6.0, top + 15.0, "in", &hold.node);
            } else {
                labels.push(Label::new(x, TEXT, 150.0, &[("", hold.node.clone())]));
            }
            let _ = writeln!(self.out, "</g>");
        }
        self.y += BAR;
        self.labels(labels);
        self.y += 12.0;
    }

    fn node(&mut self, node: &Node) {
        self.y += 16.0;
        let (left, y) = (self.scale.left, self.y);
        self.text(left, y, "n", &node.name);
        let state = match node.last() {
            None => "nothing was recorded".into(),
            Some(run) => {
                let word = if run.outcome == Outcome::Cut { "cut short" } else { run.outcome.word() };
                let runs =
                    if node.runs.len() > 1 { format!(", {} runs", node.runs.len()) } else { String::new() };
                format!("{word} at {}{runs}", self.since(run.ended))
            }
        };
        let about = node.role.iter().cloned().chain([state]).collect::<Vec<_>>().join(" · ");
        let x = left + width(&node.name, 14.0) + 12.0;
        let about = shorten(&about, TEXT, self.scale.right - x);
        self.text(x, y, "dim", &about);
        self.y += 7.0;
        let top = self.y;
        let mut labels = Vec::new();
        let mut begin = node.begin();
        for (n, run) in node.runs.iter().enumerate() {
            if let Some(from) = begin.take().or(run.kernel).filter(|from| *from < run.started) {
                let bar = self.rect(from, run.started, top, BAR, "boot");
                let about = format!(
                    "{}: {} from {} to the agent's start",
                    node.name,
                    duration(run.started - from),
                    if n == 0 && node.powered_on == Some(from) { "power-on" } else { "the kernel's start" }
                );
                let _ = writeln!(self.out, "<g tabindex=\"0\"><title>{}</title>{bar}</g>", escape(&about));
            }
            self.run(node, run, n > 0, top, &mut labels);
        }
        self.y += BAR;
        self.labels(labels);
        self.y += 12.0;
    }

    fn run(&mut self, node: &Node, run: &Run, again: bool, top: f64, labels: &mut Vec<Label>) {
        for (n, span) in run.spans.iter().enumerate() {
            self.bar(node, run, n, span, top);
        }
        let widest = if self.wide { 300.0 } else { 190.0 };
        let long = (self.scale.right - self.scale.left) * NOTABLE;
        for item in self.items(run) {
            let span = &item.spans[0];
            let x = self.scale.x(span.started);
            let wide = self.scale.x(item.spans[item.spans.len() - 1].ended) - x;
            if item.spans.len() > 1 {
                let unchanged = item.spans.iter().all(|s| s.outcome == Outcome::Unchanged);
                let names: Vec<&str> = item.spans.iter().map(|s| s.step.as_str()).collect();
                let text = if again && unchanged && item.spans.len() > 2 {
                    format!("run {}: {} to {} unchanged", run.number, names[0], names[names.len() - 1])
                } else {
                    names.join(", ")
                };
                labels.push(Label::new(x, TEXT, widest, &[("", text)]));
                continue;
            }
            let name = named(span);
            let inside = match self.fits(span, wide) {
                Some(text) => {
                    self.text(x + 6.0, top + 15.0, "in", &text);
                    true
                }
                None => false,
            };
            let mut lines = Vec::new();
            if let Some(cause) = &span.cause {
                lines.push(("bad", shorten(&format!("{name} FAILED: {cause}"), TEXT, widest * 2.8)));
            } else if span.outcome == Outcome::Cut {
                lines.push(("bad", format!("{name}, cut short")));
            } else if !inside {
                lines.push(("", name));
            }
            if let Some(wait) = span.longest_wait()
                && self.scale.x(wait.to) - self.scale.x(wait.from) > long
            {
                let text = format!("waited {}: {}", duration(span.waited()), wait.what);
                lines.push(("w", shorten(&text, TEXT, widest * 2.0)));
            }
            if !lines.is_empty() {
                labels.push(Label::new(x, TEXT, widest, &lines));
            }
        }
    }

    /// What is written on a bar: with its time, without it, or nothing.
    fn fits(&self, span: &Span, wide: f64) -> Option<String> {
        let long = named(span);
        // White on the waits' colour cannot be read.
        let waits = span.waits.iter().filter(|w| w.idle);
        let start = self.scale.x(span.started);
        let free = waits.map(|w| self.scale.x(w.from) - start).fold(wide, f64::min);
        [long, span.step.clone()]
            .into_iter()
            .find(|text| width(text, TEXT) * 1.06 + 10.0 <= free)
            .filter(|_| span.outcome != Outcome::Unchanged)
    }

    fn items<'a>(&self, run: &'a Run) -> Vec<Item<'a>> {
        let small = |s: &Span| {
            self.scale.x(s.ended) - self.scale.x(s.started) < SMALL
                && !matches!(s.outcome, Outcome::Failed | Outcome::Cut)
        };
        run.spans.chunk_by(|a, b| small(a) && small(b)).map(|spans| Item { spans }).collect()
    }

    fn bar(&mut self, node: &Node, run: &Run, n: usize, span: &Span, top: f64) {
        let class = match span.outcome {
            Outcome::Unchanged => "idle",
            _ if span.again => "again",
            _ if n % 2 == 1 => "work2",
            _ => "work",
        };
        let mut about = format!(
            "{}: {} {}, from {} to {} ({})",
            node.name,
            span.step,
            span.outcome.word(),
            self.since(span.started),
            self.since(span.ended),
            duration(span.seconds())
        );
        if let Some(title) = &span.title {
            let _ = write!(about, "\n{title}");
        }
        if run.number > 1 {
            let _ = write!(about, "\nrun {}", run.number);
        }
        for wait in &span.waits {
            let _ = write!(
                about,
                "\n{} for {}: {}",
                self.since(wait.from),
                duration(wait.to - wait.from),
                wait.what
            );
        }
        if let Some(cause) = &span.cause {
            let _ = write!(about, "\ncause: {cause}");
        }
        if let Some(remedy) = &span.remedy {
            let _ = write!(about, "\nremedy: {remedy}");
        }
        let bar = self.rect(span.started, span.ended, top, BAR, class);
        let lines: Vec<String> = about.lines().map(escape).collect();
        let _ = write!(self.out, "<g tabindex=\"0\"><title>{}</title>{bar}", lines.join("\n"));
        for wait in span.waits.iter().filter(|w| w.idle) {
            let (x, wide) = (self.scale.x(wait.from), self.scale.x(wait.to) - self.scale.x(wait.from));
            if wide >= 0.5 {
                let _ = write!(
                    self.out,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{BAR}\" fill=\"url(#{})\"/>",
                    self.id
                );
            }
        }
        let end = self.scale.x(span.ended).max(self.scale.x(span.started) + 1.5);
        if span.outcome == Outcome::Failed {
            // A cross at its end.
            let (x, y) = (end, top + BAR / 2.0);
            let _ = write!(
                self.out,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"3\" height=\"{BAR}\" class=\"badbar\"/><path class=\"x\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\"/>",
                x - 3.0,
                x + 3.0,
                y - 4.0
            );
        } else if span.outcome == Outcome::Cut {
            let _ = write!(
                self.out,
                "<path class=\"cut\" d=\"M{end:.1} {:.1}V{:.1}\"/>",
                top - 3.0,
                top + BAR + 3.0
            );
        }
        let _ = writeln!(self.out, "</g>");
    }

    /// Below the row that ends at `y`, each with a line to what it names.
    fn labels(&mut self, mut labels: Vec<Label>) {
        let height = place(&mut labels, self.scale.left, self.scale.right, LINE);
        let top = self.y + 7.0;
        for label in &labels {
            let x = label.anchor + 0.5;
            // Down beside its text, or to the upper edge of a text that it ends above.
            let beside = label.x >= label.anchor - 0.5 || label.x + label.width <= label.anchor + 0.5;
            let (from, to) = (self.y + 1.0, top + label.y + if beside { LINE - 4.0 } else { 1.0 });
            let _ = writeln!(
                self.out,
                "<line class=\"l\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\"/>"
            );
        }
        for label in &labels {
            for (n, (class, line)) in label.lines.iter().enumerate() {
                let y = top + label.y + LINE * n as f64 + 11.0;
                if label.x + label.width <= label.anchor + 0.5 {
                    let _ = writeln!(
                        self.out,
                        "<text x=\"{:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"end\">{}</text>",
                        label.anchor - 4.0,
                        escape(line)
                    );
                } else {
                    let indent = if label.x >= label.anchor - 0.5 { 4.0 } else { 0.0 };
                    self.text(label.x + indent, y, class, line);
                }
            }
        }
        if !labels.is_empty() {
            self.y = top + height;
        }
    }
}
