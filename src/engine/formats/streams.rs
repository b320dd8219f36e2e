//! What gzip and bzip2 have in common: streams without a directory, whose size shows only when they are unpacked.

use std::io::{self, Read};

use super::deadline::Deadline;

/// The most that is unpacked to learn a size. libclamav scans nothing larger (`others.c: cl_engine_set_num`).
const LARGEST: u64 = i32::MAX as u64;

/// Unpacks a stream into nothing and tells its size. One that is larger than libclamav could scan, or that takes longer than until
/// the `deadline`, counts as damaged.
pub(super) fn unpacked_size(mut stream: impl Read, deadline: &Deadline) -> io::Result<u64> {
    let mut size = 0;
    let mut chunk = vec![0; 128 * 1024];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(size);
        }
        size += count as u64;
        if size >= LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if deadline.spend(count).is_err() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Whether there is nothing but the zeros that fill a tape's or a disk's last block.
pub(super) fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}
