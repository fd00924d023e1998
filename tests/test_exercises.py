"""The exercises: whole and solvable for every operation, and graded as gradcheck would."""

import ast
import errno
import inspect
import os

import pytest
from attempts import answered, answered_rightly, body_lines, is_solved
from scripts import load_script

import tinytransformer.ops
from tinytransformer.gradcheck.breakages import EXEMPT, breakages_of
from tinytransformer.gradcheck.exercise import STRETCHED, ExerciseError, backward_in, exercise, operation_in, source
from tinytransformer.gradcheck.faults import plant
from tinytransformer.gradcheck.grade import UnwrittenError, grade
from tinytransformer.tensor import OPS

NAMES = sorted(tinytransformer.ops.__all__)

exercises = load_script("exercises.py")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "FOLDER", tmp_path / "exercises")
    return tmp_path / "exercises"


def test_curriculum_holds_every_operation_once():
    assert sorted(exercises.CURRICULUM) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_exercise_holds_no_derivation_and_no_backward(name):
    text = exercise(name)
    operation = ast.parse(text).body[-1]
    docstring, original = ast.get_docstring(operation), inspect.getdoc(OPS[name].plain)
    before, _, after = original.partition("\nBackward")
    assert docstring.startswith(before)
    assert docstring.endswith(after[after.index("\nShapes") :])
    assert "\nBackward" not in docstring
    (statement,) = backward_in(text).body
    assert isinstance(statement, ast.Raise)


@pytest.mark.parametrize("name", NAMES)
def test_exercise_keeps_the_forward_and_the_words_on_its_options(name):
    text, original = exercise(name), source(name)
    forward = original.splitlines()
    del forward[body_lines(original)]
    kept = [line for line in forward if line.strip() in original.split('"""')[2]]
    assert all(line in text.splitlines() for line in kept)
    for parameter in inspect.signature(OPS[name].plain).parameters:
        if f"\n    {parameter}: " in original:
            assert f"\n    {parameter}: " in text


@pytest.mark.parametrize(
    ("name", "wanted", "stretched"),
    [("softmax", "input: (dx,).", False), ("add", "(dx, dy)", True), ("linear", "(dx, dweight, dbias)", False)],
)
def test_exercise_says_what_to_return(name, wanted, stretched):
    text = exercise(name)
    assert wanted in text
    assert (STRETCHED in text) == stretched


@pytest.mark.parametrize("name", NAMES)
def test_exercise_is_found_unwritten(name):
    with pytest.raises(UnwrittenError, match="still to be written"):
        grade(operation_in(exercise(name), name, "attempt.py"))


@pytest.mark.parametrize("name", NAMES)
def test_original_backward_solves_the_exercise(name):
    assert is_solved(answered_rightly(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_original_is_accepted_and_each_breakage_refused(name):
    assert not any(mark.failures for mark in grade(OPS[name]))
    for breakage in breakages_of(OPS[name]):
        marks = grade(breakage.broken)
        assert any(mark.failures for mark in marks) != bool(breakage.exemption), breakage.label
        assert all(bool(mark.hint) == bool(mark.failures) for mark in marks)


def test_numbers_of_accepted_and_refused():
    exemptions = [breakage.exemption for name in NAMES for breakage in breakages_of(OPS[name])]
    assert len(exemptions) > 5 * len(NAMES)
    assert sum(map(bool, exemptions)) == len(EXEMPT)


def test_one_mistake_does_not_hide_what_is_right():
    text = answered("linear", ["return y, rows.T @ dy.reshape(-1, dy.shape[-1]), dy"])
    dx, dweight, dbias = grade(operation_in(text, "linear", "attempt.py"))
    assert dx.failures
    assert not dweight.failures
    assert dbias.failures


def test_grading_leaves_the_registry_alone():
    is_solved(answered_rightly("softmax") + "\n@op\ndef another(x):\n    return x, lambda dy: (dy,)\n", "softmax")
    assert sorted(OPS) == NAMES
    assert all(OPS[name] is getattr(tinytransformer.ops, name) for name in NAMES)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (["return dy / x"], "must return a tuple"),
        (["return dy / x, dy"], "one gradient per input, 1 here, and returned 2"),
        (["return (dy / xx,)"], ": NameError: name 'xx' is not defined\nin 'a number', with inputs of shape ()"),
        (["dy /= x", "return (dy,)"], "read-only"),
        (["return (dy / x"], "'(' was never closed"),
        (["exit()"], ": SystemExit: None\nin 'a number'"),
    ],
)
def test_what_cannot_be_graded_is_said_in_a_line(body, message):
    with pytest.raises(ExerciseError) as caught:
        grade(operation_in(answered("log", body), "log", "attempt.py"))
    assert message in str(caught.value)
    assert type(caught.value) is ExerciseError  # and not one that says that nothing was written yet


def test_an_attempt_that_cannot_be_called_is_said_in_a_line():
    text = answered("log", ["return (dy / x,)"]).replace("def log(x)", "def log(x, base)")
    with pytest.raises(ExerciseError, match=r"^TypeError: .*missing 1 required positional argument: 'base'"):
        grade(operation_in(text, "log", "attempt.py"))


def test_the_case_that_shows_the_mistake_best_comes_first():
    (mark,) = grade(operation_in(answered("negate", ["return (-3 * dy,)"]), "negate", "attempt.py"))
    assert mark.hint == "it is 3 times the right one"
    assert (mark.failures[0].case, mark.failures[-1].case) == ("one row", "a number")


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_graded_without_a_warning():
    grade(operation_in(answered("log", ["return (dy / (x - x),)"]), "log", "attempt.py"))


def test_the_line_that_raised_is_one_of_the_file():
    text = answered("log", ["y = dy", "return (y / xx,)"])
    line = next(i for i, line in enumerate(text.splitlines(), start=1) if "xx" in line)
    with pytest.raises(ExerciseError, match=f"^line {line}: NameError"):
        grade(operation_in(text, "log", "attempt.py"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("array_module(x).log(x)", "array_module(x).log(2 * x)", "the result is no longer that of the operation"),
        ("@op\n", "", "it defines no operation 'log'"),
        ("import op\n", "import opp\n", "it cannot be run: ImportError"),
        ("@op\n", "raise SystemExit(0)\n@op\n", "it cannot be run: SystemExit"),
        ("@op\n", "\0@op\n", "null bytes"),
    ],
)
def test_a_forward_that_was_touched_is_noticed(old, new, message):
    text = answered("log", ["return (dy / x,)"]).replace(old, new)
    with pytest.raises(ExerciseError, match=message):
        grade(operation_in(text, "log", "attempt.py"))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_planted_fault_is_the_one_change_and_is_refused(name, seed):
    planted, original = plant(name, seed), source(name)
    operation = planted[planted.index("\n@op") + 1 :].splitlines()
    lines, inside = original.splitlines(), body_lines(original)
    first = next(i for i, (line, other) in enumerate(zip(lines, operation, strict=False)) if line != other)
    assert inside.start <= first < inside.stop
    lost = len(lines) - len(operation)  # 0, or the lines that were dropped
    assert lines[first + max(lost, 1) :] == operation[first + (lost == 0) :]
    assert not is_solved(planted, name)
    assert is_solved(planted[: planted.index("\n@op") + 1] + original, name)


def test_seed_decides_on_the_fault():
    assert plant("layer_norm", 3) == plant("layer_norm", 3)
    assert len({plant("layer_norm", seed) for seed in range(8)}) >= 5


def run(capsys, *arguments):
    code = exercises.main(list(arguments))
    return code, capsys.readouterr().out


def test_from_handing_out_to_solved(capsys, folder):
    code, out = run(capsys, "softmax")
    assert code == 0
    assert out.startswith(f"Written: {folder / 'softmax.py'}.")
    path = folder / "softmax.py"
    assert path.read_text() == exercise("softmax")
    code, out = run(capsys, "softmax")
    assert code == 1
    assert "`backward` is still to be written" in out
    path.write_text(answered("softmax", ["return (y * dy,)"]))
    code, out = run(capsys, "softmax")
    assert code == 1
    assert "dx: wrong in 6 of 6 cases" in out
    assert "hint: " in out
    assert max(map(len, out.splitlines())) < 100
    path.write_text(answered_rightly("softmax"))
    code, out = run(capsys, "softmax")
    assert code == 0
    assert "dx: right in all 6 cases" in out
    assert "Solved." in out
    assert path.read_text() == answered_rightly("softmax")


def test_a_file_that_cannot_be_read_is_said_in_a_line(capsys, folder, monkeypatch):
    (folder / "log.py").mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    (folder / "exp.py").write_bytes(b"\xff\xfe")
    assert run(capsys, "exp") == (1, "exercises/exp.py\n\n  it is not UTF-8\n")
    assert "  it cannot be read: " in run(capsys, "log")[1]


def test_an_exercise_that_cannot_be_written_is_named_and_not_begun(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        exercises.main(["softmax"])
    assert caught.value.filename == str(folder / "softmax.py")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "from tinytransformer.ops import relu as negate",
        "from tinytransformer.ops import negate",
        "from tinytransformer.tensor import op\n@op\ndef other(x):\n    return -x, lambda dy: (-dy,)\nnegate = other",
    ],
)
def test_another_operation_is_no_answer(capsys, folder, text):
    folder.mkdir()
    (folder / "negate.py").write_text(text)
    code, out = run(capsys, "negate")
    assert code == 1
    assert "it defines no operation 'negate'" in out


def test_find_is_graded_without_hints(capsys, folder):
    assert run(capsys, "softmax", "--find", "--seed", "2")[0] == 0
    assert (folder / "find_softmax.py").read_text() == plant("softmax", 2)
    code, out = run(capsys, "softmax", "--find")
    assert code == 1
    assert "wrong in" in out
    assert "hint" not in out
    (folder / "find_softmax.py").write_text(answered_rightly("softmax"))
    assert run(capsys, "softmax", "--find")[0] == 0


def test_cases_are_named_where_few_are_wrong(capsys, folder):
    run(capsys, "attention")
    wrong = source("attention").replace("= probabilities if kept is None else probabilities * kept", "= probabilities")
    (folder / "attention.py").write_text(plant("attention", 0).split("\n@op")[0] + "\n" + wrong)
    out = run(capsys, "attention")[1]
    assert "dvalue: wrong in 3 of 20 cases" in out
    assert "and in 'dropout', 'dropout, causal'" in out


def test_list_shows_what_is_solved(capsys, folder):
    run(capsys, "log")
    run(capsys, "exp", "--find")
    (folder / "exp.py").write_text(answered_rightly("exp"))
    (folder / "sum.py").write_text("a syntax error")
    code, out = run(capsys, "--list")
    assert code == 0
    states = {line.split()[2]: line.split()[:2] for line in out.splitlines()}
    assert states["log"] == ["open", "-"]
    assert states["exp"] == ["solved", "open"]
    assert states["sum"] == ["open", "-"]
    assert states["attention"] == ["-", "-"]
    assert max(map(len, out.splitlines())) < 100


@pytest.mark.parametrize("arguments", [["nonsense"], [], ["softmax", "--list"], ["softmax", "--seed", "2"]])
def test_wrong_command_line(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        exercises.main(arguments)
