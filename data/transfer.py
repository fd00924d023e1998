"""Fetch files from the network, unpack them in memory, and write them whole or not at all.

Whatever goes wrong becomes a DownloadError of one line, and leaves nothing half-written. A server is not trusted: what
it sends is bounded in size, and no name in it reaches the disk.
"""

import errno
import gzip
import hashlib
import io
import os
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

AGENT = "Mozilla/5.0 (compatible; tinytransformer)"  # some servers refuse the name that Python gives itself
LIMIT = 200_000_000  # bytes of a file, packed or unpacked
TIMEOUT = 30  # seconds without an answer
ADVICE = "check the network and try again, or name a mirror with --base-url"


class DownloadError(Exception):
    """A corpus that cannot be had; the message names the address or file, and what to do."""


def sha256(content: bytes) -> str:
    """The SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_all(stream: IO[bytes] | gzip.GzipFile, name: str) -> bytes:
    """Read a stream to its end, if that comes before LIMIT."""
    content = bytearray()
    live = sys.stderr.isatty()
    try:
        while chunk := stream.read(1 << 16):
            content += chunk
            if live:
                print(f"\r{name}: {len(content) / 1e6:.1f} MB", end="", file=sys.stderr)
            if len(content) > LIMIT:
                raise DownloadError(f"{name}: is larger than {LIMIT:,} bytes, so it is not the corpus; {ADVICE}")
    finally:
        if live:
            print(file=sys.stderr)
    return bytes(content)


def fetch(url: str) -> bytes:
    """What stands at an address, whole."""
    print(f"fetching {url}", file=sys.stderr)
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            content = read_all(response, url)
            stated = response.headers.get("Content-Length", "")
    except HTTPError as error:
        error.close()
        advice = "the server has a fault, try again later" if error.code >= 500 else "look at the address in a browser"
        raise DownloadError(f"{url}: HTTP {error.code} {error.reason}; {advice}, or use --base-url") from None
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)  # what an URLError wraps
        raise DownloadError(f"{url}: {getattr(cause, 'strerror', None) or cause}; {ADVICE}") from None
    if stated.isdecimal() and len(content) != int(stated):
        raise DownloadError(f"{url}: broke off after {len(content):,} of {int(stated):,} bytes; {ADVICE}")
    return content


def unpack_gzip(content: bytes, url: str) -> bytes:
    """The text in a gzip file."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            return read_all(stream, url.removesuffix(".gz"))
    except (OSError, EOFError, zlib.error) as error:
        raise DownloadError(f"{url}: is not a whole gzip file ({error}); {ADVICE}") from None


def unpack_zip(content: bytes, member: str, url: str) -> bytes:
    """One member of a zip file. Nothing is extracted, so no name in it can reach the disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(member) as stream:
            return read_all(stream, f"{url}: {member}")
    except KeyError:
        raise DownloadError(f"{url}: holds no {member}; look at it in a browser, or use --base-url") from None
    # RuntimeError: encrypted; NotImplementedError, a kind of it: packed by a method that Python lacks.
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(f"{url}: is not a whole zip file ({error}); {ADVICE}") from None


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files beside their places, and move them there when all are whole.

    The last is away while they are moved: where it stands, all the others belong to it.
    """
    *_, last = contents
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as beside:
            for name, content in contents.items():
                (Path(beside) / name).write_bytes(content)
            for name in contents:
                if (folder / name).is_dir():  # before any is moved
                    raise IsADirectoryError(errno.EISDIR, f"{name} is a directory")
            (folder / last).unlink(missing_ok=True)
            for name in contents:
                os.replace(Path(beside) / name, folder / name)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written ({error.strerror}); name another folder with --out") from None
    for name, content in contents.items():
        lines = content.count(b"\n")
        print(f"{folder / name}: written, {lines:,} lines")
