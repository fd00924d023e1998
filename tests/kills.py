#!/usr/bin/env python3
"""Kill a training again and again, resume it each time, and hold what it ends with against a run left in peace.

    python tests/kills.py --kills 200

Half of the kills come from outside, at a random time. The other half fall on a random call that changes the directory:
where a file is written, on half of it, as a power cut leaves it; and before or after a file is moved or deleted. The
model is very small, so that what takes time is what matters here. Each attempt is a process of its own, forked from
this one: the modules are imported once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import kernels  # noqa: F401  before NumPy

# isort: split
from scripts import ROOT, load_script

from tinytransformer import run_directory, writing
from tinytransformer.transformer import PRESETS

LINES = {"train": 60, "valid": 4, "test": 2}
TEXT = [f"--{split}{side}" for split in ("", "valid-", "test-") for side in ("source", "target")]
FILES = [f"{split}.{language}" for split in LINES for language in ("en", "de")]
OPTIONS = "--vocab-size 330 --batch-tokens 300 --steps 12 --valid-every 3 --average 2 --beam 1 --dropout 0.1 --warmup 4"
ARGUMENTS = [*itertools.chain(*zip(TEXT, FILES, strict=True)), *OPTIONS.split()]
# All that changes a directory goes through one of these.
CALLS = {"half a file": (writing, "_sync"), "sync": (os, "fsync"), "move": (os, "replace"), "delete": (os, "unlink")}


class Calls:
    """Counts the calls that change the directory, and kills this process at one of them, before or after it."""

    def __init__(self, last: int, chance: random.Random):
        self.last = last
        self.chance = chance
        self.count = 0
        for name, (module, attribute) in CALLS.items():
            setattr(module, attribute, self.counted(name, getattr(module, attribute)))

    def counted(self, name, function):
        """Return `function`, which counts, and kills at the last call."""

        def call(*arguments, **options):
            self.count += 1
            if self.count == self.last:
                Path("killed-at").write_text(name, encoding="utf-8")
                if name == "half a file":
                    self.cut(arguments[0])
                elif self.chance.random() < 0.5:
                    function(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    def cut(self, file) -> None:
        """Lose the end of what was written last: of a line that was added, or of a whole file."""
        file.flush()
        content = Path(file.name).read_bytes()
        new = content if str(file.name).endswith(writing.BESIDE) else content.splitlines(keepends=True)[-1]
        file.truncate(len(content) - self.chance.randrange(len(new) + 1))


class Training:
    """train.py with its arguments, attempt after attempt, in a directory of its own.

    main: the script's. save_every: seconds from one saved state to the next, besides those of the validations.
    """

    def __init__(self, main, out: str, save_every: float):
        self.main = main
        self.out = out
        self.save_every = save_every

    def attempt(self, *, calls: int = 0, seconds: float = 0.0, seed: int = 0) -> int:
        """Begin or resume; return the exit status. calls, seconds: when to kill, 0 for not at all."""
        resumed = (Path(self.out) / "config.json").exists()
        arguments = ["--resume"] if resumed else [*ARGUMENTS, "--overwrite"]
        child = os.fork()
        if not child:
            self._run([*arguments, "--out", self.out], Calls(calls, random.Random(seed)))
        if seconds:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)  # if it has ended already, it still waits to be asked how
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _run(self, arguments: list[str], calls: Calls) -> None:
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["train.py", *arguments]
        run_directory.SAVE_EVERY = self.save_every
        status = 1
        try:
            self.main()
            status = 0
        except SystemExit as error:
            print(error.code, file=sys.stderr)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            Path("calls").write_text(str(calls.count), encoding="utf-8")
            os._exit(status)

    def result(self):
        """Return the output and the files, metrics without their speed."""
        files = {path.name: path.read_bytes() for path in Path(self.out).iterdir()}
        metrics = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
        for row in metrics:
            row.pop("tokens_per_second", None)
        return Path("output").read_bytes(), files, metrics


def kill_and_resume(training: Training, wanted: int, seconds: float, chance: random.Random, kills: Counter) -> None:
    """Attempt until the training is through; kill it until there have been `wanted` kills."""
    calls = int(Path("calls").read_text(encoding="utf-8"))
    while True:
        if kills.total() >= wanted:
            when = {}
        elif chance.random() < 0.5:
            when = {"calls": chance.randint(1, calls), "seed": chance.randrange(1 << 30)}
        else:
            when = {"seconds": chance.uniform(0, seconds)}
        status = training.attempt(**when)
        if status == 0:
            return
        if status != -signal.SIGKILL:
            raise SystemExit(f"{training.out}: status {status}\n{Path('errors').read_text(encoding='utf-8')}")
        kills["at a random time" if "seconds" in when else Path("killed-at").read_text(encoding="utf-8")] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random points (default: %(default)s)")
    options = parser.parse_args()
    chance, kills, runs = random.Random(options.seed), Counter(), 0
    PRESETS["toy"] = {"width": 16, "feed_forward_width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    script = load_script("train.py")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in FILES:
            lines = (ROOT / "data" / "toy" / name).read_bytes().splitlines(keepends=True)
            Path(name).write_bytes(b"".join(lines[: LINES[Path(name).stem]]))
        peaceful = Training(script.main, "peaceful", 0)
        started = time.monotonic()
        if peaceful.attempt():
            raise SystemExit(Path("errors").read_text(encoding="utf-8"))
        seconds, expected = time.monotonic() - started, peaceful.result()
        while kills.total() < options.kills:
            runs += 1
            training = Training(script.main, f"run-{runs}", chance.choice((0, 600)))
            kill_and_resume(training, options.kills, seconds, chance, kills)
            if training.result() != expected:
                raise SystemExit(f"run {runs} ended with other bytes (seed {options.seed})")
        os.chdir(ROOT)
    where = ", ".join(f"{count} {place}" for place, count in sorted(kills.items()))
    print(f"{kills.total()} kills ({where}) in {runs} runs; every run ended with the bytes of a run left in peace")


if __name__ == "__main__":
    main()
