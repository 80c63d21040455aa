"""BertConfig: sizes, and what ``config.json`` may hold."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config.bert import POOLINGS, BertConfig
from fffcpu.config.encoder import FEEDFORWARDS
from fffcpu.errors import ArgumentError, CheckpointError

PUBLISHED = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "use_cache": True,
}


@st.composite
def configs(draw):
    heads = draw(st.integers(1, 3))
    feedforward = draw(st.sampled_from(FEEDFORWARDS))
    return BertConfig(
        draw(st.integers(1, 30)),
        heads * draw(st.integers(1, 4)),
        draw(st.integers(0, 3)),
        heads,
        feedforward=feedforward,
        feedforward_size=draw(st.integers(1, 5)),
        depth=draw(st.integers(0, 3)),
        two_sided=feedforward == "fff" and draw(st.booleans()),
        positions=draw(st.integers(4, 9)),
        types=draw(st.integers(1, 3)),
        activation=draw(st.sampled_from(["gelu", "relu"])),
        pooling=draw(st.sampled_from(POOLINGS)),
        normalize=draw(st.booleans()),
        cut=draw(st.none() | st.integers(1, 4)),
    )


@given(configs())
def test_a_config_is_read_as_it_was_written(config):
    assert BertConfig.from_dict(config.to_dict()) == config
    assert len(config.shapes()) == len(set(config.shapes()))
    assert config.longest == (config.cut or config.positions)


def test_a_published_config_is_read():
    config = BertConfig.from_dict(PUBLISHED, sentence={"normalize": True, "cut": 256})
    expected = BertConfig(30522, 384, 6, 12, feedforward_size=1536, normalize=True, cut=256)
    assert config == expected
    assert (config.positions, config.types, config.longest) == (512, 2, 256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "must have 'model_type' 'bert', got 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "'absolute' for 'position_embedding_type'"),
        ({"is_decoder": True}, "False for 'is_decoder'"),
        ({"hidden_act": "gelu_new"}, "'activation' must be one of"),
        ({"num_attention_heads": 5}, "'heads' must divide"),
        ({"hidden_size": None}, "'width'"),
        ({"fffcpu": 3}, "must have a table 'fffcpu'"),
        ({"fffcpu": {"pooling": "max"}}, "'pooling' must be one of"),
        ({"fffcpu": {"cut": 513}}, "'cut'"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(CheckpointError, match=message):
        BertConfig.from_dict({**PUBLISHED, **changes})


def test_missing_fields_are_named():
    values = {n: v for n, v in PUBLISHED.items() if n not in ("vocab_size", "hidden_size")}
    with pytest.raises(CheckpointError, match="has no 'vocab_size', 'hidden_size'"):
        BertConfig.from_dict(values)


def test_wrong_arguments_are_named():
    config = BertConfig.from_dict(PUBLISHED)
    for change in ({"pooling": "max"}, {"cut": 0}, {"types": 0}, {"two_sided": True}):
        with pytest.raises(ArgumentError, match=f"'{next(iter(change))}'"):
            dataclasses.replace(config, **change)
