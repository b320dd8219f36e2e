"""A quarantine bucket that is emptied in time: docs/designs/quarantine-bucket.md, run as it stands.

Every route to the database at once, and the mails. Exits with 0 when everything is as it must be, 1 otherwise. Nothing is left
running, and no file is left behind but downloaded definitions.
"""

from __future__ import annotations

import json
import sys
import tempfile
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import definitions
import notify
import page
import shell
from application import DATABASE, PAGE, ROUTES, SCANNER, Application, Consumer
from local_aws import LocalAws, create_queues, queue_depth
from local_aws import notify as announce
from postgres import Postgres
from receiver import Receiver
from runner import DemoError, main, wait_for
from samples import EICAR, clean_pdf, encrypted_zip
from service import Service, show_end
from table import lines

BUCKETS = ["uploads", "clean", "infected", "scanner", "results"]
SCAN_SECONDS = 300
TITLE = "A quarantine bucket that is emptied in time"


@dataclass(frozen=True)
class Upload:
    """A file, its uploader, and what must become of it."""

    key: str
    uploader: str
    expected: str
    is_mailed: bool

    @property
    def place(self) -> str:
        """Where it must be in the end."""
        return f"s3://clean/{self.key}" if self.expected == "CLEAN" else f"s3://infected/uploads/{self.key}"


UPLOADS = [
    Upload("here-already.pdf", "a@example.gov.uk", "CLEAN", False),
    Upload("invoice.pdf", "b@example.gov.uk", "CLEAN", False),
    Upload("eicar.com", "c@example.gov.uk", "INFECTED", True),
    Upload("été/naïve résumé.com", "d@example.gov.uk", "INFECTED", True),
    Upload("encrypted.zip", "e@example.gov.uk", "UNSCANNABLE", True),
    Upload("of-a-stranger.com", "f@elsewhere.example", "INFECTED", False),
]


class Demo:
    """The running parts, and what is looked at in the end."""

    def __init__(self, clamgate: Path, aws: LocalAws, postgres: Postgres, scratch: Path) -> None:
        self.clamgate, self.aws, self.scratch = clamgate, aws, scratch
        self.s3, self.sqs = aws.client("s3"), aws.client("sqs")
        self.queues = create_queues(self.sqs)
        for bucket in BUCKETS:
            self.s3.create_bucket(Bucket=bucket)
        # A verdict is then about one upload, and no other: each has its version.
        self.s3.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
        self.config = "\n".join(block.text for block in page.blocks(PAGE, "toml"))
        self.sinks = tomllib.loads(self.config)["report"]["sinks"]
        self.application = Application(postgres, self.sinks["app"]["webhook"]["secret"])
        self.notify = notify.Notify(self.sinks["mail"]["notify"]["api_key"])
        self.problems: list[str] = []
        self.wrong = 0

    def settings(self, url: str, postgres: Postgres, database: Path) -> dict[str, str]:
        """The addresses of this machine, in the place of those on the page."""
        sinks = "REPORT__SINKS"
        return {
            "DEFINITIONS__DIR": str(database),
            "QUEUE__URL": self.queues.uploads,
            f"{sinks}__RESULTS__SQS__QUEUE_URL": self.queues.reports,
            f"{sinks}__APP__WEBHOOK__URL": url + urlsplit(self.sinks["app"]["webhook"]["url"]).path,
            f"{sinks}__MAIL__NOTIFY__BASE_URL": url,
            f"{sinks}__DB__POSTGRES__URL": postgres.url(SCANNER, DATABASE),
            f"{sinks}__DB__POSTGRES__CA_FILE": str(postgres.certificate),
        }

    def require(self, holds: bool, problem: str) -> bool:
        """Note a problem that belongs to no single file."""
        if not holds:
            self.problems.append(problem)
        return holds

    def files(self) -> None:
        """Write what is uploaded."""
        text = self.scratch / "text"
        text.write_bytes(b"Nothing to see here.\n")
        for upload in UPLOADS:
            path = self.scratch / upload.key
            path.parent.mkdir(exist_ok=True)
            if upload.expected == "UNSCANNABLE":
                encrypted_zip(path.parent, text)
            else:
                path.write_bytes(clean_pdf() if upload.expected == "CLEAN" else EICAR)

    def upload(self, number: int, upload: Upload) -> None:
        """By the page's commands; the application notes it."""
        variables, put = (block.text for block in page.blocks(PAGE, "sh") if block.heading == "An upload")
        script = f"{variables}\nFILE='{upload.key}'\nEMAIL='{upload.uploader}'\n{put}"
        version_id, etag = shell.run(script, self.scratch, self.aws.environment(), self.clamgate).split()
        self.application.note(number, "uploads", upload.key, version_id, etag.strip('"'))

    def in_the_services_directory(self, service: Service, heading: str) -> str:
        """What the page's first command under this heading prints there, with the service's configuration."""
        command = next(block.text for block in page.blocks(PAGE, "sh") if block.heading == heading)
        return shell.run(command, service.config.parent, service.environment, self.clamgate)

    def wait_until_idle(self, service: Service, consumer: Consumer) -> None:
        """Every upload dealt with, everybody told, and every report taken."""

        def check() -> bool:
            if service.process.poll() is not None:
                raise DemoError(f"clamgate ended with {service.process.returncode}")
            if not consumer.is_alive():
                raise DemoError(f"a report could not be taken: {consumer.error}")
            return not any(queue_depth(self.sqs, url) for url in (self.queues.uploads, self.queues.reports))

        wait_for("the queues to be empty", SCAN_SECONDS, check)

    def take_files(self) -> None:
        """The reports in the bucket of results, as an application that lists it would take them."""
        for entry in self.s3.list_objects_v2(Bucket="results").get("Contents", []):
            body = self.s3.get_object(Bucket="results", Key=entry["Key"])["Body"].read()
            self.application.take("file", body)

    def by_key(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        """What a page shows, by the upload's key."""
        return {UPLOADS[row["id"]].key: row["status"] for row in rows}

    def places(self) -> dict[str, list[str]]:
        """Where each upload is now, by the last part of its key."""
        found: dict[str, list[str]] = {upload.key: [] for upload in UPLOADS}
        for bucket in ("uploads", "clean", "infected"):
            for entry in self.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
                key = entry["Key"].removeprefix("uploads/" if bucket == "infected" else "")
                found.setdefault(key, []).append(f"s3://{bucket}/{entry['Key']}")
        return found

    def compare_tables(self) -> None:
        """The service's table and those that the application has written: the same rows, by every route."""
        columns = "scan_id, status, bucket, key, version_id, scanned_at, report"
        for route in ROUTES:
            ours, theirs = f"select {columns} from scans", f"select {columns} from clamgate_scans"
            different = f"select distinct key from (({ours} except {theirs}) union ({theirs} except {ours})) different"
            keys = [row["key"] for row in self.application.query(different, route)]
            same = self.require(not keys, f"the table by {route} differs from the service's: {keys}")
            print(f"the table by {route}: {'the same as' if same else 'WRONG: other than'} the service's")

    def take_again(self) -> None:
        """Reports that come twice or late change nothing (the comparison shows it); a verdict takes the place of FAILED."""
        reports = [row["report"] for row in self.application.query("select report from scans", "queue")]
        failed = {"status": "FAILED", "scanned_at": "2999-01-01T00:00:00.000Z"}
        for report in reports:
            for again in (report, report | failed):
                self.application.take("queue", json.dumps(again))
        other = reports[0] | {"scan_id": "failed at first"}
        for report in (other | failed, other):
            self.application.take("queue", json.dumps(report))
        found = self.application.query("select status from scans where scan_id = 'failed at first'", "queue")
        self.require(found == [{"status": other["status"]}], f"a verdict after FAILED: {found}")
        self.application.execute("delete from scans where scan_id = 'failed at first'", "queue")

    def check_mails(self) -> None:
        """That each says what the page's configuration says, and of which scan."""
        config = self.sinks["mail"]["notify"]
        scans = self.application.query("select scan_id, status, key from clamgate_scans")
        references = {f"{scan['scan_id']}-{scan['status']}": scan["key"] for scan in scans}
        for mail in self.notify.mails:
            print(f"mail to {mail['email_address']}: {json.dumps(mail['personalisation'], ensure_ascii=False)}")
            upload = next((upload for upload in UPLOADS if upload.uploader == mail["email_address"]), None)
            if not self.require(upload is not None, f"a mail to nobody of ours: {mail}"):
                continue
            said = {"filename": upload.key.rpartition("/")[2], "status": upload.expected}
            self.require(mail["personalisation"] == said, f"a mail says {mail['personalisation']}, expected {said}")
            self.require(mail["template_id"] == config["template_id"], f"a mail of another template: {mail}")
            self.require(references.get(mail["reference"]) == upload.key, f"a mail refers to another scan: {mail}")

    def rows(self) -> list[list[str]]:
        """For each file: what was expected, what every page shows, who got mail, where it is."""
        pages = [self.by_key(self.application.page_by_the_scanners_table())]
        pages += [self.by_key(self.application.page_by_own_table(route)) for route in ROUTES]
        places, rows = self.places(), []
        for upload in UPLOADS:
            shown = [statuses.get(upload.key, "no row") for statuses in pages]
            mails = sum(mail["email_address"] == upload.uploader for mail in self.notify.mails)
            found = places.pop(upload.key)
            problems = []
            if shown != [upload.expected] * len(shown):
                problems.append(f"expected {upload.expected}")
            if mails != upload.is_mailed:
                problems.append(f"expected {int(upload.is_mailed)} mails")
            if found != [upload.place]:
                problems.append(f"expected at {upload.place}")
            verdict = "WRONG: " + "; ".join(problems) if problems else "ok"
            rows.append([upload.key, upload.expected, *shown, str(mails), ", ".join(found) or "nowhere", verdict])
            self.wrong += bool(problems)
        self.require(not places, f"more than was uploaded: {places}")
        return rows


def run(clamgate: Path, database: Path | None, stack: ExitStack) -> int:
    """All of it. What is started is also put on the stack, which ends it."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clamgate-demo-")))
    database = (database or definitions.find()).resolve()
    aws = LocalAws(scratch)
    stack.callback(aws.stop)
    # Of its own: PostgreSQL refuses to run as root, and must be able to read this one.
    postgres = Postgres(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clamgate-demo-"))))
    stack.callback(postgres.stop)
    postgres.start()
    aws.wait_until_ready()

    demo = Demo(clamgate, aws, postgres, scratch)
    takers = {notify.PATH: demo.notify.take, urlsplit(demo.sinks["app"]["webhook"]["url"]).path: demo.application.take_call}
    receiver = stack.enter_context(Receiver(takers))
    service = Service(stack, clamgate, aws, scratch / "service", demo.config, demo.settings(receiver.url, postgres, database))

    print(f"running docs/{PAGE} ...")
    demo.files()
    demo.upload(0, UPLOADS[0])
    print(demo.in_the_services_directory(service, "What starts a scan").strip() or "enqueued what is there already")
    announce(demo.s3, "uploads", "uploads")
    for number, upload in enumerate(UPLOADS[1:], 1):
        demo.upload(number, upload)
    pending = demo.by_key(demo.application.page_by_own_table("queue"))
    demo.require(pending == {upload.key: "PENDING" for upload in UPLOADS}, f"before the service runs: {pending}")
    policy = json.loads(demo.in_the_services_directory(service, TITLE))
    demo.require(bool(policy["Statement"]), "no IAM policy")

    with service:
        consumer = Consumer(aws, demo.queues.reports, demo.application)
        consumer.start()
        stack.callback(consumer.ended.set)
        demo.wait_until_idle(service, consumer)
    demo.application.read_the_scanners_table()
    demo.take_files()
    demo.take_again()
    rows = demo.rows()
    head = ["upload", "expected", "service writes", *(f"by {route}" for route in ROUTES), "mails", "where it is", ""]
    print()
    print("\n".join(lines([head, *rows])), end="\n\n")
    demo.check_mails()
    demo.compare_tables()
    demo.require(not receiver.refused, f"refused: {receiver.refused}")
    demo.require(not queue_depth(demo.sqs, demo.queues.dead_letters), "there are dead letters")
    for problem in demo.problems:
        print(f"WRONG: {problem}")
    print(f"{len(rows)} rows, {demo.wrong} not as expected")
    if demo.wrong or demo.problems:
        show_end(service.log)
    return int(bool(demo.wrong or demo.problems))


if __name__ == "__main__":
    sys.exit(main(__doc__, run))
