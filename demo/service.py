"""clamgate as a child process."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from local_aws import LocalAws, stop
from runner import DemoError, wait_for

START_SECONDS = 300
STOP_SECONDS = 35


def start_service(clamgate: Path, config: Path, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """`clamgate serve`, in a session of its own: Ctrl-C reaches this script alone."""
    with log.open("wb") as output:
        command = [str(clamgate), "serve", "--config", str(config)]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def wait_until_healthy(
    clamgate: Path, config: Path, environment: dict[str, str], service: subprocess.Popen[bytes]
) -> None:
    """By `clamgate health`, as a container would."""

    def check() -> bool:
        if service.poll() is not None:
            raise DemoError(f"clamgate ended with {service.returncode} before it was ready")
        command = [str(clamgate), "health", "--config", str(config)]
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    wait_for("clamgate to be healthy", START_SECONDS, check)


def show_end(log: Path) -> None:
    """The end of the service's log, for when something is wrong."""
    print("\nthe end of clamgate's log:", file=sys.stderr)
    print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)


class Service:
    """`clamgate serve` with a page's configuration as it stands; what belongs to this machine comes from the environment."""

    def __init__(
        self, stack: ExitStack, clamgate: Path, aws: LocalAws, directory: Path, config: str, settings: dict[str, str]
    ) -> None:
        self.stack = stack
        directory.mkdir()
        (directory / "scratch").mkdir()
        self.clamgate, self.config, self.log = clamgate, directory / "clamgate.toml", directory / "clamgate.log"
        self.config.write_text(config)
        own = {
            "SCAN__SCRATCH_DIR": str(directory / "scratch"),
            "SERVICE__HEALTH_SOCKET": str(directory / "health.sock"),
            "LOG__FORMAT": "json",
        }
        self.environment = aws.environment() | {f"CLAMGATE_{name}": value for name, value in (own | settings).items()}

    def __enter__(self) -> Service:
        self.process = start_service(self.clamgate, self.config, self.log, self.environment)
        self.stack.callback(stop, self.process, STOP_SECONDS)  # for when somebody interrupts the end of this block
        try:
            wait_until_healthy(self.clamgate, self.config, self.environment, self.process)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = stop(self.process, STOP_SECONDS)
        if error is None and code != 0:
            show_end(self.log)
            raise DemoError(f"clamgate ended with {code} on SIGTERM")
        if error is not None and not isinstance(error, KeyboardInterrupt):
            show_end(self.log)
