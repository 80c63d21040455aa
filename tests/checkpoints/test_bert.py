"""The names of BERT's arrays: heads, what lies beside them, and weights that are there twice."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.checkpoints import bert
from fffcpu.checkpoints.safetensors import SafetensorsFile
from fffcpu.errors import CheckpointError
from fffcpu.models.folders import open_config
from tests.support.paths import GOLDEN

FOLDERS = ("bert_tiny", "bert_tiny_cls")
BIAS, DECODER = "cls.predictions.bias", "cls.predictions.decoder.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def config_of(name):
    return open_config(GOLDEN / name, np.float64)


def state_of(name):
    file = SafetensorsFile(GOLDEN / name / "model.safetensors")
    return {key: np.array(array) for key, array in file.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_model_has_the_published_names(name):
    config, state = config_of(name), state_of(name)
    arrays = bert.from_state_dict(config, state)
    assert {key: a.shape for key, a in arrays.items()} == config.shapes()
    found = bert.views(config, arrays)
    assert found.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], array)


def test_what_was_pretrained_beside_a_masked_language_model_is_ignored():
    config, state = config_of("bert_tiny"), state_of("bert_tiny")
    expected = bert.from_state_dict(config, state)
    state |= {"bert.pooler.dense.weight": np.ones((24, 24)), "bert.pooler.dense.bias": np.ones(24)}
    state |= {"cls.seq_relationship.weight": np.ones((2, 24))}
    found = bert.from_state_dict(config, state)
    assert found.keys() == expected.keys()


def test_weights_may_be_there_twice_or_under_their_second_name():
    config, state = config_of("bert_tiny"), state_of("bert_tiny")
    expected = bert.from_state_dict(config, state)
    twice = {**state, DECODER: state[WORDS], "cls.predictions.decoder.bias": state[BIAS]}
    once = {key: array for key, array in twice.items() if key not in (BIAS, WORDS)}
    for changed in (twice, once):
        found = bert.from_state_dict(config, changed)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bert_tiny", lambda s: s.pop(BIAS), f"missing '{BIAS}'"),
        ("bert_tiny", lambda s: s.update({DECODER: s[WORDS] + 1}), "different numbers for 'cls.pr"),
        ("bert_tiny", lambda s: s.update({BIAS: np.ones(3)}), r"bias' must be \(40,\), got \(3,\)"),
        (
            "bert_tiny",
            lambda s: s.update({"classifier.bias": np.ones(3)}),
            "unexpected 'class",
        ),
        ("bert_tiny_cls", lambda s: s.pop("bert.pooler.dense.bias"), "missing 'pooler.dense.bias'"),
        ("bert_tiny_cls", lambda s: s.pop("classifier.weight"), "missing 'classifier.weight'"),
        ("bert_tiny_cls", lambda s: s.update({BIAS: np.ones(40)}), f"unexpected '{BIAS}'"),
        (
            "bert_tiny_cls",
            lambda s: s.update({"classifier.weight": np.ones((2, 24))}),
            r"'classifier.weight' must be \(3, 24\), got \(2, 24\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(name, change, message):
    config, state = config_of(name), state_of(name)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        bert.from_state_dict(config, state)
