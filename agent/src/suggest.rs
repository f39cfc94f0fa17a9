//! "Did you mean": the known word that somebody probably meant by another one.

use std::fmt;

use serde::de::{DeserializeOwned, IntoDeserializer};

/// The known word that is nearest to `word`, if it is near enough to be meant: one letter in three may be wrong, missing
/// or too many, or two may have changed places. `_`, `-` and capitals make no difference.
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let word = plain(word);
    let most = |candidate: &str| word.len().max(candidate.len()) / 3;
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= most(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The beginning of a remedy: ``did you mean `worker`? ``, or nothing.
pub fn hint<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> String {
    nearest(word, known).map_or_else(String::new, |known| format!("did you mean `{known}`? "))
}

/// The remedy for a name that is none of `known`.
pub fn choose<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    format!("{}choose one of {}", hint(word, known.iter().copied()), known.join(", "))
}

/// The words that `T` knows, where it is an enumeration and `word` is none of them.
pub fn variants<T: DeserializeOwned>(word: &str) -> &'static [&'static str] {
    match T::deserialize(IntoDeserializer::<Variants>::into_deserializer(word)) {
        Err(Variants(known)) => known,
        Ok(_) => &[],
    }
}

/// An error that keeps of serde's only the words that would have been right, which toml's has as a sentence.
#[derive(Debug)]
struct Variants(&'static [&'static str]);

impl fmt::Display for Variants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.0.join(", "))
    }
}

impl std::error::Error for Variants {}

impl serde::de::Error for Variants {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self(&[])
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let roles = ["control-plane", "worker", "load-balancer", "etcd"];
        for (word, meant) in [
            ("wroker", Some("worker")),
            ("Control_Plane", Some("control-plane")),
            ("loadbalancer", Some("load-balancer")),
            ("etdc", Some("etcd")),
            ("slave", None),
            ("ect", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, roles), meant, "{word}");
        }
        assert_eq!(hint("master1", ["ha1", "master2"]), "did you mean `master2`? ");
        assert_eq!(choose("cpl", ["cp1", "w1"]), "did you mean `cp1`? choose one of cp1, w1");
        assert_eq!(choose("x", ["cp1", "w1"]), "choose one of cp1, w1");
    }
}
