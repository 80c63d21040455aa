"""Graphs while they are built: names, what is shared, and limits."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fffcpu
from fffcpu.errors import ArgumentError, MissingExtraError
from fffcpu.onnx import graph as graphs
from fffcpu.onnx.graph import IR_VERSION, OPERATOR_SETS, Graph
from tests.onnx.support import session

ONE = np.ones(1, np.float32)


def test_the_example_of_the_module_runs():
    graph = Graph()
    x = graph.input("x", np.float32, ("rows", 4))
    y = graph.add("Relu", graph.add("Add", x, np.ones(4, np.float32)))
    graph.output("y", y, np.float32, ("rows", 4))
    rows = np.arange(-4.0, 4.0, dtype=np.float32).reshape(2, 4)
    (found,) = session(graph.model()).run(None, {"x": rows})
    assert found.tolist() == np.maximum(rows + 1, 0).tolist()


def test_operators_and_small_constants_are_added_once():
    graph = Graph()
    x = graph.input("x", np.float32, ("rows",))
    assert graph.add("Add", x, ONE) == graph.add("Add", x, ONE.copy())
    assert graph.add("Add", x, ONE) != graph.add("Add", x, 2 * ONE)
    assert graph.add("Softmax", x, axis=0) != graph.add("Softmax", x, axis=-1)
    assert graph.constant(ONE) != graph.constant(ONE.astype(np.float64))
    assert len(graph.nodes) == 4
    assert len(graph.constants) == 3


def test_no_value_takes_the_name_of_an_input():
    graph = Graph()
    names = [graph.input(name, np.float32, ("rows",)) for name in ("add_0", "constant_1")]
    graph.output("y", graph.add("Add", names[0], ONE), np.float32, ("rows",))
    model = graph.model()
    made = [node.output[0] for node in model.graph.node]
    made += [tensor.name for tensor in model.graph.initializer]
    assert len({*made, *names}) == len(made) + 2
    x = np.zeros(3, np.float32)
    assert session(model).run(None, dict.fromkeys(names, x))[0].tolist() == [1.0] * 3


def test_a_model_says_what_made_it():
    graph = Graph()
    graph.output("y", graph.input("x", np.float32, (1,)), np.float32, (1,))
    model = graph.model({"kind": "none"}, "of nothing")
    assert (model.producer_name, model.producer_version) == ("fffcpu", fffcpu.__version__)
    assert model.doc_string == model.graph.doc_string == "of nothing"
    assert [(item.key, item.value) for item in model.metadata_props] == [("kind", "none")]
    assert model.ir_version == IR_VERSION
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPERATOR_SETS[""])]


def test_weights_that_no_file_can_hold_are_refused(monkeypatch):
    monkeypatch.setattr(graphs, "MODEL_BYTES", 100)
    layer = fffcpu.FastFeedForward(4, 4, 2, rng=0)
    with pytest.raises(ArgumentError, match="'model' must have weights of less than 2 GiB"):
        fffcpu.onnx.to_model(layer)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"fffcpu\[onnx\]"):
        Graph()
