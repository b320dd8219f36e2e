"""The sample set: what is uploaded, and what must become of it."""

from __future__ import annotations

import gzip
import io
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

UPLOADS = "uploads"
VERSIONED = "uploads-versioned"
CLEAN = "clean"
QUARANTINE = "quarantine"

TEST_FILES = Path("/usr/share/clamav-testfiles")
MIB = 1024 * 1024

# The harmless test virus, in two pieces so that scanners leave this file alone.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}" + rb"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


INSTALL_SHIELD = ("clam_IScab_ext.exe", "clam_IScab_int.exe", "clam_ISmsi_ext.exe")


@dataclass(frozen=True)
class Sample:
    """One upload."""

    key: str
    path: Path
    status: str
    reason: str | None = None
    bucket: str = UPLOADS
    # Whether it carries metadata and a tag of the uploader's, which must arrive with it.
    labelled: bool = False

    @property
    def place(self) -> str:
        """The bucket where it must end up."""
        return CLEAN if self.status == "CLEAN" else QUARANTINE


def build(directory: Path) -> list[Sample]:
    """Write the files, and list them with what is expected of each."""
    directory.mkdir()

    def file(name: str, data: bytes) -> Path:
        path = directory / name
        path.write_bytes(data)
        return path

    text = file("text", b"Nothing to see here.\n")
    eicar = file("eicar", EICAR)
    pdf = file("pdf", clean_pdf())
    samples = [
        Sample("eicar.com", eicar, "INFECTED"),
        Sample("eicar-in-zip.tar.gz", file("nested", eicar_in_zip_in_tar_gz()), "INFECTED"),
        Sample("report.pdf", pdf, "CLEAN", labelled=True),
        Sample("picture.png", file("png", clean_png()), "CLEAN"),
        Sample("encrypted.zip", encrypted_zip(directory, text), "UNSCANNABLE", "ENCRYPTED"),
        Sample("empty", file("empty", b""), "CLEAN"),
        Sample("a key with  spaces.txt", text, "CLEAN"),
        Sample("plus+and space/eicar+1.com", eicar, "INFECTED"),
        Sample("100% sure %20%2B.txt", text, "CLEAN"),
        Sample("été/naïve résumé.com", eicar, "INFECTED"),
        Sample(longest_key(), text, "CLEAN"),
        Sample("versioned/eicar.com", eicar, "INFECTED", bucket=VERSIONED),
        Sample("versioned/report.pdf", pdf, "CLEAN", bucket=VERSIONED, labelled=True),
    ]
    for path in sorted(TEST_FILES.iterdir()):
        # One of them also nests deeper than the limit: infected all the same, and the report says both.
        # libclamav does not unpack all parts of InstallShield's installers.
        reasons = {"clam_cache_emax.tgz": "LIMIT_EXCEEDED"} | dict.fromkeys(INSTALL_SHIELD, "UNSUPPORTED")
        reason = reasons.get(path.name)
        samples.append(Sample(f"clamav-testfiles/{path.name}", path, "INFECTED", reason))
    samples.append(Sample("150 MB.bin", large_file(directory / "large"), "CLEAN"))
    return samples


def eicar_in_zip_in_tar_gz() -> bytes:
    """Three layers around EICAR."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("eicar.com", EICAR)
    with tarfile.open(fileobj=outer, mode="w:gz") as archive:
        member = tarfile.TarInfo("inner.zip")
        member.size = inner.tell()
        inner.seek(0)
        archive.addfile(member, inner)
    return outer.getvalue()


def encrypted_zip(directory: Path, member: Path) -> Path:
    """By the zip program: Python's own module cannot encrypt."""
    path = directory / "encrypted.zip"
    subprocess.run(["zip", "-q", "-j", "-P", "secret", path, member], check=True)
    return path


def clean_pdf() -> bytes:
    """One page with one line of text."""
    content = b"BT /F1 24 Tf 72 720 Td (Nothing to see here.) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    pdf = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(pdf))
        pdf += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(pdf)
    pdf += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    pdf += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    pdf += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(pdf)


def clean_png() -> bytes:
    """A small colour gradient."""
    width = height = 64
    rows = b"".join(b"\0" + b"".join(bytes((4 * x, 4 * y, 128)) for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def longest_key() -> str:
    """1,024 bytes of UTF-8, S3's bound, most of them in two-byte letters."""
    key = "long/" + "é" * 509 + "x"
    assert len(key.encode()) == 1024
    return key


def large_file(path: Path) -> Path:
    """150 MB, half of it random: large enough for the disk, and not all the same."""
    rng = random.Random(150)
    blocks = [rng.randbytes(MIB // 2) + bytes(MIB // 2) for _ in range(8)]
    with path.open("wb") as file:
        for number in range(150):
            file.write(blocks[number % len(blocks)])
    return path


def slow_file(path: Path) -> Path:
    """Uploaded and fetched in no time, yet seconds of scanning: 300 MB of text, compressed to 16."""
    lines = b"".join(b"%08d the quick brown fox jumps over the lazy dog\n" % number for number in range(20_000))
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(300 * MIB // len(lines)):
            file.write(lines)
    return path
