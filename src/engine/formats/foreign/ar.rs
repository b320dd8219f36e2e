//! ar: static libraries, Go's packages among them, in contrast to other archives of this format such as Debian's packages.
//!
//! libclamav unpacks no ar archive. A static library is let pass: its members are not packed, so that they are searched as they
//! stand, and none is a file that anybody opens or runs.

use crate::engine::formats::deadline::Deadline;

/// Whether these members, all that follows the eight magic bytes, are object files and tables of their symbols.
pub(super) fn is_static_library(members: &[u8], deadline: &Deadline) -> bool {
    let mut rest = members;
    while let Some((header, after)) = rest.split_first_chunk::<60>() {
        if deadline.spend(header.len()).is_err() {
            return false;
        }
        let field = |start: usize, end: usize| header.get(start..end).unwrap_or_default().trim_ascii();
        let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|digits| digits.parse::<usize>().ok());
        let Some((content, next)) = number(field(48, 58)).and_then(|size| after.split_at_checked(size)) else { return false };
        let is_odd = content.len() % 2 == 1;
        let name = field(0, 16);
        // On BSD and macOS a long name stands before the content.
        let long_name = name.strip_prefix(b"#1/").and_then(number).unwrap_or(0);
        let Some((long_name, content)) = content.split_at_checked(long_name) else { return false };
        let is_table =
            matches!(name, b"/" | b"//" | b"/SYM64/") || [name, long_name].iter().any(|name| name.starts_with(b"__.SYMDEF"));
        if !is_table && !is_object(content) {
            return false;
        }
        // Members begin at even offsets.
        rest = next.get(is_odd.into()..).unwrap_or_default();
    }
    rest.is_empty()
}

/// Whether this is an object file of ELF (relocatable, so that it does not run), Mach-O (also), COFF, LLVM, WebAssembly or Go, whose
/// compiler writes what a package exports in the same form (`cmd/internal/archive`).
fn is_object(content: &[u8]) -> bool {
    match content {
        _ if content.starts_with(b"go object ") => true,
        [0x7f, b'E', b'L', b'F', ..] => matches!(content.get(16..18), Some([1, 0] | [0, 1])),
        [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => matches!(content.get(12..16), Some([1, 0, 0, 0])),
        [0x64, 0x86 | 0xaa, ..] | [0x4c, 0x01, ..] | [0, 0, 0xff, 0xff, ..] => true,
        [b'B', b'C', 0xc0, 0xde, ..] | [0xde, 0xc0, 0x17, 0x0b, ..] | [0, b'a', b's', b'm', ..] => true,
        _ => content.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in members {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, content.len()).bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    #[test]
    fn libraries_hold_objects_only() {
        let table = ("/", &b"table"[..]);
        let object = ("a.o/", &b"\x7fELF............\x01\0"[..]);
        for (members, expected) in [
            (&[][..], true),
            (&[table, ("//", b"long names"), object], true),
            (&[("#1/9", b"__.SYMDEFtable"), ("#1/3", b"a.o\xcf\xfa\xed\xfe........\x01\0\0\0")], true),
            (&[("a.obj/", b"\x64\x86"), object], true),
            (&[("__.PKGDEF", b"go object linux amd64 go1.22\n"), ("_go_.o", b"go object linux amd64 go1.22\n")], true),
            (&[("__.PKGDEF", b"PK\x03\x04")], false),
            (&[("debian-binary", b"2.0\n"), ("data.tar.xz", b"\xfd7zXZ\0")], false),
            (&[table, object, ("program", b"\x7fELF............\x02\0")], false),
            (&[("#1/99", b"short")], false),
        ] {
            assert_eq!(is_static_library(&ar(members), &Deadline::far()), expected, "{members:?}");
        }
        assert!(!is_static_library(b"cut off", &Deadline::far()));
    }
}
