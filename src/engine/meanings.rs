//! What each thing that libclamav says means for the verdict: the one table, from which the operator's page is made.
//!
//! What the table does not know is never harmless: an alert without a row is malware, anything else without a row means that
//! something was not fully scanned ([`Reason::EngineError`]). That holds for information as for warnings: some of it tells of
//! lost content. A row is [`Means::Harmless`] only where libclamav's source shows that it goes on to scan the same bytes.
//!
//! A trouble outweighs an incomplete scan. The functions that make and write temporary files say what went wrong, and the
//! parsers that called them say so again in words of their own, which have no row.
//!
//! The rows are for libclamav 1.4 with this program's options: no debug log, no kept temp files, no alerts on broken files.

use Means::{Harmless, Incomplete, Suspicious, Trouble};
use Source::{Alert, Message, ParseError, ReturnCode};

use super::verdict::Reason;

/// Where libclamav says it, and what the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A signature's name, from the `virus_found` callback.
    Alert,
    /// An entry of the metadata's `ParseErrors` and the `FileType` of the layer it stands in, empty where there is none:
    /// `MSXML_ERROR_XMLPARSER in CL_TYPE_OOXML_WORD`.
    ParseError,
    /// A message of any severity, without libclamav's prefix and the line end.
    Message,
    /// The name of the `cl_error_t` that the scan returned. `CL_VIRUS` has no row: the alerts say what was found. With metadata
    /// on, libclamav replaces the scan's code with that of a later step (`scanners.c: scan_common`), so most never come.
    ReturnCode,
}

/// What follows for the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Something potentially unwanted or odd was found.
    Suspicious,
    /// Nothing: no byte was left out for it.
    Harmless,
    /// This machine was in trouble: the scan has to be tried again, not judged.
    Trouble,
    /// Something was not fully scanned.
    Incomplete(Reason),
}

/// One row.
#[derive(Debug)]
pub struct Meaning {
    /// Where it is said.
    pub source: Source,
    /// The whole text. `*` stands for any text, where the source has a printf conversion or the rest does not matter.
    pub pattern: &'static str,
    /// What follows.
    pub means: Means,
    /// Why, with file and function of libclamav's source.
    pub why: &'static str,
}

impl Source {
    const fn says(self, pattern: &'static str, means: Means, why: &'static str) -> Meaning {
        Meaning { source: self, pattern, means, why }
    }
}

const TIMED_OUT: Means = Incomplete(Reason::TimedOut);
const LIMIT: Means = Incomplete(Reason::LimitExceeded);
const ENCRYPTED: Means = Incomplete(Reason::Encrypted);
const UNSUPPORTED: Means = Incomplete(Reason::Unsupported);
const ENGINE_ERROR: Means = Incomplete(Reason::EngineError);

/// The table, by source and pattern. A `*` and a pattern's end sort after all letters: the more exact pattern comes first.
pub const MEANINGS: &[Meaning] = &[
    Alert.says("BC.Heuristics*", Suspicious, "others.c: cli_append_virus takes it for potentially unwanted"),
    Alert.says("Detected.By.Callback*", ENGINE_ERROR, "scanners.c: cli_magic_scan; none of ours blocks a file"),
    Alert.says("Heuristics.Encrypted.*", ENCRYPTED, "unzip.c, 7z_iface.c, pdf.c, scanners.c; it is skipped"),
    Alert.says("Heuristics.Limits.Exceeded.MaxScanTime", TIMED_OUT, "others.c: cli_checktimelimit; the scan was ended"),
    Alert.says("Heuristics.Limits.Exceeded.*", LIMIT, "others.c: cli_checklimits, mbox.c; the rest was skipped"),
    Alert.says("Heuristics.XZ.DicSizeLimit", LIMIT, "scanners.c: cli_scanxz; nothing is unpacked"),
    Alert.says("Heuristics.Zip.OverlappingFiles", LIMIT, "unzip.c: index_the_central_directory; nothing is unpacked"),
    Alert.says(
        "Heuristics.*",
        Suspicious,
        "known exploits, phishing, macros, broken files; libclamav takes them for potentially unwanted",
    ),
    Alert.says("PUA.*", Suspicious, "the name that libclamav's databases give to the potentially unwanted"),
    ParseError.says("HWPML_ERROR_XML_READER_IO*", Trouble, "hwp.c: cli_scanhwpml; libxml2 got no memory"),
    ParseError.says("Heuristics.Limits.Exceeded.MaxScanTime*", TIMED_OUT, "others.c: cli_checktimelimit"),
    ParseError.says("Heuristics.Limits.Exceeded.*", LIMIT, "others.c: cli_checklimits, or our own check; the rest was skipped"),
    ParseError.says("MHTML_ERROR_*", Harmless, "mbox.c: parseRootMHTML; properties only, the parts are scanned by themselves"),
    ParseError.says("MSXML_ERROR_OTHER*", ENGINE_ERROR, "msxml_parser.c: cli_msxml_parse_document"),
    ParseError.says("MSXML_ERROR_OUTOFMEM*", ENGINE_ERROR, "scanners.c: cli_magic_scan then unpacks no OOXML"),
    ParseError.says("MSXML_INTR_TIMEOUT*", TIMED_OUT, "msxml_parser.c: cli_msxml_parse_document"),
    ParseError.says("MSXML_INTR_VIRUS*", Harmless, "msxml_parser.c: cli_msxml_parse_document; the alert says what was found"),
    ParseError.says("MSXML_RECURSIVE_LIMIT in CL_TYPE_XML_*", LIMIT, "msxml_parser.c: msxml_parse_element skips it"),
    ParseError.says("MSXML_* in CL_TYPE_MAIL", Harmless, "mbox.c: parseRootMHTML; properties only"),
    ParseError.says("MSXML_* in CL_TYPE_MHTML", Harmless, "mbox.c: parseRootMHTML; properties only"),
    ParseError.says("MSXML_* in CL_TYPE_OOXML_*", Harmless, "ooxml.c: ooxml_parse_document; properties only"),
    ParseError.says("OLE2_CODEPAGE_ERROR_*", Harmless, "msdoc.c: ole2_convert_utf; the text of a property"),
    ParseError.says("OLE2_SUMMARY_*", Harmless, "msdoc.c: cli_ole2_summary_json; properties only, the stream is scanned"),
    ParseError.says("OOXML_ERROR_XML_READER_IO*", Trouble, "msxml.c: cli_scanmsxml; libxml2 got no memory"),
    ParseError.says("OOXML_ERROR_*", Harmless, "ooxml.c: cli_process_ooxml; properties only, all members are unpacked next"),
    Message.says("  Display URL: *", Harmless, "phishcheck.c: phishingCheck; the alert follows"),
    Message.says("  Real URL: *", Harmless, "phishcheck.c: phishingCheck; the alert follows"),
    Message.says("Attempt to send Content-type message/external-body trapped", UNSUPPORTED, "mbox.c: parseEmailBody"),
    Message.says("Binhex messages not supported yet.", UNSUPPORTED, "message.c: messageToText"),
    Message.says("Bytecode run timed out in interpreter after *", TIMED_OUT, "bytecode_vm.c: cli_vm_execute"),
    Message.says("Bytecode *failed to run: Exceeded time limit", TIMED_OUT, "bytecode.c: cli_bytecode_runlsig"),
    Message.says("CRITICAL: fmap() failed", Trouble, "scanners.c: cli_magic_scan_desc_type"),
    Message.says("Can't create temporary directory for scan: *", Trouble, "scanners.c: scan_common; nothing is scanned"),
    Message.says("Cannot assign message preclass object *", Harmless, "mbox.c: do_multipart; metadata only"),
    Message.says("Cannot get multipart preclass array", Harmless, "mbox.c: do_multipart; metadata only"),
    Message.says("Failed to allocate ImageFuzzyHash JSON object", Trouble, "scanners.c: calculate_fuzzy_image_hash"),
    Message.says("Failed to create directory: *", Trouble, "htmlnorm.c: cli_html_normalise"),
    Message.says("HWP3.x: Information Block[*]: TYPE: UNKNOWN(*", Harmless, "hwp.c: parsehwp3_infoblk_1 scans the block whole"),
    Message.says("HWPML: Unrecognized encoding method", UNSUPPORTED, "hwp.c: hwpml_binary_cb"),
    Message.says("HWPOLE2: Mismatched uncompressed prefix and size: *", Harmless, "hwp.c: cli_scanhwpole2 scans to the end"),
    Message.says("HWP*: Error decompressing stream.*", ENGINE_ERROR, "hwp.c: decompress_and_callback; only informs"),
    Message.says("JS-Norm: cannot open output file for writing: *", Trouble, "js-norm.c: cli_js_output"),
    Message.says("NSIS: unable to create output file *", Trouble, "nulsft.c: nsis_unpack_next"),
    Message.says("OLE2 [handler_writefile]: failed to create file: *", Trouble, "ole2_extract.c: handler_writefile"),
    Message.says("Partial message received from MUA/MTA - message cannot be scanned", UNSUPPORTED, "mbox.c: parseEmailBody"),
    Message.says("SIS: unable to create output file *", Trouble, "sis.c: real_scansis"),
    Message.says("SWF: declared input length != compressed stream size, *", Harmless, "swf.c: scanzws reads to the end anyway"),
    Message.says("Suspicious link found!", Harmless, "phishcheck.c: phishingCheck; the alert follows"),
    Message.says("TNEF body not being scanned *", Harmless, "tnef.c: tnef_message; stored as it is, so scanned with the file"),
    Message.says("Tar: Can't create temporary directory *", Trouble, "scanners.c: cli_scantar"),
    Message.says("Unsupported RFC2047 encoding type '*", Harmless, "mbox.c: parseEmailHeader takes the header as it is"),
    Message.says("Unsupported message format `*", UNSUPPORTED, "mbox.c: parseEmailBody"),
    Message.says("check_state[msxml]: CL_EPARSE @ ln*", Harmless, "msxml_parser.c: said again, with its place, in ParseErrors"),
    Message.says("cli_ac_init: Can't allocate memory *", Trouble, "matcher-ac.c: cli_ac_initdata"),
    Message.says("cli_append_virus: no memory *", Trouble, "others.c: append_virus"),
    Message.says("cli_bitset_init: Unable to allocate memory *", Trouble, "others.c: cli_bitset_init"),
    Message.says("cli_decode_ole_object: can't create *", Trouble, "vba_extract.c: cli_scan_ole10"),
    Message.says("cli_egg_extract_file: Unable to decompress file: *", UNSUPPORTED, "egg.c; ends in a hostile name"),
    Message.says("cli_egg_extract_file: unknown compression algorithm: *", UNSUPPORTED, "egg.c: cli_egg_extract_file"),
    Message.says("cli_egg_extract_file: * decompression not yet supported.", UNSUPPORTED, "egg.c: cli_egg_extract_file"),
    Message.says("cli_magic_scan: no memory *", Trouble, "scanners.c: cli_magic_scan"),
    Message.says("cli_max_*(): Can't *allocate memory *", Trouble, "others_common.c: cli_max_malloc and the like"),
    Message.says("cli_msxml_parse_document: encountered issue *", Harmless, "said again, with its place, in ParseErrors"),
    Message.says("cli_pdf: *Init failed", Trouble, "pdfdecode.c: filter_flatedecode; zlib got no memory"),
    Message.says("cli_readn: read error: *", Trouble, "others_common.c: cli_readn"),
    Message.says("cli_rmdirs: *", Trouble, "others.c: cli_rmdirs; without descriptors this may be all that is said"),
    Message.says("cli_scangpt: detected a *MBR", UNSUPPORTED, "gpt.c: gpt_check_mbr; its own partitions are left out"),
    Message.says("cli_scangpt: protective MBR first LBA is incorrect *", Harmless, "gpt.c: gpt_check_mbr goes on"),
    Message.says("cli_scangpt: protective MBR has non-empty partition", UNSUPPORTED, "gpt.c: gpt_check_mbr; it is left out"),
    Message.says("cli_scanhtml_utf16: Can't write to file *", Trouble, "scanners.c: cli_scanhtml_utf16"),
    Message.says("cli_scanicon: found * invalid icon entries of * total", Harmless, "pe_icons.c; the others are compared"),
    Message.says("cli_scanscript: can't write to file *", Trouble, "scanners.c: cli_scanscript"),
    Message.says("cli_scanswf: *: Can't read file or file truncated", Harmless, "swf.c: cli_scanswf; extracts nothing"),
    Message.says("cli_scanxz: decompress file size exceeds limits - *", LIMIT, "scanners.c: cli_scanxz"),
    Message.says("cli_unlink: unlink failure for *", Trouble, "others.c: cli_unlink; parsers give up with CL_EUNLINK"),
    Message.says("cli_unzip: *failed to create temporary file *", Trouble, "unzip.c: unz, zdecrypt"),
    Message.says("cli_writen: write error: *", Trouble, "others_common.c: cli_writen"),
    Message.says("cli_*(): File or section is too large to scan (0 bytes)*", ENGINE_ERROR, "others_common.c; the file says 0"),
    Message.says("cli_*(): File or section is too large to scan *", LIMIT, "others_common.c; more than 1 GiB at once"),
    Message.says("cli_*: Can't create *", Trouble, "a temporary file or directory: cli_gentempfd and others"),
    Message.says("cli_*: Cannot create temporary directory *", Trouble, "dmg.c: cli_scandmg, hfsplus.c: cli_scanhfsplus"),
    Message.says("dmg_handle_mish: mish block * too big to handle (for now)", LIMIT, "dmg.c: dmg_handle_mish"),
    Message.says("egg_parse_archive_extra_field: Split archive. *", UNSUPPORTED, "egg.c; one of several volumes"),
    Message.says("egg_parse_encrypt_header: Unknown encrypt method: *", ENCRYPTED, "egg.c: egg_parse_encrypt_header"),
    Message.says("extractFile: * Allocation Descriptor length is incorrect.", UNSUPPORTED, "udf.c; a file in several pieces"),
    Message.says("fileblobAddData: Can't write *", Trouble, "blob.c: fileblobAddData"),
    Message.says("fileblobSetFilename: fdopen failed", Trouble, "blob.c: fileblobSetFilename"),
    Message.says("fmap: map *allocation failed", Trouble, "fmap.c: cl_fmap_open_handle"),
    Message.says("fmap_duplicate: map allocation failed", Trouble, "fmap.c: fmap_duplicate"),
    Message.says("fmap_readpage: file changed as we read it", Trouble, "fmap.c: fmap_readpage"),
    Message.says("fmap_readpage: pread *", Trouble, "fmap.c: fmap_readpage"),
    Message.says("is_extract_cab: failed to create file *", Trouble, "ishield.c: is_extract_cab"),
    Message.says("json: no memory *", Trouble, "json_api.c; the layer is not scanned (scanners.c: cli_magic_scan)"),
    Message.says("ole2: no memory for streams list *", Trouble, "ole2_extract.c: handler_enum; encryption would not be seen"),
    Message.says(
        "ole2_convert_utf: could not initialize iconv *: Invalid argument",
        ENGINE_ERROR,
        "msdoc.c; the document's code page, if the C library lacks it (RHEL has a package with more, musl has few)",
    ),
    Message.says("ole2_convert_utf: could not initialize iconv *", Trouble, "msdoc.c; no memory, for instance"),
    Message.says("ole2_convert_utf: could not locate codepage encoding *", Harmless, "msdoc.c; the text of a property"),
    Message.says("ooxml_hwp_cb: encountered issue *", Harmless, "ooxml.c: ooxml_hwp_cb; properties only"),
    Message.says("ooxml_parse_document: encountered issue *", Harmless, "ooxml.c: ooxml_parse_document; properties only"),
    Message.says("pdf_extract_obj: failed to get * JSON object", Harmless, "pdf.c: pdf_extract_obj; metadata only"),
    Message.says("pdf_findobj_in_objstm: Fewer objects found *", Harmless, "pdf.c; the last one takes the rest"),
    Message.says("pdf_*: can't create temporary file *: File exists", ENGINE_ERROR, "pdf.c; two objects of one number"),
    Message.says("pdf_*: can't create temporary file *", Trouble, "pdf.c: pdf_extract_obj, pdf_scan_contents"),
    Message.says("ppt_unlzw: can't create *", Trouble, "vba_extract.c: ppt_unlzw"),
    Message.says("scan_common: * memory *", Trouble, "scanners.c: scan_common"),
    Message.says("scan_mso_stream: Error decompressing MSO file.*", ENGINE_ERROR, "ole2_extract.c; only informs"),
    Message.says("scancws: Error decompressing SWF file.*", ENGINE_ERROR, "swf.c: scancws; only informs"),
    Message.says("scanraw: no memory *", Trouble, "scanners.c: scanraw"),
    Message.says("scanzws: Error decompressing SWF file.*", ENGINE_ERROR, "swf.c: scanzws; only informs"),
    Message.says("utf16 length is not multiple of two: *", Harmless, "entconv.c: cli_utf16_to_utf8; names and properties only"),
    Message.says("vba_readdir_new: PROJECTHELPFILEPATH is not *", Harmless, "vba_extract.c: cli_vba_readdir_new reads on"),
    ReturnCode.says("CL_EACCES", Trouble, "scanners.c: scan_common; no temp directory"),
    ReturnCode.says("CL_EBUSY", Trouble, "the scanner is still active"),
    ReturnCode.says("CL_ECREAT", Trouble, "a file could not be created"),
    ReturnCode.says("CL_EDUP", Trouble, "no descriptor was left"),
    ReturnCode.says("CL_ELOCK", Trouble, "a mutex could not be locked"),
    ReturnCode.says("CL_EMAX*", LIMIT, "CL_EMAXFILES, CL_EMAXREC, CL_EMAXSIZE"),
    ReturnCode.says("CL_EMEM", Trouble, "no memory; for a file's sake a message says so too"),
    ReturnCode.says("CL_EOPEN", Trouble, "a file could not be opened"),
    ReturnCode.says("CL_ESEEK", Trouble, "lseek(2) failed on a temp file"),
    ReturnCode.says("CL_ESTAT", Trouble, "fstat(2) failed"),
    ReturnCode.says("CL_ETIMEOUT", TIMED_OUT, "others.c: cli_checktimelimit"),
    ReturnCode.says("CL_ETMP*", Trouble, "CL_ETMPDIR, CL_ETMPFILE"),
    ReturnCode.says("CL_EUNLINK", Trouble, "a temp file could not be removed; parsers give up then"),
    ReturnCode.says("CL_EWRITE", Trouble, "a temp file could not be written"),
    ReturnCode.says("CL_E*", ENGINE_ERROR, "CL_EFORMAT, CL_EPARSE, CL_EREAD, CL_EMAP, CL_EUNPACK: about the file"),
    ReturnCode.says("CL_SUCCESS", Harmless, "the alerts, messages and parse errors decide"),
];

/// The first row that fits. `None`: unknown, which is never harmless.
#[must_use]
pub fn meaning(source: Source, text: &str) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|row| row.source == source && fits(row.pattern, text))
}

/// Whether the pattern is the text's, in time linear in the text: each piece between two stars is taken where it first occurs.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(end) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let table: &[(Source, &str, Option<Means>)] = &[
            (Alert, "Win.Test.EICAR_HDB-1", None),
            (Alert, "BC.Heuristics.Test", Some(Suspicious)),
            (Alert, "Detected.By.Callback.Inspection", Some(ENGINE_ERROR)),
            (Alert, "Heuristics.Encrypted.Zip", Some(ENCRYPTED)),
            (Alert, "Heuristics.Limits.Exceeded.MaxScanTime", Some(TIMED_OUT)),
            (Alert, "Heuristics.Limits.Exceeded.MaxFiles", Some(LIMIT)),
            (Alert, "Heuristics.Broken.Executable", Some(Suspicious)),
            (Alert, "Heuristics.Zip.OverlappingFiles", Some(LIMIT)),
            (ParseError, "MSXML_ERROR_XMLPARSER in CL_TYPE_OOXML_WORD", Some(Harmless)),
            (ParseError, "MSXML_ERROR_OUTOFMEM in CL_TYPE_OOXML_WORD", Some(ENGINE_ERROR)),
            (ParseError, "MSXML_ERROR_XMLPARSER in CL_TYPE_XML_WORD", None),
            (ParseError, "MSXML_RECURSIVE_LIMIT in CL_TYPE_XML_HWP", Some(LIMIT)),
            (ParseError, "MSXML_INTR_TIMEOUT in CL_TYPE_OOXML_XL", Some(TIMED_OUT)),
            (ParseError, "OLE2_CODEPAGE_ERROR_NOTFOUND in ", Some(Harmless)),
            (ParseError, "OOXML_ERROR_CORE_MALFORMED in CL_TYPE_OOXML_WORD", Some(Harmless)),
            (ParseError, "OOXML_ERROR_XML_READER_IO in CL_TYPE_XML_XL", Some(Trouble)),
            (Message, "cli_scanicon: found 3 invalid icon entries of 9 total", Some(Harmless)),
            (Message, "cli_gentempfd_with_prefix: Can't create temporary file /t/a.tmp: Too many open files", Some(Trouble)),
            (Message, "cli_max_realloc(): Can't re-allocate memory to 7 bytes.", Some(Trouble)),
            (Message, "cli_max_malloc(): File or section is too large to scan (9 bytes). For your safety, ...", Some(LIMIT)),
            (
                Message,
                "cli_max_calloc(): File or section is too large to scan (0 bytes). For your safety, ...",
                Some(ENGINE_ERROR),
            ),
            (Message, "Bytecode 'BC.A' (id: 1) failed to run: Exceeded time limit", Some(TIMED_OUT)),
            (Message, "Bytecode 1 failed to run: Error during bytecode execution", None),
            (Message, "pdf_extract_obj: can't create temporary file /t/pdf obj 1 0: File exists", Some(ENGINE_ERROR)),
            (Message, "pdf_scan_contents: can't create temporary file /t/a: No space left on device", Some(Trouble)),
            (Message, "scanraw: no memory for json properties object", Some(Trouble)),
            (Message, "ole2_convert_utf: could not initialize iconv for encoding IBM037: Invalid argument", Some(ENGINE_ERROR)),
            (Message, "ole2_convert_utf: could not initialize iconv for encoding IBM037: Too many open files", Some(Trouble)),
            (Message, "HWP5.x: Error decompressing stream. No data decompressed.", Some(ENGINE_ERROR)),
            (Message, "Unsupported message format `Suspicious link found!' - if you", Some(UNSUPPORTED)),
            (Message, "cli_egg_extract_file: Unable to decompress file: a: Can't create b", Some(UNSUPPORTED)),
            (Message, "x cli_rmdirs: ", None),
            (Message, "Suspicious link found! ", None),
            (Message, "", None),
            (ReturnCode, "CL_ESTAT", Some(Trouble)),
            (ReturnCode, "CL_ESTATE", Some(ENGINE_ERROR)),
            (ReturnCode, "CL_EMAXREC", Some(LIMIT)),
            (ReturnCode, "CL_EREAD", Some(ENGINE_ERROR)),
            (ReturnCode, "CL_VIRUS", None),
        ];
        for &(source, text, expected) in table {
            assert_eq!(meaning(source, text).map(|row| row.means), expected, "{source:?} {text:?}");
        }
    }

    #[test]
    fn rows_are_sorted_and_none_is_there_twice() {
        let key = |row: &Meaning| (row.source as u8, row.pattern.replace('*', "\u{10ffff}") + "\u{10ffff}");
        assert!(MEANINGS.is_sorted_by(|a, b| key(a) < key(b)));
    }

    /// A message can hold a hostile file's name, so whatever makes one harmless has to stand in front of it.
    #[test]
    fn harmless_messages_begin_with_their_own_words() {
        for row in MEANINGS.iter().filter(|row| row.source == Message && row.means == Harmless) {
            assert!(row.pattern.find('*').unwrap_or(row.pattern.len()) > 8, "{}", row.pattern);
        }
    }
}
