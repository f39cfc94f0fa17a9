//! Asks the network who holds some addresses, and listens for VRRP, by a packet socket (packet(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::role::types::MacAddress;

/// What was heard on a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Who says that an address is its own (ARP).
    pub owners: Vec<(Ipv4Addr, MacAddress)>,
    pub adverts: Vec<Advert>,
}

/// A VRRP advertisement (RFC 3768 and RFC 5798, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert {
    pub from: Ipv4Addr,
    pub version: u8,
    pub vrid: u8,
}

impl Heard {
    fn own(&mut self, address: Ipv4Addr, mac: MacAddress) {
        if !self.owners.contains(&(address, mac)) {
            self.owners.push((address, mac));
        }
    }

    /// Takes in a frame that came from the link.
    fn hear(&mut self, frame: &[u8]) {
        let Some(payload) = frame.get(14..) else { return };
        match frame[12..14] {
            [0x08, 0x06] => self.hear_arp(payload),
            [0x08, 0x00] => self.hear_ip(payload),
            _ => {}
        }
    }

    /// Replies and announcements; a probe has no sender's address (RFC 5227, section 1.1).
    fn hear_arp(&mut self, arp: &[u8]) {
        // Ethernet and IPv4 (RFC 826).
        if arp.len() < 28 || arp[..6] != [0, 1, 8, 0, 6, 4] {
            return;
        }
        let sender = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
        if !sender.is_unspecified() {
            let mac: [u8; 6] = arp[8..14].try_into().expect("six bytes");
            self.own(sender, MacAddress(mac));
        }
    }

    fn hear_ip(&mut self, ip: &[u8]) {
        const VRRP: u8 = 112;
        if ip.len() < 20 || ip[0] >> 4 != 4 || ip[9] != VRRP {
            return;
        }
        let Some([kind, vrid, ..]) = ip.get(usize::from(ip[0] & 15) * 4..) else { return };
        // The one type that there is.
        if kind & 15 == 1 {
            let from = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
            let advert = Advert { from, version: kind >> 4, vrid: *vrid };
            if !self.adverts.contains(&advert) {
                self.adverts.push(advert);
            }
        }
    }
}

/// Between two questions, and how many (RFC 5227, section 1.1: PROBE_MIN, PROBE_NUM).
const PAUSE: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 3;

/// Asks who holds `addresses` by ARP probes, which change nobody's tables, and listens for a second after
/// the last of them. In that time a VRRP group at its usual pace has sent three advertisements.
pub fn ask(interface: &str, addresses: &[Ipv4Addr]) -> io::Result<Heard> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let protocol = SockProtocol::EthAll;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(&socket, index)?;
    // 224.0.0.18 is for VRRP speakers only, and this machine is none yet.
    receive_all_multicast(&socket, index)?;
    let mac = mac_of(interface)?;
    let mut heard = Heard::default();
    for _ in 0..QUESTIONS {
        for address in addresses {
            nix::unistd::write(&socket, &probe(mac, *address))?;
        }
        listen(&socket, Instant::now() + PAUSE, &mut heard)?;
    }
    Ok(heard)
}

/// A question that is asked while something else is done.
pub struct Question {
    interface: String,
    addresses: Vec<Ipv4Addr>,
    begun: Instant,
    answer: JoinHandle<io::Result<Heard>>,
}

impl Question {
    pub fn ask(interface: &str, addresses: Vec<Ipv4Addr>) -> Self {
        let asked = (interface.to_owned(), addresses.clone());
        Self {
            interface: interface.to_owned(),
            addresses,
            begun: Instant::now(),
            answer: std::thread::spawn(move || ask(&asked.0, &asked.1)),
        }
    }

    /// Whether it asks just this, and has not asked so long ago that much can have changed since.
    pub fn is(&self, interface: &str, addresses: &[Ipv4Addr]) -> bool {
        const FRESH: Duration = Duration::from_secs(15);
        self.interface == interface && self.addresses == addresses && self.begun.elapsed() < FRESH
    }

    pub fn answer(self) -> io::Result<Heard> {
        self.answer.join().unwrap_or_else(|_| Err(io::Error::other("the listener fell over")))
    }
}

fn listen(socket: &OwnedFd, until: Instant, heard: &mut Heard) -> io::Result<()> {
    let mut frame = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
        if poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout)? > 0 {
            let length = recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT)?;
            heard.hear(&frame[..length]);
        }
    }
}

/// An ARP probe: a request without a sender's address (RFC 5227, section 2.1.1).
fn probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

fn mac_of(interface: &str) -> io::Result<[u8; 6]> {
    nix::ifaddrs::getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr()?.addr())
        .ok_or_else(|| io::Error::other(format!("{interface} has no MAC address")))
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sockaddr_ll; nix makes none for an interface's index.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to a sockaddr_ll of that length, which outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive_all_multicast(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let length = size_of_val(&request) as libc::socklen_t;
    // SAFETY: the pointer is to a packet_mreq of that length, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    fn heard(frame: &[u8]) -> Heard {
        let mut heard = Heard::default();
        heard.hear(frame);
        heard.hear(frame);
        // A frame that is cut short anywhere is no reason to fall over.
        for length in 0..frame.len() {
            Heard::default().hear(&frame[..length]);
        }
        heard
    }

    #[test]
    fn a_probe_claims_nothing_and_a_reply_does() {
        let vip = Ipv4Addr::new(10, 0, 0, 10);
        let mut frame = probe(MAC, vip);
        assert_eq!(frame.len(), 42);
        assert_eq!(heard(&frame), Heard::default());
        frame[21] = 2;
        frame[28..32].copy_from_slice(&vip.octets());
        assert_eq!(heard(&frame).owners, [(vip, MacAddress(MAC))]);
    }

    #[test]
    fn adverts_of_both_versions_are_told() {
        for version in [2, 3] {
            let mut frame = vec![0; 12];
            frame.extend([
                0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 255, 112, 0, 0, 10, 0, 0, 66, 224, 0, 0, 18,
            ]);
            frame.extend([version << 4 | 1, 66, 100, 1, 0, 1, 0, 0]);
            let advert = Advert { from: Ipv4Addr::new(10, 0, 0, 66), version, vrid: 66 };
            assert_eq!(heard(&frame).adverts, [advert]);
        }
    }
}
