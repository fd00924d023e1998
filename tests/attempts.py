"""Exercises as a reader may have written them."""

from tinytransformer.gradcheck.exercise import ExerciseError, backward_in, exercise, imports, operation_in, source
from tinytransformer.gradcheck.grade import grade


def body_lines(text):
    """Return where the body of `backward` begins and ends in the lines of `text`."""
    backward = backward_in(text)
    return slice(backward.lineno, backward.end_lineno)


def answered(name, body):
    """Return the exercise with `body` in the place of the task."""
    text = exercise(name)
    lines = text.splitlines()
    lines[body_lines(text)] = [f"        {line}" for line in body]
    return "\n".join(lines) + "\n"


def answered_rightly(name):
    """Return the exercise with the original backward, and the imports that it needs."""
    lines = source(name).splitlines()[body_lines(source(name))]
    text = answered(name, [line.removeprefix("        ") for line in lines])
    start = text.index("\n@op")
    head = text[: text.index("from __future__")]
    return head + imports(name, text) + text[start:]


def is_solved(text, name):
    try:
        return not any(mark.failures for mark in grade(operation_in(text, name, "attempt.py")))
    except ExerciseError:
        return False
