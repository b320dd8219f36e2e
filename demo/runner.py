"""What every demo is run with: its arguments, the signals that end it, and waiting within bounds."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Callable

from botocore.exceptions import BotoCoreError, ClientError


class DemoError(Exception):
    """The demo cannot go on."""


def wait_for(what: str, seconds: float, check: Callable[[], Any]) -> Any:
    """The first true result of the check."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)
    return result


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP as Ctrl-C, so that they clean up too."""
    raise KeyboardInterrupt


def main(description: str, run: Callable[[Path, Path | None, ExitStack], int]) -> int:
    """Parse, run, clean up: what the demo puts on the stack is ended with it."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--clamgate", type=Path, required=True, help="the program")
    parser.add_argument("--definitions", type=Path, help="a database directory (default: found or downloaded)")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # progress shows in a pipe, too
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in endings:
        signal.signal(number, interrupt)
    with ExitStack() as stack:
        try:
            return run(arguments.clamgate.resolve(), arguments.definitions, stack)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except subprocess.CalledProcessError as error:
            print(f"error: {error}", error.stderr or "", sep="\n", file=sys.stderr)
            return 1
        except (DemoError, RuntimeError, OSError, BotoCoreError, ClientError, subprocess.TimeoutExpired) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            for number in endings:
                signal.signal(number, signal.SIG_IGN)  # what is left to do is bounded, and must be done
