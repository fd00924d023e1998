"""What the tests of hostile files share: how often to try, how to damage a file, how a refusal looks."""

import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tinytransformer.checkpoint import CheckpointError
from tinytransformer.tokenizer import VocabularyError

# TINYTRANSFORMER_FUZZ says how many files each loader is tried on.
FUZZ = settings(
    max_examples=int(os.environ.get("TINYTRANSFORMER_FUZZ", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refusal(load, *arguments):
    """Return the message with which a file is refused, one line that can be shown; None if it is loaded."""
    try:
        load(*arguments)
    except (CheckpointError, VocabularyError) as error:
        message = str(error)
    else:
        return None
    assert message.isprintable()
    assert len(message) < 2500
    return message


@st.composite
def damaged(draw, content, focus=200):
    """Draw `content` with a few bytes flipped, overwritten, taken out or put in, or with its end gone.

    focus: half of the damage falls among so many first bytes, where most can go wrong.
    """
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(len(result), draw(st.sampled_from([focus, len(result)]))) - 1)))
        kind = draw(st.sampled_from(["flip", "write", "cut out", "put in", "repeat", "end"]))
        if kind == "flip" and result:
            result[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            result[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "cut out":
            del result[at : at + draw(st.integers(1, 40))]
        elif kind == "put in":
            result[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "repeat":
            result[at:at] = result[at : at + draw(st.integers(1, 100))]
        elif kind == "end":
            del result[at:]
    return bytes(result)


numbers = st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.sampled_from([0, 1, -1, 2**31, 2**63])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@st.composite
def altered(draw, fields):
    """Draw a JSON text of `fields` in which some values, at any depth, are others, are gone, or stand twice."""
    fields = json.loads(json.dumps(fields))
    for _ in range(draw(st.integers(1, 3))):
        place = fields
        while True:
            name = draw(st.sampled_from([*place, "new", "\x1b[2J\n"]))
            if not (isinstance(place.get(name), dict) and place[name] and draw(st.booleans())):
                break
            place = place[name]
        if draw(st.integers(0, 4)) == 0:
            place.pop(name, None)
        else:
            place[name] = draw(values)
        if not fields:
            break
    return json.dumps(fields)


def with_header(content, text):
    """Return the file of arrays `content` with another header."""
    size = int.from_bytes(content[:8], "little")
    return len(text.encode()).to_bytes(8, "little") + text.encode() + content[8 + size :]


def header_of(content):
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
