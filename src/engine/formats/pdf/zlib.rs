//! Streams of zlib, unpacked within bounds.

use flate2::{Decompress, FlushDecompress, Status};

use crate::engine::formats::deadline::Deadline;

/// Whether a stream of zlib ends within these bytes. One that unpacks to very much does not count: there can be many of them.
pub(super) fn is_whole(data: &[u8], deadline: &Deadline) -> bool {
    const MOST: u64 = 64 * 1024 * 1024;
    let mut stream = Decompress::new(true);
    let mut unpacked = vec![0; 64 * 1024];
    loop {
        let (read, written) = (stream.total_in(), stream.total_out());
        let rest = usize::try_from(read).ok().and_then(|read| data.get(read..)).unwrap_or_default();
        match stream.decompress(rest, &mut unpacked, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return true,
            Ok(_) if deadline.spend(unpacked.len()).is_err() => return false,
            Ok(_) if stream.total_out() < MOST && (stream.total_in(), stream.total_out()) != (read, written) => {}
            _ => return false,
        }
    }
}

/// The content of a whole stream, if it has at most so many bytes.
pub(super) fn inflate(data: &[u8], most: usize, deadline: &Deadline) -> Option<Vec<u8>> {
    let mut stream = Decompress::new(true);
    let mut unpacked = Vec::new();
    loop {
        let (read, length) = (usize::try_from(stream.total_in()).ok()?, unpacked.len());
        unpacked.reserve(64 * 1024);
        let status = stream.decompress_vec(data.get(read..)?, &mut unpacked, FlushDecompress::None).ok()?;
        deadline.spend(unpacked.len() - length).ok()?;
        if unpacked.len() > most {
            return None;
        }
        match status {
            Status::StreamEnd => return Some(unpacked),
            _ if unpacked.len() == length && stream.total_in() == read as u64 => return None,
            _ => {}
        }
    }
}
