#!/usr/bin/env python3
"""What ten thousand silent clients and bodies of 10 GB cost: `make setup`, then
`python3 benches/crowd.py --clamgate target/release/clamgate`.

Half of the clients connect to the HTTP API, half to clamd's protocol. While they are there, a client of each asks for a scan, and
health is looked at. Then a body of 10 GB is sent to each, in pieces, with the limit as it is by default. What is printed is the service's
resident memory, above what it had at rest.
"""

import argparse
import contextlib
import http.client
import os
import pathlib
import resource
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PIECE = bytes(1 << 20)


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def http_get(port, path):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def http_scan(port):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/v1/scan", b"hello world")
        return connection.getresponse().status


def clamd(port, request):
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=60)) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def clamd_scan(port):
    return clamd(port, b"zINSTREAM\0" + struct.pack(">I", 11) + b"hello world" + struct.pack(">I", 0))


def resident(pid, name="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(name)


def answer_in_the_middle(connection):
    """What has come so far, if anything, without waiting."""
    connection.setblocking(False)
    try:
        return connection.recv(4096)
    except BlockingIOError:
        return b""
    finally:
        connection.settimeout(60)


def send_body(port, head, piece, pieces):
    """Sends until the service answers or closes; how much it took, and the answer's first line."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=60)) as connection:
        connection.sendall(head)
        sent, answer = 0, b""
        with contextlib.suppress(OSError):
            while sent < pieces and not answer:
                connection.sendall(piece)
                sent += 1
                answer = answer_in_the_middle(connection)
        with contextlib.suppress(OSError):
            answer = answer or connection.recv(4096)
        return sent, answer.split(b"\r\n")[0].decode(errors="replace").strip("\0")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clamgate", default="target/release/clamgate")
    parser.add_argument("--db", default=str(ROOT / "tests/data/signatures"))
    parser.add_argument("--clients", type=int, default=10_000)
    arguments = parser.parse_args()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    api, health, stream = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "HTTP__ENABLED": "true",
            "HTTP__LISTEN": f"127.0.0.1:{api}",
            "HTTP__HEALTH_LISTEN": f"127.0.0.1:{health}",
            "CLAMD__LISTEN": f"127.0.0.1:{stream}",
            "DEFINITIONS__DIR": arguments.db,
            "SCAN__SCRATCH_DIR": scratch,
            "LOG__LEVEL": "error",
        }
        environment = {"PATH": os.environ["PATH"]} | {f"CLAMGATE_{name}": value for name, value in settings.items()}
        service = subprocess.Popen([arguments.clamgate, "serve"], env=environment)
        try:
            for probe in (lambda: http_get(health, "/readyz")[0] == 200, lambda: clamd(stream, b"PING") == b"PONG\n"):
                while True:
                    with contextlib.suppress(OSError):
                        if probe():
                            break
                    time.sleep(0.1)
            http_scan(api)
            clamd_scan(stream)
            at_rest = resident(service.pid)
            print(f"at rest: {at_rest:.0f} MiB")

            crowd, refused = [], 0
            for n in range(arguments.clients):
                connection = socket.socket()
                connection.setblocking(False)
                error = connection.connect_ex(("127.0.0.1", api if n % 2 else stream))
                crowd.append(connection)
                refused += error not in (0, 115)
                if n % 500 == 499:
                    time.sleep(0.2)
            began = time.monotonic()
            alive = http_get(health, "/livez")[0]
            took = time.monotonic() - began
            began = time.monotonic()
            scans = f"clamd says {clamd_scan(stream)!r} after {time.monotonic() - began:.1f} s"
            began = time.monotonic()
            status = None
            while status != 200 and time.monotonic() - began < 120:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status = http_scan(api)
            scans += f", HTTP {status} after {time.monotonic() - began:.1f} s"
            print(f"{len(crowd)} silent clients, {refused} not taken by the system: {resident(service.pid) - at_rest:+.0f} MiB")
            print(f"meanwhile: /livez {alive} in {took * 1000:.0f} ms; a scan: {scans}")
            for connection in crowd:
                connection.close()

            chunk = b"%x\r\n" % len(PIECE) + PIECE + b"\r\n"
            head = b"POST /v1/scan HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            sent, answer = send_body(api, head, chunk, 10_240)
            print(f"10 GB over HTTP: {answer!r} after {sent} MiB")
            sent, answer = send_body(stream, b"zINSTREAM\0", struct.pack(">I", len(PIECE)) + PIECE, 10_240)
            print(f"10 GB over clamd's protocol: {answer!r} after {sent} MiB")
            print(f"the most that the service ever had: {resident(service.pid, 'VmHWM') - at_rest:+.0f} MiB")
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    main()
