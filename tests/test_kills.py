"""Killed and resumed, a run ends with the same bytes: a few kills here, and as many as one likes with kills.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parent / "kills.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the attempts are forked")
def test_a_run_that_is_killed_again_and_again_ends_with_the_bytes_of_one_left_in_peace():
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(KILLS), "--kills", "12"]
    done = subprocess.run(command, capture_output=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"12 kills (")
