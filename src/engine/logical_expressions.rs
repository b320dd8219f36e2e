//! The switch of `logical_expressions.c`, which evaluates the expressions of logical signatures faster than libclamav and libc.
//!
//! The reference to it also makes the linker take that file into every executable that uses this crate.

use std::ffi::c_int;

use super::handle;

unsafe extern "C" {
    fn clamgate_fast_logical_expressions(numbers: c_int, lists: c_int);
}

/// The versions of libclamav whose private `cli_ac_chklsig` is what `logical_expressions.c` takes it for.
const KNOWN_VERSIONS: &str = "1.4.";

/// Whether they are evaluated that way from now on, in this process.
pub(super) fn enable(enable: bool) {
    let is_known = handle::version().starts_with(KNOWN_VERSIONS);
    // SAFETY: it stores two atomic integers (logical_expressions.c).
    unsafe { clamgate_fast_logical_expressions(enable.into(), (enable && is_known).into()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

    use proptest::prelude::*;

    use super::enable;

    unsafe extern "C" {
        fn clamgate_read_numbers(text: *const c_char, format: *const c_char, numbers: *mut c_uint) -> c_int;
        fn clamgate_evaluate_list(
            expression: *const c_char,
            end: *const c_char,
            counts: *const u32,
            count: *mut c_uint,
            ids: *mut u64,
        ) -> c_int;
    }

    type Evaluate = unsafe extern "C" fn(*const c_char, *const c_char, *mut u32, *mut c_uint, *mut u64, c_uint) -> c_int;

    type Sscanf = unsafe extern "C" fn(*const c_char, *const c_char, ...) -> c_int;

    const NAMES: [&CStr; 2] = [c"sscanf", c"__isoc99_sscanf"];

    /// The function that libraries find by a name, or the one of libc or libclamav behind it.
    fn find(place: *mut c_void, name: &CStr) -> *mut c_void {
        // SAFETY: the name is NUL-terminated.
        let found = unsafe { libc::dlsym(place, name.as_ptr()) };
        assert!(!found.is_null());
        found
    }

    fn look_up(place: *mut c_void, name: &CStr) -> Sscanf {
        // SAFETY: all functions of these names have this type.
        unsafe { std::mem::transmute::<*mut c_void, Sscanf>(find(place, name)) }
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

    /// What a call returns, and the number and set of matches that were 7 and none before it.
    fn evaluate(function: Evaluate, expression: &str, mut counts: [u32; 64], parse_only: bool) -> (c_int, c_uint, u64) {
        let text = CString::new(expression).unwrap();
        let (mut count, mut ids) = (7, 0);
        // SAFETY: the end is that of the text, and the array has all counts that libclamav keeps of a signature.
        let result = unsafe {
            let end = text.as_ptr().add(expression.len());
            function(text.as_ptr(), end, counts.as_mut_ptr(), &raw mut count, &raw mut ids, parse_only.into())
        };
        (result, count, ids)
    }

    /// The same from the function that libclamav finds as from its own, if that takes the expression when it loads it.
    fn assert_same_as_libclamavs(expression: &str, counts: [u32; 64]) {
        let [ours, theirs] = [libc::RTLD_DEFAULT, libc::RTLD_NEXT].map(|place| find(place, c"cli_ac_chklsig"));
        assert_ne!(ours, theirs, "libclamav calls its own");
        // SAFETY: libclamav 1.4 declares it so (matcher-ac.h).
        let [ours, theirs] = unsafe { [ours, theirs].map(|found| std::mem::transmute::<*mut c_void, Evaluate>(found)) };
        let parsed = evaluate(theirs, expression, counts, true);
        for fast in [true, false] {
            enable(fast);
            assert_eq!(evaluate(ours, expression, counts, true), parsed, "{expression:?}, parsed, fast: {fast}");
            if (0..64).contains(&parsed.0) {
                let expected = evaluate(theirs, expression, counts, false);
                assert_eq!(evaluate(ours, expression, counts, false), expected, "{expression:?}, {counts:?}, fast: {fast}");
            }
        }
    }

    #[test]
    fn lists_are_evaluated_and_the_rest_left_to_libclamav() {
        let mut counts = [0; 64];
        (counts[1], counts[2], counts[63]) = (3, 1, 2);
        for (expression, expected) in [
            ("0", Some((0, 0, 0))),
            ("1", Some((1, 3, 0b10))),
            ("63", Some((1, 2, 1 << 63))),
            ("1&2", Some((1, 4, 0b110))),
            ("1&2&63", Some((1, 6, 0b110 | 1 << 63))),
            ("1&0", Some((0, 0, 0))),
            ("0|2", Some((1, 1, 0b100))),
            ("1|2", Some((1, 4, 0b110))),
            ("0|3", Some((0, 0, 0))),
            ("1&2&0&1", Some((0, 0, 0))),
            ("0&(1|2)", Some((0, 0, 0))),
            ("1&0&1|2", Some((0, 0, 0))),
            ("1&0|2", None),
            ("0|1&2", None),
            ("0|1&0", None),
            ("1&2|0", None),
            ("(1)", None),
            ("1>2", None),
            ("0=0", None),
            ("1&0=0", None),
            ("0|0=0", None),
            ("64", None),
            ("063", None),
            ("100", None),
            ("1&", None),
            ("|1", None),
            ("1&&2", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
        ] {
            let (mut count, mut ids, text) = (0, 0, CString::new(expression).unwrap());
            // SAFETY: the end is that of the text, and there are 64 counts.
            let result = unsafe {
                let end = text.as_ptr().add(expression.len());
                clamgate_evaluate_list(text.as_ptr(), end, counts.as_ptr(), &raw mut count, &raw mut ids)
            };
            assert_eq!((result >= 0).then_some((result, count, ids)), expected, "{expression:?}");
            assert_same_as_libclamavs(expression, counts);
        }
    }

    /// Lists of every kind, and with everything else that an expression may have.
    fn expression() -> impl Strategy<Value = String> {
        let condition = prop_oneof![4 => Just(String::new()), 1 => "[<=>][0-3]", 1 => "[<=>][0-9],[1-3]"];
        let number = prop_oneof![8 => 0..6_u32, 1 => 0..64_u32].prop_map(|id| id.to_string());
        let term = prop_oneof![6 => number.clone(), 1 => (number, condition.clone()).prop_map(|(id, rest)| id + &rest)];
        term.prop_recursive(4, 40, 6, move |term| {
            let join = |operators: &'static [&'static str]| {
                let more = prop::collection::vec((prop::sample::select(operators), term.clone()), 0..6);
                (term.clone(), more)
                    .prop_map(|(first, more)| more.into_iter().fold(first, |all, (with, term)| all + with + &term))
            };
            prop_oneof![
                3 => join(&["&"]),
                3 => join(&["|"]),
                2 => join(&["&", "|"]),
                2 => (join(&["&", "|"]), condition.clone()).prop_map(|(inner, condition)| format!("({inner}){condition}")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn any_expression_comes_to_what_libclamav_says(
            expression in expression(),
            counts in prop::collection::vec(prop_oneof![2 => Just(0), 2 => 1..4_u32, 1 => any::<u32>()], 64),
        ) {
            assert_same_as_libclamavs(&expression, counts.try_into().unwrap());
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
