//! Which driver runs a cluster: the one that is named, that of the machines that are there, or the best that
//! this host has.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use clap::ValueEnum;
use serde::Serialize;

use super::{DriverName, UpError, tools};

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wish {
    Auto,
    Qemu,
    Machines,
}

/// Why QEMU must emulate a processor here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKvm {
    NoDevice,
    /// What the system said when the device was opened.
    NotOpened(String),
    /// A device that opens is not enough: nested below some hypervisors it breaks stock kernels.
    NoFlag,
}

impl NoKvm {
    fn remedy(&self) -> &'static str {
        match self {
            Self::NoDevice => {
                "turn on virtualization (VT-x, AMD-V) in the firmware, or nested virtualization for this VM, and `modprobe kvm`"
            }
            Self::NotOpened(_) => "add this user to the group kvm and log in again",
            Self::NoFlag => "turn on nested virtualization for this VM",
        }
    }
}

impl std::fmt::Display for NoKvm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDevice => f.write_str("there is no /dev/kvm"),
            Self::NotOpened(error) => write!(f, "/dev/kvm cannot be opened: {error}"),
            Self::NoFlag => f.write_str("/dev/kvm is there, but /proc/cpuinfo shows neither vmx nor svm"),
        }
    }
}

/// Whether KVM can be used.
pub fn kvm() -> Result<(), NoKvm> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(NoKvm::NoDevice),
        // A right to open it would help nobody then.
        _ if !virtualizes(&cpuinfo) => Err(NoKvm::NoFlag),
        Err(error) => Err(NoKvm::NotOpened(error.to_string())),
        Ok(_) => Ok(()),
    }
}

fn virtualizes(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"))
}

/// What this host can run machines with.
#[derive(Debug, Clone)]
pub struct Means {
    pub kvm: Result<(), NoKvm>,
    pub root: bool,
    /// Whether systemd-nspawn is installed.
    pub nspawn: bool,
}

impl Means {
    pub fn here() -> Self {
        Self {
            kvm: kvm(),
            root: nix::unistd::geteuid().is_root(),
            nspawn: tools::find("systemd-nspawn").is_some(),
        }
    }
}

/// The driver, and in one line why it is that one, where that is worth a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    pub driver: DriverName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.driver.fmt(f)
    }
}

/// `there` is the driver of the machines that the state folder has.
pub fn choose(wish: Wish, there: Option<DriverName>, means: &Means) -> Result<Choice, UpError> {
    let plain = |driver| Choice { driver, why: None };
    match (wish, there) {
        (Wish::Qemu, _) => return Ok(plain(DriverName::Qemu)),
        (Wish::Machines, _) => return Ok(plain(DriverName::Machines)),
        (Wish::Auto, Some(driver)) => return Ok(plain(driver)),
        (Wish::Auto, None) => {}
    }
    let Err(no_kvm) = &means.kvm else { return Ok(plain(DriverName::Qemu)) };
    if means.root && means.nspawn {
        let why = format!(
            "no KVM ({no_kvm}): machines in namespaces instead, minutes where emulation takes tens of minutes; --driver qemu emulates"
        );
        return Ok(Choice { driver: DriverName::Machines, why: Some(why) });
    }
    let (no_machines, remedy) = if means.root {
        ("systemd-nspawn is not installed", tools::install_here("systemd-container", "systemd-container"))
    } else {
        ("this user is not root", "run it as root".to_owned())
    };
    Err(UpError::new(
        format!(
            "neither virtual machines nor machines in namespaces can be had here: no KVM ({no_kvm}), and {no_machines}"
        ),
        format!(
            "for virtual machines: {}; for machines in namespaces: {remedy}; --driver qemu emulates a processor, which takes tens of minutes",
            no_kvm.remedy()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(kvm: Result<(), NoKvm>, root: bool, nspawn: bool) -> Means {
        Means { kvm, root, nspawn }
    }

    #[test]
    fn kvm_needs_the_processors_flag() {
        assert!(virtualizes("processor\t: 0\nflags\t\t: fpu vmx ssse3\n"));
        assert!(virtualizes("flags : svm\n"));
        assert!(!virtualizes("processor\t: 0\nflags\t\t: fpu hypervisor\nvmx flags\t: vnmi\n"));
    }

    #[test]
    fn qemu_is_taken_where_kvm_can_be_used_and_machines_where_not() {
        use DriverName::{Machines, Qemu};
        let denied = || NoKvm::NotOpened("Permission denied (os error 13)".into());
        for (kvm, root, nspawn, wanted) in [
            (Ok(()), false, false, Some(Qemu)),
            (Ok(()), true, true, Some(Qemu)),
            (Err(NoKvm::NoDevice), true, true, Some(Machines)),
            (Err(NoKvm::NoFlag), true, true, Some(Machines)),
            (Err(denied()), true, true, Some(Machines)),
            (Err(NoKvm::NoDevice), true, false, None),
            (Err(NoKvm::NoFlag), false, true, None),
            (Err(denied()), false, false, None),
        ] {
            let means = means(kvm, root, nspawn);
            let got = choose(Wish::Auto, None, &means).ok().map(|choice| choice.driver);
            assert_eq!(got, wanted, "{means:?}");
        }
    }

    #[test]
    fn one_line_says_why_it_is_machines() {
        let choice = choose(Wish::Auto, None, &means(Err(NoKvm::NoFlag), true, true)).expect("a driver");
        assert_eq!(
            choice.why.expect("a reason"),
            "no KVM (/dev/kvm is there, but /proc/cpuinfo shows neither vmx nor svm): machines in namespaces instead, \
             minutes where emulation takes tens of minutes; --driver qemu emulates"
        );
        let choice = choose(Wish::Auto, None, &means(Ok(()), true, true)).expect("a driver");
        assert_eq!(choice, Choice { driver: DriverName::Qemu, why: None });
    }

    #[test]
    fn where_neither_can_be_had_one_error_names_both_remedies() {
        let denied = NoKvm::NotOpened("Permission denied (os error 13)".into());
        assert_eq!(
            choose(Wish::Auto, None, &means(Err(denied), false, true)).expect_err("no driver").to_string(),
            "neither virtual machines nor machines in namespaces can be had here: no KVM (/dev/kvm cannot be opened: \
             Permission denied (os error 13)), and this user is not root\n  \
             remedy: for virtual machines: add this user to the group kvm and log in again; for machines in namespaces: \
             run it as root; --driver qemu emulates a processor, which takes tens of minutes"
        );
        let error =
            choose(Wish::Auto, None, &means(Err(NoKvm::NoDevice), true, false)).expect_err("no driver");
        let text = error.to_string();
        assert!(text.contains("and systemd-nspawn is not installed"), "{text}");
        assert!(
            text.contains("nested virtualization") && text.contains("install systemd-container"),
            "{text}"
        );
    }

    #[test]
    fn what_is_named_wins_then_what_is_there() {
        use DriverName::{Machines, Qemu};
        let nothing = means(Err(NoKvm::NoDevice), false, false);
        let driver = |wish, there| choose(wish, there, &nothing).expect("a driver").driver;
        assert_eq!(driver(Wish::Qemu, Some(Machines)), Qemu);
        assert_eq!(driver(Wish::Machines, Some(Qemu)), Machines);
        assert_eq!(driver(Wish::Auto, Some(Qemu)), Qemu);
        let all = means(Ok(()), true, true);
        assert_eq!(choose(Wish::Auto, Some(Machines), &all).expect("a driver").driver, Machines);
    }
}
