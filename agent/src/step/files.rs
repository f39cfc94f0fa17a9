//! Whole files, and the small settings that are little more than a file.

use std::path::Path;
use std::time::Duration;

use super::{Context, Found};
use crate::error::StepError;
use crate::host::{Command, Host, read_text};
use crate::plan::FileSpec;
use crate::role::types::DnsName;

pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
pub const ROOT_KUBECONFIG: &str = "/root/.kube/config";

/// Whether a file is on the host with this content and this mode.
pub fn matches(host: &dyn Host, file: &FileSpec) -> Result<bool, StepError> {
    let content = host.read(&file.path).map_err(|e| StepError::file("read", &file.path, &e))?;
    let mode = host.mode(&file.path).map_err(|e| StepError::file("read", &file.path, &e))?;
    Ok(content.as_deref() == Some(file.content.as_bytes()) && mode == Some(file.mode))
}

/// Writes a file if it does not match. Returns whether it was written.
pub fn write(host: &dyn Host, file: &FileSpec) -> Result<bool, StepError> {
    if matches(host, file)? {
        return Ok(false);
    }
    host.write(&file.path, file.content.as_bytes(), file.mode)
        .map_err(|e| StepError::file("write", &file.path, &e))?;
    Ok(true)
}

pub fn remove(host: &dyn Host, path: impl AsRef<Path>) -> Result<(), StepError> {
    let path = path.as_ref();
    host.remove(path).map_err(|error| StepError::file("remove", path, &error))
}

pub fn differing(host: &dyn Host, files: &[FileSpec]) -> Result<Vec<String>, StepError> {
    let mut list = Vec::new();
    for file in files {
        if !matches(host, file)? {
            list.push(file.path.display().to_string());
        }
    }
    Ok(list)
}

pub fn look(files: &[FileSpec], cx: &mut Context<'_>) -> Result<Found, StepError> {
    let list = differing(cx.host, files)?;
    Ok(if list.is_empty() { Found::matches() } else { Found::Differs(list.join(", ")) })
}

pub fn act(files: &[FileSpec], cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    for file in files {
        write(cx.host, file)?;
    }
    Ok(None)
}

/// Runs since the image's start. The others are started later, by their own steps.
pub const TRY_RESTART: [&str; 3] = ["systemctl", "try-restart", "containerd.service"];

pub fn look_drop_ins(files: &[FileSpec], cx: &mut Context<'_>) -> Result<Found, StepError> {
    // The files may be new, and systemd may not have read them.
    if cx.interrupted {
        return Ok(Found::Differs("an earlier run was interrupted here".into()));
    }
    look(files, cx)
}

pub fn act_drop_ins(files: &[FileSpec], cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    act(files, cx)?;
    cx.host.run(&Command::new("systemctl", ["daemon-reload"]))?;
    let [program, args @ ..] = TRY_RESTART;
    // systemd itself gives containerd five minutes.
    cx.host.run(&Command::new(program, args).timeout(Duration::from_secs(330)))?;
    Ok(None)
}

pub fn look_hostname(name: &DnsName, cx: &mut Context<'_>) -> Result<Found, StepError> {
    let stored = read_text(cx.host, "/etc/hostname").unwrap_or_default();
    let running = cx.host.hostname();
    Ok(if stored.trim() == name.as_str() && running == name.as_str() {
        Found::matches()
    } else {
        Found::Differs(format!("the host name is `{running}`, in /etc/hostname `{}`", stored.trim()))
    })
}

pub fn act_hostname(name: &DnsName, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    // A Node keeps the name it registered with: a kubelet under another name is another Node.
    let joined = crate::host::exists(cx.host, "/etc/kubernetes/kubelet.conf");
    let running = cx.host.hostname();
    if joined && cx.completed && running != name.as_str() {
        (cx.waiting)(&format!("somebody changed the host name to `{running}`: setting it back"));
    }
    write(cx.host, &FileSpec::public("/etc/hostname", format!("{name}\n")))?;
    cx.host.set_hostname(name.as_str()).map_err(|error| {
        StepError::passing(format!("cannot set the host name: {error}"), "the agent must run as root")
    })?;
    Ok(None)
}

/// The link's target is compared through `readlink`, as the trait reads files only through links.
pub fn look_timezone(zone: &str, cx: &mut Context<'_>) -> Result<Found, StepError> {
    let target =
        cx.host.run(&Command::query("readlink", ["/etc/localtime"])).map(|o| o.stdout).unwrap_or_default();
    Ok(if target.trim().ends_with(&format!("zoneinfo/{zone}")) {
        Found::matches()
    } else {
        Found::Differs(format!("/etc/localtime is `{}`", target.trim()))
    })
}

pub fn act_timezone(zone: &str, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let source = format!("/usr/share/zoneinfo/{zone}");
    if zone.contains("..") || !crate::host::exists(cx.host, &source) {
        return Err(StepError::lasting(
            format!("there is no time zone `{zone}`"),
            "use a name of `timedatectl list-timezones`, Asia/Shanghai for instance",
        ));
    }
    cx.host.run(&Command::new("ln", ["-sfn", &source, "/etc/localtime"]))?;
    Ok(None)
}

pub fn look_kubeconfig(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let admin = read_text(cx.host, ADMIN_CONF);
    let root = read_text(cx.host, ROOT_KUBECONFIG);
    Ok(if admin.is_some() && admin == root {
        Found::matches()
    } else {
        Found::Differs(ROOT_KUBECONFIG.into())
    })
}

pub fn act_kubeconfig(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let admin = read_text(cx.host, ADMIN_CONF).ok_or_else(|| {
        StepError::passing(
            format!("{ADMIN_CONF} is missing"),
            "`kubeadm init phase kubeconfig admin` writes it",
        )
    })?;
    write(cx.host, &FileSpec::secret(Path::new(ROOT_KUBECONFIG), admin))?;
    Ok(None)
}
