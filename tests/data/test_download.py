"""The program that fetches corpora, against a server on this machine that does what servers do, and worse."""

import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import download
import pytest
import transfer
from local_server import Server, chunk_cut_off, closing, cut_off, failing, shouting, silent, zipped

SCRIPT = Path(__file__).parents[2] / "data" / "download.py"
TEXTS = {name: f"{name} eins\n{name} zwei ü\n".encode() for name in download.MULTI30K}
FILES = {f"{split}.{language}" for split in ("train", "valid", "test") for language in ("fra", "eng")} | {"README.txt"}


def fra_text(count=200):
    """Lines as the authors write them: several translations, no-break spaces, and the newer third column."""
    lines = []
    for i in range(count):
        lines.append(f"Number {i}!\tNuméro {i}\u202f!\tCC-BY 2.0 (France) Attribution: tatoeba.org #{i}")
        lines.append(f"Number {i}!\tLe\u00a0numéro {i}\u00a0!\tCC-BY 2.0 (France)")
        lines.append(f"It is {i}.\tNuméro {i // 2} !")  # shares its French with others
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture(autouse=True)
def pinned(monkeypatch):
    monkeypatch.setattr(download, "MULTI30K", {name: transfer.sha256(text) for name, text in TEXTS.items()})
    monkeypatch.setattr(download, "TATOEBA", {"fra-eng": transfer.sha256(fra_text())})
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    server = Server()
    server.answers = {f"/{name}.gz": gzip.compress(text) for name, text in TEXTS.items()}
    server.answers["/fra-eng.zip"] = zipped({"_about.txt": b"...", "fra.txt": fra_text()})
    with server.serving():
        yield server


@pytest.fixture
def run(server, tmp_path, monkeypatch, capsys):
    """Return a function that runs the program: exit status, standard output, standard error."""

    def run(*arguments, url=None):
        command = [*arguments, "--out", str(tmp_path / "out"), "--base-url", url or server.url]
        monkeypatch.setattr(sys, "argv", ["download.py", *command])
        status = 0
        try:
            download.main()
        except SystemExit as exit:  # Python itself prints a text and exits with 1
            status = 1 if isinstance(exit.code, str) else exit.code
            print(exit.code, file=sys.stderr)
        return status, *capsys.readouterr()

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(result, folder, *words):
    """Hold a run to one line of error with these words, and to have written nothing."""
    status, _, err = result
    lines = [line for line in err.splitlines() if not line.startswith("fetching ")]
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith("download.py: error: ")
    for word in words:
        assert word in lines[0]
    assert contents(folder) == {}


# ---------------------------------------------------------------- success


def test_multi30k_is_written_as_it_is(run, tmp_path):
    status, out, err = run("multi30k")
    assert status == 0, err
    written = contents(tmp_path / "out")
    readme = written.pop("README.txt").decode()
    assert written == TEXTS
    assert "non-commercial research" in readme
    assert "non-commercial research" in out


def test_tatoeba_is_split_into_parallel_files_of_plain_text(run, tmp_path):
    status, out, err = run("tatoeba", "fra-eng")
    assert status == 0, err
    written = contents(tmp_path / "out")
    assert set(written) == FILES
    assert b"CC BY 2.0" in written["README.txt"]
    assert transfer.sha256(fra_text()).encode() in written["README.txt"]
    assert "CC BY 2.0" in out
    pairs = set()
    for split in ("train", "valid", "test"):
        sides = [written[f"{split}.{language}"].decode() for language in ("eng", "fra")]
        for side in sides:
            assert not set("\t\r\u00a0\u202f") & set(side)
            assert "CC-BY" not in side
        pairs |= set(zip(*(side.removesuffix("\n").split("\n") for side in sides), strict=True))
    known = set(download.read_pairs(fra_text(), ""))
    assert ("Number 7!", "Le numéro 7 !") in known
    assert pairs <= known


def test_a_folder_serves_as_a_mirror(run, server, tmp_path):
    (tmp_path / "fra-eng.zip").write_bytes(server.answers["/fra-eng.zip"])
    assert run("tatoeba", "fra-eng", url=tmp_path.as_uri() + "/")[0] == 0
    assert server.requests == []


def test_another_version_is_taken_when_its_sum_is_given(run, server, tmp_path):
    server.answers["/deu-eng.zip"] = zipped({"deu.txt": fra_text(100)})
    found = transfer.sha256(fra_text(100))
    refused(run("tatoeba", "deu-eng"), tmp_path / "out", "deu-eng.zip", f"--sha256 {found}")
    refused(run("tatoeba", "deu-eng", "--sha256", "0" * 64), tmp_path / "out", found, "expected 0000")
    status, _, err = run("tatoeba", "deu-eng", "--sha256", found.upper())
    assert status == 0, err
    assert (tmp_path / "out" / "test.deu").exists()


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("corpus", [("multi30k",), ("tatoeba", "fra-eng")])
def test_whatever_a_server_does_is_one_line_of_error(run, server, tmp_path, monkeypatch, corpus):
    path = "/val.de.gz" if corpus == ("multi30k",) else "/fra-eng.zip"
    whole = server.answers[path]
    other = gzip.compress(b"other\n") if path == "/val.de.gz" else zipped({"fra.txt": b"a\tb\n"})
    kind = "gzip" if path == "/val.de.gz" else "zip"
    monkeypatch.setattr(transfer, "TIMEOUT", 0.2)
    failures = {
        "SHA-256": other,
        f"broke off after {len(whole) // 2:,} of {len(whole):,} bytes": cut_off(whole),
        "IncompleteRead": chunk_cut_off,
        "HTTP 404": failing(404),
        "HTTP 500": failing(500),
        "HTTP 403 go [31m away": shouting,  # without the control character
        "timed out": silent,
        "Remote end closed connection": closing,
        f"is not a whole {kind} file": b"<html>log in to this network</html>",
        "is not a whole": whole[: len(whole) // 2],
    }
    for words, answer in failures.items():
        server.answers[path] = answer
        refused(run(*corpus), tmp_path / "out", server.url + path, words)


def test_without_a_network_it_says_so(tmp_path, server):
    command = [sys.executable, SCRIPT, "multi30k", "--out", tmp_path / "out", "--base-url"]
    server.server_close()  # so nobody listens there
    done = subprocess.run([*command, server.url], capture_output=True, text=True)
    refused((done.returncode, done.stdout, done.stderr), tmp_path / "out", server.url, "Connection refused", "network")


@pytest.mark.parametrize("corpus", [("multi30k",), ("tatoeba", "fra-eng")])
@pytest.mark.parametrize("packed", [True, False])
def test_a_server_cannot_fill_the_memory(run, server, tmp_path, monkeypatch, corpus, packed):
    bomb = bytes(1_000_000)
    server.answers["/train.en.gz"] = bomb if not packed else gzip.compress(bomb)
    server.answers["/fra-eng.zip"] = bomb if not packed else zipped({"fra.txt": bomb}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(transfer, "LIMIT", 100_000)
    refused(run(*corpus), tmp_path / "out", "larger than 100,000 bytes")


def test_names_in_a_zip_file_do_not_reach_the_disk(run, server, tmp_path):
    members = {"../evil.txt": b"...", "/evil.txt": b"...", "../fra.txt": b"a\tb\n"}
    server.answers["/fra-eng.zip"] = zipped(members)
    refused(run("tatoeba", "fra-eng"), tmp_path / "out", "holds no fra.txt")
    server.answers["/fra-eng.zip"] = zipped({**members, "fra.txt": fra_text()})
    assert run("tatoeba", "fra-eng")[0] == 0
    assert set(contents(tmp_path)) == FILES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a\tb\nno tab\n", "line 2 has no TAB"),
        (b"\xff\tb\n", "is not UTF-8"),
        (b"a\tb\n", "too few"),
        (b"", "too few"),
    ],
)
def test_a_text_that_is_no_list_of_pairs_is_refused(run, server, tmp_path, text, words):
    server.answers["/fra-eng.zip"] = zipped({"fra.txt": text})
    refused(run("tatoeba", "fra-eng", "--sha256", transfer.sha256(text)), tmp_path / "out", "fra-eng.zip", words)


@pytest.mark.parametrize("arguments", [["fra"], ["../x-eng"], ["fra-eng", "--sha256", "12"], ["fra-eng", "--out"]])
def test_wrong_arguments_are_refused(run, server, arguments):
    assert run("tatoeba", *arguments)[0] == 2
    assert run("tatoeba", "fra-eng", url="ftp://127.0.0.1")[0] == 2
    assert server.requests == []


# ---------------------------------------------------------------- the disk


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def write_half(path, content):
        if path.name != "train.fra":
            return write_bytes(path, content)
        write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    refused(run("tatoeba", "fra-eng"), tmp_path / "out", str(tmp_path / "out"), "No space left on device", "--out")


def test_a_folder_that_cannot_be_is_named(run, tmp_path):
    (tmp_path / "out").write_bytes(b"a file")
    status, _, err = run("tatoeba", "fra-eng")
    assert status == 1
    assert f"{tmp_path / 'out'}: cannot be written" in err
    assert (tmp_path / "out").read_bytes() == b"a file"


def test_multi30k_keeps_what_is_there_and_fetches_the_rest(run, server, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.en").write_bytes(TEXTS["train.en"])
    (out / "README.txt").write_bytes(b"mine")
    status, printed, err = run("multi30k")
    assert status == 0, err
    assert f"{out / 'train.en'}: exists, kept" in printed
    assert contents(out) == {**TEXTS, "README.txt": b"mine"}
    assert "/train.en.gz" not in server.requests
    requests, changed = len(server.requests), out.stat().st_mtime_ns
    assert run("multi30k")[0] == 0
    assert out.stat().st_mtime_ns == changed
    (out / "val.de").write_bytes(b"mine")
    status, _, err = run("multi30k")
    assert status == 1
    assert f"{out / 'val.de'}: exists with other content" in err
    assert contents(out) == {**TEXTS, "README.txt": b"mine", "val.de": b"mine"}
    assert len(server.requests) == requests
    assert run("multi30k", "--overwrite")[0] == 0
    assert contents(out).items() >= TEXTS.items()


def test_tatoeba_keeps_what_is_there_whole_or_refuses(run, server, tmp_path):
    out = tmp_path / "out"
    assert run("tatoeba", "fra-eng")[0] == 0
    whole = contents(out)
    for name in whole:
        (out / name).write_bytes(b"mine")
    requests = len(server.requests)
    status, printed, _ = run("tatoeba", "fra-eng")
    assert status == 0
    assert "kept" in printed
    (out / "test.eng").unlink()
    status, _, err = run("tatoeba", "fra-eng")
    assert status == 1
    assert "train.fra" in err
    assert "--overwrite" in err
    assert contents(out) == dict.fromkeys(FILES - {"test.eng"}, b"mine")
    assert len(server.requests) == requests
    assert run("tatoeba", "fra-eng", "--overwrite")[0] == 0
    assert contents(out) == whole


@pytest.mark.parametrize("corpus", [("multi30k",), ("tatoeba", "fra-eng")])
def test_a_failed_download_replaces_nothing(run, server, tmp_path, corpus):
    assert run(*corpus)[0] == 0
    before = contents(tmp_path / "out")
    server.answers["/train.en.gz"] = gzip.compress(b"other\n")
    server.answers["/test_2016_flickr.de.gz"] = server.answers["/fra-eng.zip"] = failing(500)
    assert run(*corpus, "--overwrite")[0] == 1
    assert contents(tmp_path / "out") == before
