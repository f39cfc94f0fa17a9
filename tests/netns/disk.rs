//! A machine in a namespace with a disk of its own, as the agent's host: files lie below a folder, commands
//! see them at their real paths, and `systemctl` stands for systemd as far as one etcd needs it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kindling::host::linux::Linux;
use kindling::host::{Command, CommandError, Host, Output};
use kindling::kube::{Credentials, KubeError, Request, Server};

/// Runs what follows with the machine's /etc and /var/lib/etcd.
const INSIDE: &str = "mount --make-rprivate / && mount --bind \"$0/etc\" /etc \
                      && mount --bind \"$0/var/lib/etcd\" /var/lib/etcd && exec \"$@\"";
/// As etcd.service runs it: the same file, the same user. The end of standard input is a power cut, so that
/// nothing is left behind when the test dies.
const ETCD: &str = "set -a && . /etc/default/etcd && set +a && exec 3<&0
setpriv --reuid=etcd --regid=etcd --clear-groups etcd &
etcd=$!
{ cat <&3 >/dev/null; kill -9 $etcd; } &
wait $etcd";

pub struct Disk {
    root: PathBuf,
    linux: Linux,
    etcd: Mutex<Option<Child>>,
    /// Seconds by which its clock is ahead.
    ahead: AtomicU64,
}

impl Disk {
    /// An empty one, as the image with its package leaves it.
    pub fn fresh(root: &Path) -> Self {
        let _ = fs::remove_dir_all(root);
        let data = root.join("var/lib/etcd");
        fs::create_dir_all(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let user = nix::unistd::User::from_name("etcd").unwrap().unwrap();
        chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let copied = process::Command::new("cp").arg("-a").arg("/etc").arg(root.join("etc")).status();
        assert!(copied.unwrap().success());
        fs::write(root.join("etc/default/etcd"), "").unwrap();
        Self {
            root: root.to_owned(),
            linux: Linux::default(),
            etcd: Mutex::new(None),
            ahead: AtomicU64::new(0),
        }
    }

    pub fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap())
    }

    /// So much time goes by at once.
    pub fn pass(&self, time: Duration) {
        self.ahead.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    /// The power goes: etcd dies at once, the disk stays.
    pub fn cut_power(&self) {
        if let Some(mut etcd) = self.etcd.lock().unwrap().take() {
            drop(etcd.stdin.take());
            // With the first process of its namespace everything in it is gone, the ports too.
            etcd.wait().unwrap();
        }
    }

    /// As if the power had gone before etcd recorded anything: its log ends behind the head.
    pub fn blank(&self) {
        assert_eq!(self.etcd(), None, "it runs");
        let log = self.root.join("var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal");
        let mut content = fs::read(&log).unwrap();
        // The snapshot's record is the third and last of the head.
        let length = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().unwrap());
        let end = (0..3).fold(0, |at, _| at + 8 + (length(at) as usize & 0xffff).next_multiple_of(8));
        content[end..].fill(0);
        fs::write(&log, content).unwrap();
        for file in fs::read_dir(self.root.join("var/lib/etcd/member/snap")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }

    /// The power is back: what is enabled starts.
    pub fn boot(&self) {
        if self.root.join("enabled").exists() {
            self.start();
        }
    }

    /// The process that stands for the running etcd.
    pub fn etcd(&self) -> Option<u32> {
        self.etcd.lock().unwrap().as_ref().map(Child::id)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }

    fn start(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.root.join("log")).unwrap();
        let mut command = process::Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", INSIDE]);
        command.arg(&self.root).args(["sh", "-c", ETCD]);
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.etcd.lock().unwrap() = Some(command.spawn().unwrap());
    }

    fn is_running(&self) -> bool {
        self.etcd.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    fn systemctl(&self, args: &[String]) -> Result<String, String> {
        // No container runtime is there that would have to be switched off.
        if args[0] == "is-enabled" && args.last().is_some_and(|unit| unit == "containerd.service") {
            return Err("disabled".into());
        }
        assert_eq!(args.last().map(String::as_str), Some("etcd.service"), "{args:?}");
        let enabled = self.root.join("enabled");
        match args[0].as_str() {
            "is-enabled" if enabled.exists() => {}
            "is-enabled" => return Err("disabled".into()),
            "is-active" if self.is_running() => return Ok("active\n".into()),
            "is-active" => return Err("inactive".into()),
            "enable" => fs::write(enabled, "").unwrap(),
            "restart" => {
                self.cut_power();
                self.start();
            }
            "stop" => self.cut_power(),
            verb => panic!("systemctl {verb}"),
        }
        Ok(String::new())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.cut_power();
    }
}

impl Host for Disk {
    fn run(&self, command: &Command) -> Result<Output, CommandError> {
        let answer = match command.program.as_str() {
            "systemctl" => self.systemctl(&command.args),
            "journalctl" => Ok(self.log()),
            _ => {
                let mut args = vec!["--mount".to_owned(), "sh".into(), "-c".into(), INSIDE.into()];
                args.extend([self.root.display().to_string(), command.program.clone()]);
                args.extend(command.args.iter().cloned());
                return self.linux.run(&Command::new("unshare", args).timeout(command.timeout));
            }
        };
        answer.map(|stdout| Output { stdout, stderr: String::new() }).map_err(|stdout| CommandError::Failed {
            command: command.to_string(),
            status: "exit status: 1".into(),
            output: Output { stdout, stderr: String::new() },
        })
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.linux.read(&self.path(path))
    }
    fn read_start(&self, path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
        self.linux.read_start(&self.path(path), most)
    }
    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        self.linux.mode(&self.path(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.linux.list(&self.path(path))
    }
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        self.linux.write(&self.path(path), content, mode)
    }
    fn write_kernel(&self, path: &Path, _: &str) -> io::Result<()> {
        panic!("an etcd machine sets nothing in the kernel: {}", path.display())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.linux.remove(&self.path(path))
    }
    fn hostname(&self) -> String {
        fs::read_to_string(self.root.join("etc/hostname")).unwrap_or_default().trim().to_owned()
    }
    fn set_hostname(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn run_watched(
        &self,
        command: &Command,
        _: Duration,
        _: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Output, CommandError> {
        self.run(command)
    }
    fn sync(&self) {}
    fn request(
        &self,
        server: &Server,
        who: &Credentials,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<String, KubeError> {
        self.linux.request(server, who, request, timeout)
    }
    fn ask_link(&self, _: &str, _: &[Ipv4Addr]) -> io::Result<kindling::host::link::Heard> {
        panic!("an etcd machine claims no VIP")
    }
    fn resolve(&self, name: &str) -> io::Result<Vec<Ipv4Addr>> {
        self.linux.resolve(name)
    }
    fn usage(&self) -> (f64, f64) {
        self.linux.usage()
    }
    fn now(&self) -> Duration {
        self.linux.now() + Duration::from_secs(self.ahead.load(Ordering::Relaxed))
    }
    fn wall_clock(&self) -> u64 {
        self.linux.wall_clock()
    }
    fn sleep(&self, duration: Duration) {
        self.linux.sleep(duration);
    }
    fn random(&self) -> f64 {
        self.linux.random()
    }
}
