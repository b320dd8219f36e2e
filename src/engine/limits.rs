//! How much of a file libclamav looks at before it gives up.

use serde::{Deserialize, Serialize};

/// libclamav's limits (`enum cl_engine_field`). Whatever exceeds one of them is `UNSCANNABLE LIMIT_EXCEEDED`, never `CLEAN`.
///
/// The defaults are libclamav's own except where a field says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest file, and the largest member of an archive. At most 2 GiB - 2 (libclamav's own bound). Default: 1 GiB
    /// (libclamav: 100 MiB).
    pub max_file_size_bytes: u64,
    /// How many bytes of one file are scanned, everything unpacked from it included. Default: 2 GiB - 2 (libclamav: 400 MiB).
    pub max_scan_size_bytes: u64,
    /// How many members of one archive are scanned.
    pub max_files: u32,
    /// How deep containers nest. At most 50: a scan thread's stack has 8 MiB, and a level of zip takes about 19 KiB.
    pub max_recursion: u32,
    /// The largest file that is searched for an embedded PE file.
    pub max_embedded_pe_bytes: u64,
    /// The largest HTML page that is normalised. Default, as for the next two: 1 GiB, as `max_file_size_bytes` (libclamav: 40, 8 and
    /// 20 MiB), so that what was let in is scanned in all its forms.
    pub max_html_normalize_bytes: u64,
    /// The largest HTML page whose tags are stripped.
    pub max_html_no_tags_bytes: u64,
    /// The largest script that is normalised.
    pub max_script_normalize_bytes: u64,
    /// The largest file that is looked at again as a ZIP.
    pub max_zip_typercg_bytes: u64,
    /// How many partitions of a disk image are scanned.
    pub max_partitions: u32,
    /// How many icons of a PE file are looked at.
    pub max_icons_pe: u32,
    /// How deep the parser of HWP3 documents recurses.
    pub max_rec_hwp3: u32,
    /// How many times PCRE's internal match function may be called for one signature on one buffer. Default: a million (libclamav: a
    /// tenth), because a signature that is given up makes the file `UNSCANNABLE`, and some real ones need more on ordinary files.
    pub pcre_match_limit: u64,
    /// How deep PCRE's internal match function may recurse.
    pub pcre_rec_match_limit: u64,
    /// The largest buffer that regular-expression signatures are tried on. Default: 1 GiB, as `max_file_size_bytes`
    /// (libclamav: 100 MiB), so that no signature is skipped on a file that was let in.
    pub pcre_max_file_size_bytes: u64,
    /// How long bytecode signatures may run on one file.
    pub bytecode_timeout_ms: u32,
}

/// libclamav clamps its size limits to this (`others.c: cl_engine_set_num`).
pub(crate) const LARGEST_SIZE: u64 = i32::MAX as u64 - 2;

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            max_file_size_bytes: 1024 * MIB,
            max_scan_size_bytes: LARGEST_SIZE,
            max_files: 10_000,
            max_recursion: 17,
            max_embedded_pe_bytes: 40 * MIB,
            max_html_normalize_bytes: 1024 * MIB,
            max_html_no_tags_bytes: 1024 * MIB,
            max_script_normalize_bytes: 1024 * MIB,
            max_zip_typercg_bytes: MIB,
            max_partitions: 50,
            max_icons_pe: 100,
            max_rec_hwp3: 16,
            pcre_match_limit: 1_000_000,
            pcre_rec_match_limit: 2_000,
            pcre_max_file_size_bytes: 1024 * MIB,
            bytecode_timeout_ms: 10_000,
        }
    }
}

impl Limits {
    /// What is wrong with these limits, one sentence each; empty when they can be used.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in
            [("max_file_size_bytes", self.max_file_size_bytes), ("max_scan_size_bytes", self.max_scan_size_bytes)]
        {
            if value == 0 || value > LARGEST_SIZE {
                problems.push(format!("{name} is {value}; it must be between 1 and {LARGEST_SIZE} (libclamav's own bound)"));
            }
        }
        if self.max_recursion == 0 || self.max_recursion > 50 {
            problems.push(format!("max_recursion is {}; it must be between 1 and 50", self.max_recursion));
        }
        if self.max_files == 0 {
            problems.push("max_files is 0, which libclamav takes as no limit; it must be at least 1".to_owned());
        }
        problems
    }

    /// Each limit with its name in the configuration and its field in libclamav.
    pub(super) fn settings(&self) -> [(&'static str, clamav_sys::cl_engine_field, u64); 16] {
        [
            ("max_file_size_bytes", clamav_sys::CL_ENGINE_MAX_FILESIZE, self.max_file_size_bytes),
            ("max_scan_size_bytes", clamav_sys::CL_ENGINE_MAX_SCANSIZE, self.max_scan_size_bytes),
            ("max_files", clamav_sys::CL_ENGINE_MAX_FILES, self.max_files.into()),
            ("max_recursion", clamav_sys::CL_ENGINE_MAX_RECURSION, self.max_recursion.into()),
            ("max_embedded_pe_bytes", clamav_sys::CL_ENGINE_MAX_EMBEDDEDPE, self.max_embedded_pe_bytes),
            ("max_html_normalize_bytes", clamav_sys::CL_ENGINE_MAX_HTMLNORMALIZE, self.max_html_normalize_bytes),
            ("max_html_no_tags_bytes", clamav_sys::CL_ENGINE_MAX_HTMLNOTAGS, self.max_html_no_tags_bytes),
            ("max_script_normalize_bytes", clamav_sys::CL_ENGINE_MAX_SCRIPTNORMALIZE, self.max_script_normalize_bytes),
            ("max_zip_typercg_bytes", clamav_sys::CL_ENGINE_MAX_ZIPTYPERCG, self.max_zip_typercg_bytes),
            ("max_partitions", clamav_sys::CL_ENGINE_MAX_PARTITIONS, self.max_partitions.into()),
            ("max_icons_pe", clamav_sys::CL_ENGINE_MAX_ICONSPE, self.max_icons_pe.into()),
            ("max_rec_hwp3", clamav_sys::CL_ENGINE_MAX_RECHWP3, self.max_rec_hwp3.into()),
            ("pcre_match_limit", clamav_sys::CL_ENGINE_PCRE_MATCH_LIMIT, self.pcre_match_limit),
            ("pcre_rec_match_limit", clamav_sys::CL_ENGINE_PCRE_RECMATCH_LIMIT, self.pcre_rec_match_limit),
            ("pcre_max_file_size_bytes", clamav_sys::CL_ENGINE_PCRE_MAX_FILESIZE, self.pcre_max_file_size_bytes),
            ("bytecode_timeout_ms", clamav_sys::CL_ENGINE_BYTECODE_TIMEOUT, self.bytecode_timeout_ms.into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn defaults_are_valid_and_unlimited_is_refused() {
        assert!(Limits::default().problems().is_empty());
        let unlimited =
            Limits { max_file_size_bytes: 0, max_scan_size_bytes: 0, max_files: 0, max_recursion: 0, ..Limits::default() };
        assert_eq!(unlimited.problems().len(), 4);
    }
}
