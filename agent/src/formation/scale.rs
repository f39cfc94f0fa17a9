//! From moments to positions. Long times in which nothing happened are folded, so that a reboot after days does not
//! squeeze a formation of a minute into a hair.

/// Shorter pauses are left as they are.
const FOLD: f64 = 120.0;
/// How wide a folded pause is drawn.
const FOLDED: f64 = 30.0;
/// Between two ticks at least.
const TICK: f64 = 56.0;
const STEPS: &[f64] = &[
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0,
    21600.0, 86400.0,
];

#[derive(Debug)]
pub struct Scale {
    parts: Vec<Part>,
    pub left: f64,
    pub right: f64,
    per_second: f64,
}

#[derive(Debug)]
struct Part {
    from: f64,
    to: f64,
    x: f64,
}

impl Scale {
    /// `busy`: from and to of all that is drawn.
    pub fn new(mut busy: Vec<(f64, f64)>, left: f64, right: f64) -> Self {
        busy.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = busy.iter().map(|(from, to)| to - from).fold(0.0, f64::max);
        let fold = FOLD.max(total / 2.0);
        let mut parts: Vec<(f64, f64)> = Vec::new();
        for (from, to) in busy {
            match parts.last_mut() {
                Some(last) if from - last.1 < fold => last.1 = last.1.max(to),
                _ => parts.push((from, to)),
            }
        }
        let seconds: f64 = parts.iter().map(|(from, to)| to - from).sum::<f64>().max(1.0);
        let per_second = (right - left - FOLDED * parts.len().saturating_sub(1) as f64) / seconds;
        let mut x = left;
        let parts = parts.into_iter().map(|(from, to)| {
            let part = Part { from, to, x };
            x += (to - from) * per_second + FOLDED;
            part
        });
        Self { parts: parts.collect(), left, right, per_second }
    }

    pub fn x(&self, at: f64) -> f64 {
        let Some(part) = self.parts.iter().rev().find(|p| p.from <= at).or(self.parts.first()) else {
            return self.left;
        };
        let inside = part.x + (at.clamp(part.from, part.to) - part.from) * self.per_second;
        // In a folded pause: its middle.
        let x = if at > part.to + 1e-6 { inside + FOLDED / 2.0 } else { inside };
        x.min(self.right)
    }

    /// Seconds from `zero` and where they are.
    pub fn ticks(&self, zero: f64) -> Vec<(f64, f64)> {
        let step = STEPS.iter().copied().find(|s| s * self.per_second >= TICK);
        let step = step.unwrap_or(TICK / self.per_second.max(1e-9));
        let mut ticks = Vec::new();
        for part in &self.parts {
            let mut n = ((part.from - zero) / step).ceil();
            while zero + n * step <= part.to + 1e-9 {
                ticks.push((n * step, self.x(zero + n * step)));
                n += 1.0;
            }
        }
        ticks
    }

    /// The folded pauses: their middle, and how long each is.
    pub fn folds(&self) -> Vec<(f64, f64)> {
        let pairs = self.parts.windows(2);
        pairs.map(|p| (p[1].x - FOLDED / 2.0, p[1].from - p[0].to)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pause_is_folded() {
        let scale = Scale::new(vec![(0.0, 60.0), (10_000.0, 10_040.0)], 0.0, 1030.0);
        assert_eq!(scale.x(60.0), 600.0);
        assert_eq!(scale.x(10_000.0), 630.0);
        assert_eq!(scale.x(10_040.0), 1030.0);
        assert_eq!(scale.folds(), [(615.0, 9940.0)]);
        assert!(scale.ticks(0.0).iter().all(|(_, x)| *x <= 600.0 || *x >= 630.0));
    }

    #[test]
    fn a_short_pause_is_not() {
        let scale = Scale::new(vec![(0.0, 10.0), (40.0, 50.0)], 0.0, 100.0);
        assert_eq!(scale.x(25.0), 50.0);
    }
}
