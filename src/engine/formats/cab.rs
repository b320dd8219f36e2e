//! Microsoft's cabinets: truncation, several volumes, and the files that the table lists.
//!
//! libclamav reads cabinets with libmspack in its salvage mode, which leaves out what it does not understand, and passes over a
//! cabinet that it cannot open (`libmspack.c: cli_scanmscab`). The format:
//! <https://learn.microsoft.com/previous-versions/bb417343>.

use memchr::{memchr, memmem};

use super::Findings;
use super::deadline::Deadline;

const SIGNATURE: &[u8] = b"MSCF\0\0\0\0";

/// Folder numbers from this on are of files that begin or go on in another cabinet.
const CONTINUED: u16 = 0xfffd;

/// Looks at a layer of type `CL_TYPE_MSCAB`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    if let Err(what) = read(bytes, deadline, found) {
        found.unsupported.push(what.to_owned());
    }
}

fn read(bytes: &[u8], deadline: &Deadline, found: &mut Findings) -> Result<(), &'static str> {
    const DAMAGED: &str = "damaged cabinet";
    const VOLUME: &str = "cabinet (one volume of several)";
    let cabinet = Cabinet::read(bytes).ok_or(DAMAGED)?;
    let behind = bytes.get(cabinet.size..).ok_or("truncated cabinet")?;
    if memmem::find(behind, SIGNATURE).is_some() {
        return Err("several cabinets in one file");
    }
    if cabinet.is_one_of_several {
        return Err(VOLUME);
    }
    // libmspack takes the table from behind the folders, wherever the header says it is (cabd.c: cabd_read_headers).
    if cabinet.files_offset != cabinet.folders_end {
        return Err("cabinet whose table of files is elsewhere");
    }
    let mut table = bytes.get(cabinet.files_offset..).ok_or(DAMAGED)?;
    for _ in 0..cabinet.files {
        let length = table.len();
        let file = File::read(&mut table).ok_or(DAMAGED)?;
        deadline.spend(length - table.len())?;
        if file.folder >= CONTINUED {
            return Err(VOLUME);
        }
        found.expected.extend((file.size > 5).then_some(u64::from(file.size)));
    }
    Ok(())
}

/// What the header says (`CFHEADER`).
struct Cabinet {
    size: usize,
    files: u16,
    files_offset: usize,
    folders_end: usize,
    is_one_of_several: bool,
}

impl Cabinet {
    fn read(bytes: &[u8]) -> Option<Self> {
        let size = u32_at(bytes, 8)?;
        let files_offset = u32_at(bytes, 16)?;
        let folders = u16_at(bytes, 26)?;
        let files = u16_at(bytes, 28)?;
        let flags = u16_at(bytes, 30)?;
        let (has_previous, has_next, has_reserve) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);

        let mut end = 36usize;
        let mut folder_size = 8usize;
        if has_reserve {
            folder_size = folder_size.checked_add(usize::from(*bytes.get(38)?))?;
            end = usize::from(u16_at(bytes, 36)?).checked_add(40)?;
        }
        // The name and the disk of the volume before, and of the one after.
        let volumes = [has_previous, has_next].into_iter().filter(|&is_there| is_there);
        for _ in volumes.flat_map(|_| ["name", "disk"]) {
            end = end.checked_add(text_size(bytes.get(end..)?)?)?;
        }
        Some(Self {
            size: usize::try_from(size).ok()?,
            files,
            files_offset: usize::try_from(files_offset).ok()?,
            folders_end: end.checked_add(usize::from(folders).checked_mul(folder_size)?)?,
            is_one_of_several: has_previous || has_next,
        })
    }
}

/// One entry of the table (`CFFILE`).
struct File {
    size: u32,
    folder: u16,
}

impl File {
    /// Takes an entry off the front.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (entry, rest) = bytes.split_at_checked(16)?;
        *bytes = rest.get(text_size(rest)?..)?;
        Some(Self { size: u32_at(entry, 0)?, folder: u16_at(entry, 8)? })
    }
}

/// The size of a text up to the NUL that ends it.
fn text_size(bytes: &[u8]) -> Option<usize> {
    memchr(0, bytes)?.checked_add(1)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cabinet of one folder and these files, by size and folder.
    fn cabinet(flags: u16, names: &[u8], files: &[(u32, u16)]) -> Vec<u8> {
        let table_offset = 36 + names.len() + 8;
        let mut table = Vec::new();
        for (size, folder) in files {
            table.extend(size.to_le_bytes());
            table.extend([0; 4]);
            table.extend(folder.to_le_bytes());
            table.extend(*b"------name\0");
        }
        let mut bytes = SIGNATURE.to_vec();
        for field in [table_offset + table.len(), 0, table_offset, 0] {
            bytes.extend((field as u32).to_le_bytes());
        }
        for field in [0x0103, 1, files.len() as u16, flags, 0, 0] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(names);
        bytes.extend([0; 8]);
        bytes.extend(table);
        bytes
    }

    #[test]
    fn what_is_missing_shows() {
        let plain = cabinet(0, b"", &[(100, 0), (5, 0), (70_000, 0)]);
        let mut moved = plain.clone();
        moved[16] -= 8;
        for (bytes, expected, unsupported) in [
            (plain.clone(), &[100, 70_000][..], ""),
            ([&plain[..], b"a signature"].concat(), &[100, 70_000], ""),
            ([&plain[..], &plain].concat(), &[], "several cabinets in one file"),
            (cabinet(2, b"b.cab\0disk\0", &[(10, 0)]), &[], "cabinet (one volume of several)"),
            (cabinet(0, b"", &[(10, 0xfffe)]), &[], "cabinet (one volume of several)"),
            (plain[..plain.len() - 1].to_vec(), &[], "truncated cabinet"),
            (plain[..20].to_vec(), &[], "damaged cabinet"),
            (moved, &[], "cabinet whose table of files is elsewhere"),
        ] {
            let mut found = Findings::default();
            inspect(&bytes, &Deadline::far(), &mut found);
            assert_eq!((&found.expected[..], found.unsupported.concat()), (expected, unsupported.to_owned()));
        }
    }
}
