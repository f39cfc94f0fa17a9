//! A worker's host: real requests and real time on an empty disk that nothing is written to.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use kindling::host::linux::Linux;
use kindling::host::{Command, CommandError, Host, Output};
use kindling::kube::{Credentials, KubeError, Request, Server};

use super::Outcome;

pub struct Worker {
    real: Linux,
    /// Where the cluster's endpoint really is.
    api: SocketAddr,
    answers: Duration,
    looks: Cell<usize>,
    asked: Cell<usize>,
    joined: Cell<Option<f64>>,
}

impl Worker {
    /// `answers`: when the API begins to.
    pub fn new(api: SocketAddr, answers: Duration) -> Self {
        let real = Linux::default();
        Self { real, api, answers, looks: Cell::default(), asked: Cell::default(), joined: Cell::default() }
    }

    pub fn outcome(self) -> Outcome {
        Outcome { joined: self.joined.get(), asked: self.asked.get(), looks: self.looks.get() }
    }
}

impl Host for Worker {
    fn request(
        &self,
        server: &Server,
        credentials: &Credentials,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<String, KubeError> {
        self.looks.set(self.looks.get() + 1);
        if self.now() >= self.answers {
            self.asked.set(self.asked.get() + 1);
        }
        let server = Server { address: self.api, ..server.clone() };
        self.real.request(&server, credentials, request, timeout)
    }

    fn now(&self) -> Duration {
        self.real.now()
    }

    fn sleep(&self, duration: Duration) {
        self.real.sleep(duration);
    }

    fn random(&self) -> f64 {
        self.real.random()
    }

    fn wall_clock(&self) -> u64 {
        self.real.wall_clock()
    }

    fn usage(&self) -> (f64, f64) {
        self.real.usage()
    }

    fn run(&self, command: &Command) -> Result<Output, CommandError> {
        if command.program == "kubeadm" {
            self.joined.set(Some(self.now().as_secs_f64()));
        }
        Ok(Output::default())
    }

    fn run_watched(
        &self,
        command: &Command,
        _every: Duration,
        _meanwhile: &mut dyn FnMut() -> std::ops::ControlFlow<()>,
    ) -> Result<Output, CommandError> {
        self.run(command)
    }

    fn read(&self, _path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn mode(&self, _path: &Path) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn list(&self, _path: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn hostname(&self) -> String {
        String::new()
    }

    fn write(&self, _path: &Path, _content: &[u8], _mode: u32) -> io::Result<()> {
        Ok(())
    }

    fn write_kernel(&self, _path: &Path, _value: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn set_hostname(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) {}

    fn ask_link(&self, _: &str, _: &[Ipv4Addr]) -> io::Result<kindling::host::link::Heard> {
        unreachable!("a worker claims no VIP")
    }
    fn resolve(&self, _name: &str) -> io::Result<Vec<Ipv4Addr>> {
        Ok(Vec::new())
    }
}
