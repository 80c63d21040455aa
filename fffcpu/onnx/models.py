"""FastBERT and BERT in operators of ONNX.

The inputs are ``input_ids`` and ``attention_mask``, of B sequences of S positions each. The output
is ``logits`` of a model with a head, (B, S, V) or (B, C), and ``last_hidden_state`` (B, S, D) of an
encoder. Hidden states are rows (B S, D); attention takes them apart again::

    h = norm(embedding(input_ids))
    for each layer:  h = h + attention(norm1(h));  h = h + feedforward(norm2(h))
    hidden = final_norm(h)

In a BERT, norms come after the sums, all tokens are of type 0, and a masked language model
transforms the hidden states before it multiplies them by the words.

Shapes: B sequences of S positions, D width, A heads of width W = D / A, V tokens, C classes.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fffcpu.layers import Attention, Dense, Embedding, LayerNorm, LearnedEmbedding
from fffcpu.layers.attention import PENALTY, QuantizedAttention
from fffcpu.models import BertEncoder, BertForMaskedLM, FastBertEncoder
from fffcpu.models.bert import BertLayer
from fffcpu.models.encoder_layer import EncoderLayer
from fffcpu.models.masked_lm import MaskedLM
from fffcpu.models.model import Model
from fffcpu.models.sequence_classification import SequenceClassification
from fffcpu.onnx.graph import Graph
from fffcpu.onnx.layers import activated, add_layer

__all__ = ["add_model"]

Array = NDArray[Any]

AXES = ("batch", "sequence")
"""Names of the lengths of the inputs."""


def add_model(graph: Graph, model: Model[Any]) -> None:
    """Add a FastBERT or a BERT to a graph, with its inputs and its output."""
    config = model.config
    ids, mask = (graph.input(name, np.int64, AXES) for name in ("input_ids", "attention_mask"))
    encoder: Any = getattr(model, "encoder", model)
    shape = graph.add("Shape", ids)
    words = graph.constant(encoder.embedding.params["words"], "words")
    embedded = _embedded(graph, encoder.embedding, graph.add("Gather", words, ids, axis=0), shape)
    rows = _encoded(graph, encoder, embedded, mask, shape)
    if isinstance(model, MaskedLM):
        logits = _apart(graph, _decoded(graph, model, rows, words), shape, config.vocabulary)
        graph.output("logits", logits, config.dtype, (*AXES, config.vocabulary))
        return
    hidden = _apart(graph, rows, shape, config.width)
    if isinstance(model, SequenceClassification):
        active = graph.add(
            "Tanh", _dense(graph, model.pooler, _pooled(graph, hidden, model.config.pooler))
        )
        logits = _dense(graph, model.head, active)
        graph.output("logits", logits, config.dtype, (AXES[0], model.head.config.output_dim))
        return
    graph.output("last_hidden_state", hidden, config.dtype, (*AXES, config.width))


def _decoded(graph: Graph, model: MaskedLM[Any], rows: str, words: str) -> str:
    """Return the logits of tokens (B S, V) of hidden states (B S, D)."""
    if not isinstance(model, BertForMaskedLM):
        return graph.add("Gemm", rows, words, transB=1)
    with graph.within("decoder"):
        projected = _dense(graph, model.transform, rows)
        active = activated(graph, projected, model.config.activation, model.bias.dtype)
        bias = graph.constant(model.bias, "bias")
        return graph.add("Gemm", _norm(graph, model.norm, active), words, bias, transB=1)


def _encoded(
    graph: Graph, encoder: FastBertEncoder | BertEncoder, embedded: str, mask: str, shape: str
) -> str:
    """Return the hidden states (B S, D) of embedded tokens (B, S, D)."""
    config, layers = encoder.config, cast("list[BertLayer | EncoderLayer]", encoder.layers)
    penalties = _penalties(graph, mask, np.dtype(config.dtype))
    rows = graph.add("Reshape", embedded, np.array([-1, config.width]))
    h = _norm(graph, encoder.norm, rows)
    for number, layer in enumerate(layers):
        with graph.within(f"layers.{number}"):
            if isinstance(layer, BertLayer):
                h = _bert_layer(graph, layer, h, penalties, shape)
            else:
                h = _layer(graph, layer, h, penalties, shape)
    return h if isinstance(encoder, BertEncoder) else _norm(graph, encoder.final_norm, h)


def _layer(graph: Graph, layer: EncoderLayer, h: str, penalties: str, shape: str) -> str:
    """Return the hidden states after a layer, both (B S, D)."""
    y = _attention(graph, layer.attention, _norm(graph, layer.norm1, h), penalties, shape)
    h = graph.add("Add", h, y)
    with graph.within("feedforward"):
        y = add_layer(graph, _norm(graph, layer.norm2, h), layer.feedforward)
    return graph.add("Add", h, y)


def _bert_layer(graph: Graph, layer: BertLayer, h: str, penalties: str, shape: str) -> str:
    """Return the hidden states after a layer of a BERT, both (B S, D)."""
    y = _attention(graph, layer.attention, h, penalties, shape)
    x = _norm(graph, layer.norm1, graph.add("Add", h, y))
    with graph.within("feedforward"):
        y = add_layer(graph, x, layer.feedforward)
    y = graph.add("Add", y, graph.constant(layer.bias_out, "bias_out"))
    return _norm(graph, layer.norm2, graph.add("Add", x, y))


def _embedded(
    graph: Graph, embedding: Embedding | LearnedEmbedding, vectors: str, shape: str
) -> str:
    """Return the vectors of tokens (B, S, D) with their positions."""
    params = embedding.params
    if isinstance(embedding, LearnedEmbedding):
        table = params["positions"] + params["types"][0]
    else:
        table = params["position_scale"] * embedding.positions(embedding.config.positions)
    length = graph.add("Slice", shape, np.array([1]), np.array([2]))
    positions = graph.add("Slice", graph.constant(table, "positions"), np.array([0]), length)
    return graph.add("Add", vectors, positions)


def _penalties(graph: Graph, mask: str, dtype: np.dtype[Any]) -> str:
    """Return what is added to the scores of each key (B, 1, 1, S)."""
    padding = graph.add("Sub", np.ones((), dtype), graph.cast(mask, dtype))
    penalty = graph.add("Mul", padding, np.array(PENALTY, dtype))
    return graph.add("Unsqueeze", penalty, np.array([1, 2]))


def _attention(
    graph: Graph, attention: Attention | QuantizedAttention, x: str, penalties: str, shape: str
) -> str:
    """Return the attention of rows (B S, D) to all rows of their sequence."""
    if isinstance(attention, QuantizedAttention):
        attention = attention.dequantize()  # rows stay float32
    config, params = attention.config, attention.params
    heads, width = config.heads, config.head_width
    weights = params["weights_qkv"].reshape(heads, 3, width, config.width)

    def projected(place: int, name: str) -> str:
        matrix = weights[:, place].reshape(config.width, config.width).T
        rows = graph.add("MatMul", x, graph.constant(matrix, f"attention.{name}"))
        if config.bias:
            bias = params["bias_qkv"].reshape(heads, 3, width)[:, place].reshape(config.width)
            rows = graph.add("Add", rows, graph.constant(bias, f"attention.{name}_bias"))
        apart = _apart(graph, rows, shape, heads, width)
        return graph.add("Transpose", apart, perm=[0, 2, 3, 1] if name == "key" else [0, 2, 1, 3])

    query, key, value = map(projected, range(3), ("query", "key", "value"))
    query = graph.add("Mul", query, np.array(1 / math.sqrt(width), config.dtype))
    scores = graph.add("Add", graph.add("MatMul", query, key), penalties)
    chances = graph.add("Softmax", scores, axis=-1)
    context = graph.add("Transpose", graph.add("MatMul", chances, value), perm=[0, 2, 1, 3])
    together = graph.add("Reshape", context, np.array([-1, config.width]))
    out = graph.constant(params["weights_out"].T, "attention.weights_out")
    y = graph.add("MatMul", together, out)
    if config.bias:
        y = graph.add("Add", y, graph.constant(params["bias_out"], "attention.bias_out"))
    return y


def _norm(graph: Graph, norm: LayerNorm, x: str) -> str:
    """Return the layer norm of rows; its moments are of the rows' type."""
    scale, bias = (graph.constant(array, f"norm.{name}") for name, array in norm.params.items())
    kind, eps = graph.element_type(norm.config.dtype), norm.config.eps
    return graph.add("LayerNormalization", x, scale, bias, epsilon=eps, stash_type=kind)


def _dense(graph: Graph, dense: Dense, x: str) -> str:
    """Return a projection of rows."""
    weights, bias = (graph.constant(array, name) for name, array in dense.params.items())
    return graph.add("Gemm", x, weights, bias, transB=1)


def _pooled(graph: Graph, hidden: str, pooler: str) -> str:
    """Return one vector per sequence (B, D), as `fffcpu.models.pooling.pool` does."""
    if pooler == "zero_index":
        return graph.add("Gather", hidden, np.array(0), axis=1)
    operator = {"avg": "ReduceMean", "max": "ReduceMax", "lse": "ReduceLogSumExp"}[pooler]
    return graph.add(operator, hidden, np.array([1]), keepdims=0)


def _apart(graph: Graph, rows: str, shape: str, *axes: int) -> str:
    """Return rows (B S, ...) as (B, S, *axes)."""
    whole = graph.add("Concat", shape, np.array(axes), axis=0)
    return graph.add("Reshape", rows, whole)
