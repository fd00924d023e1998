"""train.py in this process, with ends of its own: Ctrl-C or a power cut, wherever a test wants them."""

import json
import signal
import sys
from types import SimpleNamespace

import safetensors

from tinytransformer import run_directory, validation

TEXT = ("--source", "train.en", "--target", "train.de", "--valid-source", "valid.en", "--valid-target", "valid.de")
SMALL = ("--batch-tokens", "400", "--vocab-size", "350", "--dropout", "0.2", "--replicas", "1", "--beam", "2")


def state_of(run):
    """Return the counters in a run's state."""
    with safetensors.safe_open(run / "state.safetensors", "np") as file:
        return json.loads(file.metadata()["counters"])


def outcome(run):
    """Return what a run has written, by name of file; its metrics without their speed."""
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    metrics = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
    return files, [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in metrics]


class PowerCutError(Exception):
    """Ends the script with no chance to save."""


GRADES = {2: 1.0, 4: 5.0, 6: 4.0, 8: 3.0, 10: 2.0}  # after the last of these a patience of three is at its end


class Script:
    """train.py in this process: its BLEU is read from a table, and it can be ended at any place.

    mean: the BLEU of the mean. end: how ("Ctrl-C", "power", or "power while saving") and at which step.
    """

    mean = 4.5
    end = ("", 0)

    def __init__(self, module, patch):
        """Put what grades and ends the script in the place of its parts."""
        self.module, self.patch = module, patch
        self.save, self.meter = run_directory.save_state, module.Meter.__call__
        patch.setattr(module, "keep_freed_memory", lambda: None)
        patch.setattr(run_directory, "save_state", self.save_state)
        patch.setattr(module.Meter, "__call__", lambda meter, progress: self.report(meter, progress))
        patch.setattr(validation, "evaluate_translation", lambda *_: (SimpleNamespace(bleu=self.grade), []))
        measure = validation.Validation._measure
        patch.setattr(validation.Validation, "_measure", lambda v, metrics: measure(v, self.graded(metrics)))

    def graded(self, metrics):
        self.grade = GRADES[metrics["step"]] if "step" in metrics else self.mean
        return metrics

    def report(self, meter, progress):
        self.meter(meter, progress)
        if self.end == ("Ctrl-C", progress.step):
            signal.raise_signal(signal.SIGINT)
        if self.end == ("power", progress.step):
            raise PowerCutError

    def save_state(self, directory, optimizer, counters):
        if self.end == ("power while saving", counters["step"]):
            raise PowerCutError
        self.save(directory, optimizer, counters)

    def __call__(self, *arguments, end=("", 0)):
        """Run the script; return its exit status, or what ended it."""
        self.end = end
        self.patch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            self.module.main()
        except SystemExit as caught:
            return caught.code
        except PowerCutError:
            return "power"
        return 0


PATIENT = ("--steps", "20", "--valid-every", "2", "--patience", "3", "--average", "2")
