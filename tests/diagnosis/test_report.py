"""A report: its values, its JSON and its text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.diagnosis import diagnose
from fffcpu.errors import ArgumentError
from tests.diagnosis.support import (
    ROWS,
    node_layer,
)


def test_to_dict_is_plain_json():
    layer = LeafFeedForward(3, 2, 4, 1, rng=0)
    report = diagnose(layer, np.ones((1, 3)))
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values == report.to_dict()
    assert values["kind"] == "LeafFeedForward"
    assert values["trees"][0]["visits"] == report.visits[0].tolist()
    assert values["trees"][0]["choice_entropies"].count(None) == 15 - 4


def test_a_report_of_one_tree_and_of_all():
    layer = FastFeedForward(3, 2, 2, 3, rng=0)
    report = diagnose(layer, np.random.default_rng(0).standard_normal((40, 3)))
    assert [tree.tree for tree in report.trees] == [0, 1, 2]
    assert report.of_tree(2).trees == (report.trees[2],)
    for number, level in enumerate(report.levels):
        alone = [report.of_tree(tree).levels[number] for tree in range(3)]
        assert level.nodes == 3 * 2**number
        assert level.reached == sum(one.reached for one in alone)
        if number < 2:
            assert level.balance == pytest.approx(np.mean([one.balance for one in alone]))
            assert level.near_ties == pytest.approx(np.mean([one.near_ties for one in alone]))
    with pytest.raises(ArgumentError, match="'tree' must be an integer from 0 to 2, got 3"):
        report.of_tree(3)


def test_the_text_of_a_report():
    text = str(diagnose(node_layer(), ROWS))
    assert text.startswith("FastFeedForward: tree 0 of depth 2, 4 leaves, 8 rows\n")
    lines = [line.split() for line in text.splitlines()]
    assert ["0", "3", "of", "4", "6", "of", "7", "0.65", "2.5", "62.5%", "1"] in lines
    assert ["1", "2", "of", "2", "0.34", "-", "12.50%"] in lines
    assert "dead subtrees: tree 0 node 4 (1 node)\n" in text
    assert "|logit| < 0.01" in text


def test_the_text_of_many_trees_is_short():
    layer = FastFeedForward(3, 2, 4, 40, rng=0)
    text = str(diagnose(layer, np.ones((1, 3))))
    assert "40 trees of depth 4, 16 leaves, 1 row\n" in text
    assert "\nand 28 more\n" in text
    assert ", and 154 more" in text
    assert max(map(len, text.splitlines())) < 250
    assert "share of the rows" not in text
    full = diagnose(FastFeedForward(3, 2, 0, rng=0), np.ones((1, 3)))
    assert "no dead subtrees" in str(full)
