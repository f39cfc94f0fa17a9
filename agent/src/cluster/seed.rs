//! What cloud-init reads at first boot (NoCloud): pure text, and the disk that carries it.
//!
//! The instance id holds a digest of the whole seed. cloud-init does its per-instance work, `write_files`
//! among it, when the id is a new one. So a node that finds the same seed again does nothing; a node
//! whose seed was rendered anew (a token that expired, an address that was wrong) takes the new role
//! file at its next boot, without anybody cleaning cloud-init's cache. A node that is a member already
//! reads that role file too: its agent looks before each step and does only what does not match.

use std::fmt::Write as _;
use std::io::{self, Cursor, Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use super::{Cluster, Node};
use crate::role::file::RoleFile;
use crate::role::types::Secret;

/// Where the agent looks for its role file.
pub const ROLE_FILE: &str = "/etc/kindling/role.toml";

/// The texts of one node. All but meta-data and network-config hold secrets.
#[derive(Debug, Clone)]
pub struct Seed {
    pub role: Secret,
    pub user_data: Secret,
    pub meta_data: String,
    pub network_config: String,
}

impl Seed {
    pub fn new(cluster: &Cluster, node: &Node, role: &RoleFile) -> Self {
        let role = Secret::new(role.to_toml());
        let user_data = user_data(node, &role);
        let network_config = network_config(cluster, node);
        let meta_data = meta_data(cluster, node, &[user_data.expose(), &network_config]);
        Self { role, user_data, meta_data, network_config }
    }

    /// A raw disk that `blkid` calls CIDATA, with the three files of NoCloud in its root.
    pub fn disk(&self) -> io::Result<Vec<u8>> {
        let files = [
            ("meta-data", self.meta_data.as_str()),
            ("network-config", &self.network_config),
            ("user-data", self.user_data.expose()),
        ];
        let texts: Vec<&str> = files.iter().map(|(_, text)| *text).collect();
        let id = digest_of(&texts);
        disk(&files, u32::from_be_bytes([id[0], id[1], id[2], id[3]]))
    }
}

/// Users and SSH are off: a node is not administered by hand, and the image has no password.
pub fn user_data(node: &Node, role: &Secret) -> Secret {
    let mut text =
        String::from("#cloud-config\n# Written by `kindling render`. It holds secrets: keep it 0600.\n");
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    // Between quotes: a name like 101 or on would be no text.
    line(&format!("hostname: \"{}\"", node.name.short()));
    if node.name.short() != node.name.as_str() {
        line(&format!("fqdn: \"{}\"", node.name));
        // else cloud-init would set the short name at each boot, and the agent the Node's name
        line("prefer_fqdn_over_hostname: true");
    }
    line("preserve_hostname: false");
    line("manage_etc_hosts: false");
    // no default user beside a root that nobody can log in as; an empty list is refused by old schemas
    line("users:");
    line("  - name: root");
    line("    lock_passwd: true");
    line("disable_root: true");
    line("ssh_pwauth: false");
    line("allow_public_ssh_keys: false");
    line("write_files:");
    line(&format!("  - path: {ROLE_FILE}"));
    line("    owner: root:root");
    line("    permissions: \"0600\"");
    line("    content: |");
    for content in role.expose().lines() {
        // no spaces on empty lines: a literal block keeps them either way
        if content.is_empty() { line("") } else { line(&format!("      {content}")) }
    }
    Secret::new(text)
}

/// Whether the seed can hold a text: it lies in a literal block of YAML, which cannot have some characters, and takes others for the
/// end of a line (YAML 1.1, sections 4.1 and 4.2). In one line it has no control characters, either.
pub fn takes_line(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    })
}

/// `texts` is everything else in the seed.
pub fn meta_data(cluster: &Cluster, node: &Node, texts: &[&str]) -> String {
    let mut id = String::new();
    for byte in &digest_of(texts)[..8] {
        write!(id, "{byte:02x}").expect("a String takes every text");
    }
    format!("instance-id: {}-{}-{id}\nlocal-hostname: \"{}\"\n", cluster.name, node.name, node.name)
}

fn digest_of(texts: &[&str]) -> Vec<u8> {
    let mut all = Vec::new();
    for text in texts {
        // with the lengths, so that no text can pass for two
        all.extend_from_slice(&(text.len() as u64).to_be_bytes());
        all.extend_from_slice(text.as_bytes());
    }
    digest(&SHA256, &all).as_ref().to_vec()
}

/// Version 2, without the `network:` that old cloud-inits do not expect here. The default route is
/// written as 0.0.0.0/0: cloud-init's own networkd renderer refuses the word `default`.
pub fn network_config(cluster: &Cluster, node: &Node) -> String {
    let network = &cluster.network;
    let mut text = String::from("version: 2\nethernets:\n");
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    match &network.interface {
        Some(name) => line(&format!("  {name}:")),
        None => {
            line("  node:");
            line("    match:");
            line(&format!("      macaddress: \"{}\"", node.mac));
        }
    }
    line("    dhcp4: false");
    line("    dhcp6: false");
    line("    addresses:");
    line(&format!("      - {}", node.address));
    line("    routes:");
    line("      - to: 0.0.0.0/0");
    line(&format!("        via: {}", network.gateway));
    if !network.dns.is_empty() {
        line("    nameservers:");
        line("      addresses:");
        for server in &network.dns {
            line(&format!("        - {server}"));
        }
    }
    text
}

/// The first moment that FAT knows, for every file: the clock has no place in a seed.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }
    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

static EPOCH: Epoch = Epoch;

const LABEL: [u8; 11] = *b"CIDATA     ";
const MIB: usize = 1 << 20;

/// FAT rather than ISO 9660: it is written by this binary alone, byte for byte the same everywhere, and
/// every kernel that mounts an EFI system partition reads it.
fn disk(files: &[(&str, &str)], volume_id: u32) -> io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, text)| text.len()).sum();
    // whole MiB, with room for FATs, root folder and half-filled clusters
    let mut image = vec![0; (content + MIB / 8).div_ceil(MIB) * MIB];
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(volume_id);
    fatfs::format_volume(Cursor::new(&mut image[..]), options)?;
    let volume = FileSystem::new(Cursor::new(&mut image[..]), FsOptions::new().time_provider(&EPOCH))?;
    for (name, text) in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(image)
}
