"""The peers of fffcpu: the same layers in other libraries, behind one interface.

A peer is made with the number of threads. `prepare` gives it the weights, with fffcpu's names and
shapes, and `run` computes. The `kind` of a peer is what it computes::

    dense    y = act(x weights_in^T + bias_in) weights_out           W neurons, all of them
    path     FastFeedForward's inference                             L of N neurons per tree
    step     its training step by masking: forward and backward, (dx, gradients)

`absent` names the module that a peer lacks. Nothing is imported before `prepare`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fffcpu.benchmarking.onnx_dense import onnx_dense
from fffcpu.benchmarking.verification import TOLERANCES

__all__ = ["PEERS", "Peer", "absent", "expected_dense", "path_mask"]

Array = np.ndarray
Params = Mapping[str, Array]


class Peer:
    """The interface of all peers."""

    name: ClassVar[str]
    kind: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    """The modules that must be installed."""
    activation: ClassVar[str] = "gelu"
    """The activation of a peer that has only one. The others take it in `prepare`."""
    tolerance: ClassVar[float] = TOLERANCES["float32"]
    """Largest error relative to the largest output."""

    def __init__(self, threads: int, spinning: bool = True) -> None:
        self.threads, self.spinning = threads, spinning

    def prepare(self, params: Params, activation: str = "gelu") -> None:
        """Take the weights."""
        raise NotImplementedError

    def run(self, x: Array) -> Any:
        """Compute one call."""
        raise NotImplementedError


def absent(peer: type[Peer]) -> str | None:
    """Return the name of the module that a peer lacks, and how to install it, or None."""
    for module in peer.modules:
        if importlib.util.find_spec(module) is None:
            return f"{peer.name}: {module} not installed, pip install 'fffcpu[bench]'"
    return None


def expected_dense(params: Params, x: Array, activation: str) -> Array:
    """Return the output of a dense layer in float64."""
    from scipy.special import ndtr

    logits = x.astype(np.float64) @ params["weights_in"].T.astype(np.float64)
    logits += params.get("bias_in", 0)
    active = logits * ndtr(logits) if activation == "gelu" else np.maximum(logits, 0)
    return active @ params["weights_out"].astype(np.float64)


class NumpyDense(Peer):
    """BLAS and SciPy's error function, in as few passes as NumPy allows."""

    name, kind = "NumPy dense", "dense"

    def prepare(self, params: Params, activation: str = "gelu") -> None:
        from scipy.special import erf

        self.erf, self.gelu = erf, activation == "gelu"
        self.weights_in = params["weights_in"].T
        self.bias_in, self.weights_out = params["bias_in"], params["weights_out"]

    def run(self, x: Array) -> Array:
        logits = x @ self.weights_in
        logits += self.bias_in
        return self._activate(logits) @ self.weights_out

    def _activate(self, logits: Array) -> Array:
        if not self.gelu:
            return np.maximum(logits, 0, out=logits)
        share = logits * np.float32(math.sqrt(0.5))
        self.erf(share, out=share)
        share += 1
        share *= 0.5
        return np.multiply(logits, share, out=logits)


class OnnxDense(Peer):
    """onnxruntime, float32."""

    name, kind, modules = "onnxruntime dense", "dense", ("onnxruntime", "onnx")
    int8: ClassVar[bool] = False

    def prepare(self, params: Params, activation: str = "gelu") -> None:
        self.compute = onnx_dense(
            params, activation, self.threads, int8=self.int8, spinning=self.spinning
        )

    def run(self, x: Array) -> Array:
        return self.compute(x)


class OnnxDenseInt8(OnnxDense):
    """onnxruntime, with int8 weights and inputs quantized at run time."""

    name, int8, tolerance = "onnxruntime dense int8", True, 0.05


class TorchDense(Peer):
    """PyTorch, eager."""

    name, kind, modules = "PyTorch dense", "dense", ("torch",)

    def prepare(self, params: Params, activation: str = "gelu") -> None:
        torch = self.torch = _torch(self.threads)
        self.activate = getattr(torch.nn.functional, activation)
        self.weights_in, self.bias_in, self.weights_out = _tensors(torch, params)
        # torch.nn.Linear keeps one row of weights per output.
        self.weights_out = self.weights_out.T.contiguous()

    def run(self, x: Array) -> Array:
        torch = self.torch
        with torch.inference_mode():
            linear = torch.nn.functional.linear
            active = self.activate(linear(torch.from_numpy(x), self.weights_in, self.bias_in))
            return linear(active, self.weights_out).numpy()


class TorchGather(Peer):
    """FastFeedForward in PyTorch: at each level the weights of the rows' nodes are gathered.

    All rows descend together. The weights of their nodes are copied to a batch of vectors, whose
    products with the rows are one batched matrix product.
    """

    name, kind, modules = "PyTorch FFF, gather", "path", ("torch",)

    def prepare(self, params: Params, activation: str = "gelu") -> None:
        torch = self.torch = _torch(self.threads)
        self.activate = getattr(torch.nn.functional, activation)
        trees, nodes, _ = params["weights_in"].shape
        self.levels = nodes.bit_length()
        self.first = torch.arange(trees) * nodes  # number of each tree's root among all nodes
        tensors = _tensors(torch, params)
        self.weights_in, self.bias_in, self.weights_out = (each.flatten(0, 1) for each in tensors)

    def run(self, x: Array) -> Array:
        torch = self.torch
        with torch.inference_mode():
            rows, trees = torch.from_numpy(x), len(self.first)
            column = rows.unsqueeze(2)
            nodes = torch.zeros(len(x), trees, dtype=torch.int64)
            y = torch.zeros(len(x), 1, self.weights_out.shape[1])
            for _ in range(self.levels):
                places = (nodes + self.first).flatten()
                weights = self.weights_in.index_select(0, places).view(len(x), trees, -1)
                logits = torch.bmm(weights, column).squeeze(2)
                logits += self.bias_in.index_select(0, places).view_as(logits)
                weights = self.weights_out.index_select(0, places).view(len(x), trees, -1)
                y.baddbmm_(self.activate(logits).unsqueeze(1), weights)
                nodes = 2 * nodes + 1 + (logits > 0)
            return y.squeeze(1).numpy()


class TorchBag(TorchGather):
    """FastFeedForward with PyTorch's fused sum of table rows, which copies no output weights."""

    name = "PyTorch FFF, embedding bag"

    def run(self, x: Array) -> Array:
        torch = self.torch
        with torch.inference_mode():
            rows, trees = torch.from_numpy(x), len(self.first)
            nodes = torch.zeros(len(x), trees, dtype=torch.int64)
            visited, active = [], []
            for _ in range(self.levels):
                places = nodes + self.first
                weights = self.weights_in.index_select(0, places.flatten()).view(*nodes.shape, -1)
                logits = torch.einsum("bti,bi->bt", weights, rows)
                logits += self.bias_in[places]
                visited.append(places)
                active.append(self.activate(logits))
                nodes = 2 * nodes + 1 + (logits > 0)
            bags, shares = torch.cat(visited, 1), torch.cat(active, 1)
            embedding_bag = torch.nn.functional.embedding_bag
            y = embedding_bag(bags, self.weights_out, per_sample_weights=shares, mode="sum")
            return y.numpy()


class TorchMasked(Peer):
    """FastFeedForward's training step as in the published code: compute all neurons, then mask.

    All N neurons of each tree are computed, and those off the path are multiplied by 0. PyTorch's
    autograd differentiates all of it.
    """

    name, kind, modules = "PyTorch FFF, masked step", "step", ("torch",)
    tolerance = 1e-4

    def prepare(self, params: Params, activation: str = "gelu") -> None:
        torch = self.torch = _torch(self.threads)
        self.activate = getattr(torch.nn.functional, activation)
        self.shape = params["weights_in"].shape[:2]
        self.leaves = {
            name: torch.from_numpy(params[name].copy()).flatten(0, 1).requires_grad_()
            for name in ("weights_in", "bias_in", "weights_out")
        }

    def run(self, x: Array, dy: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Return ``dx`` and the gradients by name. ``dy`` is all ones by default."""
        torch = self.torch
        for leaf in self.leaves.values():
            leaf.grad = None
        rows = torch.from_numpy(x).detach().requires_grad_()
        logits = torch.nn.functional.linear(rows, self.leaves["weights_in"], self.leaves["bias_in"])
        mask = path_mask(torch, logits, *self.shape)
        y = (self.activate(logits) * mask) @ self.leaves["weights_out"]
        y.backward(torch.ones_like(y) if dy is None else torch.from_numpy(dy))
        grads = {
            name: leaf.grad.unflatten(0, self.shape).numpy() for name, leaf in self.leaves.items()
        }
        return rows.grad.numpy(), grads


class SklearnMlp(Peer):
    """scikit-learn's multi-layer perceptron, which has no GELU."""

    name, kind, modules = "scikit-learn MLP (ReLU)", "dense", ("sklearn",)
    activation = "relu"

    def prepare(self, params: Params, activation: str = "relu") -> None:
        from sklearn.neural_network import MLPRegressor

        width, inner = params["weights_in"].shape
        outer = params["weights_out"].shape[1]
        model = MLPRegressor(hidden_layer_sizes=(width,), activation="relu")
        # One step of training makes all that prediction needs. Then the weights are replaced.
        model.partial_fit(np.zeros((2, inner), np.float32), np.zeros((2, outer), np.float32))
        model.coefs_ = [np.ascontiguousarray(params["weights_in"].T), params["weights_out"]]
        model.intercepts_ = [params["bias_in"], np.zeros(outer, np.float32)]
        self.model = model

    def run(self, x: Array) -> Array:
        return self.model.predict(x)


PEERS: tuple[type[Peer], ...] = (
    NumpyDense,
    OnnxDense,
    OnnxDenseInt8,
    TorchDense,
    SklearnMlp,
    TorchGather,
    TorchBag,
    TorchMasked,
)
"""All peers."""


def path_mask(torch: Any, logits: Any, trees: int, count: int) -> Any:
    """Return 1 for the nodes on each row's paths and 0 for the others, (B, T * N)."""
    with torch.no_grad():
        by_tree = logits.view(-1, trees, count)
        mask = torch.zeros_like(by_tree)
        nodes = torch.zeros(len(by_tree), trees, 1, dtype=torch.int64)
        for _ in range(count.bit_length()):
            mask.scatter_(2, nodes, 1.0)
            nodes = 2 * nodes + 1 + (by_tree.gather(2, nodes) > 0)
        return mask.view_as(logits)


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch


def _tensors(torch: Any, params: Params) -> list[Any]:
    """Return copies of the weights as tensors."""
    names = ("weights_in", "bias_in", "weights_out")
    return [torch.from_numpy(params[name].copy()) for name in names]
