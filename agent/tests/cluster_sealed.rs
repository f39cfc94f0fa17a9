//! `secrets.toml.age`: never plain on the disk, opened by an identity, and told what is missing where it is not.

mod cluster_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use cluster_support::*;

struct Key {
    recipient: String,
    file: std::path::PathBuf,
}

fn key(scratch: &Scratch, name: &str) -> Key {
    let identity = Identity::generate();
    let text = format!("# made for a test\n{}\n", identity.to_string().expose_secret());
    let file = scratch.write(name, &text);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Key { recipient: identity.to_public().to_string(), file }
}

fn kindling(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kindling"))
        .args(args)
        .current_dir(folder)
        .env_remove("KINDLING_AGE_IDENTITY")
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A cluster folder whose secrets are for two recipients, one given and one in a file.
fn sealed() -> (Scratch, Key, Key) {
    let scratch = Scratch::new();
    let (one, two) = (key(&scratch, "one.key"), key(&scratch, "two.key"));
    scratch.write("recipients", &format!("# the other\n{}\n", two.recipient));
    let (code, said) = kindling(
        &scratch.0,
        &["new", "c", "--age-recipient", &one.recipient, "--age-recipients-file", "recipients"],
    );
    assert_eq!(code, Some(0), "{said}");
    (scratch, one, two)
}

#[test]
fn what_is_made_for_recipients_is_read_with_either_identity_and_never_plain_on_the_disk() {
    let (scratch, one, two) = sealed();
    let folder = scratch.path("c");
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "the cluster file, its schema, the secrets: {names:?}");
    let text = fs::read_to_string(folder.join("secrets.toml.age")).unwrap();
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n") && !text.contains("PRIVATE KEY"));
    for key in [&one, &two] {
        let identity = key.file.to_str().unwrap();
        let (code, said) = kindling(&folder, &["render", "--age-identity", identity]);
        assert_eq!(code, Some(0), "{said}");
        let check = ["check", "cluster.toml", "--secrets", "secrets.toml", "--age-identity", identity];
        assert_eq!(kindling(&folder, &check).0, Some(0));
    }
    let plan = ["plan", "--cluster", "cluster.toml", "--node", "cp1", "--short"];
    let output = Command::new(env!("CARGO_BIN_EXE_kindling"))
        .args(plan)
        .current_dir(&folder)
        .env("KINDLING_AGE_IDENTITY", &one.file)
        .status();
    assert!(output.unwrap().success());
    assert!(!folder.join("secrets.toml").exists());
}

#[test]
fn rotating_and_renewing_keep_the_recipients() {
    let (scratch, one, two) = sealed();
    let folder = scratch.path("c");
    let path = folder.join("secrets.toml.age");
    let first = fs::read(&path).unwrap();
    let identity = one.file.to_str().unwrap();
    let (code, said) = kindling(&folder, &["secrets", "rotate", "--age-identity", identity]);
    assert_eq!(code, Some(0), "{said}");
    let second = fs::read(&path).unwrap();
    let (code, said) = kindling(&folder, &["new", ".", "--renew", "--age-identity", identity]);
    assert_eq!(code, Some(0), "{said}");
    assert!(first != second && second != fs::read(&path).unwrap());
    let other = two.file.to_str().unwrap();
    let (code, said) = kindling(&folder, &["render", "--age-identity", other]);
    assert_eq!(code, Some(0), "the other recipient was lost: {said}");
    assert!(!folder.join("secrets.toml").exists());
}

#[test]
fn what_is_missing_is_said() {
    let (scratch, ..) = sealed();
    let folder = scratch.path("c");
    let stranger = key(&scratch, "stranger.key");
    let no_key = scratch.write("no.key", "AGE-SECRET-KEY-OF-NOBODY\n");
    fs::set_permissions(&no_key, fs::Permissions::from_mode(0o600)).unwrap();
    for (args, expected) in [
        (vec!["render"], "is encrypted by age\n  remedy: name the file of an age identity"),
        (vec!["render", "--age-identity", stranger.file.to_str().unwrap()], "is not opened by"),
        (vec!["render", "--age-identity", "/nowhere"], "there is no such file"),
        (vec!["render", "--age-identity", no_key.to_str().unwrap()], "is no age identity"),
    ] {
        let (code, said) = kindling(&folder, &args);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(expected), "{expected} is not in: {said}");
        assert!(!said.contains("OF-NOBODY"), "the identity was quoted: {said}");
        assert!(!folder.join("seeds").exists());
    }
    let path = folder.join("secrets.toml.age");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let identity = scratch.path("one.key");
    let (code, said) = kindling(&folder, &["render", "--age-identity", identity.to_str().unwrap()]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("is no whole age file"), "{said}");
    let (code, said) = kindling(&scratch.0, &["new", "d", "--age-recipient", "age1nobody"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("`age1nobody` is no age recipient") && !scratch.path("d").exists(), "{said}");
}

#[test]
fn a_binary_file_is_read_as_well() {
    let scratch = Scratch::new();
    let key = key(&scratch, "key");
    let recipient: age::x25519::Recipient = key.recipient.parse().unwrap();
    let bytes = age::encrypt(&recipient, REAL.to_toml().expose().as_bytes()).unwrap();
    let path = scratch.path("secrets.toml.age");
    fs::write(&path, &bytes).unwrap();
    let from = kindling::cluster::SecretsFile::new(&scratch.path("secrets.toml"), Some(key.file.clone()));
    let read = kindling::cluster::Secrets::load_with(&from, None, NOW, kindling::cluster::Expired::Refused);
    assert_eq!(read.unwrap_or_else(|r| panic!("{r}")).0.token, REAL.token);
    // Nobody knows for whom it was: it is not written anew.
    let error = kindling::cluster::new::rotate(&from, NOW).unwrap_err().to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
