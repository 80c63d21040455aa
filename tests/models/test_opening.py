"""Folders are opened by whichever class their model is."""

from __future__ import annotations

import pytest

from fffcpu.models import (
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.models.opening import open_model, open_pretrained
from tests.support.golden_models import GOLDEN


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bert_tiny", BertForMaskedLM),
        ("bert_tiny_cls", BertForSequenceClassification),
        ("crammed_fff_mlm", FastBertForMaskedLM),
        ("crammed_fff_cls", FastBertForSequenceClassification),
    ],
)
def test_a_folder_decides_the_class(name, kind):
    assert type(open_model(GOLDEN / name)) is kind


def test_an_encoder_alone_is_opened(tmp_path):
    BertEncoder.from_pretrained(GOLDEN / "bert_tiny").save_pretrained(tmp_path)
    assert type(open_model(tmp_path)) is BertEncoder


@pytest.mark.parametrize(
    ("name", "kind", "pooled"),
    [
        ("bert_tiny", BertEncoder, False),
        ("bert_tiny_cls", BertEncoder, True),
        ("crammed_fff_mlm", FastBertForMaskedLM, False),
    ],
)
def test_fine_tuning_starts_from_an_encoder_and_its_pooler(name, kind, pooled):
    model = open_pretrained(GOLDEN / name)
    assert type(model) is kind
    assert ("pooler.weights" in model.params) == pooled
