//! The switch of `pcre_jit.c`, which lets libclamav's regular expressions run as machine code.
//!
//! The reference to it also makes the linker take that file into every executable that uses this crate.

unsafe extern "C" {
    fn clamgate_pcre_jit(enable: std::ffi::c_int);
    fn clamgate_pcre_gave_up() -> std::ffi::c_int;
}

/// Whether the engines that are loaded from now on, in this process, get the JIT.
pub(super) fn enable(enable: bool) {
    // SAFETY: it stores an atomic integer (pcre_jit.c).
    unsafe { clamgate_pcre_jit(enable.into()) }
}

/// Whether a regular expression was given up at a limit on this thread since the last call.
pub(super) fn gave_up() -> bool {
    // SAFETY: it reads and clears a variable of this thread (pcre_jit.c).
    unsafe { clamgate_pcre_gave_up() != 0 }
}

#[cfg(test)]
mod tests {
    use std::ffi::{CString, c_char, c_int};

    unsafe extern "C" {
        fn clamgate_pcre_jit_is_trusted(pattern: *const c_char, options: u32) -> c_int;
    }

    fn is_trusted(pattern: &str, options: u32) -> bool {
        let pattern = CString::new(pattern).unwrap_or_default();
        // SAFETY: the pattern ends with a zero and outlives the call, which only reads it.
        unsafe { clamgate_pcre_jit_is_trusted(pattern.as_ptr(), options) != 0 }
    }

    #[test]
    fn only_what_was_compared_gets_the_jit() {
        for pattern in [
            "a|b",
            "(a)|(b)",
            "(?:a|b)*?c+?",
            "(?i)a|b",
            "(?-i:a)|b",
            "(?=a|b)(?!c)",
            r"(?P<name>\w+)(?P=name)(?<other>\s)",
            r"[^\s\x28]{0,5}\d{2,}",
        ] {
            assert!(is_trusted(pattern, 0), "{pattern}");
        }
        for pattern in [
            // An alternative of nothing, in all its disguises.
            "(a|)",
            "(|a)",
            "(a||b)",
            "(?:|a)",
            "(?i:|a)",
            "(?=|a)",
            "(?<n>|a)",
            "((?i)|a)",
            "(a|(?i))",
            "(a|(?-i)|b)",
            "|a",
            "a|",
            "(a|x{0})",
            "(a|x{0,0})",
            "(a|x{00})",
            "(a|())",
            "(a|(?:))",
            r"(a|\Q\E)",
            "(a|(?#b))",
            // What backtracks differently.
            "(?>a)",
            "a++",
            "(a)*+",
            "a?+",
            "a{2}+",
            "(?|a|b)",
            "(?<=a)b",
            "(?<!a)b",
            "(*COMMIT)a",
            "(a)(?1)",
            "(?R)",
            "(?P>n)",
            "(?&n)",
            "(?(1)a|b)",
            r"a\Kb",
            r"\Ga",
            r"\g{1}",
            r"\p{L}",
            "(?x)a",
            "(?x: a)",
        ] {
            assert!(!is_trusted(pattern, 0), "{pattern}");
        }
        let (caseless, extended) = (8, 0x80);
        assert!(is_trusted("a", caseless) && !is_trusted("a", extended));
    }
}
