"""S3 and SQS on this machine: ministack as a child process, and the buckets and queues that clamgate needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "us-east-1"
ACCOUNT = "000000000000"


def isolated_environment() -> dict[str, str]:
    """This environment without its AWS account, its clamgate settings and its proxies: nothing here may reach the real ones."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "CLAMGATE_", "RUST_LOG")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Ask the process to end, kill it when it does not within the time; its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class LocalAws:
    """One ministack process that keeps everything in memory. `is_lean`: without its own HTTP server, which is written in Python and
    takes half of the processor time of a call."""

    def __init__(self, scratch: Path, is_lean: bool = False) -> None:
        port = free_port()
        # An IP address, not a name: SDKs then put the bucket in the path, where no DNS is needed.
        self.endpoint = f"http://127.0.0.1:{port}"
        self.log = scratch / "ministack.log"
        environment = isolated_environment() | {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "SERVICES": "s3,sqs",
            "IOT_MTLS_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",  # it would look for containers to clean up
            "TMPDIR": str(scratch),
        }
        uvicorn = f"uvicorn ministack.app:app --http httptools --port {port} --log-level warning"
        # Idle connections as long as ministack itself keeps them; and no waiting for them in the end.
        uvicorn += " --timeout-keep-alive 75 --timeout-graceful-shutdown 1"
        command = [sys.executable, "-m", *(uvicorn.split() if is_lean else ["ministack"])]
        # In a session of its own, so that Ctrl-C reaches the script alone, which then stops its children in order.
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Return when requests are answered."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with opener.open(f"{self.endpoint}/_ministack/ready", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"ministack did not start:\n{self.log.read_text(errors='replace')}")

    def environment(self) -> dict[str, str]:
        """The environment for a program that is to use this AWS."""
        return isolated_environment() | {"AWS_ENDPOINT_URL": self.endpoint}

    def client(self, service: str) -> Any:
        """A boto3 client. One per thread."""
        os.environ.pop("AWS_PROFILE", None)  # a profile that does not exist here is an error in boto3
        return boto3.session.Session("demo", "demo", region_name=REGION).client(
            service, endpoint_url=self.endpoint, config=Config(s3={"addressing_style": "path"}, proxies={})
        )

    def stop(self) -> None:
        """End the process."""
        stop(self.process, 10)


@dataclass(frozen=True)
class Queues:
    """Queue URLs."""

    uploads: str
    dead_letters: str
    reports: str


def exists(s3: Any, bucket: str, key: str) -> bool:
    """Whether the bucket has the key now."""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return False
    return True


def create_queues(sqs: Any) -> Queues:
    """The queue of notifications with its dead-letter queue, and the queue of reports."""

    def create(name: str, **attributes: str) -> str:
        return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    dead_letters = create("uploads-dead-letters")
    redrive = {"deadLetterTargetArn": queue_arn("uploads-dead-letters"), "maxReceiveCount": 5}
    return Queues(
        uploads=create("uploads", VisibilityTimeout="60", RedrivePolicy=json.dumps(redrive)),
        dead_letters=dead_letters,
        reports=create("reports"),
    )


def queue_arn(name: str) -> str:
    """The name by which S3 and the redrive policy know a queue."""
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def notify(s3: Any, bucket: str, queue: str) -> None:
    """Have the bucket announce every new object on the queue."""
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": queue_arn(queue), "Events": ["s3:ObjectCreated:*"]}]
        },
    )


def queue_depth(sqs: Any, url: str) -> int:
    """Messages in the queue, those that someone works on included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def messages_in_flight(sqs: Any, url: str) -> int:
    """Messages that someone works on."""
    name = "ApproximateNumberOfMessagesNotVisible"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])
