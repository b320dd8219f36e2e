"""The application of docs/designs/quarantine-bucket.md: it notes uploads, takes reports, and shows a page."""

from __future__ import annotations

import json
import threading
from email.message import Message
from typing import Any

import page
from local_aws import LocalAws
from postgres import Postgres
from receiver import Refused

PAGE = "designs/quarantine-bucket.md"
DATABASE, ACCOUNT, SCANNER = "app", "app", "clamgate"

# The routes by which the application learns of verdicts, each with a table of its own, to be compared.
ROUTES = ["queue", "call", "file"]


def without_nul(value: Any) -> Any:
    """A report as jsonb can hold it: names in S3 can have the character NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    if isinstance(value, dict):
        return {without_nul(name): without_nul(item) for name, item in value.items()}
    return value


class Application:
    """With the SQL of the pages, in a database where the scanner may write its own table, and no other."""

    def __init__(self, postgres: Postgres, webhook_secret: str) -> None:
        self.postgres, self.webhook_secret = postgres, webhook_secret.encode()
        self.is_genuine = page.function("ways-out/webhook.md", "is_genuine")
        for account in (ACCOUNT, SCANNER):
            role = f"create role {account} login password :'password'"
            postgres.execute("postgres", "postgres", role, password=postgres.password)
        postgres.execute("postgres", "postgres", f"create database {DATABASE} owner {ACCOUNT}")
        self.execute(page.block("ways-out/postgres.md", "sql migrate"))
        self.execute(page.block("ways-out/postgres.md", "sql application"))
        for route in ROUTES:
            self.execute(f"create schema {route}")
            self.execute(page.block(PAGE, "sql table"), route)

    def execute(self, sql: str, route: str | None = None, **values: str) -> None:
        """Run statements, where the table of this route is."""
        self.postgres.execute(ACCOUNT, DATABASE, sql, f"{route},public" if route else "public", **values)

    def query(self, sql: str, route: str | None = None) -> list[dict[str, Any]]:
        """The rows of a query."""
        return self.postgres.query(ACCOUNT, DATABASE, sql, f"{route},public" if route else "public")

    def read_the_scanners_table(self) -> None:
        """Be allowed to, by the scanner, who has made it."""
        self.postgres.execute(SCANNER, DATABASE, page.block("ways-out/postgres.md", "sql reader"))

    def note(self, number: int, bucket: str, key: str, version_id: str, etag: str) -> None:
        """An upload."""
        sql = "insert into uploads values (:number, :'bucket', :'key', :'version_id', :'etag')"
        self.execute(sql, number=str(number), bucket=bucket, key=key, version_id=version_id, etag=etag)

    def take(self, route: str, report: bytes | str) -> None:
        """A report, for the first or for another time."""
        text = json.dumps(without_nul(json.loads(report)))
        self.execute(f"prepare take (jsonb) as {page.block(PAGE, 'sql take')} execute take (:'report');", route, report=text)

    def take_call(self, headers: Message, body: bytes) -> None:
        """A webhook's request."""
        given = (headers.get("x-clamgate-timestamp") or "", headers.get("x-clamgate-signature") or "")
        if not self.is_genuine(self.webhook_secret, *given, body):
            raise Refused("it is not the scanner who calls")
        self.take("call", body)

    def page_by_own_table(self, route: str) -> list[dict[str, Any]]:
        """What the web page shows, when the application writes."""
        return self.query(page.block(PAGE, "sql show"), route)

    def page_by_the_scanners_table(self) -> list[dict[str, Any]]:
        """The same, when the service writes."""
        return self.query(page.block("ways-out/postgres.md", "sql join"))


class Consumer(threading.Thread):
    """Takes reports from the queue of results; a message is deleted when its report is in the database."""

    def __init__(self, aws: LocalAws, url: str, application: Application) -> None:
        super().__init__(daemon=True)
        self.sqs, self.url, self.application = aws.client("sqs"), url, application
        self.ended = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                for message in answer.get("Messages", []):
                    self.application.take("queue", message["Body"])
                    self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        except Exception as error:  # the local AWS has gone, or whoever waits for the queue shows it
            self.error = error
