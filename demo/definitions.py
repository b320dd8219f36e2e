"""Which virus definitions the demo runs with: the machine's own, else freshly downloaded ones, else the test signatures."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SYSTEM = Path("/var/lib/clamav")
SYSTEM_CONFIG = Path("/etc/clamav/freshclam.conf")
TEST_SIGNATURES = Path(__file__).resolve().parent.parent / "tests" / "data" / "signatures"
DOWNLOAD_SECONDS = 300


def find() -> Path:
    """The directory to use; says which and why."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clamgate" / "definitions"
    for directory in (SYSTEM, cache):
        if is_complete(directory):
            print(f"definitions: {directory}")
            return directory
    print(f"definitions: none in {SYSTEM}; asking freshclam for them (at most {DOWNLOAD_SECONDS} s) ...")
    failure = download(cache)
    if failure is None:
        print(f"definitions: {cache}, kept there for the next time")
        return cache
    if not any(cache.glob("*.c[vl]d")):  # a part of them shortens the next try
        shutil.rmtree(cache, ignore_errors=True)
        with suppress(OSError):  # others keep things there, too
            cache.parent.rmdir()
    print("*" * 100)
    print(f"*  freshclam brought none: {failure}")
    print("*  This demo runs with two TEST SIGNATURES (EICAR and ClamAV's test file). They protect from nothing.")
    print("*" * 100)
    return TEST_SIGNATURES


def is_complete(directory: Path) -> bool:
    """Whether both of the large official databases are there."""
    return all(any((directory / f"{name}.{form}").exists() for form in ("cvd", "cld")) for name in ("main", "daily"))


def download(directory: Path) -> str | None:
    """Run freshclam with the machine's configuration, but into this directory and as this user; says what went wrong."""
    ours = {
        "DatabaseDirectory": str(directory),
        "DatabaseOwner": pwd.getpwuid(os.getuid()).pw_name,
        "UpdateLogFile": str(directory / "freshclam.log"),
        "MaxAttempts": "1",
    }
    try:
        inherited = SYSTEM_CONFIG.read_text().splitlines()
        directory.mkdir(parents=True, exist_ok=True)
        # NotifyClamd is for a daemon on the machine's own directory.
        kept = [line for line in inherited if line.split(" ")[0] not in {*ours, "NotifyClamd"}]
        config = directory / "freshclam.conf"
        config.write_text("\n".join(kept + [f"{name} {value}" for name, value in ours.items()]) + "\n")
        command = ["freshclam", f"--config-file={config}", "--stdout"]
        done = subprocess.run(command, timeout=DOWNLOAD_SECONDS, capture_output=True, text=True, start_new_session=True)
    except subprocess.TimeoutExpired:
        return f"not done after {DOWNLOAD_SECONDS} s"
    except OSError as error:
        return str(error)
    if is_complete(directory):  # freshclam's exit code says less: 0 is also 'asked too often'
        return None
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    return errors[0] if errors else f"exit code {done.returncode}"
