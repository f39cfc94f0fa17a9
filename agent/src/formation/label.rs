//! Where the texts below a row go, so that none lies over another.

/// Space between two labels.
const GAP: f64 = 10.0;

#[derive(Debug, Clone)]
pub struct Label {
    /// What it names: its line comes down from here.
    pub anchor: f64,
    /// A CSS class and a text for each line.
    pub lines: Vec<(&'static str, String)>,
    pub x: f64,
    /// From the row's lower edge; set by [`place`].
    pub y: f64,
    pub width: f64,
}

impl Label {
    pub fn new(anchor: f64, size: f64, widest: f64, texts: &[(&'static str, String)]) -> Self {
        let mut lines = Vec::new();
        for (class, text) in texts {
            lines.extend(wrap(text, size, widest).into_iter().map(|line| (*class, line)));
        }
        let width = lines.iter().map(|(_, line)| width(line, size)).fold(0.0, f64::max);
        Self { anchor, lines, x: anchor, y: 0.0, width }
    }

    pub fn height(&self, line: f64) -> f64 {
        self.lines.len() as f64 * line
    }
}

/// A text or a line that nothing else may lie over.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn meets(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

/// Places labels between `left` and `right`, and returns the height that they take. A label begins at its anchor or, near
/// the right edge, ends there. Texts never lie over each other; the lines that come down to them cross one only where
/// nothing else is possible.
pub fn place(labels: &mut [Label], left: f64, right: f64, line: f64) -> f64 {
    let mut first = labels.to_vec();
    let mut last = labels.to_vec();
    let tried = [
        place_in_order(&mut first, left, right, line, true),
        place_in_order(&mut last, left, right, line, false),
    ];
    let (best, height) = if tried[0].0 < tried[1].0 { (first, tried[0].1) } else { (last, tried[1].1) };
    labels.clone_from_slice(&best);
    height
}

/// How many lines cross a text, and the height.
fn place_in_order(
    labels: &mut [Label],
    left: f64,
    right: f64,
    line: f64,
    mirrored_first: bool,
) -> (usize, f64) {
    // Those that extend to the right from the right to the left, the others the other way round: later ones go
    // lower, and their lines pass beside the earlier ones.
    let mirrored = |l: &Label| l.anchor + l.width > right;
    labels.sort_by(|a, b| {
        let order = if mirrored(a) { a.anchor.total_cmp(&b.anchor) } else { b.anchor.total_cmp(&a.anchor) };
        let kind = mirrored(a).cmp(&mirrored(b));
        (if mirrored_first { kind.reverse() } else { kind }).then(order)
    });
    let mut crossings = 0;
    let (mut texts, mut stems): (Vec<Area>, Vec<Area>) = (Vec::new(), Vec::new());
    for label in labels.iter_mut() {
        let height = label.height(line);
        let from = if mirrored(label) { label.anchor - label.width } else { label.anchor };
        label.x = from.min(right - label.width).max(left);
        let (anchor, x, width) = (label.anchor, label.x, label.width);
        let area = |y: f64| Area { left: x - GAP, right: x + width + GAP, top: y, bottom: y + height };
        let stem = |y: f64| Area { left: anchor - 2.0, right: anchor + 2.0, top: 0.0, bottom: y };
        let clear = |y: f64| {
            let own = Area { left: x + 1.0, right: x + width - 1.0, ..area(y) };
            texts.iter().all(|t| !t.meets(&stem(y))) && stems.iter().all(|s| !s.meets(&own))
        };
        let mut levels: Vec<f64> = std::iter::once(0.0).chain(texts.iter().map(|t| t.bottom)).collect();
        levels.sort_by(f64::total_cmp);
        levels.retain(|y| texts.iter().all(|t| !t.meets(&area(*y))));
        let good = levels.iter().copied().find(|y| clear(*y));
        crossings += usize::from(good.is_none());
        let y = good.or(levels.first().copied()).unwrap_or(0.0);
        label.y = y;
        texts.push(Area { left: x, right: x + width, top: y, bottom: y + height + 3.0 });
        stems.push(stem(y));
    }
    (crossings, texts.iter().map(|t| t.bottom).fold(0.0, f64::max))
}

/// About as wide as the text is in a wide sans-serif font; a little more rather than less.
pub fn width(text: &str, size: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '·' | '(' | ')' | '['
            | ']' => 0.37,
            'f' | 'r' | 't' | '-' | '/' => 0.43,
            'm' | 'w' | 'M' | 'W' | '@' | '…' => 1.0,
            'A'..='Z' => 0.74,
            _ => 0.645,
        })
        .sum();
    em * size
}

fn wrap(text: &str, size: f64, widest: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one from the beginning");
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if width(&longer, size) <= widest {
            *line = longer;
        } else if line.is_empty() {
            *line = shorten(word, size, widest);
        } else {
            lines.push(shorten(word, size, widest));
        }
    }
    lines
}

/// What fits, with an ellipsis where not all does.
pub fn shorten(text: &str, size: f64, widest: f64) -> String {
    if width(text, size) <= widest {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if width(&short, size) + width("…", size) + width(&c.to_string(), size) > widest {
            break;
        }
        short.push(c);
    }
    short.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_lies_over_another_or_outside() {
        let words = ["containerd", "keepalived", "the API at 10.0.0.10:6443 does not answer yet", "ca"];
        let mut labels: Vec<Label> = (0..12)
            .map(|n| Label::new(f64::from(n) * 29.0, 12.0, 150.0, &[("", words[n as usize % 4].into())]))
            .collect();
        let height = place(&mut labels, 0.0, 340.0, 15.0);
        for (n, a) in labels.iter().enumerate() {
            assert!(a.x >= 0.0 && a.x + a.width <= 340.0 && a.y + a.height(15.0) <= height);
            for b in &labels[n + 1..] {
                let apart = a.x + a.width <= b.x || b.x + b.width <= a.x;
                assert!(apart || a.y + a.height(15.0) <= b.y || b.y + b.height(15.0) <= a.y, "{a:?} {b:?}");
            }
        }
    }
}
