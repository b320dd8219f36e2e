//! gzip: one layer that holds the content of all members.
//!
//! libclamav unpacks one member after the other into one file, and scans what it has when it comes upon anything that is no
//! member (`scanners.c: cli_scangzip`). The sizes at the members' ends cannot be trusted: what follows the last member that
//! libclamav reads is not read at all, and can end in any four bytes. So the file is unpacked again, which costs little beside
//! the scan.

use flate2::bufread::GzDecoder;

use super::Findings;
use super::deadline::Deadline;
use super::streams::{is_padding, unpacked_size};

/// How many members are followed. A block of a file that allows random access (`bgzip`) is a member of 64 KiB.
const MOST_MEMBERS: usize = 100_000;

/// Looks at a layer of type `CL_TYPE_GZ`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let mut rest = bytes;
    let mut total = 0u64;
    for _ in 0..MOST_MEMBERS {
        let mut member = GzDecoder::new(rest);
        let Ok(size) = unpacked_size(&mut member, deadline) else {
            return found.unsupported.push("damaged or truncated gzip".to_owned());
        };
        total = total.saturating_add(size);
        rest = member.into_inner();
        if is_padding(rest) {
            return found.expected.extend((total > 5).then_some(total));
        }
        // Others skip zeros before a further member (Python's gzip), or take one of an older format (GNU gzip). libclamav
        // stops.
        if !rest.starts_with(&[0x1f, 0x8b]) {
            return found.unsupported.push("data after the end of a gzip file".to_owned());
        }
    }
    found.unsupported.push(format!("gzip of more than {MOST_MEMBERS} members"));
}

#[cfg(test)]
mod tests {
    use super::super::pack;
    use super::*;

    #[test]
    fn all_members_make_one_layer() -> std::io::Result<()> {
        let one = pack::gzip(b"hello, world")?;
        let cut = one.len() - 1;
        for (bytes, expected, unsupported) in [
            (one.clone(), vec![12], vec![]),
            (pack::gzip(b"small")?, vec![], vec![]),
            ([&one[..], &one].concat(), vec![24], vec![]),
            ([&one[..], &[0; 512]].concat(), vec![12], vec![]),
            ([&one[..], &[0; 512], &one].concat(), vec![], vec!["data after the end of a gzip file"]),
            ([&one[..], b"\x1f\x9d\x90"].concat(), vec![], vec!["data after the end of a gzip file"]),
            (one[..cut].to_vec(), vec![], vec!["damaged or truncated gzip"]),
            (one[..12].to_vec(), vec![], vec!["damaged or truncated gzip"]),
            (b"\x1f\x8b\x07".to_vec(), vec![], vec!["damaged or truncated gzip"]),
        ] {
            let mut found = Findings::default();
            inspect(&bytes, &Deadline::far(), &mut found);
            assert_eq!((found.expected, found.unsupported), (expected, unsupported.into_iter().map(str::to_owned).collect()));
        }
        Ok(())
    }
}
