"""The user waits for the verdict: the three ways of docs/designs/user-waits.md, run as they stand on the page.

Exits with 0 when every file ended as it must, 1 otherwise. Nothing is left running, and no file is left behind but downloaded
definitions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import definitions
import page
import shell
from local_aws import LocalAws, create_queues, exists, free_port, notify
from runner import DemoError, main, wait_for
from samples import EICAR, clean_pdf, encrypted_zip
from service import Service, show_end
from table import lines

PAGE = "designs/user-waits.md"
INTRODUCTION, SENDS, ASKS, POLLS = (
    "The user waits for the verdict",
    "The application sends the file, and stores it only when it is clean",
    "The browser uploads to S3, and the application asks",
    "The browser uploads to S3, and the page polls",
)
BUCKETS = ["uploads", "clean", "quarantine"]
SETTLE_SECONDS = 30
POLL_SECONDS = 60
CURL_REFUSED = 7  # what curl exits with when nobody listens

# What is sent, and what must be said of it.
FILES = {"invoice.pdf": "CLEAN", "eicar.com": "INFECTED", "encrypted.zip": "UNSCANNABLE"}

REFUSED = "Your file may harm others. We did not take it."
SEES = {
    "CLEAN": "Thank you, we have your file.",
    "INFECTED": REFUSED,
    "SUSPICIOUS": REFUSED,
    "UNSCANNABLE": "We cannot look into your file. Is it encrypted?",
}
NOTHING = "nothing"
TRY_AGAIN = "Please try again later."


@dataclass(frozen=True)
class Row:
    """What was expected of one file, and what happened."""

    way: str
    file: str
    expected: str
    found: str
    milliseconds: float | None
    places: list[str]

    def problems(self) -> list[str]:
        """What is wrong."""
        if self.found != self.expected:
            return [f"expected {self.expected}"]
        if self.expected == NOTHING:
            return []
        if self.way == SENDS:  # the application stores what is clean, and the scanner keeps nothing
            expected = ["clean"] if self.expected == "CLEAN" else []
        else:
            expected = ["clean" if self.expected == "CLEAN" else "quarantine"]
        return [] if self.places == expected else [f"expected in {expected}"]


def status_of(answer: str) -> str:
    """The verdict in an answer; what has none says nothing."""
    return json.loads(answer).get("status", NOTHING)


class Demo:
    """The local AWS, and a service for each way."""

    def __init__(self, clamgate: Path, database: Path, scratch: Path, aws: LocalAws, stack: ExitStack) -> None:
        self.clamgate, self.database, self.scratch, self.aws, self.stack = clamgate, database, scratch, aws, stack
        self.s3 = aws.client("s3")
        self.queues = create_queues(aws.client("sqs"))
        for bucket in [*BUCKETS, "results"]:
            self.s3.create_bucket(Bucket=bucket)
            self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def service(self, way: str) -> Service:
        """With the configuration under this heading; only its addresses are this machine's."""
        self.address = f"127.0.0.1:{free_port()}"
        settings = {"DEFINITIONS__DIR": str(self.database)}
        if way == POLLS:
            settings["QUEUE__URL"] = self.queues.uploads
        else:
            settings["HTTP__LISTEN"] = self.address
        directory = self.scratch / f"service-{free_port()}"
        return Service(self.stack, self.clamgate, self.aws, directory, page.block(PAGE, "toml", way), settings)

    def files(self, way: str) -> list[str]:
        """The samples, in a directory for each way: it is a part of the keys."""
        directory = self.scratch / str([SENDS, ASKS, POLLS].index(way) + 1)
        directory.mkdir()
        (directory / "invoice.pdf").write_bytes(clean_pdf())
        (directory / "eicar.com").write_bytes(EICAR)
        (directory / "text").write_bytes(b"Nothing to see here.\n")
        encrypted_zip(directory, directory / "text")
        return [f"{directory.name}/{name}" for name in FILES]

    def shell(self, file: str, *commands: str) -> str:
        """What the page's commands print for this file and this service."""
        here = f"SCANNER=http://{self.address}\nFILE={file}\n"
        script = "\n".join([page.block(PAGE, "sh", INTRODUCTION), here, *commands])
        return shell.run(script, self.scratch, self.aws.environment(), self.clamgate)

    def places(self, key: str) -> list[str]:
        """The buckets that have the key now."""
        return [bucket for bucket in BUCKETS if exists(self.s3, bucket, key)]

    def sends(self, file: str) -> tuple[str, float]:
        """The application sends the file, and stores it only when it is clean."""
        begun = time.time()
        status = status_of(self.shell(file, page.block(PAGE, "sh", SENDS)))
        milliseconds = 1000 * (time.time() - begun)
        if status == "CLEAN":
            self.s3.put_object(Bucket="clean", Key=file, Body=(self.scratch / file).read_bytes())
        return status, milliseconds

    def asks(self, file: str) -> tuple[str, float]:
        """The browser uploads, and the application asks; between the two, the page's commands tell the time."""
        upload, ask = (block.text for block in page.blocks(PAGE, "sh") if block.heading == ASKS)
        uploaded_at, answer = self.shell(file, upload, "date +%s.%N", ask).split("\n", 1)
        return status_of(answer), 1000 * (time.time() - float(uploaded_at))

    def polls(self, file: str) -> tuple[str, float]:
        """The browser uploads, and the page's server polls for the verdict on this upload."""
        verdict = page.function(PAGE, "verdict", POLLS)
        etag = self.s3.put_object(Bucket="uploads", Key=file, Body=(self.scratch / file).read_bytes())["ETag"]
        uploaded_at = time.time()
        report = verdict(self.s3, file, etag, POLL_SECONDS)
        return report["status"] if report else NOTHING, 1000 * (time.time() - uploaded_at)

    def rows(self, way: str, verdict: Callable[[str], tuple[str, float]]) -> list[Row]:
        """Each file once, with a service that has this way's configuration."""
        rows = []
        with self.service(way) as service:
            for file in self.files(way):
                status, milliseconds = verdict(file)
                if status != NOTHING:
                    self.wait_for_removal(file)
                name = Path(file).name
                rows.append(Row(way, name, FILES[name], status, milliseconds, self.places(file)))
        if any(row.problems() for row in rows):
            show_end(service.log)
        return rows

    def wait_for_removal(self, key: str) -> None:
        """A poller can know the verdict before the object has gone from where it was."""
        with suppress(DemoError):  # the places then show it
            wait_for("the removal", SETTLE_SECONDS, lambda: "uploads" not in self.places(key))

    def nobody_answers(self) -> Row:
        """The service of the first way has gone: nothing is called clean then."""
        try:
            found = self.shell("1/invoice.pdf", page.block(PAGE, "sh", SENDS))
        except subprocess.CalledProcessError as error:
            if error.returncode != CURL_REFUSED:
                raise
            found = NOTHING
        return Row(SENDS, "invoice.pdf, with no service", NOTHING, found, None, [])


def a_second_upload_waits_for_its_own_verdict(demo: Demo) -> Row:
    """The key of a clean upload is used again: its old result must not be taken for the new upload's."""
    verdict: Any = page.function(PAGE, "verdict", POLLS)
    etag = demo.s3.put_object(Bucket="uploads", Key="3/invoice.pdf", Body=EICAR)["ETag"]
    report = verdict(demo.s3, "3/invoice.pdf", etag, 1)  # there is no service now, only the old result
    return Row(POLLS, "eicar.com as invoice.pdf", NOTHING, report["status"] if report else NOTHING, None, [])


def print_table(rows: list[Row]) -> int:
    """What was expected and what happened; how many are wrong."""
    cells = [["file", "expected", "verdict", "ms", "where it is", "the user sees", ""]]
    for row in rows:
        milliseconds = "" if row.milliseconds is None else f"{row.milliseconds:.0f}"
        verdict = "WRONG: " + "; ".join(row.problems()) if row.problems() else "ok"
        place = ", ".join(row.places) or "nowhere"
        cells.append([row.file, row.expected, row.found, milliseconds, place, SEES.get(row.found, TRY_AGAIN), verdict])
    head, *written = lines(cells, right=frozenset({3}))
    print(f"\n{head}")
    way = None
    for row, line in zip(rows, written):
        if row.way != way:
            way = row.way
            print(f"\n{way}:")
        print(line)
    wrong = sum(bool(row.problems()) for row in rows)
    print("\nms: from the upload to the verdict, the time that the command itself needs to start included")
    print(f"{len(rows)} rows, {wrong} not as expected")
    return wrong


def run(clamgate: Path, database: Path | None, stack: ExitStack) -> int:
    """All of it. What is started is also put on the stack, which ends it."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clamgate-demo-")))
    database = (database or definitions.find()).resolve()
    aws = LocalAws(scratch)
    stack.callback(aws.stop)
    aws.wait_until_ready()
    demo = Demo(clamgate, database, scratch, aws, stack)
    print(f"running docs/{PAGE}, with a service for each of its three ways ...")
    rows = demo.rows(SENDS, demo.sends)
    rows.append(demo.nobody_answers())
    rows += demo.rows(ASKS, demo.asks)
    notify(demo.s3, "uploads", "uploads")
    rows += demo.rows(POLLS, demo.polls)
    rows.append(a_second_upload_waits_for_its_own_verdict(demo))
    return int(print_table(rows) > 0)


if __name__ == "__main__":
    sys.exit(main(__doc__, run))
