"""Unpacking what came from a server, whatever it is."""

import contextlib
import gzip
import os
import random
import zipfile

import pytest
import transfer
from local_server import zipped

TEXT = "".join(f"line {i}\n" for i in range(50)).encode()


def unpack_zip(content, url):
    return transfer.unpack_zip(content, "a.txt", url)


FORMATS = {
    "gzip": (transfer.unpack_gzip, gzip.compress(TEXT)),
    "stored": (unpack_zip, zipped({"a.txt": TEXT, "b.txt": b""})),
    "deflated": (unpack_zip, zipped({"a.txt": TEXT, "b.txt": b""}, zipfile.ZIP_DEFLATED)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_unpacked(name):
    unpack, whole = FORMATS[name]
    assert unpack(whole, "http://file") == TEXT


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_refused_or_unharmed(name):
    unpack, whole = FORMATS[name]
    rng = random.Random(5)
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= rng.randrange(1, 256)
        with contextlib.suppress(transfer.DownloadError):  # any other error would be a traceback
            assert unpack(bytes(damaged), "http://file") == TEXT


def test_the_last_file_is_there_only_beside_all_the_others(tmp_path, monkeypatch):
    transfer.write_files(tmp_path, {"a": b"old", "b": b"old", "README": b"old"})
    moved = []

    def replace(source, target, real=os.replace):
        if moved:
            raise KeyboardInterrupt
        moved.append(real(source, target))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        transfer.write_files(tmp_path, {"a": b"new", "b": b"new", "README": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new", "b": b"old"}


def test_a_directory_in_the_way_leaves_all_as_it_was(tmp_path):
    transfer.write_files(tmp_path, {"a": b"old", "README": b"old"})
    (tmp_path / "b").mkdir()
    with pytest.raises(transfer.DownloadError, match=r"cannot be written \(b is a directory\)"):
        transfer.write_files(tmp_path, {"a": b"new", "b": b"new", "README": b"new"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "README").read_bytes() == b"old"


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_is_refused(name):
    unpack, whole = FORMATS[name]
    for length in range(1, len(whole), 7):
        with pytest.raises(transfer.DownloadError, match="is not a whole"):
            unpack(whole[:length], "http://file")
