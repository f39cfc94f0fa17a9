//! The programs that the drivers run: all that are missing are named at once, with the packages to install.

use std::path::{Path, PathBuf};

use super::UpError;
use crate::host::linux::Linux;
use crate::host::{Command, Host, Output};

/// A program, and the packages that bring it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    pub program: &'static str,
    /// Debian and Ubuntu.
    pub deb: &'static str,
    /// Fedora and its family.
    pub rpm: &'static str,
}

/// Programs for root stand outside of an ordinary user's PATH on Debian.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The path of a program that [`require`] has found, or its bare name.
pub fn path(program: &str) -> String {
    find(program).map_or_else(|| program.to_owned(), |path| path.to_string_lossy().into_owned())
}

pub fn require(tools: &[Tool]) -> Result<(), UpError> {
    let missing: Vec<Tool> = tools.iter().filter(|tool| find(tool.program).is_none()).copied().collect();
    if missing.is_empty() { Ok(()) } else { Err(missing_tools(&missing, &os_release())) }
}

fn os_release() -> String {
    std::fs::read_to_string("/etc/os-release").unwrap_or_default()
}

fn missing_tools(missing: &[Tool], os_release: &str) -> UpError {
    let names: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    UpError::new(
        format!("not installed: {}", names.join(", ")),
        install(&missing.iter().map(|t| (t.deb, t.rpm)).collect::<Vec<_>>(), os_release),
    )
}

/// The command that installs packages (named for Debian and for Fedora) on the distribution of `os_release`.
fn install(packages: &[(&str, &str)], os_release: &str) -> String {
    let is_rpm = os_release
        .lines()
        .filter(|line| line.starts_with("ID=") || line.starts_with("ID_LIKE="))
        .any(|line| line.contains("fedora") || line.contains("rhel"));
    let mut names: Vec<&str> = packages.iter().map(|(deb, rpm)| if is_rpm { *rpm } else { *deb }).collect();
    names.sort_unstable();
    names.dedup();
    let command = if is_rpm { "dnf install" } else { "apt-get install" };
    format!("{command} {}", names.join(" "))
}

/// The remedy for a package that is missing or too old on this host.
pub fn install_here(deb: &str, rpm: &str) -> String {
    install(&[(deb, rpm)], &os_release())
}

/// Runs a program to its end: its status is checked, its standard error kept, its time bounded.
pub fn run<S: AsRef<str>>(args: &[S], seconds: u64) -> Result<Output, UpError> {
    let mut args = args.iter().map(|a| a.as_ref().to_owned());
    let program = path(&args.next().unwrap_or_default());
    let command = Command::new(&program, args).timeout(std::time::Duration::from_secs(seconds));
    Ok(Linux::default().run(&command)?)
}

/// How many processors this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: Tool =
        Tool { program: "qemu-system-x86_64", deb: "qemu-system-x86", rpm: "qemu-system-x86-core" };
    const IMG: Tool = Tool { program: "qemu-img", deb: "qemu-utils", rpm: "qemu-img" };

    #[test]
    fn all_missing_programs_are_named_with_one_command() {
        assert_eq!(
            missing_tools(&[QEMU, IMG], "ID=debian\n").to_string(),
            "not installed: qemu-system-x86_64, qemu-img\n  remedy: apt-get install qemu-system-x86 qemu-utils"
        );
        assert_eq!(
            missing_tools(&[QEMU, IMG], "ID=\"centos\"\nID_LIKE=\"rhel fedora\"\n").to_string(),
            "not installed: qemu-system-x86_64, qemu-img\n  remedy: dnf install qemu-img qemu-system-x86-core"
        );
    }
}
