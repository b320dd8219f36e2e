//! Finds libclamav with pkg-config and makes the bindings with bindgen.

use std::path::PathBuf;
use std::{env, fs, panic, process};

const PACKAGES: &str = "install them with `apt-get install libclamav-dev libclang-dev pkg-config` (Debian, Ubuntu) or \
`dnf install clamav-devel clang-devel pkgconf` (Fedora)";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");

    let library = pkg_config::Config::new()
        .range_version("1.4.0".."1.6.0")
        .probe("libclamav")
        .unwrap_or_else(|error| stop(&format!("libclamav 1.4 or 1.5 with its headers was not found: {error}")));

    let bindings = generate(&library.include_paths);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    fs::write(&out, &bindings).unwrap_or_else(|error| stop(&format!("cannot write {}: {error}", out.display())));

    let number = version_number(&bindings);
    if number < 0x0001_0400 {
        stop("the installed clamav-version.h is older than 1.4");
    }
    println!("cargo::metadata=version={}", library.version);
    println!("cargo::metadata=version_num={number}");
}

/// The bindings' text. bindgen panics when libclang cannot be loaded, which is caught to say what is missing.
fn generate(include_paths: &[PathBuf]) -> String {
    let builder = bindgen::Builder::default()
        .header_contents("wrapper.h", "#include <clamav.h>\n")
        .clang_args(include_paths.iter().map(|path| format!("-I{}", path.display())))
        .allowlist_function("cl_(init|load|cvdverify|cvdverify_ex|retver|retflevel|strerror|set_clcb_msg|scandesc_callback|scanmap_callback)")
        .allowlist_function("cl_fmap_(open_memory|close)")
        .allowlist_function("cl_engine_(new|free|compile|set_num|get_num|set_str)")
        .allowlist_function("cl_engine_set_clcb_(virus_found|meta|file_inspection|post_scan|file_props|sigload_progress|engine_compile_progress)")
        .allowlist_type("cl_(error_t|msg|engine_field|scan_options)")
        .allowlist_var("CL_(DB|SCAN|INIT)_.*|CLAMAV_VERSION(_NUM)?")
        .default_enum_style(bindgen::EnumVariation::NewType { is_bitfield: false, is_global: true })
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .prepend_enum_name(false);
    let quiet = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    panic::set_hook(quiet);
    match generated {
        Ok(Ok(bindings)) => bindings.to_string(),
        Ok(Err(error)) => stop(&format!("clamav.h could not be read: {error}")),
        Err(_) => stop("libclang could not be loaded"),
    }
}

/// `CLAMAV_VERSION_NUM` as the headers define it (`0x010406`).
fn version_number(bindings: &str) -> u32 {
    bindings
        .lines()
        .find_map(|line| line.trim().strip_prefix("pub const CLAMAV_VERSION_NUM: u32 = ")?.strip_suffix(';')?.parse().ok())
        .unwrap_or_else(|| stop("clamav-version.h does not define CLAMAV_VERSION_NUM"))
}

/// Ends the build with one readable message instead of a panic's backtrace.
fn stop(problem: &str) -> ! {
    println!("cargo::error=clamav-sys: {problem}");
    println!("cargo::error=clamav-sys needs libclamav's headers, libclang and pkg-config: {PACKAGES}");
    process::exit(1)
}
