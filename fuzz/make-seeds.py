#!/usr/bin/env python3
"""Writes seeds/: small real containers of many kinds, examples of each message that can be on the queue, and conversations of
clamd's clients.

Python's standard library is enough, and the files are the same every time. The names of the engine's seeds say what becomes of
them with tests/data/signatures: `infected-…` holds EICAR, `clean-…` is harmless, `unscannable-…` cannot be read to its end.
"""

import base64
import binascii
import bz2
import gzip
import io
import json
import lzma
import pathlib
import shutil
import struct
import tarfile
import urllib.parse
import zipfile
import zlib

# In two parts, so that no scanner takes this script for it.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD" + b"-ANTIVIRUS-TEST-FILE!$H+H*"
TEXT = b"Harmless text of a small file, long enough to be scanned.\n"
SEEDS = pathlib.Path(__file__).parent / "seeds"


def main():
    for target, seeds in (("engine", engine()), ("event", events()), ("clamd", clamd())):
        directory = SEEDS / target
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for name, content in seeds.items():
            assert len(content) < 10_000, name
            (directory / name).write_bytes(content)


def engine():
    inner = zipped({"eicar.com": EICAR})
    mail = email({"eicar.com": EICAR})
    return {
        "infected-plain": EICAR,
        "clean-plain": TEXT,
        "clean-five-bytes": b"short",
        "infected-stored.zip": zipped({"a.txt": TEXT, "eicar.com": EICAR}, zipfile.ZIP_STORED),
        "infected-deflated.zip": zipped({"a.txt": TEXT, "eicar.com": EICAR}),
        "infected-bzip2.zip": zipped({"eicar.com": EICAR}, zipfile.ZIP_BZIP2),
        "unscannable-lzma.zip": zipped({"eicar.com": EICAR}, zipfile.ZIP_LZMA),
        "unscannable-encrypted.zip": encrypted_zip(),
        "infected-nested.zip": zipped({"a/in.zip": inner, "b.gz": gzip.compress(TEXT, mtime=0)}),
        "infected-self-extracting.zip": b"#!/bin/sh\nexec unzip $0\n" + inner,
        "infected-comment.zip": zipped({"eicar.com": EICAR}, comment=b"a comment"),
        "clean-empty.zip": zipped({}),
        "infected-docx": ooxml(),
        "clean-odt": zipped({"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": b"<?xml version='1.0'?><a/>"}),
        "infected-gz": gzip.compress(EICAR, mtime=0),
        "infected-two-streams.gz": gzip.compress(EICAR[:30], mtime=0) + gzip.compress(EICAR[30:], mtime=0),
        "infected-bz2": bz2.compress(EICAR),
        "unscannable-two-streams.bz2": bz2.compress(EICAR[:30]) + bz2.compress(EICAR[30:]),
        "infected-xz": lzma.compress(EICAR),
        "infected-ustar.tar": tar({"a.txt": TEXT, "eicar.com": EICAR}, tarfile.USTAR_FORMAT),
        "infected-pax.tar": tar({"é" * 90: EICAR}, tarfile.PAX_FORMAT),
        "infected-tar.gz": gzip.compress(tar({"eicar.zip": inner}, tarfile.GNU_FORMAT), mtime=0),
        "infected-newc.cpio": cpio({"a.txt": TEXT, "eicar.com": EICAR}),
        "infected-copy.7z": seven_zip(EICAR, b"\x00", EICAR),
        "infected-lzma2.7z": seven_zip(EICAR, b"\x21", lzma.compress(EICAR, lzma.FORMAT_RAW, filters=LZMA2), b"\x10"),
        "infected-stored.cab": cab(EICAR, 0),
        "infected-mszip.cab": cab(EICAR, 1),
        "infected-stored.arj": arj(EICAR),
        "infected-stored.lzh": lzh(EICAR),
        "unscannable-stored.rar": rar(EICAR),
        "infected-xar": xar(EICAR),
        "infected-szdd": szdd(EICAR),
        "clean-swf": b"CWS\x0a" + struct.pack("<I", 8 + len(TEXT)) + zlib.compress(TEXT),
        "infected-mail": mail,
        "infected-forwarded-mail": email({"forwarded.eml": mail}, "message/rfc822"),
        "infected-uuencoded-mail": uuencoded(EICAR),
        "infected-html": html(EICAR),
        "clean-script.html": html(TEXT) + b"<script>document.write(unescape('%68%65%6c%6c%6f'))</script>",
        "infected-pdf": pdf(EICAR),
        "infected-encrypted.pdf": pdf(EICAR, b"/Encrypt << /Filter /Standard /V 4 /R 4 /Length 128 /P -44 /O <00> /U <00> >>"),
        "infected-rtf": rtf(EICAR),
        "clean-ole2.doc": ole2("WordDocument", TEXT * 80),
        "infected-ole10native.doc": ole2("\x01Ole10Native", ole10_native(EICAR)),
        "unscannable-encrypted.docx": ole2("EncryptedPackage", TEXT * 80),
        "clean-png": png(),
        "clean-gif": b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "clean-exe": pe(),
        "infected-appended.exe": pe() + inner,
        "clean-elf": b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 0x7A, 0x7A, 0x1000) + b"\xeb\xfe",
        "infected-partition.img": partition(EICAR),
    }


def zipped(files, method=zipfile.ZIP_DEFLATED, comment=b""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def encrypted_zip():
    """The flag is enough: nobody has the password."""
    content = bytearray(zipped({"salaries.txt": TEXT}))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + flags] |= 1
    return bytes(content)


def ooxml():
    return zipped({
        "[Content_Types].xml": b"<?xml version='1.0'?><Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'>"
        b"<Override PartName='/word/document.xml' ContentType='application/vnd.openxmlformats-officedocument.wordprocessingml."
        b"document.main+xml'/></Types>",
        "word/document.xml": b"<?xml version='1.0'?><w:document/>",
        "word/embeddings/oleObject1.bin": EICAR,
    })


def tar(files, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    # Without the padding to ten kilobytes.
    return out.getvalue().rstrip(b"\0") + bytes(1024 + 512)


def cpio(files):
    out = b""
    for name, content in [*files.items(), ("TRAILER!!!", b"")]:
        name = name.encode() + b"\0"
        fields = (1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return out


LZMA2 = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]


def seven_zip(content, method, packed, properties=b""):
    name = "eicar.com\0".encode("utf-16-le")
    coder = bytes([len(method) | (0x20 if properties else 0)]) + method
    if properties:
        coder += bytes([len(properties)]) + properties
    header = b"\x01\x04\x06\x00\x01\x09" + bytes([len(packed)]) + b"\x00"
    header += b"\x07\x0b\x01\x00\x01" + coder + b"\x0c" + bytes([len(content)]) + b"\x00"
    header += b"\x08\x0a\x01" + struct.pack("<I", zlib.crc32(content)) + b"\x00\x00"
    header += b"\x05\x01\x11" + bytes([len(name) + 1]) + b"\x00" + name + b"\x00\x00"
    start = struct.pack("<QQI", len(packed), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start + packed + header


def cab(content, compression):
    if compression:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = b"CK" + deflate.compress(content) + deflate.flush()
    else:
        data = content
    file = struct.pack("<IIHHHH", len(content), 0, 0, 0x21, 0, 0x20) + b"eicar.com\0"
    at = 36 + 8 + len(file)
    head = struct.pack("<4sIIIIIBBHHHHH", b"MSCF", 0, at + 8 + len(data), 0, 44, 0, 3, 1, 1, 1, 0, 0, 0)
    return head + struct.pack("<IHH", at, 1, compression) + file + struct.pack("<IHH", 0, len(data), len(content)) + data


def arj(content):
    def header(kind, name, size, crc):
        body = struct.pack("<BBBBBBBBIIIIHHH", 30, 11, 1, 0, 0, 0, kind, 0, 0, size, size, crc, 0, 0x20, 0) + name + b"\0\0"
        return b"\x60\xea" + struct.pack("<H", len(body)) + body + struct.pack("<I", zlib.crc32(body)) + b"\0\0"

    return header(2, b"e.arj", 0, 0) + header(0, b"eicar.com", len(content), zlib.crc32(content)) + content + b"\x60\xea\0\0"


def lzh(content):
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    name = b"eicar.com"
    body = b"-lh0-" + struct.pack("<IIIBBB", len(content), len(content), 0x21 << 16, 0x20, 0, len(name)) + name
    body += struct.pack("<H", crc)
    return bytes([len(body), sum(body) & 0xFF]) + body + content + b"\0"


def rar(content):
    def block(body):
        return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body

    name = b"eicar.com"
    size = len(content)
    file = struct.pack("<BHHIIBIIBBHI", 0x74, 0x8000, 32 + len(name), size, size, 2, zlib.crc32(content), 0x21 << 16, 29, 0x30,
                       len(name), 0x20) + name
    return b"Rar!\x1a\x07\0" + block(struct.pack("<BHHHI", 0x73, 0, 13, 0, 0)) + block(file) + content + block(b"\x7b\0\x40\7\0")


def xar(content):
    data = zlib.compress(content)
    toc = zlib.compress(plain := (
        b"<?xml version='1.0' encoding='UTF-8'?><xar><toc><checksum style='none'><offset>0</offset><size>0</size></checksum>"
        b"<file id='1'><name>eicar.com</name><type>file</type><data><length>%d</length><offset>0</offset><size>%d</size>"
        b"<encoding style='application/x-gzip'/></data></file></toc></xar>" % (len(data), len(content))))
    return struct.pack(">4sHHQQI", b"xar!", 28, 1, len(toc), len(plain), 0) + toc + data


def szdd(content):
    literals = b"".join(b"\xff" + content[at:at + 8] for at in range(0, len(content), 8))
    return b"SZDD\x88\xf0\x27\x33A\0" + struct.pack("<I", len(content)) + literals


def email(files, kind="application/octet-stream"):
    lines = ["From: a@example.com", "To: b@example.com", "Subject: files", "MIME-Version: 1.0",
             "Content-Type: multipart/mixed; boundary=edge", "", "--edge", "Content-Type: text/plain", "", "See the files.", ""]
    for name, content in files.items():
        nested = kind == "message/rfc822"
        lines += ["--edge", f"Content-Type: {kind}; name={name}", f"Content-Disposition: attachment; filename={name}",
                  f"Content-Transfer-Encoding: {'8bit' if nested else 'base64'}", "",
                  content.decode() if nested else base64.encodebytes(content).decode()]
    return "\r\n".join([*lines, "--edge--", ""]).encode()


def uuencoded(content):
    lines = [binascii.b2a_uu(content[at:at + 45]) for at in range(0, len(content), 45)]
    return b"From: a@example.com\nTo: b@example.com\nSubject: a file\n\nbegin 644 eicar.com\n" + b"".join(lines) + b"`\nend\n"


def html(content):
    return b"<html><body><p>A page</p><img src=\"data:application/octet-stream;base64,%s\"></body></html>" % base64.b64encode(content)


def pdf(content, trailer=b""):
    stream = zlib.compress(content)
    return (b"%%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Names << /EmbeddedFiles << /Names [(eicar.com) 2 0 R] >> >> >>\nendobj\n"
            b"2 0 obj\n<< /Type /Filespec /F (eicar.com) /EF << /F 3 0 R >> >>\nendobj\n"
            b"3 0 obj\n<< /Type /EmbeddedFile /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream\nendobj\n"
            b"trailer\n<< /Root 1 0 R /Size 4 %s >>\nstartxref\n0\n%%%%EOF\n" % (len(stream), stream, trailer))


def ole10_native(content):
    body = struct.pack("<H", 2) + b"eicar.com\0C:\\eicar.com\0" + struct.pack("<HHI", 0, 3, 13) + b"C:\\eicar.com\0"
    body += struct.pack("<I", len(content)) + content
    return struct.pack("<I", len(body)) + body


def rtf(content):
    native = ole10_native(content)[4:]
    name = b"Package\0"
    data = struct.pack("<III", 0x501, 2, len(name)) + name + struct.pack("<III", 0, 0, len(native)) + native
    return b"{\\rtf1\\ansi A document{\\object\\objemb{\\*\\objclass Package}{\\*\\objdata " + binascii.hexlify(data) + b"}}}"


def ole2(name, content):
    """A compound file with one stream, in sectors of 512 bytes; what is below 4,096 bytes is in the small ones."""
    small = len(content) < 4096
    sectors = -(-len(content) // 512)
    chain = [index + 1 for index in range(sectors - 1)] + [-2]
    fat = [-3, -2, *([2 + next_ if next_ >= 0 else -2 for next_ in chain])]
    blocks = -(-len(content) // 64)
    if small:
        fat.append(-2)
    entry = lambda name, kind, child, start, size: (
        (name + "\0").encode("utf-16-le").ljust(64, b"\0")
        + struct.pack("<HBBiii", 2 * len(name) + 2, kind, 1, -1, -1, child) + bytes(36) + struct.pack("<iQ", start, size))
    directory = entry("Root Entry", 5, 1, 2 if small else -2, blocks * 64 if small else 0)
    directory += entry(name, 2, -1, 0 if small else 2, len(content)) + bytes(256)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack(
        "<HHHHHHIIIiIIiIiI", 0x3E, 3, 0xFFFE, 9, 6, 0, 0, 0, 1, 1, 0, 4096, 2 + sectors if small else -2, int(small), -2, 0)
    header += struct.pack("<109i", 0, *[-1] * 108)
    out = header + struct.pack("<128i", *fat, *[-1] * (128 - len(fat))) + directory + content.ljust(sectors * 512, b"\0")
    if small:
        small_fat = [*range(1, blocks), -2]
        out += struct.pack("<128i", *small_fat, *[-1] * (128 - len(small_fat)))
    return out


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b""))


def pe():
    """A program of one section that returns at once."""
    optional = struct.pack("<HBBIIIIII", 0x10B, 14, 0, 512, 0, 0, 0x1000, 0x1000, 0x2000)
    optional += struct.pack("<IIIHHHHHHIIIIHHIIIIII", 0x400000, 0x1000, 512, 5, 1, 0, 0, 5, 1, 0, 0x2000, 512, 0, 3, 0,
                            0x100000, 0x1000, 0x100000, 0x1000, 0, 16) + bytes(128)
    section = b".text\0\0\0" + struct.pack("<IIIIIIHHI", 1, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    head = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<HHIIIHH", 0x14C, 1, 0, 0, 0, len(optional), 0x102)
    return (head + optional + section).ljust(512, b"\0") + b"\xc3".ljust(512, b"\0")


def partition(content):
    """A disk with a boot record and one partition of one sector, which is a zip."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\0\1\0", 0x0C, b"\0\1\0", 1, 1)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa" + zipped({"eicar.com": content}).ljust(512, b"\0")


def events():
    def entry(name, key, event="ObjectCreated:Put", **more):
        item = {"key": urllib.parse.quote_plus(key, safe="/"), "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "sequencer": "0055AED6DCD90281E5", **more}
        return {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
                "eventTime": "2026-01-01T00:00:00.000Z", "eventName": event, "userIdentity": {"principalId": "AIDA"},
                "requestParameters": {"sourceIPAddress": "192.0.2.1"}, "responseElements": {"x-amz-request-id": "C3D1"},
                "s3": {"s3SchemaVersion": "1.0", "configurationId": "c", "bucket": {
                    "name": name, "ownerIdentity": {"principalId": "A3NL"}, "arn": f"arn:aws:s3:::{name}"}, "object": item}}

    def body(*records):
        return json.dumps({"Records": records}).encode()

    def wrapped(message):
        return json.dumps({"Type": "Notification", "Message": message.decode()}).encode()

    def bridged(kind, item, **more):
        return json.dumps({"source": "aws.s3", "detail-type": kind,
                           "detail": {"bucket": {"name": "b"}, "object": item, **more}}).encode()

    def job(*objects):
        return json.dumps({"schema": "clamgate.job/1", "objects": objects}).encode()

    created = entry("uploads", "photos/a picture+1.jpg")
    removed = entry("uploads", "old.txt", "ObjectRemoved:Delete")
    short = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}
    return {
        "created": body(created),
        "multipart": body(entry("uploads", "film.mp4", "s3:ObjectCreated:CompleteMultipartUpload", size=5 << 40)),
        "version": body(entry("uploads", "report.pdf", versionId="096fKKXTRTtl3on89fVO.nfljtsv6qko")),
        "null-version": body(entry("uploads", "report.pdf", versionId="null", eTag='"abc-2"')),
        "empty-fields": body(entry("uploads", "report.pdf", versionId="", eTag='""', sequencer="")),
        "unicode": body(entry("uploads", "café/🐚/…")),
        "dots": body(entry("uploads", "../../etc/passwd")),
        "not-utf8": body(created).replace(b"photos", b"%ff"),
        "shortest": body(short),
        "several": body(created, removed, short),
        "restored": body(entry("uploads", "cold.bin", "ObjectRestore:Completed")),
        "removed": body(removed, entry("uploads", "old.txt", "LifecycleExpiration:Delete")),
        "tagged": body(entry("uploads", "a", "ObjectTagging:Put")),
        "test-event": json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}).encode(),
        "no-records": body(),
        "wrapped": wrapped(body(short)),
        "wrapped-twice": wrapped(wrapped(body(short))),
        "wrapped-thrice": wrapped(wrapped(wrapped(body(short)))),
        "wrapped-job": wrapped(job({"bucket": "b", "key": "a b+c"})),
        "confirmation": json.dumps({"Type": "SubscriptionConfirmation", "Token": "t", "TopicArn": "arn:aws:sns:eu-central-1:1:t",
                                    "SubscribeURL": "https://sns.example/"}).encode(),
        "event-bridge": bridged("Object Created", {"key": "k"}),
        "event-bridge-full": bridged("Object Created", {"key": "a b+%2B", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184",
                                                        "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
                                                        "sequencer": "617f08299329d189"}, reason="PutObject"),
        "event-bridge-restored": bridged("Object Restore Completed", {"key": "k", "version-id": "null", "etag": "e"}),
        "event-bridge-deleted": bridged("Object Deleted", {"key": "k"}),
        "event-bridge-tagged": bridged("Object Tags Added", {"key": "k"}),
        "bucketav": json.dumps({"objects": [{"bucket": "b", "key": "k"}, {"bucket": "b", "key": "k", "version": "v",
                                             "trace_id": "t", "custom_data": "anything"}]}).encode(),
        "job": job({"bucket": "b", "key": "k"}),
        "job-full": job({"bucket": "b", "key": "é", "version_id": "v", "etag": "e", "size": 9, "trace_id": "t",
                         "custom": {"a": [1, None, {"b": "c"}]}}),
        "job-unknown-field": job({"bucket": "b", "key": "k", "version": "v"}),
        "several-kinds": json.dumps({"Records": [], "objects": []}).encode(),
        "not-json": b"hello",
    }


def clamd():
    def stream(*chunks):
        return b"".join(struct.pack(">I", len(chunk)) + chunk for chunk in chunks) + bytes(4)

    def cut(size, conversation):
        return bytes([size]) + conversation

    return {
        "old": cut(255, b"PING"),
        "newline": cut(3, b"nVERSION\r\nnSTATS\n"),
        "null": cut(1, b"zVERSIONCOMMANDS\0zRELOAD\0"),
        "scan": cut(9, b"zSCAN /srv/a file\0nCONTSCAN /srv\nnALLMATCHSCAN \n"),
        "instream": cut(7, b"zINSTREAM\0" + stream(EICAR[:20], EICAR[20:])),
        "empty-stream": cut(2, b"nINSTREAM\n" + stream()),
        "claimed": cut(50, b"zINSTREAM\0" + b"\xff\xff\xff\xff" + TEXT),
        "fildes": cut(4, b"zFILDES\0\0nFILDES\n\0"),
        "session": cut(11, b"zIDSESSION\0zPING\0zINSTREAM\0" + stream(TEXT) + b"zFILDES\0xzSCAN /\0zEND\0"),
        "too-long": cut(255, b"zSCAN /" + b"a" * 4200 + b"\0"),
        "unknown": cut(255, b"nping\nzSCANx\0n\nz\0SCAN"),
    }


main()
