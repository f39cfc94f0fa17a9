//! The table of what each component knows, `flags.txt`.

fn lines<'k>(kind: &'k str) -> impl Iterator<Item = (&'static str, u32, u32)> + use<'k> {
    let lines = include_str!("../flags.txt").lines();
    lines.filter_map(move |line| {
        let mut words = line.strip_prefix(kind)?.strip_prefix(' ')?.split(' ');
        Some((words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}

/// The first and the last minor version that has `name` among what is of this kind.
pub fn known(kind: &str, name: &str) -> Option<(u32, u32)> {
    lines(kind).find(|(known, ..)| *known == name).map(|(_, first, last)| (first, last))
}

/// All that is of this kind in a minor version.
pub fn names<'k>(kind: &'k str, minor: u32) -> impl Iterator<Item = &'static str> + use<'k> {
    lines(kind).filter(move |(_, first, last)| (*first..=*last).contains(&minor)).map(|(name, ..)| name)
}
