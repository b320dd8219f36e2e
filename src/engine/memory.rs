//! The memory that libclamav allocates (`memory.c`).

use std::ffi::{c_int, c_void};

use super::handle::FmapHandle;

unsafe extern "C" {
    fn clamgate_release_free_memory();
    fn clamgate_is_mimallocs(pointer: *const c_void) -> c_int;
}

/// Gives memory that the allocator holds back to the operating system, after an engine was freed. It knows glibc's allocator and
/// mimalloc.
pub fn release_free_memory() {
    // SAFETY: it takes no pointer, and malloc_trim(3) and mi_collect are thread-safe.
    unsafe { clamgate_release_free_memory() }
}

/// Where libclamav's allocations come from, found out with one of them: `mimalloc`, or `system` for anything else.
#[must_use]
pub fn allocator() -> &'static str {
    // libclamav allocates the map's administration.
    let map = FmapHandle::over(&[0]);
    // SAFETY: the pointer is only compared with the addresses that mimalloc has.
    let is_mimallocs = map.is_some_and(|map| unsafe { clamgate_is_mimallocs(map.as_ptr().cast_const().cast()) } != 0);
    if is_mimallocs { "mimalloc" } else { "system" }
}
