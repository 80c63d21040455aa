"""Models with a head: a wrong label is an error before the encoder has computed anything."""

from __future__ import annotations

import numpy as np
import pytest

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.models import (
    BertConfig,
    BertForMaskedLM,
    FastBertConfig,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
    data_parallel,
)

FIELDS = {"vocabulary": 13, "width": 8, "layers": 1, "heads": 2, "feedforward_size": 2}
FIELDS |= {"depth": 2, "positions": 6, "head_width": 5}
IDS = np.random.default_rng(0).integers(1, 13, (4, 5))
RIGHT = {
    "masked": np.where(IDS > 6, IDS, -100),
    "classes": np.array([0, 2, 1, 2]),
    "regression": np.array([0.5, -1.0, 2.0, 0.0]),
}
KINDS = pytest.mark.parametrize("kind", RIGHT)


def model_of(kind):
    if kind == "masked":
        return FastBertForMaskedLM(FastBertConfig(**FIELDS), rng=0)
    config = FastBertConfig(**FIELDS, classes=3 if kind == "classes" else 1)
    return FastBertForSequenceClassification(config, rng=0)


@pytest.fixture
def calls(monkeypatch):
    """The shape of the tokens of each forward of an encoder."""
    found = []
    forward = FastBertEncoder.forward

    def counted(self, input_ids, *others):
        found.append(np.shape(input_ids))
        return forward(self, input_ids, *others)

    monkeypatch.setattr(FastBertEncoder, "forward", counted)
    return found


@KINDS
def test_right_labels_take_one_call_of_the_encoder(kind, calls):
    for labels in (RIGHT[kind], RIGHT[kind].tolist()):
        calls.clear()
        model_of(kind).forward(IDS.tolist(), labels=labels)
        assert calls == [(4, 5)]


@pytest.mark.parametrize(
    ("kind", "place", "label", "message"),
    [
        ("masked", (3, 4), 13, r"from 0 to 12, or -100 .*, got 13 at index \(3, 4\)"),
        ("masked", (0, 0), -1, r"from 0 to 12, or -100 .*, got -1 at index \(0, 0\)"),
        ("classes", 2, 3, r"from 0 to 2, got 3 at index 2"),
        ("classes", 1, -100, r"from 0 to 2, got -100 at index 1"),
        ("regression", 3, np.nan, r"finite numbers, got nan at index 3"),
    ],
)
@pytest.mark.parametrize("parts", [False, True])
def test_a_wrong_label_is_an_error_before_the_encoder_runs(
    kind, place, label, message, parts, calls, monkeypatch
):
    if parts:  # as much work as it takes to share a batch among threads
        monkeypatch.setattr(data_parallel, "MIN_WORK", 0)
        monkeypatch.setattr(data_parallel, "get_num_threads", lambda: 2)
    model, labels = model_of(kind), RIGHT[kind].copy()
    labels[place] = label
    with pytest.raises(ArgumentError, match=f"argument 'labels' must hold .*{message}"):
        model.forward(IDS, labels=labels)
    assert calls == []


@KINDS
def test_labels_of_another_shape_or_kind_are_errors_before_the_encoder_runs(kind, calls):
    model, labels = model_of(kind), RIGHT[kind]
    with pytest.raises(ShapeError, match=r"'labels' must have shape \(4,.*, got shape \(3,"):
        model.forward(IDS, labels=labels[1:])
    with pytest.raises(ArgumentTypeError, match="'labels' must hold "):
        model.forward(IDS, labels=labels.astype(str))
    with pytest.raises(ShapeError, match="argument 'input_ids' must have shape"):
        model.forward(IDS[0], labels=labels)
    with pytest.raises(ArgumentError, match=r"argument 'input_ids' must hold .* got 13 at index"):
        model.forward(np.where(IDS[1, 1] == IDS, 13, IDS), labels=labels)
    assert calls == []


@KINDS
def test_caches_of_another_model_are_errors(kind):
    model, other = model_of(kind), model_of("classes" if kind == "masked" else "masked")
    _, cache = other.forward(IDS, labels=RIGHT["classes" if kind == "masked" else "masked"])
    with pytest.raises(ArgumentTypeError, match=r"'cache' must be the .* that forward of this"):
        model.backward(cache)


@pytest.mark.skipif(fffcpu.get_num_threads() < 2, reason="needs two threads")
@KINDS
def test_labels_as_lists_do_not_share_a_batch_among_threads(kind, calls, monkeypatch):
    """Lists stay whole, whatever they are turned into."""
    monkeypatch.setattr(data_parallel, "MIN_WORK", 0)
    model = model_of(kind)
    monkeypatch.setattr(data_parallel, "_pays", lambda *_: True)
    model.forward(IDS, labels=RIGHT[kind].tolist())
    assert calls == [(4, 5)]


def test_threads_share_the_types_of_tokens(monkeypatch):
    config = BertConfig(13, 8, 1, 2, feedforward_size=9, positions=6, dtype="float64")
    model, types = BertForMaskedLM(config, rng=0), IDS % 2
    loss, cache = model.forward(IDS, None, types, labels=RIGHT["masked"])
    whole = model.backward(cache)
    monkeypatch.setattr(data_parallel, "_pays", lambda *_: True)
    monkeypatch.setattr(data_parallel, "get_num_threads", lambda: 2)
    shared, caches = model.forward(IDS, None, types, labels=RIGHT["masked"])
    assert len(caches.shards) == 2
    np.testing.assert_allclose(shared, loss, atol=1e-12)
    for name, grad in model.backward(caches).items():
        np.testing.assert_allclose(grad, whole[name], atol=1e-12)
