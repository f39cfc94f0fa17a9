//! A change of a static pod's manifest that means nothing, on which the kubelet restarts the pod: what `kubeadm upgrade`
//! does, too. One atomic write, where moving the file away and back could lose it with the power.

const KEY: &str = "kindling-certificates";

/// The manifest with `stamp` among its annotations.
pub fn stamped(manifest: &str, stamp: &str) -> Option<String> {
    let lines: Vec<&str> = manifest.lines().filter(|l| !l.trim_start().starts_with(KEY)).collect();
    let metadata = lines.iter().position(|l| *l == "metadata:")?;
    let inside = lines[metadata + 1..].iter().take_while(|l| l.starts_with(' '));
    let annotations = inside.clone().position(|l| *l == "  annotations:").map(|n| metadata + 1 + n);
    let mut out: Vec<String> = Vec::with_capacity(lines.len() + 2);
    for (n, line) in lines.iter().enumerate() {
        out.push((*line).to_owned());
        if annotations == Some(n) {
            out.push(format!("    {KEY}: \"{stamp}\""));
        } else if annotations.is_none() && n == metadata {
            out.push("  annotations:".into());
            out.push(format!("    {KEY}: \"{stamp}\""));
        }
    }
    Some(out.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_added_and_replaced() {
        let with = "kind: Pod\nmetadata:\n  annotations:\n    a/b: c\n  name: x\nspec:\n  n: 1\nstatus: {}\n";
        let once = stamped(with, "1").expect("it has metadata");
        assert_eq!(
            once,
            "kind: Pod\nmetadata:\n  annotations:\n    kindling-certificates: \"1\"\n    a/b: c\n  name: x\nspec:\n  n: 1\nstatus: {}\n"
        );
        assert_eq!(stamped(&once, "2"), Some(once.replace('1', "2").replace("n: 2", "n: 1")));
        let without = "kind: Pod\nmetadata:\n  name: x\nspec: {}\n";
        let text = stamped(without, "1").expect("it has metadata");
        assert!(text.starts_with(
            "kind: Pod\nmetadata:\n  annotations:\n    kindling-certificates: \"1\"\n  name: x\n"
        ));
    }
}
