"""What every part of the benchmark is given: the program, the files, the database, and how much is to be done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demo"))
from local_aws import isolated_environment  # noqa: E402

TEST_SIGNATURES = ROOT / "tests/data/signatures"
TEST_FILES = Path("/usr/share/clamav-testfiles")
NO_CACHE = {"CLAMGATE_SCAN__CACHED_VERDICTS": "0"}


@dataclass(frozen=True)
class Setting:
    """The same for clamgate and everything beside it."""

    clamgate: Path
    corpus: Path
    db: Path
    rounds: int
    threads: int
    quick: bool
    max_size_mib: int
    reloads: int
    scratch: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        """clamgate's environment: the threads, the scratch directory, and no verdict from an earlier scan."""
        plain = isolated_environment() | {
            "CLAMGATE_SCAN__THREADS": str(self.threads),
            "CLAMGATE_SCAN__SCRATCH_DIR": str(self.scratch),
            "CLAMGATE_DEFINITIONS__POLL_SECS": "0",
            "CLAMGATE_DEFINITIONS__MAX_AGE_SECS": "0",
            "TMPDIR": str(self.scratch),
        }
        return plain | NO_CACHE if self.check_config(plain | NO_CACHE).returncode == 0 else plain

    def check_config(self, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(self.clamgate), "check-config"], env=environment, capture_output=True, text=True)

    @cached_property
    def config(self) -> dict[str, Any]:
        """clamgate's configuration, defaults included."""
        checked = self.check_config(self.environment)
        if checked.returncode != 0:
            raise RuntimeError(f"clamgate check-config: {checked.stderr.strip()}")
        return tomllib.loads(checked.stdout)

    @cached_property
    def files(self) -> list[Path]:
        """The corpus in the order of its names."""
        return sorted(path for path in self.corpus.rglob("*") if path.is_file() and not path.is_symlink())

    @cached_property
    def corpus_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def warm_page_cache(self) -> None:
        """Read every file once, so that nobody pays for being first."""
        for path in self.files:
            path.read_bytes()

    def anonymous(self, text: str) -> str:
        """Without the names of this machine's directories."""
        for path, name in ((self.scratch, "$SCRATCH"), (self.corpus, "$CORPUS"), (self.db, "$DB"), (ROOT, ".")):
            text = text.replace(str(path), name)
        return text.replace(str(self.clamgate), "clamgate").replace(sys.executable, "python")

    def context(self) -> dict[str, Any]:
        """When, where and with what: kept with the results of each part."""
        cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
        options = [f"ROUNDS={self.rounds}"]
        options += ["CORPUS=$CORPUS"] * (self.corpus != TEST_FILES) + ["DB=$DB"] * (self.db != TEST_SIGNATURES)
        memory_gib = int(memory[1]) >> 20 if memory else 0
        return {
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": f"{os.cpu_count()} processors, {cpu[1] if cpu else 'unknown'}, {memory_gib} GiB",
            "load_average": round(os.getloadavg()[0], 2),
            "clamgate": first_line([str(self.clamgate), "--version"]),
            "clamd": first_line(["clamscan", "--version"]).split("/")[0],
            "kernel": os.uname().release,
            "python": sys.version.split()[0],
            "threads": self.threads,
            "corpus": f"{len(self.files)} files, {self.corpus_bytes / 1e6:.1f} MB",
            "database": f"{sum(file.stat().st_size for file in self.db.iterdir()) / 1e6:.1f} MB",
            "cache_off": NO_CACHE.items() <= self.environment.items(),
            "options": " ".join(options + ["QUICK=1"] * self.quick),
            "quick": self.quick,
        }


def first_line(command: list[str]) -> str:
    """The first line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=isolated_environment())
    return (done.stdout.splitlines() or [""])[0]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)
