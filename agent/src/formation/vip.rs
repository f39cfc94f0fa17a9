//! Who held the VIP when, from what each machine says of itself.

use super::{Hold, HoldEnd};
use crate::status::VipMove;

/// `moves` of each node in order, by its name; `boots`: when its kernels started; `end`: of the records.
pub fn holds(moves: &[(String, Vec<VipMove>)], boots: impl Fn(&str) -> Vec<f64>, end: f64) -> Vec<Hold> {
    let mut holds = Vec::new();
    for (node, moves) in moves {
        let mut since: Option<f64> = None;
        let boots = boots(node);
        // A machine that boots holds nothing, whatever it said before its power was cut.
        let boot_after = |from: f64| boots.iter().copied().filter(|b| *b > from).reduce(f64::min);
        let push = |from: f64, to: f64, end: HoldEnd| match boot_after(from) {
            Some(boot) if boot < to || end == HoldEnd::Open => {
                Hold { node: node.clone(), from, to: boot, end: HoldEnd::Taken }
            }
            _ => Hold { node: node.clone(), from, to, end },
        };
        for step in moves {
            match (since, step.holds) {
                (None, true) => since = Some(step.at),
                (Some(from), false) => {
                    holds.push(push(from, step.at, HoldEnd::GivenUp));
                    since = None;
                }
                // It took it twice without a word between: its power was cut.
                (Some(from), true) => {
                    holds.push(push(from, step.at, HoldEnd::Taken));
                    since = Some(step.at);
                }
                (None, false) => {}
            }
        }
        if let Some(from) = since {
            holds.push(push(from, end, HoldEnd::Open));
        }
    }
    holds.sort_by(|a, b| a.from.total_cmp(&b.from));
    // Who never said that it gave it up lost it, at the latest, when another one took it.
    for n in 0..holds.len() {
        let next = holds[n + 1..].iter().find(|h| h.node != holds[n].node).map(|h| h.from);
        if let Some(next) = next.filter(|next| holds[n].end != HoldEnd::GivenUp && *next < holds[n].to) {
            (holds[n].to, holds[n].end) = (next, HoldEnd::Taken);
        }
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(list: &[(f64, bool)]) -> Vec<VipMove> {
        list.iter().map(|(at, holds)| VipMove { at: *at, up: *at, holds: *holds }).collect()
    }

    #[test]
    fn a_holder_whose_power_was_cut_held_it_until_another_took_it() {
        let all = [
            ("a".to_owned(), moves(&[(10.0, true), (90.0, true)])),
            ("b".to_owned(), moves(&[(40.0, true), (89.5, false)])),
        ];
        let holds = holds(&all, |_| Vec::new(), 100.0);
        let list: Vec<_> = holds.iter().map(|h| (h.node.as_str(), h.from, h.to, h.end)).collect();
        assert_eq!(
            list,
            [
                ("a", 10.0, 40.0, HoldEnd::Taken),
                ("b", 40.0, 89.5, HoldEnd::GivenUp),
                ("a", 90.0, 100.0, HoldEnd::Open)
            ]
        );
    }

    #[test]
    fn a_machine_that_boots_holds_nothing() {
        let all = [("a".to_owned(), moves(&[(10.0, true)]))];
        let holds = holds(&all, |_| vec![1.0, 50.0], 100.0);
        assert_eq!((holds[0].to, holds[0].end), (50.0, HoldEnd::Taken));
    }
}
