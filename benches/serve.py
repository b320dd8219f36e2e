"""`clamgate serve` as a child process, ready for work."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from local_aws import LocalAws, stop
from setting import Setting

RELOAD_SECONDS = 600
STOP_SECONDS = 35


class Serve:
    """Started, and ended with the stack. `settings` are variables without their prefix."""

    def __init__(
        self, setting: Setting, stack: ExitStack, settings: dict[str, str], aws: LocalAws | None = None, db: Path | None = None
    ) -> None:
        directory = setting.scratch / f"serve-{time.monotonic_ns()}"
        (directory / "scratch").mkdir(parents=True)
        self.log, self.seen = directory / "log", 0
        own = {
            "DEFINITIONS__DIR": str(db or setting.db),
            "SCAN__SCRATCH_DIR": str(directory / "scratch"),
            "SERVICE__HEALTH_SOCKET": str(directory / "health.sock"),
            "LOG__FORMAT": "json",
        }
        self.environment = setting.environment | (aws.environment() if aws else {})
        self.environment |= {f"CLAMGATE_{name}": value for name, value in (own | settings).items()}
        begun = time.perf_counter()
        with self.log.open("wb") as log:
            command = [str(setting.clamgate), "serve"]
            self.process = subprocess.Popen(command, env=self.environment, stderr=log, start_new_session=True)
        stack.callback(self.stop)
        health = [str(setting.clamgate), "health"]
        while subprocess.run(health, env=self.environment, capture_output=True).returncode != 0:
            self.check()
            time.sleep(0.05)
        self.load_seconds = time.perf_counter() - begun

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """That it still runs."""
        if self.process.poll() is not None:
            end = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"clamgate ended with {self.process.returncode}:\n{end}")

    def stop(self) -> None:
        stop(self.process, STOP_SECONDS)

    def new_entries(self) -> list[dict[str, Any]]:
        """What it has logged since the last call."""
        with self.log.open("rb") as log:
            log.seek(self.seen)
            complete, end, _ = log.read().rpartition(b"\n")
        self.seen += len(complete) + len(end)
        return [json.loads(line) for line in complete.splitlines()]

    def reload(self) -> float:
        """By SIGHUP; how many seconds it took by clamgate's own watch."""
        self.new_entries()
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while time.monotonic() < deadline:
            self.check()
            for entry in self.new_entries():
                if entry["message"] == "definitions reloaded":
                    return float(entry["took_ms"]) / 1000  # a number too long for JSON is logged as text
                if entry["message"].startswith("definitions not reloaded"):
                    raise RuntimeError(f"clamgate did not reload: {entry}")
            time.sleep(0.05)
        raise RuntimeError(f"no reload within {RELOAD_SECONDS} s")

    def clamd_conf(self, setting: Setting, socket: Path) -> Path:
        """A configuration with which clamdscan talks to this."""
        path = self.log.with_name("clamdscan.conf")
        most = setting.config["limits"]["max_file_size_bytes"]
        path.write_text(f"LocalSocket {socket}\nStreamMaxLength {most}\n")
        return path
