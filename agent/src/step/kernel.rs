//! Kernel modules, sysctls and swap.

use std::path::PathBuf;

use super::{Context, Found, files};
use crate::error::StepError;
use crate::host::{Command, Host, exists, read_text};
use crate::plan::FileSpec;

#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    pub modules: Vec<String>,
    pub sysctls: Vec<(String, String)>,
    /// What makes both hold after a reboot.
    pub files: Vec<FileSpec>,
    /// In a system container modules are the host's, and preflight has looked for them.
    pub container: bool,
}

/// `net.ipv4.ip_forward` -> /proc/sys/net/ipv4/ip_forward
fn proc_path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key.replace('.', "/"))
}

impl Kernel {
    fn missing_modules(&self, host: &dyn Host) -> Vec<&str> {
        if self.container {
            return Vec::new();
        }
        let loaded = read_text(host, "/proc/modules").unwrap_or_default();
        self.modules
            .iter()
            .map(String::as_str)
            // A module that is built in has a folder, too.
            .filter(|m| {
                !loaded.lines().any(|l| l.split(' ').next() == Some(m))
                    && !exists(host, format!("/sys/module/{m}"))
            })
            .collect()
    }

    fn differing_sysctls(&self, host: &dyn Host) -> Vec<&(String, String)> {
        self.sysctls
            .iter()
            .filter(|(key, value)| read_text(host, proc_path(key)).is_none_or(|text| text.trim() != value))
            .collect()
    }

    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        let mut list = files::differing(cx.host, &self.files)?;
        list.extend(self.missing_modules(cx.host).iter().map(|m| format!("module {m}")));
        list.extend(self.differing_sysctls(cx.host).iter().map(|(key, _)| key.clone()));
        Ok(if list.is_empty() { Found::matches() } else { Found::Differs(list.join(", ")) })
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        for file in &self.files {
            files::write(cx.host, file)?;
        }
        for module in self.missing_modules(cx.host) {
            cx.host.run(&Command::new("modprobe", [module])).map_err(|error| {
                StepError::lasting(
                    error.to_string(),
                    format!("this kernel lacks the module {module}: use the image's own kernel"),
                )
            })?;
        }
        for (key, value) in self.differing_sysctls(cx.host) {
            cx.host.write_kernel(&proc_path(key), value).map_err(|error| {
                let remedy = if self.container {
                    "the container's /proc/sys is read-only: start it with it writable, or set the value on the host"
                } else {
                    "see `sysctl` on this machine; the kernel may lack it"
                };
                StepError::lasting(format!("cannot set {key} to {value}: {error}"), remedy)
            })?;
        }
        Ok(self.container.then(|| "modules are the host's".to_owned()))
    }
}

/// Uncommented lines of fstab that mount swap.
fn fstab_swap(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        !line.trim_start().starts_with('#') && words.nth(2) == Some("swap")
    })
}

const SWAP_TARGET: &str = "/etc/systemd/system/swap.target";

pub fn look_swap(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let used = read_text(cx.host, "/proc/swaps").unwrap_or_default().lines().count() > 1;
    let fstab = read_text(cx.host, "/etc/fstab").unwrap_or_default();
    let masked =
        cx.host.run(&Command::query("readlink", [SWAP_TARGET])).is_ok_and(|o| o.stdout.trim() == "/dev/null");
    Ok(if used {
        Found::Differs("swap is on".into())
    } else if fstab_swap(&fstab) {
        Found::Differs("/etc/fstab mounts swap".into())
    } else if !masked {
        Found::Differs("swap.target is not masked".into())
    } else {
        Found::matches()
    })
}

pub fn act_swap(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    cx.host.run(&Command::new("swapoff", ["--all"]))?;
    let fstab = read_text(cx.host, "/etc/fstab").unwrap_or_default();
    if fstab_swap(&fstab) {
        let lines: Vec<String> = fstab
            .lines()
            .map(|l| if fstab_swap(l) { format!("# off for Kubernetes: {l}") } else { l.to_owned() })
            .collect();
        files::write(cx.host, &FileSpec::public("/etc/fstab", lines.join("\n") + "\n"))?;
    }
    // A swap partition is also found by systemd-gpt-auto-generator(8), which fstab does not stop.
    cx.host.run(&Command::new("systemctl", ["mask", "swap.target"]))?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_lines_of_fstab_are_told_from_comments_and_mounts() {
        assert!(fstab_swap("/swap.img none swap sw 0 0"));
        assert!(!fstab_swap("#/swap.img none swap sw 0 0\n/dev/sda1 / ext4 defaults 0 1"));
    }
}
