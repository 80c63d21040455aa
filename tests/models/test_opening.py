"""Folders are opened by whichever class their model is."""

from __future__ import annotations

import pytest

from fffcpu.models import (
    BertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.models.opening import open_model
from tests.support.golden_models import GOLDEN


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bert_tiny", BertEncoder),
        ("crammed_fff_mlm", FastBertForMaskedLM),
        ("crammed_fff_cls", FastBertForSequenceClassification),
    ],
)
def test_a_folder_decides_the_class(name, kind):
    assert type(open_model(GOLDEN / name)) is kind
