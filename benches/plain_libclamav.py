"""libclamav in process as it comes: no more than load, compile, and a cl_scanfile for each file on some threads.

Started by the benchmark. Reads one JSON object a line: first the engine's settings, then directories to scan; answers each with
a line of JSON. ctypes gives Python's lock away for the length of a call, so that the threads scan side by side.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

# enum cl_engine_field of clamav.h, as far as it is set here.
FIELDS = {
    "max_scan_size_bytes": 0,
    "max_file_size_bytes": 1,
    "max_recursion": 2,
    "max_files": 3,
    "tmpdir": 13,
    "bytecode_timeout_ms": 16,
    "max_embedded_pe_bytes": 18,
    "max_html_normalize_bytes": 19,
    "max_html_no_tags_bytes": 20,
    "max_script_normalize_bytes": 21,
    "max_zip_typercg_bytes": 22,
    "disable_cache": 25,
    "max_partitions": 28,
    "max_icons_pe": 29,
    "max_rec_hwp3": 30,
    "timeout_ms": 31,
    "pcre_match_limit": 32,
    "pcre_rec_match_limit": 33,
    "pcre_max_file_size_bytes": 34,
}
CL_CLEAN, CL_VIRUS = 0, 1
CL_DB_STDOPT = 0x2 | 0x8 | 0x2000
ALLMATCHES, COLLECT_METADATA, HEURISTICS = 0x1, 0x2, 0x4
PARSE_EVERYTHING = 0xFFFFFFFF
EXCEEDS_MAX, ENCRYPTED_ARCHIVE, ENCRYPTED_DOC = 0x4, 0x40, 0x80
STACK_BYTES = 8 << 20


class ScanOptions(ctypes.Structure):
    """struct cl_scan_options"""

    _fields_ = [(name, ctypes.c_uint32) for name in ("general", "parse", "heuristic", "mail", "dev")]


class Engine:
    """A compiled engine, shared by all threads."""

    def __init__(self, settings: dict[str, Any], database: str, tmpdir: str) -> None:
        self.lib = ctypes.CDLL(ctypes.util.find_library("clamav") or "libclamav.so")
        self.lib.cl_strerror.restype = ctypes.c_char_p
        self.lib.cl_engine_new.restype = ctypes.c_void_p
        self.lib.cl_engine_set_num.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong]
        self.lib.cl_engine_set_str.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
        self.lib.cl_load.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_uint]
        self.lib.cl_engine_compile.argtypes = [ctypes.c_void_p]
        self.lib.cl_scanfile.argtypes = [ctypes.c_char_p, *(ctypes.c_void_p,) * 4]
        self.check(self.lib.cl_init(0))
        self.handle = self.lib.cl_engine_new()
        for name, value in (settings | {"disable_cache": 1}).items():
            self.check(self.lib.cl_engine_set_num(self.handle, FIELDS[name], value))
        self.check(self.lib.cl_engine_set_str(self.handle, FIELDS["tmpdir"], os.fsencode(tmpdir)))
        signatures = ctypes.c_uint(0)
        self.check(self.lib.cl_load(os.fsencode(database), self.handle, ctypes.byref(signatures), CL_DB_STDOPT))
        self.check(self.lib.cl_engine_compile(self.handle))
        self.signatures = signatures.value

    def check(self, code: int) -> None:
        if code:
            raise RuntimeError(f"libclamav: {self.lib.cl_strerror(code).decode()}")

    def scan(self, path: str, options: ScanOptions) -> int:
        """cl_scanfile's code."""
        name, scanned = ctypes.c_char_p(), ctypes.c_ulong(0)
        arguments = (ctypes.byref(name), ctypes.byref(scanned), self.handle, ctypes.byref(options))
        return self.lib.cl_scanfile(os.fsencode(path), *arguments)


def scan_all(engine: Engine, directory: str, threads: int, all_matches: bool) -> dict[str, Any]:
    """Scan every file below the directory; how long that took, in which ones something was found, and how many failed."""
    general = HEURISTICS | (ALLMATCHES | COLLECT_METADATA if all_matches else 0)
    options = ScanOptions(general, PARSE_EVERYTHING, EXCEEDS_MAX | ENCRYPTED_ARCHIVE | ENCRYPTED_DOC, 0, 0)
    files = sorted(str(path) for path in Path(directory).rglob("*") if path.is_file() and not path.is_symlink())
    waiting, found, failed = iter(files), [], []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                path = next(waiting, None)
            if path is None:
                return
            code = engine.scan(path, options)
            if code == CL_VIRUS:
                found.append(path)
            elif code != CL_CLEAN:
                failed.append(path)

    threading.stack_size(STACK_BYTES)
    workers = [threading.Thread(target=work) for _ in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"seconds": time.perf_counter() - begun, "found": sorted(found), "failed": len(failed)}


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    begun = time.perf_counter()
    engine = Engine(setup["settings"], setup["database"], setup["tmpdir"])
    print(json.dumps({"seconds": time.perf_counter() - begun, "signatures": engine.signatures}), flush=True)
    for line in sys.stdin:
        wish = json.loads(line)
        print(json.dumps(scan_all(engine, wish["directory"], setup["threads"], wish["all_matches"])), flush=True)


if __name__ == "__main__":
    main()
