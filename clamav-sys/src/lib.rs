//! Raw, unsafe bindings to libclamav, made by `bindgen` from the headers that are installed when the crate is built.
//!
//! Nothing here is safe to call by itself: `clamgate::engine` is the safe layer. C enums are newtypes over their integer,
//! never Rust enums, because libclamav may return a value that its header does not list.
//!
//! Dependents read the version from `DEP_CLAMAV_VERSION` (`1.4.6`) and `DEP_CLAMAV_VERSION_NUM` (`0x010406`, in decimal).

#![allow(missing_docs, unsafe_code, non_camel_case_types, non_snake_case, non_upper_case_globals)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
