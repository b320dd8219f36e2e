//! The switch of `logical_expressions.c`, which reads the numbers in logical signatures faster than libc.
//!
//! The reference to it also makes the linker take that file into every executable that uses this crate.

unsafe extern "C" {
    fn clamgate_fast_logical_expressions(enable: std::ffi::c_int);
}

/// Whether they are read that way from now on, in this process.
pub(super) fn enable(enable: bool) {
    // SAFETY: it stores an atomic integer (logical_expressions.c).
    unsafe { clamgate_fast_logical_expressions(enable.into()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

    use proptest::prelude::*;

    use super::enable;

    unsafe extern "C" {
        fn clamgate_read_numbers(text: *const c_char, format: *const c_char, numbers: *mut c_uint) -> c_int;
    }

    type Sscanf = unsafe extern "C" fn(*const c_char, *const c_char, ...) -> c_int;

    const NAMES: [&CStr; 2] = [c"sscanf", c"__isoc99_sscanf"];

    /// The function that libraries find by a name, or libc's behind it.
    fn look_up(place: *mut c_void, name: &CStr) -> Sscanf {
        // SAFETY: the name is NUL-terminated, and both functions of these names have this type.
        unsafe {
            let found = libc::dlsym(place, name.as_ptr());
            assert!(!found.is_null());
            std::mem::transmute::<*mut c_void, Sscanf>(found)
        }
    }

    /// What a call returns, and what it leaves in three variables.
    fn call(sscanf: Sscanf, text: &CStr, format: &CStr) -> (c_int, [u64; 3]) {
        let mut numbers = [0xa5a5_a5a5_a5a5_a5a5_u64; 3];
        let [first, second, third] = &mut numbers;
        let (first, second, third): (*mut u64, *mut u64, *mut u64) = (first, second, third);
        // SAFETY: strings are NUL-terminated, and no format below stores more than three values of eight bytes.
        let count = unsafe { sscanf(text.as_ptr(), format.as_ptr(), first, second, third) };
        (count, numbers)
    }

    fn assert_same_as_libc(text: &str, format: &CStr) {
        let text = CString::new(text).unwrap();
        for name in NAMES {
            let ours = look_up(libc::RTLD_DEFAULT, name);
            let theirs = look_up(libc::RTLD_NEXT, name);
            assert_ne!(ours as usize, theirs as usize, "libraries call libc's {name:?}");
            let expected = call(theirs, &text, format);
            for fast in [true, false] {
                enable(fast);
                assert_eq!(call(ours, &text, format), expected, "{name:?}({text:?}, {format:?}), fast: {fast}");
            }
        }
    }

    #[test]
    fn numbers_are_read_as_libc_reads_them() {
        for text in [
            "",
            " ",
            "0",
            "5",
            " 5",
            "\t\n5",
            "+5",
            "-1",
            "-0",
            "--1",
            "+-1",
            "x",
            "5x",
            "0x10",
            "010",
            "00000000000000007",
            "999999999",
            "1000000000",
            "4294967295",
            "4294967296",
            "9999999999",
            "18446744073709551615",
            "18446744073709551616",
            "1e3",
            "1.5",
            ",",
            ",5",
            "5,",
            "5,6",
            "5, 6",
            "5 ,6",
            "5,+6",
            "5,-6",
            "5,x",
            "5,,6",
            "5,6,7",
            "5,6)&(1",
            "999999999,999999999",
            "5,1000000000",
            "5,4294967296",
            "5,18446744073709551616",
            "4294967296,5",
            " 5,6",
            "5,\t6",
            "5,0000000000006",
        ] {
            for format in [c"%u", c"%u,%u"] {
                assert_same_as_libc(text, format);
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_libc() {
        for (text, format, expected) in [
            (c"12)&1", c"%u", Some(&[12][..])),
            (c"999999999", c"%u", Some(&[999_999_999])),
            (c"1000000000", c"%u", None),
            (c" 1", c"%u", None),
            (c"-1", c"%u", None),
            (c"", c"%u", None),
            (c"1", c"%d", None),
            (c"1", c"%u,", None),
            (c"1", c"%u,%u", Some(&[1])),
            (c"1,23&4", c"%u,%u", Some(&[1, 23])),
            (c"1, 2", c"%u,%u", None),
            (c"1,", c"%u,%u", None),
        ] {
            let mut numbers = [0; 2];
            // SAFETY: strings are NUL-terminated, and there is room for two numbers.
            let count = unsafe { clamgate_read_numbers(text.as_ptr(), format.as_ptr(), numbers.as_mut_ptr()) };
            assert_eq!(usize::try_from(count).ok().map(|count| &numbers[..count]), expected, "{text:?}, {format:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_libc_reads_it(
            text in prop_oneof!["[0-9,+ -]{0,24}", "[0-9]{1,11},[0-9]{1,11}[,)&|]?", "[\\x01-\\x7f]{0,12}"],
            format in prop::sample::select(vec![
                c"%u", c"%u,%u", c"%u,", c"%u%u", c"%u ,%u", c" %u", c"%d", c"%x", c"%lu", c"%u,%u,%u", c"%hu,%u", c"%*u,%u", c"%4u,%u",
                c"%u%n", c"%7s", c"%u-%u:%u", c"%i", c"", c"%%u",
            ]),
        ) {
            assert_same_as_libc(&text, format);
        }
    }
}
