"""What many have in place of clamgate: boto3, the `clamd` client from PyPI, and a clamd that listens on TCP.

One thread receives ten messages at a time; the others each take one, read the object, have clamd scan it (INSTREAM), tag the
object, send the result, delete the message. Started by the benchmark; runs until it is told to end.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import signal
import threading
import traceback
from typing import Any
from urllib.parse import unquote_plus

import boto3
import clamd
from botocore.config import Config


class Consumer:
    """The threads, and what they share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue(arguments.threads)
        self.ended = threading.Event()

    def client(self, service: str) -> Any:
        config = Config(s3={"addressing_style": "path"}, proxies={})
        return boto3.session.Session().client(service, endpoint_url=self.arguments.endpoint, config=config)

    def receive(self) -> None:
        sqs = self.client("sqs")
        while not self.ended.is_set():
            answer = sqs.receive_message(QueueUrl=self.arguments.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                self.waiting.put(message)

    def work(self) -> None:
        s3, sqs = self.client("s3"), self.client("sqs")
        scanner = clamd.ClamdNetworkSocket("127.0.0.1", self.arguments.clamd_port, timeout=600)
        while True:
            message = self.waiting.get()
            for record in json.loads(message["Body"]).get("Records", []):  # none in S3's test event
                bucket, key = record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])
                body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                status, signature = scanner.instream(io.BytesIO(body))["stream"]
                tags = {"TagSet": [{"Key": "scan-status", "Value": status}]}
                s3.put_object_tagging(Bucket=bucket, Key=key, Tagging=tags)
                result = {"bucket": bucket, "key": key, "status": status, "signature": signature}
                sqs.send_message(QueueUrl=self.arguments.results, MessageBody=json.dumps(result))
            sqs.delete_message(QueueUrl=self.arguments.queue, ReceiptHandle=message["ReceiptHandle"])


def end_with(problem: threading.ExceptHookArgs) -> None:
    """A thread that fails ends the process, which the benchmark sees."""
    traceback.print_exception(problem.exc_value)
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint", required=True, help="of S3 and SQS")
    parser.add_argument("--queue", required=True, help="the URL of the queue of notifications")
    parser.add_argument("--results", required=True, help="the URL of the queue of results")
    parser.add_argument("--clamd-port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    consumer = Consumer(parser.parse_args())
    threading.excepthook = end_with
    signal.signal(signal.SIGTERM, lambda *_: consumer.ended.set())
    for target in [consumer.receive] + [consumer.work] * consumer.arguments.threads:
        threading.Thread(target=target, daemon=True).start()
    consumer.ended.wait()


if __name__ == "__main__":
    main()
