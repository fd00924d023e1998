"""The options of train.py: what is asked for, what a recipe fills in, and what a run remembers."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinytransformer.checkpoint import CheckpointError
from tinytransformer.data import plan_batches
from tinytransformer.options import RECIPES, model_config, parse_arguments, training_options
from tinytransformer.run_directory import begin_run, options_of_run
from tinytransformer.transformer import PRESETS

TEXT = ("--source", "a.en", "--target", "a.de")
HELD_OUT = ("--valid-source", "v.en", "--valid-target", "v.de")


@pytest.fixture
def parse(monkeypatch):
    """Return a function that parses a command line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        return parse_arguments()

    return run


def test_every_option_has_a_help_text(parse, monkeypatch):
    seen = []
    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, _: seen.append(self) or parse_args(self))
    parse()
    actions = seen[0]._actions
    assert len(actions) > 30
    assert [action.dest for action in actions if not (action.help or "").strip()] == []
    assert [action.dest for action in actions if action.metavar is None and action.type is not None] == []


FILLED = ("learning_rate", "warmup", "schedule", "batch_tokens", "steps")
ASKED = {
    "learning_rate": ("0.25", 0.25),
    "warmup": ("17", 17),
    "schedule": ("cosine", "cosine"),
    "batch_tokens": ("33", 33),
    "steps": ("44", 44),
    "label_smoothing": ("0", 0.0),
    "weight_decay": ("0.5", 0.5),
    "clip": ("3", 3.0),
    "accumulate": ("5", 5),
    "replicas": ("7", 7),
    "seed": ("0", 0),
    "valid_every": ("9", 9),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_fills_in_what_is_left_open(parse, corpus, preset):
    recipe, options = asdict(RECIPES[preset]), parse("--preset", preset)
    training = training_options(options, corpus)
    assert {name: getattr(training, name) for name in FILLED} == {name: recipe[name] for name in FILLED}
    assert training.valid_every * 5 == training.steps
    config = model_config(parse("--preset", preset), 9) if preset in ("toy", "tiny") else None
    assert config is None or (config.dropout, config.width) == (recipe["dropout"], PRESETS[preset]["width"])


@pytest.mark.parametrize("name", ASKED)
def test_the_command_line_comes_before_the_recipe(parse, corpus, name):
    text, value = ASKED[name]
    plain = asdict(training_options(parse("--preset", "tiny"), corpus))
    asked = parse("--preset", "tiny", f"--{name.replace('_', '-')}", text)
    training = asdict(training_options(asked, corpus))
    follows = {"valid_every"} if name == "steps" else set()
    assert training[name] == value != plain[name]
    assert {field for field in plain if training[field] != plain[field]} == {name} | follows


@pytest.mark.parametrize(("arguments", "replicas"), [((), 2), (("--device", "cuda"), 1)])
def test_a_gpu_is_kept_busy_by_one_process(parse, corpus, arguments, replicas):
    """Unless more are asked for."""
    assert training_options(parse(*arguments), corpus).replicas == replicas
    assert training_options(parse(*arguments, "--replicas", "3"), corpus).replicas == 3


def test_a_precision_is_for_a_gpu(parse, capsys):
    assert parse("--device", "cuda", "--precision", "tf32").precision == "tf32"
    assert parse("--precision", "float32").device == "cpu"
    with pytest.raises(SystemExit) as caught:
        parse("--precision", "tf32")
    assert caught.value.code == 2
    with pytest.raises(SystemExit, match="2"):
        parse("--device", "cuda", "--precision", "float16")
    assert "error: --precision tf32 is for a GPU: --device cuda\n" in capsys.readouterr().err


def test_steps_have_at_most_the_digits_that_files_are_named_by(parse, capsys):
    assert parse("--steps", "99999999").steps == 99_999_999
    with pytest.raises(SystemExit, match="2"):
        parse("--steps", "100000000")
    assert "'100000000' is more than 99,999,999" in capsys.readouterr().err


def test_the_command_line_shapes_the_model(parse):
    """A dropout of zero is one that was asked for."""
    shape = ("--norm", "post", "--positions", "learned", "--activation", "gelu", "--untied", "--max-length", "20")
    drops = ("--dropout", "0", "--attention-dropout", "0.25")
    config = model_config(parse("--preset", "tiny", *shape, *drops), 9)
    assert (config.norm, config.positions, config.activation, config.max_length) == ("post", "learned", "gelu", 20)
    assert (config.tied_embeddings, config.dropout, config.attention_dropout) == (False, 0.0, 0.25)


@pytest.mark.parametrize(("epochs", "accumulate"), [("1", 1), ("3", 1), ("2.5", 1), ("4", 3), ("0.001", 1)])
def test_epochs_are_as_many_steps_as_they_take(parse, corpus, epochs, accumulate):
    options = parse("--epochs", epochs, "--batch-tokens", "60", "--accumulate", str(accumulate))
    training = training_options(options, corpus)
    batches = len(plan_batches(corpus.pairs, 60))
    assert training.steps == max(1, round(float(epochs) * batches / accumulate))
    assert 1 <= training.valid_every <= training.steps <= 5 * training.valid_every


def test_each_preset_has_a_directory_of_its_own(parse):
    assert parse("--preset", "tiny").out == Path("runs/tiny")
    assert parse("--preset", "tiny", "--out", "here").out == Path("here")
    assert parse("--resume").out == Path("runs/toy")


def test_an_empty_name_is_no_directory(parse, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse("--out", "")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "train.py: error: argument --out: an empty name is no directory; write . for the current one"


@pytest.mark.parametrize(
    "more", [("--seed", "2"), ("--seed", "1"), ("--preset", "tiny"), ("--overwrite",), TEXT, ("--dropout", "0")]
)
def test_beside_resume_only_out_and_debug_may_stand(parse, capsys, more):
    assert parse("--resume", "--out", "here", "--debug").resume
    with pytest.raises(SystemExit) as caught:
        parse("--resume", "--out", "here", *more)
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train.py: error: --resume goes on with the options that the run began with; ")


@pytest.mark.parametrize("option", ["--average", "--patience"])
def test_the_best_and_the_mean_need_something_to_measure_on(parse, capsys, option):
    """The toy corpus has it."""
    assert parse(option, "2")
    assert parse(*TEXT, *HELD_OUT, option, "2")
    with pytest.raises(SystemExit, match="2"):
        parse(*TEXT, option, "2")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "train.py: error: --patience and --average need --valid-source and --valid-target to measure on"


@pytest.fixture
def record(tmp_path, make_model, tokenizer):
    """Return a function that writes the record of a run, and one that reads it as --resume does."""
    model = make_model(len(tokenizer))

    def write(options):
        options.out = tmp_path / "run"
        translator = SimpleNamespace(model=model, tokenizer=tokenizer, length_ratio=1.5)
        options.out.mkdir(exist_ok=True)
        begin_run(options, translator, "fingerprint", SimpleNamespace(save=lambda: None))

    return write, options_of_run


ASKED_FOR = [
    (),
    (*TEXT, *HELD_OUT, "--epochs", "2.5", "--untied", "--dropout", "0.25", "--average", "3", "--patience", "2"),
    (*TEXT, "--label-smoothing", "0", "--seed", "0", "--clip", "0.1"),
    (*TEXT, *HELD_OUT, "--test-source", "t.en", "--test-target", "Tür.de"),
]


@pytest.mark.parametrize("arguments", ASKED_FOR)
def test_a_run_goes_on_with_the_options_it_began_with(parse, train_script, record, tmp_path, arguments):
    """But for those that are about one call: where it stands now, that it goes on, that nothing is replaced."""
    write, read = record
    began = parse(*arguments, "--overwrite")
    write(began)
    recorded = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["training"]
    of_one_call = {"out", "resume", "overwrite", "summary", "debug", "profile"}
    assert recorded.keys() == vars(began).keys() - of_one_call | {"texts"}
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed = read(parse("--resume", "--out", str(tmp_path / "moved")))
    now = {"out": tmp_path / "moved", "resume": True, "overwrite": False, "texts": "fingerprint"}
    files = {name: value.resolve() for name, value in vars(began).items() if isinstance(value, Path)}  # from anywhere
    assert vars(resumed) == {**vars(began), **files, **now}


@pytest.mark.parametrize(
    "change",
    [lambda r: r.pop("seed"), lambda r: r.update(colour="blue"), dict.clear, lambda r: r.update(out="elsewhere")],
    ids=["missing", "foreign", "empty", "of one call"],
)
def test_a_record_that_is_not_of_this_script_is_refused(parse, record, tmp_path, change):
    write, read = record
    write(parse())
    path = tmp_path / "run" / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields["training"])
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        read(parse("--resume", "--out", str(tmp_path / "run")))
    assert str(caught.value) == f"{tmp_path / 'run'}: config.json does not hold the options of train.py"


def test_a_new_run_leaves_nothing_of_the_old_one(parse, record, tmp_path):
    """Neither its weights nor its state, which would not fit; what is not of a run stays."""
    write, _ = record
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "state.safetensors", "step-00000007.safetensors", "metrics.jsonl", "notes.txt"):
        (run / name).write_text("old", encoding="utf-8")
    with pytest.raises(CheckpointError, match="already holds a run"):
        write(parse())
    write(parse("--overwrite"))
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "notes.txt", "tokenizer.model"]
