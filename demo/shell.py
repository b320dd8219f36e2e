"""The shell commands of a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SECONDS = 120


def run(script: str, directory: Path, environment: dict[str, str], clamgate: Path) -> str:
    """What the commands print; `aws` is the one of this Python, `clamgate` the one of the demo."""
    path = [str(Path(sys.executable).parent), str(clamgate.parent), environment.get("PATH", "/usr/bin:/bin")]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=environment | {"PATH": ":".join(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout
