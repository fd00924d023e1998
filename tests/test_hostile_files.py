"""Configuration and vocabulary as a stranger or a failing disk may leave them: refused in one line, or usable.

Each loader is tried on damaged and on made-up files; what has been found is written out, and so is tried every time.
"""

import json
import os

import numpy as np
import pytest
from hostile import FUZZ, altered, damaged, refusal
from hypothesis import given
from hypothesis import strategies as st

from tinytransformer.checkpoint import load_config, load_model
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import Transformer, TransformerConfig

# --- config.json

CONFIGS = {
    "nothing": "",
    "no object": "[1]",
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "byte order mark": "\ufeff{}",
    "number of many digits": '{"format": ' + "1" * 5000 + "}",
    "ratio beyond floats": lambda f: f.update(length_ratio=10**400),
    "endless translations": lambda f: f.update(length_ratio=1e308),
    "ratio is text": lambda f: f.update(length_ratio="1.5"),
    "ratio is true": lambda f: f.update(length_ratio=True),
    "training is text": lambda f: f.update(training="all"),
    "field that draws on the screen": lambda f: f["model"].update({"\x1b[2J\n\u202e": 1}),
    "value that draws on the screen": lambda f: f["model"].update(norm="\x1b[2J\n"),
    "long value": lambda f: f["model"].update(norm="pre" * 100_000),
    "more layers than memory": lambda f: f["model"].update(encoder_layers=10**9),
    "width of many digits": lambda f: f["model"].update(width=10**300),
    "vocabulary of another": lambda f: f.update(vocabulary="00"),
    "too long": " " * (1 << 23) + "{}",
    "name that stands twice": '{"format": 1, "model": {"width": 8, "heads": 2, "width": 8}}',
}


def assert_any_configuration_is_refused_or_makes_sense(hostile_run, text):
    (hostile_run.directory / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    message = refusal(load_model, hostile_run.directory)
    if message is None:
        model, _, config = load_model(hostile_run.directory)
        assert model.parameters.data.tobytes() == hostile_run.model.parameters.data.tobytes()
        assert 0 <= config.length_ratio <= config.model.max_length
    else:
        assert message.startswith(str(hostile_run.directory))
    return message


@FUZZ
@given(data=st.data())
def test_any_configuration_is_refused_or_makes_sense(hostile_run, data):
    """It never takes memory that the weights do not fill, and the weights fit it or are refused."""
    text = data.draw(altered(json.loads(hostile_run.contents["config.json"])))
    assert_any_configuration_is_refused_or_makes_sense(hostile_run, text)


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_were_found(hostile_run, text):
    if callable(text):
        fields = json.loads(hostile_run.contents["config.json"])
        text(fields)
        text = json.dumps(fields)
    assert assert_any_configuration_is_refused_or_makes_sense(hostile_run, text) is not None


@FUZZ
@given(data=st.data())
def test_any_damage_to_the_configuration_is_refused_or_makes_sense(hostile_run, data):
    content = data.draw(damaged(hostile_run.contents["config.json"]) | st.binary())
    (hostile_run.directory / "config.json").write_bytes(content)
    message = refusal(load_config, hostile_run.directory)
    assert message is None or message.startswith(f"{hostile_run.directory / 'config.json'}: ")


def test_a_name_that_stands_twice_is_named(hostile_run):
    text = hostile_run.contents["config.json"].decode().replace('"heads": 2', '"heads": 2, "heads": 2')
    (hostile_run.directory / "config.json").write_text(text, encoding="utf-8")
    assert refusal(load_config, hostile_run.directory).endswith("config.json: the field 'heads' stands twice")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model"])
def test_an_endless_file_is_not_read_to_its_end(hostile_run, name):
    """It claims 100 GB, and takes no place on the disk."""
    path = hostile_run.directory / name
    os.truncate(path, 10**11)
    message = refusal(load_model, hostile_run.directory)
    path.unlink()
    assert message == f"{path}: it has more than 8,388,608 bytes"


def test_a_configuration_that_asks_for_more_than_the_weights_hold_is_refused_with_its_size(hostile_run):
    """By its number of parameters, before memory is taken; where that is little, difference by difference."""
    fields, held = json.loads(hostile_run.contents["config.json"]), hostile_run.model.parameters.data.size
    fields["model"].update(width=1 << 18, feed_forward_width=1 << 18)
    (hostile_run.directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    asked = load_config(hostile_run.directory).model.parameter_count()
    assert asked > 10**12
    expected = (
        f"config.json asks for {asked:,} parameters ({asked * 4e-9:,.1f} GB), but model.safetensors holds {held:,}"
    )
    assert refusal(load_model, hostile_run.directory) == f"{hostile_run.directory}: {expected}"
    fields["model"].update(width=16, feed_forward_width=16)
    (hostile_run.directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    message = refusal(load_model, hostile_run.directory)
    assert "encoder.embedding.table has shape (400, 8), expected (400, 16); " in message
    assert message.endswith(" more")


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"positions": "learned"}, {"norm": "post"}])
def test_the_parameters_can_be_counted_before_they_are_made(changes):
    sizes = {"width": 6, "feed_forward_width": 5, "heads": 3, "encoder_layers": 2, "decoder_layers": 3}
    config = TransformerConfig(11, 11 + 2 * ("tied_embeddings" in changes), max_length=7, **sizes, **changes)
    assert config.parameter_count() == Transformer(config, np.random.default_rng(0)).parameters.data.size


@pytest.mark.parametrize("name", ["encoder_layers", "decoder_layers"])
def test_the_number_of_layers_has_a_bound(name):
    """A layer takes memory even where it has few parameters."""
    assert TransformerConfig(9, 9, **{name: 100})
    with pytest.raises(ValueError, match=f"^{name} is 101, expected at least 1 and at most 100$"):
        TransformerConfig(9, 9, **{name: 101})


# --- tokenizer.model


def field(number, content):
    """A field of a protocol-buffer message: a length and as many bytes."""
    size = len(content)
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


RULES = "has rules that rewrite the text, or examples of them"
VOCABULARIES = {
    "nothing": (lambda model: b"", "is damaged, or no sentencepiece model"),
    "piece that is no text": (
        lambda model: model.replace(b"\x03ind", b"\x03i\xff\xff"),
        "is damaged, or no sentencepiece model",
    ),
    "long piece": (lambda model: field(1, field(1, b"a" * 200_000)) + model, "has a piece of 200,004 bytes"),
    "rules": (lambda model: model + field(3, field(2, b"\4\0\0\0\xff\xff\xff\xff")), RULES),
    "rules for the way back": (lambda model: field(5, field(2, bytes(100))) + model, RULES),
    "rules under a number beyond 32 bits": (
        lambda model: model + b"\x9a\x80\x80\x80\x10" + field(3, field(2, b"a"))[1:],
        RULES,
    ),
    "examples": (lambda model: model + field(4, field(1, b"a")), RULES),
    "group": (lambda model: model + b"\x1b", "is damaged, or no sentencepiece model"),
    "endless number": (lambda model: model + b"\x18" + b"\xff" * 100, "is damaged, or no sentencepiece model"),
    "too long": (lambda model: model + field(1, field(1, b"a")) * (1 << 20), "it has more than 8,388,608 bytes"),
}


def assert_any_vocabulary_is_refused_or_works(hostile_run, content):
    (hostile_run.directory / "tokenizer.model").write_bytes(content)
    message = refusal(Tokenizer.load, hostile_run.directory / "tokenizer.model")
    if message is None:
        tokenizer = Tokenizer.load(hostile_run.directory / "tokenizer.model")
        forbidden = tokenizer.forbidden()
        for line in ("", "The old man sees the dog.", "a\u2581b \0 \U0001f468\u200d\U0001f469 e\u0301  x " * 3):
            ids = tokenizer.encode(line)
            assert all(0 <= i < len(tokenizer) for i in ids)
            assert not {"\n", "\r"} & set(tokenizer.decode([i for i in ids if i not in forbidden]))
        assert not {"\n", "\r"} & set(tokenizer.decode([i for i in range(len(tokenizer)) if i not in forbidden]))
    else:
        assert message.startswith(f"{hostile_run.directory / 'tokenizer.model'}: ")
    return message


@FUZZ
@given(data=st.data())
def test_any_vocabulary_is_refused_or_works(hostile_run, data):
    """And none ends the process. In a run whose configuration knows the vocabulary, all others are refused."""
    content = data.draw(damaged(hostile_run.contents["tokenizer.model"], 6000) | st.binary())
    assert_any_vocabulary_is_refused_or_works(hostile_run, content)
    assert (refusal(load_model, hostile_run.directory) is None) == (content == hostile_run.contents["tokenizer.model"])


@pytest.mark.parametrize(("change", "words"), VOCABULARIES.values(), ids=VOCABULARIES)
def test_vocabularies_that_were_found(hostile_run, change, words, capfd):
    """Refused before sentencepiece sees them, or at least in silence."""
    content = change(hostile_run.contents["tokenizer.model"])
    assert content != hostile_run.contents["tokenizer.model"]
    assert assert_any_vocabulary_is_refused_or_works(hostile_run, content).endswith(words)
    assert capfd.readouterr() == ("", "")
