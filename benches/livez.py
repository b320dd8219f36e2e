#!/usr/bin/env python3
"""How long /livez takes while every scan thread is busy: `make setup`, then
`python3 benches/livez.py --clamgate target/release/clamgate`.

The load is small uploads that libclamav works on for long; twice as many are under way as there are scan threads.
Each probe opens a connection of its own, as a load balancer's does.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def slow_sample():
    """Clean, small, and libclamav is busy with it for some seconds."""

    def stored(files):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content, packing in files:
                archive.writestr(name, content, packing)
        return out.getvalue()

    inner = stored([("zeros", bytes(32 << 20), zipfile.ZIP_DEFLATED)])
    return stored([(f"{n}.zip", inner, zipfile.ZIP_STORED) for n in range(8)])


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def load(port, sample, stop, scanned):
    while not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/scan", sample)
            report = json.load(connection.getresponse())
            assert report["status"] == "CLEAN", report
            scanned.append(report["timings_ms"]["scan"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clamgate", default="target/release/clamgate")
    parser.add_argument("--db", default=str(ROOT / "tests/data/signatures"))
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()

    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "HTTP__ENABLED": "true",
            "HTTP__LISTEN": f"127.0.0.1:{port}",
            "DEFINITIONS__DIR": arguments.db,
            "DEFINITIONS__MAX_AGE_SECS": "0",
            "SCAN__SCRATCH_DIR": scratch,
            "SCAN__THREADS": str(arguments.threads),
            # The load is one sample, again and again.
            "SCAN__CACHED_VERDICTS": "0",
            "LOG__LEVEL": "warn",
        }
        environment = {"PATH": os.environ["PATH"]} | {f"CLAMGATE_{name}": value for name, value in settings.items()}
        service = subprocess.Popen([arguments.clamgate, "serve"], env=environment)
        stop, scanned, took, busy = threading.Event(), [], [], 0
        clients = []
        try:
            while True:
                with contextlib.suppress(OSError):
                    if get(port, "/readyz")[0] == 200:
                        break
                time.sleep(0.1)
            sample = slow_sample()
            for _ in range(arguments.threads * 2):
                clients.append(threading.Thread(target=load, args=(port, sample, stop, scanned)))
                clients[-1].start()
            time.sleep(1)
            end = time.monotonic() + arguments.seconds
            while time.monotonic() < end:
                began = time.monotonic()
                status, _ = get(port, "/livez")
                took.append((time.monotonic() - began) * 1000)
                assert status == 200
                if len(took) % 50 == 0:
                    line = next(line for line in get(port, "/metrics")[1].decode().splitlines() if line.startswith("clamgate_scans_in_flight "))
                    busy += float(line.split()[1]) >= arguments.threads
                time.sleep(0.005)
        finally:
            stop.set()
            for client in clients:
                client.join()
            service.terminate()
            service.wait()
    took.sort()
    at = lambda share: took[min(len(took) - 1, int(len(took) * share))]
    print(f"{arguments.threads} scan threads on {os.cpu_count()} processors, {len(scanned)} scans of {sum(scanned) / len(scanned) / 1000:.1f} s")
    print(f"all threads were busy at {busy} of {len(took) // 50} looks")
    print(f"/livez, {len(took)} times: median {at(0.5):.1f} ms, 99th percentile {at(0.99):.1f} ms, longest {took[-1]:.1f} ms")


if __name__ == "__main__":
    main()
