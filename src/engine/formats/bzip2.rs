//! bzip2: libclamav reads the first stream and nothing after it (`scanners.c: cli_scanbzip`), though parallel compressors write
//! one stream for every few hundred kilobytes. When a stream breaks off, it also drops the last 8 KiB that it had unpacked.

use bzip2::bufread::BzDecoder;

use super::Findings;
use super::deadline::Deadline;
use super::streams::{is_padding, unpacked_size};

/// Looks at a layer of type `CL_TYPE_BZ`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let mut stream = BzDecoder::new(bytes);
    let Ok(size) = unpacked_size(&mut stream, deadline) else {
        return found.unsupported.push("damaged or truncated bzip2".to_owned());
    };
    found.expected.extend((size > 5).then_some(size));
    let rest = stream.into_inner();
    if rest.starts_with(b"BZh") {
        found.unsupported.push("bzip2 of several streams".to_owned());
    } else if !is_padding(rest) {
        found.unsupported.push("data after the end of a bzip2 file".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack;
    use super::*;

    #[test]
    fn only_the_first_stream_is_read() -> std::io::Result<()> {
        let one = pack::bzip2(b"hello, world")?;
        let empty = pack::bzip2(b"")?;
        for (bytes, expected, unsupported) in [
            (one.clone(), vec![12], vec![]),
            ([&one[..], &[0; 512]].concat(), vec![12], vec![]),
            ([&one[..], &one].concat(), vec![12], vec!["bzip2 of several streams"]),
            ([&empty[..], &one].concat(), vec![], vec!["bzip2 of several streams"]),
            ([&one[..], b"?"].concat(), vec![12], vec!["data after the end of a bzip2 file"]),
            (one[..one.len() - 1].to_vec(), vec![], vec!["damaged or truncated bzip2"]),
            (b"BZh".to_vec(), vec![], vec!["damaged or truncated bzip2"]),
            (b"BZh0 is no level".to_vec(), vec![], vec!["damaged or truncated bzip2"]),
        ] {
            let mut found = Findings::default();
            inspect(&bytes, &Deadline::far(), &mut found);
            assert_eq!((found.expected, found.unsupported), (expected, unsupported.into_iter().map(str::to_owned).collect()));
        }
        Ok(())
    }
}
