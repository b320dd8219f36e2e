//! What gzip and bzip2 have in common: streams without a directory, whose size shows only when they are unpacked.

use std::io::{self, Read};

/// The most that is unpacked to learn a size. libclamav scans nothing larger (`others.c: cl_engine_set_num`).
const LARGEST: u64 = i32::MAX as u64;

/// Unpacks a stream into nothing and tells its size. One that is larger than libclamav could scan counts as damaged.
pub(super) fn unpacked_size(stream: impl Read) -> io::Result<u64> {
    let size = io::copy(&mut stream.take(LARGEST), &mut io::sink())?;
    if size < LARGEST { Ok(size) } else { Err(io::ErrorKind::FileTooLarge.into()) }
}

/// Whether there is nothing but the zeros that fill a tape's or a disk's last block.
pub(super) fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}
