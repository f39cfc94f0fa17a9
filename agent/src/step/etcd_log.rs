//! Whether etcd ever recorded anything on this disk.
//!
//! etcd makes the head of its write-ahead log in one piece, and writes its first entries, itself as a member among them,
//! some tenths of a second later. Where the power goes in between, its next start takes the log for that of a member whom
//! the others will tell of the cluster, and a first member waits for that without end: "no leader at term 0" (etcd 3.7.0).
//! Such a log holds no entry, no vote and no term: it is as good as none.

use std::io;
use std::path::Path;

use crate::error::StepError;
use crate::host::Host;

/// etcd makes it in one piece.
pub const WAL: &str = "/var/lib/etcd/member/wal";
/// Named by the number of the log's file and of the first entry in it.
const FIRST: &str = "0000000000000000-0000000000000000.wal";
/// Bytes that are read of it. The head takes about a hundred.
const START: usize = 4096;

/// Kinds of records, see storage/wal/wal.go of etcd.
const METADATA: u8 = 1;
const CRC: u8 = 4;
const SNAPSHOT: u8 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// There is none.
    Missing,
    /// A head alone.
    Blank,
    /// With something in it, or not to be read: never to be removed.
    Written,
}

pub fn look(host: &dyn Host) -> Result<Log, StepError> {
    read(host).map_err(|error| StepError::file("read", WAL.as_ref(), &error))
}

fn read(host: &dyn Host) -> io::Result<Log> {
    let names = host.list(WAL.as_ref())?;
    if names.is_empty() {
        return Ok(Log::Missing);
    }
    if names.iter().filter(|name| name.ends_with(".wal")).ne([FIRST]) {
        return Ok(Log::Written);
    }
    let start = host.read_start(&Path::new(WAL).join(FIRST), START)?.unwrap_or_default();
    Ok(if is_blank(&start) { Log::Blank } else { Log::Written })
}

/// Whether a log that begins like this has a whole head and nothing behind it. A record is its length, in the lowest seven
/// bytes of eight, and as many zeros behind it as the lowest bits of the highest byte say; etcd fills the file with zeros.
fn is_blank(start: &[u8]) -> bool {
    let mut rest = start;
    let mut seen = Vec::new();
    while let Some((frame, behind)) = rest.split_first_chunk::<8>() {
        let frame = u64::from_le_bytes(*frame);
        if frame == 0 {
            return seen.contains(&METADATA) && seen.contains(&SNAPSHOT);
        }
        let length = frame & (u64::MAX >> 8);
        let padding = (frame >> 56) & 7;
        let (Ok(length), Ok(whole)) = (usize::try_from(length), usize::try_from(length + padding)) else {
            return false;
        };
        // Protocol buffers: the first field, a number, is the kind.
        match behind.get(..length) {
            Some([0x08, kind @ (METADATA | CRC | SNAPSHOT), ..]) => seen.push(*kind),
            _ => return false,
        }
        rest = behind.get(whole..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0x08, kind];
        record.extend(data);
        let padding = (8 - record.len() % 8) % 8;
        let mut frame = record.len() as u64;
        if padding != 0 {
            frame |= (0x80 | padding as u64) << 56;
        }
        let mut all = frame.to_le_bytes().to_vec();
        all.extend(record);
        all.extend(vec![0; padding]);
        all
    }

    #[test]
    fn a_head_alone_is_blank_and_whatever_else_is_not() {
        let head = [record(CRC, &[0x10, 0]), record(METADATA, &[7; 29]), record(SNAPSHOT, &[9; 12])].concat();
        let file = |records: &[u8]| [records, &[0; 200]].concat();
        assert!(is_blank(&file(&head)));
        for kind in [2, 3, 0, 9, 0x80] {
            assert!(
                !is_blank(&file(&[head.clone(), record(kind, &[1; 40])].concat())),
                "a record of kind {kind}"
            );
        }
        // Not etcd's, cut short, or of a length that no file has.
        let lengths =
            [u64::MAX, u64::MAX >> 8, 1 << 55].map(|n| [head.clone(), n.to_le_bytes().to_vec()].concat());
        for other in [&b""[..], b"somebody's", &[0; 200], &head, &head[..20], &file(&head[..16])] {
            assert!(!is_blank(other), "{other:?}");
        }
        assert!(lengths.iter().all(|log| !is_blank(&file(log))));
    }
}
