//! File systems, as in a partition of a disk.
//!
//! libclamav knows how a disk is divided (`mbr.c`, `gpt.c`, `apm.c`) and scans each partition as a layer, but of the file
//! systems it reads HFS+ alone (`filetypes_int.h`: `CL_TYPE_PART_HFSPLUS`). It scans others as one long row of bytes, in which
//! files may lie in pieces or compressed, and of what is inside them it recognizes little.

use super::Findings;

/// What begins with certain bytes at a certain place.
const MARKS: &[(&str, usize, &[u8])] =
    &[("NTFS file system", 3, b"NTFS    "), ("exFAT file system", 3, b"EXFAT   "), ("APFS file system", 32, b"NXSB")];
/// A virtual disk of a fixed size has its only mark in its last sector; others begin with it.
const VIRTUAL_DISK: (usize, &[u8]) = (512, b"conectix");
/// The smallest thing to hold a file: a boot sector alone holds none.
const SMALLEST: usize = 4096;

/// Looks at a layer of any type.
pub(super) fn inspect(bytes: &[u8], found: &mut Findings) {
    if bytes.len() < SMALLEST {
        return;
    }
    let has = |at: usize, mark: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(mark));
    let marked = MARKS.iter().find(|(_, at, mark)| has(*at, mark)).map(|(name, ..)| *name);
    let (size, mark) = VIRTUAL_DISK;
    let name = marked
        .or_else(|| (has(bytes.len() - size, mark) && !has(0, mark)).then_some("VHD"))
        .or_else(|| is_fat(bytes).then_some("FAT file system"))
        .or_else(|| is_ext(bytes).then_some("ext file system"));
    found.unsupported.extend(name.map(str::to_owned));
}

/// Whether this begins with the boot sector of a FAT file system (ECMA-107 9; the name in it is for people, and may say
/// anything).
fn is_fat(bytes: &[u8]) -> bool {
    let Some(sector) = bytes.first_chunk::<512>() else { return false };
    let is_jump = matches!(sector, [0xeb, _, 0x90, ..] | [0xe9, ..]);
    let sector_size = u16::from_le_bytes([sector[11], sector[12]]);
    let reserved = u16::from_le_bytes([sector[14], sector[15]]);
    is_jump
        && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && sector[13].is_power_of_two()
        && reserved > 0
        && matches!(sector[16], 1 | 2)
        && sector[21] >= 0xf0
        && sector.ends_with(&[0x55, 0xaa])
}

/// Whether this has the superblock of an ext2, ext3 or ext4 file system (`ext4_super_block` in Linux).
fn is_ext(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(1024..).and_then(|rest| rest.first_chunk::<128>()) else { return false };
    let number = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (block_size, creator, revision) = (number(24), number(72), number(76));
    (block[56], block[57]) == (0x53, 0xef) && block_size <= 6 && creator <= 4 && revision <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_recognized() {
        let mut fat = vec![0; 512];
        fat[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        (fat[12], fat[13], fat[14], fat[16], fat[21]) = (2, 4, 1, 2, 0xf8);
        fat[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut ext = vec![0; 2048];
        ext[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        let mut vhd = vec![0; SMALLEST];
        vhd[SMALLEST - VIRTUAL_DISK.0..][..8].copy_from_slice(VIRTUAL_DISK.1);
        let cases: &[(&[u8], Option<&str>)] = &[
            (&fat, Some("FAT file system")),
            (&ext, Some("ext file system")),
            (&vhd, Some("VHD")),
            (b"\xeb\x52\x90NTFS    ", Some("NTFS file system")),
            (b"MZ", None),
        ];
        for (beginning, name) in cases {
            let (mut found, mut image) = (Findings::default(), beginning.to_vec());
            image.resize(SMALLEST, 0);
            inspect(&image, &mut found);
            assert_eq!(found.unsupported, name.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        }
        let mut found = Findings::default();
        inspect(&fat, &mut found);
        assert_eq!(found, Findings::default(), "a boot sector alone");
    }
}
