"""Debian's PostgreSQL, in a directory of the demo's own."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from local_aws import free_port, isolated_environment, stop
from runner import DemoError, wait_for

PROGRAMS = Path("/usr/lib/postgresql")
START_SECONDS = 60


class Postgres:
    """A server on the loopback address, with a certificate for `localhost` that it has signed itself."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port, self.password = directory, free_port(), secrets.token_hex(16)
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the server, and return when it answers."""
        password, data = self.directory / "password", self.directory / "data"
        password.write_text(self.password)
        self.certify()
        for path in (self.directory, self.key, self.certificate, password):
            give_away(path)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", f"--pwfile={password}"]
        self.check(*program("initdb"), "-U", "postgres", *options, "-D", data)
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "ssl=on"]
        settings += [f"ssl_cert_file={self.certificate}", f"ssl_key_file={self.key}"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [*program("postgres"), "-D", data, "-k", self.directory, "-p", str(self.port), *options]
        with (self.directory / "log").open("wb") as log:
            # In a session of its own, as everything that the demo starts: Ctrl-C reaches the script alone.
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=isolated_environment(), stdout=log, stderr=log, start_new_session=True
            )
        wait_for("PostgreSQL", START_SECONDS, self.answers)

    def answers(self) -> bool:
        """Whether it does, yet."""
        if self.process.poll() is not None:
            raise DemoError(f"PostgreSQL did not start:\n{(self.directory / 'log').read_text(errors='replace')}")
        try:
            return self.query("postgres", "postgres", "select true as ready") == [{"ready": True}]
        except DemoError:
            return False

    def certify(self) -> None:
        """A key, and a certificate for `localhost` that it has signed itself."""
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        kind = ["-addext", "basicConstraints=critical,CA:FALSE", "-days", "2", "-newkey", "rsa:2048", "-nodes"]
        self.check("openssl", "req", "-x509", *kind, *names, "-keyout", self.key, "-out", self.certificate)
        self.key.chmod(0o600)

    def check(self, *command: str | Path) -> None:
        """Run a program that must succeed."""
        where = {"cwd": self.directory, "env": isolated_environment(), "start_new_session": True}
        subprocess.run(command, **where, check=True, capture_output=True, text=True, timeout=START_SECONDS)

    def url(self, user: str, database: str) -> str:
        """For an account. All have the same password."""
        return f"postgres://{quote(user)}:{self.password}@localhost:{self.port}/{quote(database)}"

    def execute(self, user: str, database: str, sql: str, path: str = "public", **values: str) -> str:
        """Run statements, with `:'name'` for a value; what they print. The path is that of the schemas."""
        environment = isolated_environment()
        environment = {name: value for name, value in environment.items() if not name.startswith("PG")} | {
            "PGHOST": "localhost",
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self.certificate),
            "PGOPTIONS": f"-c search_path={path}",
            "PGCLIENTENCODING": "UTF8",
        }
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        for name, value in values.items():
            command += ["-v", f"{name}={value}"]
        done = subprocess.run(command, input=sql, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise DemoError(f"{sql}\n{done.stderr}")
        return done.stdout

    def query(self, user: str, database: str, sql: str, path: str = "public") -> list[dict[str, Any]]:
        """The rows of a query."""
        rows = f"select coalesce(json_agg(found), '[]') from ({sql.strip().rstrip(';')}) found"
        return json.loads(self.execute(user, database, rows, path))

    def stop(self) -> None:
        """End it, whoever is connected."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            stop(self.process, 10)


def program(name: str) -> list[str]:
    """A program of PostgreSQL's, which refuses to run as root."""
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"))
    if not found:
        raise DemoError(f"there is no {name} in {PROGRAMS}: run `make setup`")
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return [*other, str(found[-1])]


def give_away(path: Path) -> None:
    """To the account that PostgreSQL runs as."""
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(path, account.pw_uid, account.pw_gid)
