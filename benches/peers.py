"""clamscan, clamd and plain libclamav with clamgate's limits, alerts and threads, and without their caches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from local_aws import stop
from setting import Setting

# clamgate's limits by their names in clamd.conf and on clamscan's command line.
LIMITS = {
    "max_file_size_bytes": ("MaxFileSize", "--max-filesize"),
    "max_scan_size_bytes": ("MaxScanSize", "--max-scansize"),
    "max_files": ("MaxFiles", "--max-files"),
    "max_recursion": ("MaxRecursion", "--max-recursion"),
    "max_embedded_pe_bytes": ("MaxEmbeddedPE", "--max-embeddedpe"),
    "max_html_normalize_bytes": ("MaxHTMLNormalize", "--max-htmlnormalize"),
    "max_html_no_tags_bytes": ("MaxHTMLNoTags", "--max-htmlnotags"),
    "max_script_normalize_bytes": ("MaxScriptNormalize", "--max-scriptnormalize"),
    "max_zip_typercg_bytes": ("MaxZipTypeRcg", "--max-ziptypercg"),
    "max_partitions": ("MaxPartitions", "--max-partitions"),
    "max_icons_pe": ("MaxIconsPE", "--max-iconspe"),
    "max_rec_hwp3": ("MaxRecHWP3", "--max-rechwp3"),
    "pcre_match_limit": ("PCREMatchLimit", "--pcre-match-limit"),
    "pcre_rec_match_limit": ("PCRERecMatchLimit", "--pcre-recmatch-limit"),
    "pcre_max_file_size_bytes": ("PCREMaxFileSize", "--pcre-max-filesize"),
    "bytecode_timeout_ms": ("BytecodeTimeout", "--bytecode-timeout"),
}
# Debian puts it where only root's PATH leads.
CLAMD = shutil.which("clamd", path=f"{os.environ['PATH']}:/usr/sbin") or "clamd"


def limits(setting: Setting) -> dict[str, Any]:
    """clamgate's limits, all of which have a name here."""
    configured = setting.config["limits"]
    if unknown := set(configured) ^ set(LIMITS):
        raise RuntimeError(f"limits that this benchmark does not know: {', '.join(sorted(unknown))}")
    return configured


def clamscan(setting: Setting, target: Path) -> list[str]:
    """The command of a cold scan."""
    bounds = [f"{LIMITS[name][1]}={value}" for name, value in limits(setting).items()]
    return [
        *("clamscan", "-d", str(setting.db), "-r", "--no-summary", "--disable-cache=yes", "--allmatch=yes"),
        *("--alert-exceeds-max=yes", "--alert-encrypted=yes", f"--tempdir={setting.scratch}"),
        *(f"--max-scantime={1000 * setting.config['scan']['timeout_secs']}", *bounds, str(target)),
    ]


class Clamd:
    """clamd, loaded and answering on a Unix socket, and on TCP if a port is given; with `own_limits`, those that it has by default."""

    def __init__(self, setting: Setting, stack: ExitStack, port: int | None = None, own_limits: bool = False) -> None:
        self.setting, self.directory = setting, setting.scratch / f"clamd-{time.monotonic_ns()}"
        self.directory.mkdir()
        self.conf = self.directory / "clamd.conf"
        self.settings = self.configuration(port, own_limits)
        self.conf.write_text("".join(f"{name} {value}\n" for name, value in self.settings.items()))
        output = self.directory / "out"
        begun = time.perf_counter()
        with output.open("wb") as out:
            command = [CLAMD, "-c", str(self.conf)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        stack.callback(stop, self.process, 30)
        ping = ["clamdscan", "-c", str(self.conf), "--ping", "1"]
        while subprocess.run(ping, capture_output=True).returncode != 0:
            if self.process.poll() is not None:
                raise RuntimeError(f"clamd ended:\n{output.read_text(errors='replace')}")
            time.sleep(0.02)
        self.load_seconds = time.perf_counter() - begun

    def configuration(self, port: int | None, own_limits: bool) -> dict[str, Any]:
        bounds = {LIMITS[name][0]: value for name, value in limits(self.setting).items()}
        scratch, stream = self.directory, bounds["MaxFileSize"]
        if own_limits:
            bounds = {}
        return bounds | ({"TCPSocket": port, "TCPAddr": "127.0.0.1"} if port else {}) | {
            "LocalSocket": scratch / "clamd.sock",
            "DatabaseDirectory": self.setting.db,
            "TemporaryDirectory": scratch,
            "LogFile": scratch / "clamd.log",
            "LogFileMaxSize": 0,
            "Foreground": "yes",
            "SelfCheck": 0,
            "MaxThreads": self.setting.threads,
            "MaxQueue": 100 + 2 * self.setting.threads,
            "MaxScanTime": 1000 * self.setting.config["scan"]["timeout_secs"],
            "StreamMaxLength": stream,
            "DisableCache": "yes",
            "AlertExceedsMax": "yes",
            "AlertEncrypted": "yes",
        }

    def clamdscan(self, target: Path, *options: str) -> list[str]:
        return ["clamdscan", "-c", str(self.conf), "--no-summary", *options, str(target)]


class PlainLibclamav:
    """`plain_libclamav.py` as a child process, loaded."""

    def __init__(self, setting: Setting, stack: ExitStack) -> None:
        script = Path(__file__).with_name("plain_libclamav.py")
        command = [sys.executable, "-B", str(script)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=setting.environment, start_new_session=True, **pipes)
        stack.callback(stop, self.process, 5)
        timeout = {"timeout_ms": 1000 * setting.config["scan"]["timeout_secs"]}
        setup = {"settings": limits(setting) | timeout, "threads": setting.threads}
        loaded = self.ask(setup | {"database": str(setting.db), "tmpdir": str(setting.scratch)})
        self.load_seconds, self.signatures = loaded["seconds"], loaded["signatures"]

    def ask(self, wish: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("plain_libclamav.py ended; its errors are above")
        return json.loads(answer)

    def scan(self, directory: Path, all_matches: bool) -> dict[str, Any]:
        """Seconds, and the files in which something was found."""
        return self.ask({"directory": str(directory), "all_matches": all_matches})
