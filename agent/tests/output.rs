//! What becomes of a command whose output, or whose peer, goes away.

mod cluster_support;

use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Stdio};

use cluster_support::Scratch;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn kindling(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Longer than the pipes here hold.
const LONG: &[&str] = &["explain", "--markdown"];

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [LONG, &["--help"], &["completions", "bash"], &["schema", "cluster"]] {
        let mut child = kindling(args).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{args:?}");
        assert_eq!(ended.status.code(), Some(0), "{args:?}");
    }
}

/// A cluster file with a slip in it is judged as one, not as the role file of a node.
#[test]
fn a_slip_does_not_make_a_role_file_of_a_cluster_file() {
    let scratch = Scratch::new();
    let text = "version = 1\nname = \"kang\"\nkubernetes = \"v1.37.2\"\n[endpoint]\nby = \"external\"\nhost = \"lb.kang.org\"\n\
                [network]\ngateway = \"10.0.0.2\"\n[node.cp1]\nrole = \"control-plane\"\naddress = \"10.0.0.11/24\"\n";
    let file = scratch.write("cluster.toml", text);
    let output = kindling(&["check", file.to_str().unwrap()]).output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("node: unknown key") && !told.contains("0600"), "{told}");
}

#[test]
fn what_could_not_be_written_is_told() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = kindling(LONG).stdout(full).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(told.starts_with("kindling: standard output was not written: No space left on device"), "{told}");
    assert_eq!(ended.status.code(), Some(1));
}

/// The kernel sends this signal where a connection is written to that the API server has closed: an agent ended so, without
/// a word, while it renewed certificates.
#[test]
fn a_connection_that_was_closed_ends_no_command() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut child = kindling(LONG).stdout(writer).spawn().unwrap();
    // It has begun, and has more to write than the pipe holds.
    let mut text = vec![0; 1];
    reader.read_exact(&mut text).unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGPIPE).unwrap();
    reader.read_to_end(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(text.len() > 2 * 4096, "{} bytes may all have been in the pipe: this shows nothing", text.len());
}
