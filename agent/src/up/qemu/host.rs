//! What QEMU finds on this host: its version, the firmware, and what runs the guests' code.

use std::path::Path;

use super::args::{Accelerator, Firmware, Translation};
use crate::up::plan::Machine;
use crate::up::tools::{self, Tool};
use crate::up::{UpError, choice};

pub const TOOLS: [Tool; 2] = [
    Tool { program: "qemu-system-x86_64", deb: "qemu-system-x86", rpm: "qemu-system-x86-core" },
    Tool { program: "qemu-img", deb: "qemu-utils", rpm: "qemu-img" },
];

/// `-netdev stream` came with 7.2.
const OLDEST: (u32, u32) = (7, 2);

/// Code and variables, in the order in which they are looked for: Debian and Ubuntu, Fedora, Arch, openSUSE.
const FIRMWARE: [(&str, &str); 7] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];

pub fn firmware() -> Option<Firmware> {
    let there = |(code, vars): &&(&str, &str)| Path::new(code).is_file() && Path::new(vars).is_file();
    FIRMWARE.iter().find(there).map(|(code, vars)| Firmware { code: (*code).into(), vars: (*vars).into() })
}

/// KVM only where it works.
pub fn accelerator(machines: &[Machine]) -> Accelerator {
    if choice::kvm().is_ok() {
        return Accelerator::Kvm;
    }
    let memory_mb = crate::facts::memory_mb().unwrap_or(0);
    Accelerator::Tcg(Translation::on(memory_mb, tools::processors(), machines))
}

/// Everything that is missing, in one error.
pub fn check() -> Result<(), UpError> {
    let mut wanted = TOOLS.to_vec();
    if firmware().is_none() {
        // A name that no folder of programs has, so that the firmware is named with the rest.
        wanted.push(Tool { program: "UEFI firmware (OVMF)", deb: "ovmf", rpm: "edk2-ovmf" });
    }
    tools::require(&wanted)?;
    let text = tools::run(&["qemu-system-x86_64", "--version"], 20)?.stdout;
    match version(&text) {
        Some(version) if version >= OLDEST => Ok(()),
        Some((major, minor)) => Err(UpError::new(
            format!("QEMU {major}.{minor} is too old: 7.2 or newer is needed, for `-netdev stream`"),
            format!(
                "{} (on Debian from backports: `image/qemu-packages` does that)",
                tools::install_here("qemu-system-x86", "qemu-system-x86-core")
            ),
        )),
        None => Err(UpError::new(
            format!("`qemu-system-x86_64 --version` says `{}`, which is no version", text.trim()),
            "install QEMU 7.2 or newer",
        )),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_once("version ")?.1;
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(
            version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\n"),
            Some((10, 0))
        );
        assert_eq!(version("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u14)"), Some((7, 2)));
        assert_eq!(version("something else"), None);
        assert!((10, 0) >= OLDEST && (7, 1) < OLDEST);
    }
}
