"""No program but data/download.py touches the network: none imports what could, and none is seen to try."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import sentencepiece
from ends import SMALL, TEXT
from scripts import ROOT

DOWNLOADERS = {"data/download.py", "data/transfer.py"}
PROGRAMS = [path for folder in (".", "data", "docs") for path in (ROOT / folder).glob("*.py")]
PROGRAMS += sorted((ROOT / "tinytransformer").rglob("*.py"))
NETWORK = {"asyncio", "ftplib", "http", "imaplib", "poplib", "requests", "smtplib", "socket", "socketserver", "ssl"}
NETWORK |= {"urllib", "urllib3", "xmlrpc", "webbrowser", "multiprocessing", "subprocess"}

# Runs a script; whatever in it, or in a library, makes a socket or looks up a name, ends with status 99.
GUARD = """
import os, runpy, sys
def watch(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.client.")):
        os.write(2, f"network: {event}".encode())
        os._exit(99)
sys.addaudithook(watch)
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def imported_by(path):
    """The top-level names of all modules that a file imports, inside functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_no_program_imports_what_could_reach_the_network():
    reaching = {path.relative_to(ROOT).as_posix(): imported_by(path) & NETWORK for path in PROGRAMS}
    # Its pipes are no sockets, as is seen below.
    assert reaching.pop("tinytransformer/workers.py") == {"multiprocessing"}
    reaching = {path for path, names in reaching.items() if names}
    assert reaching <= DOWNLOADERS
    assert reaching  # the search finds what it should


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("nm") is None, reason="needs nm, and ELF files")
@pytest.mark.parametrize("library", [safetensors, sentencepiece])
def test_the_compiled_libraries_call_nothing_of_the_network(library):
    """The guard below sees Python alone; these are asked for the names of what they take from the system."""
    parts = list(Path(library.__file__).parent.glob("*.so"))
    assert parts
    for part in parts:
        command = ["nm", "--dynamic", "--undefined-only", str(part)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        names = {line.split()[-1].split("@")[0] for line in lines}
        assert "memcpy" in names
        assert not names & {"socket", "connect", "getaddrinfo", "gethostbyname", "sendto"}


def guarded(folder, script, *arguments, stdin=b""):
    command = [sys.executable, "-c", GUARD, str(ROOT / script), *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, input=stdin, capture_output=True, timeout=300, env=environment)


def test_training_translating_and_scoring_never_try(folder):
    tested = ("--test-source", "test.en", "--test-target", "test.de")
    run = (*tested, "--steps", "2", "--valid-every", "1", "--out", "guarded")
    for script, arguments in (
        ("train.py", (*TEXT, *SMALL, *run)),
        ("train.py", ("--resume", "--out", "guarded")),
        ("translate.py", ("--model", "guarded", "The dog.")),
        ("evaluate.py", ("--model", "guarded", "test.en", "test.de")),
    ):
        done = guarded(folder, script, *arguments, stdin=b"The cat.\n")
        assert (done.returncode, b"network" in done.stderr) == (0, False), done.stderr.decode()


def test_the_guard_sees_the_one_that_does(tmp_path):
    done = guarded(tmp_path, "data/download.py", "multi30k", "--out", str(tmp_path))
    assert (done.returncode, b"network: urllib.Request" in done.stderr) == (99, True), done.stderr.decode()
