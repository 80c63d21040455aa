"""A forward pass of BERT in plain NumPy, with feedforwards that a caller may watch or replace.

The weights are those of a ``model.safetensors`` with the names of Hugging Face's BertModel. Norms
come after the sums ("post-norm", arXiv 1810.04805)::

    h = norm(words[ids] + positions + types[0])
    for each layer:  h = norm(h + attention(h));  h = norm(h + feedforward(h))

    feedforward(h) = gelu(h W1^T + b1) W2^T + b2        GELU is the exact one

Shapes: B texts of S tokens, D width, A heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from fffcpu.checkpoints.safetensors import SafetensorsFile
from fffcpu.errors import CheckpointError
from fffcpu.system.files import read_json

__all__ = ["WEIGHTS_FILE", "Bert", "Neurons", "gelu", "hidden_states", "mean_pooled"]

Array = np.ndarray

FeedForward = Callable[[int, Array], Array]
"""Maps the number of a layer and rows (B, S, D) to the outputs (B, S, D) of its feedforward."""

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


class Neurons(NamedTuple):
    """The W neurons of a feedforward."""

    weights_in: Array
    """Input weights (W, D)."""
    bias_in: Array
    """Input biases (W,)."""
    weights_out: Array
    """Output weights (W, D)."""


class Bert(NamedTuple):
    """The weights and sizes of a BERT."""

    weights: Mapping[str, Array]
    """Arrays by their published names."""
    layers: int
    heads: int
    eps: float
    """Number that norms add to a variance."""

    @classmethod
    def load(cls, folder: Path) -> Bert:
        """Load the weights and the config in a folder."""
        config = read_json(folder / CONFIG_FILE)
        kind = config.get("model_type"), config.get("hidden_act")
        if kind != ("bert", "gelu"):
            raise CheckpointError(
                f"file '{folder / CONFIG_FILE}' must describe a bert with gelu, got {kind}"
            )
        return cls(
            {
                name: np.array(array)
                for name, array in SafetensorsFile(folder / WEIGHTS_FILE).items()
            },
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
        )

    @property
    def width(self) -> int:
        """The width D of the hidden states."""
        return len(self.weights["embeddings.LayerNorm.weight"])

    def feedforward(self, layer: int, x: Array) -> Array:
        """Compute the feedforward of a layer, without the sum and the norm."""
        logits = self._linear(x, f"encoder.layer.{layer}.intermediate.dense")
        return self._linear(gelu(logits), f"encoder.layer.{layer}.output.dense")

    def neurons(self, layer: int) -> Neurons:
        """Return the neurons of the feedforward of a layer."""
        reading, writing = (
            f"encoder.layer.{layer}.{part}.dense" for part in ("intermediate", "output")
        )
        return Neurons(
            self.weights[f"{reading}.weight"],
            self.weights[f"{reading}.bias"],
            self.weights[f"{writing}.weight"].T,
        )

    def attention(self, layer: int, x: Array, real: Array) -> Array:
        """Compute the attention of a layer, without the sum and the norm."""
        texts, length, width = x.shape
        name = f"encoder.layer.{layer}.attention"
        query, key, value = (
            self._linear(x, f"{name}.self.{part}")
            .reshape(texts, length, self.heads, -1)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2)
        scores *= x.dtype.type(1 / math.sqrt(width // self.heads))
        np.copyto(scores, -np.inf, where=~real[:, np.newaxis, np.newaxis])
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        return self._linear(mixed, f"{name}.output.dense")

    def embed(self, ids: Array) -> Array:
        """Return the normalized sum of the vectors of tokens, positions and the first type."""
        words, positions, types = (
            self.weights[f"embeddings.{kind}_embeddings.weight"]
            for kind in ("word", "position", "token_type")
        )
        return self.norm(words[ids] + positions[: ids.shape[1]] + types[0], "embeddings")

    def norm(self, x: Array, name: str) -> Array:
        """Apply the layer norm of this name."""
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(x).mean(axis=-1, keepdims=True)
        x /= np.sqrt(variance + x.dtype.type(self.eps))
        x *= self.weights[f"{name}.LayerNorm.weight"]
        x += self.weights[f"{name}.LayerNorm.bias"]
        return x

    def _linear(self, x: Array, name: str) -> Array:
        """Apply the linear map of this name. One product of all rows is the fastest."""
        weights, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        y: Array = x.reshape(-1, x.shape[-1]) @ weights.T
        y += bias
        return y.reshape(*x.shape[:-1], len(weights))


def hidden_states(
    model: Bert, ids: Array, real: Array, feedforward: FeedForward | None = None
) -> Array:
    """Run the encoder.

    Parameters
    ----------
    model : Bert
        The model.
    ids : int array of shape (B, S)
        The tokens.
    real : bool array of shape (B, S)
        True for tokens, False for padding.
    feedforward : callable, optional
        Computes the feedforwards in place of `Bert.feedforward`.

    Returns
    -------
    array of shape (B, S, D)
        The hidden states; those of padding have no meaning.
    """
    feedforward = feedforward or model.feedforward
    x = model.embed(ids)
    for layer in range(model.layers):
        name = f"encoder.layer.{layer}"
        x = model.norm(x + model.attention(layer, x, real), f"{name}.attention.output")
        x = model.norm(x + feedforward(layer, x), f"{name}.output")
    return x


def mean_pooled(hidden: Array, real: Array) -> Array:
    """Return the embeddings of texts: the normalized means of the hidden states of their tokens."""
    total: Array = (hidden * real[:, :, np.newaxis]).sum(axis=1)
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    return total


def gelu(x: Array) -> Array:
    """Compute the exact GELU, ``x (1 + erf(x / sqrt(2))) / 2``, in the type of x."""
    share: Array = x * x.dtype.type(math.sqrt(0.5))
    erf(share, out=share)
    share += 1
    share *= 0.5
    share *= x
    return share
