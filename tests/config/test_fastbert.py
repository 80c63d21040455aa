"""FastBertConfig: what it checks, its parts, and the published config.json."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config import AttentionConfig, DenseFeedForwardConfig, FastFeedForwardConfig
from fffcpu.config.encoder import FEEDFORWARDS, POOLERS
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from tests.support.paths import GOLDEN

CONFIG_FILES = sorted(GOLDEN.glob("crammed_*/config.json"))
RATES = st.floats(0, 1)


def build(heads, half, feedforward, two_sided, **fields):
    fields |= {"width": 2 * heads * half, "heads": heads, "feedforward": feedforward}
    return FastBertConfig(**fields, two_sided=two_sided and feedforward == "fff")


CONFIGS = st.builds(
    build,
    heads=st.integers(1, 4),
    half=st.integers(1, 4),
    vocabulary=st.integers(1, 50),
    layers=st.integers(0, 3),
    feedforward=st.sampled_from(FEEDFORWARDS),
    two_sided=st.booleans(),
    feedforward_size=st.integers(1, 9),
    depth=st.integers(0, 4),
    positions=st.integers(1, 9),
    classes=st.none() | st.integers(1, 4),
    pooler=st.sampled_from(POOLERS),
    head_width=st.integers(1, 9),
    dropout=RATES,
    embedding_dropout=RATES,
    attention_dropout=RATES,
    classifier_dropout=RATES,
    initial_std=RATES,
)


def small(**changes):
    fields = {"vocabulary": 9, "width": 4, "layers": 2, "heads": 2, "feedforward_size": 3}
    return FastBertConfig(**(fields | changes))


def published():
    return json.loads(CONFIG_FILES[0].read_text())


@given(config=CONFIGS)
def test_a_config_is_what_its_json_says(config):
    text = json.dumps(config.to_dict())
    assert FastBertConfig.from_dict(json.loads(text)) == config


def test_only_two_sided_trees_have_a_field_that_published_configs_do_not():
    assert "intermed_two_sided" not in small().to_dict()["arch"]
    config = small(two_sided=True)
    assert config.to_dict()["arch"]["intermed_two_sided"] is True
    shapes = config.shapes()
    assert shapes["encoder.layers.1.feedforward.weights_out"] == (3, 1, 2, 4)
    message = "argument 'two_sided' must be False for a dense feedforward, got True"
    with pytest.raises(ArgumentError, match=message):
        small(feedforward="ff", two_sided=True)


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.parent.name)
def test_published_configs(path):
    values = json.loads(path.read_text())
    config = FastBertConfig.from_dict(values, dtype="float64")
    arch = values["arch"]
    assert config.feedforward == arch["intermed_type"]
    assert (config.feedforward_size, config.depth) == (
        arch["intermed_size"],
        arch["intermed_depth"],
    )
    assert config.heads == arch["attention"]["num_attention_heads"]
    assert config.classes == arch["num_labels"]
    assert config.dtype == "float64"
    assert config.to_dict()["arch"] == arch
    assert config.to_dict()["model_type"] == values["model_type"]


def test_golden_configs_are_there():
    assert len(CONFIG_FILES) == 3


def test_parts():
    fast, dense = small(depth=3), small(feedforward="ff")
    parts = fast.modules()
    assert parts["encoder.layers.1.feedforward"] == FastFeedForwardConfig(4, 4, 3, 3)
    assert parts["encoder.layers.0.attention"] == AttentionConfig(4, 2)
    expected = DenseFeedForwardConfig(4, 4, 3, bias=False)
    assert dense.modules()["encoder.layers.1.feedforward"] == expected
    assert "pooler" not in parts
    classifier = dataclasses.replace(fast, classes=5).modules()
    assert list(classifier) == [*parts, "pooler", "head"]
    assert classifier["head"].shapes() == {"weights": (5, 1024), "bias": (5,)}


def test_shapes_are_those_of_the_parts():
    shapes = small(depth=1).shapes()
    assert shapes["encoder.embedding.words"] == (9, 4)
    assert shapes["encoder.layers.1.feedforward.weights_in"] == (3, 3, 4)
    assert shapes["encoder.layers.0.attention.weights_qkv"] == (12, 4)
    assert list(shapes)[-1] == "encoder.final_norm.bias"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("feedforward", "moe", "'feedforward' must be one of 'fff', 'ff', got 'moe'"),
        ("pooler", "last", "'pooler' must be one of 'zero_index', 'avg', 'max', 'lse', got 'last'"),
        ("layers", -1, "'layers' must be an integer from 0 to 10000, got -1"),
        ("layers", 10_001, "'layers' must be an integer from 0 to 10000, got 10001"),
        ("depth", 99, "'depth' must be an integer from 0 to"),
        ("heads", 3, "'heads' must divide the width 4, got 3"),
        ("width", 5, "'width' must be even, got 5"),
        ("padding_id", 9, "'padding_id' must be an integer from 0 to 8, got 9"),
        ("classes", 0, "'classes' must be an integer of at least 1, got 0"),
        ("dropout", 1.5, "'dropout' must be a number from 0 to 1, got 1.5"),
        ("norm_eps", -1.0, "'norm_eps' must be a number of at least 0, got -1"),
        ("dtype", "float16", "'dtype' must be float32 or float64, got 'float16'"),
        ("vocabulary", 2**62, "sizes of an Embedding must fit into an address space"),
    ],
)
def test_impossible_fields_are_errors(field, value, message):
    with pytest.raises(ArgumentError, match=message):
        small(**{field: value})


def test_fields_of_another_kind_are_errors():
    with pytest.raises(ArgumentTypeError, match="'vocabulary' must be an integer of at least 1"):
        small(vocabulary="9")


def changed(place, value):
    """A published config with one field of arch changed, or without it if value is `...`."""
    values = copy.deepcopy(published())
    *tables, field = place.split(".")
    table = values["arch"]
    for name in tables:
        table = table[name]
    if value is ...:
        del table[field]
    else:
        table[field] = value
    return values


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("norm", "RMSNorm", "must have 'LayerNorm' for 'norm', got 'RMSNorm'"),
        ("attention.rotary_embedding", True, "must have False for 'attention.rotary_embedding'"),
        ("embedding.pos_embedding", "learned", "must have 'scaled-sinusoidal'"),
        ("use_bias", True, "must have False for 'use_bias', got True"),
        ("hidden_size", ..., None),
        ("num_transformer_layers", ..., "has no 'num_transformer_layers' in 'arch'"),
        ("hidden_size", 50, "must have the same value for hidden_size and embedding.embedding_dim"),
        ("intermed_type", "moe", "has an impossible field: argument 'feedforward' must be one of"),
        ("num_transformer_layers", 2_000_000, "has an impossible field: argument 'layers' must be"),
        ("hidden_dropout_prob", "much", "has an impossible field: argument 'dropout' must be"),
    ],
)
def test_configs_that_are_not_known_here_are_errors(place, value, message):
    if message is None:
        assert FastBertConfig.from_dict(changed(place, value)).width == 48
        return
    with pytest.raises(CheckpointError, match=message):
        FastBertConfig.from_dict(changed(place, value))


@pytest.mark.parametrize("values", [None, [], {}, {"arch": 3}])
def test_a_config_without_arch_is_an_error(values):
    with pytest.raises(CheckpointError, match="must have a table 'arch', got"):
        FastBertConfig.from_dict(values)


def test_what_is_absent_has_its_published_meaning():
    values = changed("intermed_type", ...)
    del values["arch"]["intermed_depth"], values["arch"]["final_norm"]
    config = FastBertConfig.from_dict(values)
    assert (config.feedforward, config.depth) == ("ff", 0)
    assert FastBertConfig.from_dict(changed("num_labels", ...)).classes is None
    values = changed("num_labels", None) | {"id2label": {"0": "bad", "1": "so", "2": "good"}}
    assert FastBertConfig.from_dict(values).classes is None  # its architecture says ForPreTraining
    for heads in (["ScriptableLMForSequenceClassification"], None):
        values["architectures"] = heads
        assert FastBertConfig.from_dict(values).classes == 3
        assert FastBertConfig.from_dict(values).labels == ("bad", "so", "good")


def test_labels_travel_and_are_checked():
    config = FastBertConfig(
        10, 4, 1, 1, feedforward_size=1, classes=2, labels=["no", "yes"], positions=4
    )
    values = config.to_dict()
    assert values["id2label"] == {"0": "no", "1": "yes"}
    assert values["label2id"] == {"no": 0, "yes": 1}
    assert FastBertConfig.from_dict(values) == config
    assert dataclasses.replace(config, classes=None).labels is None
    for wrong in (["no"], ["no", "no"], ["no", 1], "no"):
        with pytest.raises(ValueError, match="argument 'labels' must hold 2 different names"):
            dataclasses.replace(config, labels=wrong)


def test_few_nodes_are_visited_only_where_tokens_are_few():
    config = FastBertConfig(10, 4, 1, 1, feedforward_size=3, depth=11, positions=4)
    assert config.visits_few(170)  # 170 paths of 12 nodes, of 4095
    assert not config.visits_few(171)
    dense = FastBertConfig(10, 4, 1, 1, feedforward="ff", feedforward_size=3, positions=4)
    assert not dense.visits_few(0)
