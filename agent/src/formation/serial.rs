//! A machine's serial log: the agent's lines in it, with the kernel's time in front of each.

use crate::endpoint::vip_of;
use crate::host::Clock;
use crate::status::{ConsoleLine, Event, Moment, VipMove};
use crate::up::plain;

pub struct Serial {
    pub node: Option<String>,
    pub moments: Vec<Moment>,
    pub vip: Vec<VipMove>,
    /// Whether the lines have times. Agents before this one wrote none: then the steps' durations are added up.
    pub exact: bool,
}

pub fn read(text: &str) -> Serial {
    let mut serial = Serial { node: None, moments: Vec::new(), vip: Vec::new(), exact: true };
    let mut base = None;
    let (mut run, mut last, mut over) = (0, 0, true);
    // Added up where no time is written.
    let mut sum = 0.0;
    for line in text.lines().map(plain) {
        let up = stamp(&line);
        if let (Some(holds), Some(up)) = (vip_of(&line), up) {
            serial.vip.push(VipMove { at: base.unwrap_or(0.0) + up, up, holds });
            continue;
        }
        let Some(line) = ConsoleLine::parse(&line) else { continue };
        if line.n == 0 {
            serial.node = Some(line.step.clone());
        }
        let begins = matches!(line.event, Event::Begun { .. });
        // Lines of an older agent: a step before the last one is of another run.
        if begins || over || (line.n > 0 && line.n < last) {
            run += 1;
        }
        if let (Event::Begun { at, run: number }, Some(up)) = (&line.event, up) {
            base = Some(at - up);
            run = *number;
        }
        over = line.n == 0 && !begins;
        last = line.n;
        if let Event::Done { seconds } | Event::Unchanged { seconds } = line.event
            && line.n > 0
        {
            sum += seconds;
        }
        serial.exact &= up.is_some() && base.is_some();
        let up = up.unwrap_or(sum);
        let clock = Clock { at: base.unwrap_or(0.0) + up, up };
        serial.moments.push(Moment::new(run, clock, &line));
    }
    serial
}

/// The kernel's time in front of a line: `[   12.345678] kindling[1/3] ...`
fn stamp(line: &str) -> Option<f64> {
    let before = &line[..line.find("kindling")?];
    before.trim_end().strip_suffix(']')?.rsplit_once('[')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::MomentKind;

    #[test]
    fn times_and_the_moves_of_the_vip_are_read() {
        let serial = read(
            "[    0.000000] Linux version 6.12\r\n\
             [   11.250000] kindling[0/2] cp1: started (run 3, 2026-11-24T23:12:01.250Z)\r\n\
             noise [   11.500000] kindling[1/2] keepalived: started\r\n\
             [   12.500000] kindling-endpoint: this machine holds the VIP\r\n\
             [   14.000000] kindling[1/2] keepalived: done (2.5 s)\r\n",
        );
        let at = 1_795_561_921.25 - 11.25;
        assert_eq!(serial.node.as_deref(), Some("cp1"));
        assert!(serial.exact);
        let moments: Vec<_> = serial.moments.iter().map(|m| (m.run, m.at - at, m.event)).collect();
        assert_eq!(
            moments,
            [(3, 11.25, MomentKind::Started), (3, 11.5, MomentKind::Started), (3, 14.0, MomentKind::Done)]
        );
        assert_eq!(serial.vip, [VipMove { at: at + 12.5, up: 12.5, holds: true }]);
    }

    #[test]
    fn a_log_without_times_is_added_up() {
        let serial = read(
            "kindling[1/2] ca: done (0.5 s)\nkindling[2/2] init: started\nkindling[1/2] ca: unchanged (0.0 s)\n\
             kindling[2/2] init: done (20.0 s)\nkindling[0/2] cp1: done (20.1 s)\n",
        );
        assert!(!serial.exact);
        let moments: Vec<_> = serial.moments.iter().map(|m| (m.run, m.up)).collect();
        assert_eq!(moments, [(1, 0.5), (1, 0.5), (2, 0.5), (2, 20.5), (2, 20.5)]);
    }
}
