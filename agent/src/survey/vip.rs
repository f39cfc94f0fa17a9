//! Who holds the VIP. The API does not know it: no object names the machine that answers for the address. On the same
//! link the neighbour table does; and where the VIP leads straight to an API server, its certificate does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::{Certificate, PlaneAnswer};
use crate::render::API_PORT;

/// The hardware address of each neighbour, after each was spoken to.
pub fn neighbours(addresses: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, String> {
    let address = |ip: &Ipv4Addr| SocketAddr::from((*ip, API_PORT));
    // The kernel asks the link for the address before anything is sent; whether somebody answers does not matter.
    if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
        for ip in addresses {
            let _ = socket.send_to(&[], address(ip));
        }
    }
    if let Some(first) = addresses.first() {
        let _ = TcpStream::connect_timeout(&address(first), Duration::from_secs(1));
    }
    std::thread::sleep(Duration::from_millis(300));
    parse(&std::fs::read_to_string("/proc/net/arp").unwrap_or_default())
}

/// `IP address  HW type  Flags  HW address  Mask  Device` (proc_net(5)); 0x2: complete.
fn parse(table: &str) -> BTreeMap<Ipv4Addr, String> {
    let lines = table.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let complete = lines.filter(|w| w.len() >= 4 && w[2] == "0x2" && w[3] != "00:00:00:00:00:00");
    complete.filter_map(|w| Some((w[0].parse().ok()?, w[3].to_owned()))).collect()
}

/// `holders`: those that may hold it. `direct`: what the VIP presents, where it leads to one API server.
pub fn holder(
    vip: Ipv4Addr,
    holders: &[(String, Ipv4Addr)],
    neighbours: &BTreeMap<Ipv4Addr, String>,
    direct: Option<&Certificate>,
    planes: &[PlaneAnswer],
) -> Result<(String, &'static str), String> {
    if let Some(hardware) = neighbours.get(&vip) {
        let same = holders.iter().filter(|(_, ip)| neighbours.get(ip) == Some(hardware));
        match same.collect::<Vec<_>>()[..] {
            [(name, _)] => return Ok((name.clone(), "its hardware address answers for the VIP")),
            [] => return Err(format!("{hardware} answers for it, which is no machine of the cluster file")),
            _ => {}
        }
    }
    if let Some(direct) = direct {
        let same = planes.iter().find(|p| p.certificate.as_ref().is_ok_and(|c| c.serial == direct.serial));
        if let Some(plane) = same {
            return Ok((plane.node.clone(), "its API server's certificate is presented at the VIP"));
        }
    }
    Err("this machine is on another link, and the API does not know it; the holder's console said so, see `kindling report`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.10        0x1         0x2         52:54:00:00:00:02     *        br0
10.0.0.11        0x1         0x2         52:54:00:00:00:01     *        br0
10.0.0.12        0x1         0x2         52:54:00:00:00:02     *        br0
10.0.0.13        0x1         0x0         00:00:00:00:00:00     *        br0
";

    fn holders() -> Vec<(String, Ipv4Addr)> {
        (1..4).map(|n| (format!("cp{n}"), Ipv4Addr::new(10, 0, 0, 10 + n))).collect()
    }

    #[test]
    fn the_machine_with_the_hardware_address_of_the_vip_holds_it() {
        let found = holder(Ipv4Addr::new(10, 0, 0, 10), &holders(), &parse(TABLE), None, &[]);
        assert_eq!(found.map(|f| f.0).as_deref(), Ok("cp2"));
    }

    #[test]
    fn a_stranger_is_told_and_another_link_is_not_guessed() {
        let stranger =
            TABLE.replace("00:00:02     *        br0\n10.0.0.11", "00:00:09     *        br0\n10.0.0.11");
        let vip = Ipv4Addr::new(10, 0, 0, 10);
        let found = holder(vip, &holders(), &parse(&stranger), None, &[]);
        assert!(found.unwrap_err().starts_with("52:54:00:00:00:09 answers for it"));
        assert!(holder(vip, &holders(), &BTreeMap::new(), None, &[]).is_err());
    }
}
