"""BertConfig: sizes, and what ``config.json`` may hold."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config.bert import POOLINGS, BertConfig
from fffcpu.config.encoder import FEEDFORWARDS, POOLERS
from fffcpu.errors import ArgumentError, CheckpointError

CLASSIFIER = "BertForSequenceClassification"
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


ENDS = (
    {},
    {"head": "masked_lm"},
    {"classes": 1},
    {"classes": 2, "classifier_dropout": 0.3},
    {"classes": 3, "labels": ("a", "b", "c")},
)
"""What may follow an encoder, as far as ``config.json`` says it."""


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
        pooler=draw(st.sampled_from(POOLERS)),
        **draw(st.sampled_from(ENDS)),
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
        ({"fffcpu": {"pooler": "first"}}, "'pooler' must be one of"),
        (
            {"architectures": [CLASSIFIER], "problem_type": "multi_label_classification"},
            "'single_label_classification' for 'problem_type'",
        ),
        (
            {"architectures": [CLASSIFIER], "num_labels": 1, "problem_type": "single_label"},
            "'regression' for 'problem_type'",
        ),
        ({"architectures": [CLASSIFIER], "num_labels": 0}, "'classes'"),
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
    for change in (
        {"pooling": "max"},
        {"head": "qa"},
        {"pooler": "first"},
        {"cut": 0},
        {"types": 0},
        {"two_sided": True},
    ):
        with pytest.raises(ArgumentError, match=f"'{next(iter(change))}'"):
            dataclasses.replace(config, **change)


@pytest.mark.parametrize(
    ("changes", "head", "classes", "labels"),
    [
        ({}, None, None, None),
        ({"architectures": ["BertModel"], "id2label": {"0": "a"}}, None, None, None),
        ({"architectures": ["BertForTokenClassification"]}, None, None, None),
        ({"architectures": ["BertForMaskedLM"], "id2label": {"0": "a"}}, "masked_lm", None, None),
        ({"architectures": ["BertForPreTraining"]}, "masked_lm", None, None),
        ({"architectures": [CLASSIFIER]}, None, 2, None),
        ({"architectures": [CLASSIFIER], "num_labels": 5}, None, 5, None),
        ({"architectures": [CLASSIFIER], "id2label": {"1": "b", "0": "a"}}, None, 2, ("a", "b")),
        (
            {
                "architectures": [CLASSIFIER],
                "id2label": {"0": "LABEL_0"},
                "problem_type": "regression",
            },
            *(None, 1, None),
        ),
    ],
    ids=str,
)
def test_the_architecture_decides_the_head(changes, head, classes, labels):
    config = BertConfig.from_dict({**PUBLISHED, **changes})
    assert (config.head, config.classes, config.labels) == (head, classes, labels)


def test_a_classifier_drops_as_the_encoder_does_unless_its_file_says_otherwise():
    values = {**PUBLISHED, "architectures": [CLASSIFIER], "hidden_dropout_prob": 0.2}
    assert BertConfig.from_dict({**values, "classifier_dropout": None}).classifier_dropout == 0.2
    assert BertConfig.from_dict({**values, "classifier_dropout": 0.4}).classifier_dropout == 0.4
