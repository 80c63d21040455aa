"""The peers of our encoders: the same models in onnxruntime and PyTorch, with their weights.

Each is made from a model of fffcpu and the number of threads. Nothing is imported before that.
`benchmarks.peers.layers.absent` names the module that a peer lacks.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.layers import path_mask
from fffcpu.benchmarking.onnx_dense import quantized
from fffcpu.layers.embedding import Embedding
from fffcpu.models import BertEncoder, FastBertEncoder, FastBertForMaskedLM
from fffcpu.onnx.exporting import to_model
from fffcpu.onnx.graph import IR_VERSION, OPERATOR_SETS

__all__ = [
    "ExportedEncoder",
    "OnnxEncoder",
    "QuantizedExport",
    "TorchEncoder",
    "TorchTraining",
    "onnx_encoder",
]

Array = np.ndarray


class ExportedEncoder:
    """An encoder as `fffcpu.onnx.export` writes it, in onnxruntime, float32."""

    name, modules = "onnxruntime", ("onnxruntime", "onnx")
    tolerance: ClassVar[float] = 1e-4
    """Largest error relative to the largest output."""

    def __init__(self, encoder: BertEncoder, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(
            self.content(to_model(encoder)), options, providers=["CPUExecutionProvider"]
        )

    def content(self, model: Any) -> bytes:
        """Return the model that runs, as bytes."""
        return model.SerializeToString()

    def run(self, ids: Array) -> Array:
        """Return the hidden states (B, S, D)."""
        return self.session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


class QuantizedExport(ExportedEncoder):
    """The same with int8 weights, and rows that are rounded at run time."""

    name = "onnxruntime int8"

    def content(self, model: Any) -> bytes:
        """Return the quantized model as bytes."""
        return quantized(model, reduce_range=False)


class OnnxEncoder:
    """The encoder with dense feedforwards in onnxruntime, float32."""

    name, modules = "onnxruntime dense", ("onnxruntime", "onnx")
    tolerance: ClassVar[float] = 1e-4
    """Largest error relative to the largest output."""

    def __init__(self, encoder: FastBertEncoder, threads: int, length: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(
            onnx_encoder(encoder, length).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )

    def run(self, ids: Array) -> Array:
        """Return the hidden states (B, S, D)."""
        return self.session.run(None, {"ids": ids})[0]


def onnx_encoder(encoder: FastBertEncoder, length: int) -> Any:
    """Return an encoder for sequences of one length, without padding, as an ``onnx.ModelProto``.

    The graph is that of onnxruntime's optimizer for transformers, with its own operators: one for
    attention, one for a sum and the layer norm after it::

        h --LayerNorm--> n --MatMul x 3--> q, k, v --MultiHeadAttention--> c --MatMul--> y
        h, y --SkipLayerNorm--> h + y, n --MatMul--> --Gelu--> --MatMul--> y, and so on

    The operator that multiplies by all three matrices at once is no faster.
    """
    import onnx

    helper, config = onnx.helper, encoder.config
    weights: dict[str, Array] = {}
    nodes: list[Any] = []

    def node(operator: str, inputs: list[str], outputs: list[str], **options: Any) -> None:
        nodes.append(helper.make_node(operator, inputs, outputs, **options))

    def product(x: str, name: str, matrix: Array) -> str:
        weights[name] = np.ascontiguousarray(matrix)
        node("MatMul", [x, name], [f"{name}.y"])
        return f"{name}.y"

    def scale_and_bias(norm: Any, name: str) -> list[str]:
        names = [f"{name}.scale", f"{name}.bias"]
        weights.update(zip(names, norm.params.values(), strict=True))
        return names

    def add_and_norm(h: str, y: str, norm: Any, name: str) -> tuple[str, str]:
        """Add the nodes of a sum and its layer norm, and return their names."""
        inputs, outputs = [h, y, *scale_and_bias(norm, name)], [f"{name}.n", "", "", f"{name}.h"]
        options = {"domain": "com.microsoft", "epsilon": config.norm_eps}
        node("SkipLayerNormalization", inputs, outputs, **options)
        return f"{name}.h", f"{name}.n"

    def layer_norm(x: str, norm: Any, name: str) -> str:
        inputs = [x, *scale_and_bias(norm, name)]
        node("LayerNormalization", inputs, [f"{name}.n"], epsilon=config.norm_eps)
        return f"{name}.n"

    weights["words"], weights["positions"] = (
        encoder.params["encoder.embedding.words"],
        _positions(encoder.embedding, length),
    )
    node("Gather", ["words", "ids"], ["looked_up"])
    node("Add", ["looked_up", "positions"], ["embedded"])
    h = layer_norm("embedded", encoder.norm, "norm")
    layers = encoder.layers
    n = layer_norm(h, layers[0].norm1, "0.norm1")
    for i, layer in enumerate(layers):
        matrices = layer.attention.params["weights_qkv"].reshape(config.heads, 3, -1, config.width)
        projections = [
            product(n, f"{i}.{name}", matrices[:, k].reshape(-1, config.width).T)
            for k, name in enumerate(("query", "key", "value"))
        ]
        options = {"domain": "com.microsoft", "num_heads": config.heads}
        node("MultiHeadAttention", projections, [f"{i}.context"], **options)
        y = product(f"{i}.context", f"{i}.out", layer.attention.params["weights_out"].T)
        h, n = add_and_norm(h, y, layer.norm2, f"{i}.norm2")
        logits = product(n, f"{i}.feedforward_in", layer.feedforward.params["weights_in"].T)
        node("Gelu", [logits], [f"{i}.active"])
        y = product(f"{i}.active", f"{i}.feedforward_out", layer.feedforward.params["weights_out"])
        following = layers[i + 1].norm1 if i + 1 < len(layers) else encoder.final_norm
        h, n = add_and_norm(h, y, following, f"{i}.following")

    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["B", length])],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["B", length, config.width])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPERATOR_SETS[""]), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


class TorchEncoder:
    """The encoder in PyTorch. Its feedforwards compute all neurons and mask, as published.

    Attention is PyTorch's fused one.
    """

    name, modules = "PyTorch FFF, masked", ("torch",)
    tolerance: ClassVar[float] = 1e-4

    def __init__(self, encoder: FastBertEncoder, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.config = torch, encoder.config
        self.params = {
            name: torch.from_numpy(array.copy()) for name, array in encoder.params.items()
        }
        self.sinusoids = torch.from_numpy(_sinusoids(encoder.embedding))

    def run(self, ids: Array) -> Array:
        """Return the hidden states (B, S, D)."""
        with self.torch.inference_mode():
            return self.hidden(self.torch.from_numpy(ids)).numpy()

    def hidden(self, ids: Any) -> Any:
        """Return the hidden states of a tensor of tokens."""
        config, params = self.config, self.params
        words, scale = (params[f"encoder.embedding.{n}"] for n in ("words", "position_scale"))
        embedding = self.torch.nn.functional.embedding
        h = embedding(ids, words, padding_idx=config.padding_id)
        h = self._norm(h + scale * self.sinusoids[: ids.shape[1]], "encoder.embedding.norm")
        for i in range(config.layers):
            layer = f"encoder.layers.{i}"
            h = h + self._attention(self._norm(h, f"{layer}.norm1"), f"{layer}.attention")
            h = h + self._feedforward(self._norm(h, f"{layer}.norm2"), f"{layer}.feedforward")
        return self._norm(h, "encoder.final_norm")

    def _norm(self, x: Any, name: str) -> Any:
        scale, bias = self.params[f"{name}.scale"], self.params[f"{name}.bias"]
        eps = self.config.norm_eps
        return self.torch.nn.functional.layer_norm(x, scale.shape, scale, bias, eps)

    def _attention(self, x: Any, name: str) -> Any:
        functional = self.torch.nn.functional
        qkv = functional.linear(x, self.params[f"{name}.weights_qkv"])
        projections = qkv.view(*x.shape[:2], self.config.heads, 3, -1).permute(3, 0, 2, 1, 4)
        context = functional.scaled_dot_product_attention(*projections)
        context = context.transpose(1, 2).reshape(x.shape)
        return functional.linear(context, self.params[f"{name}.weights_out"])

    def _feedforward(self, x: Any, name: str) -> Any:
        functional = self.torch.nn.functional
        weights_in, bias_in, weights_out = (
            self.params[f"{name}.{n}"] for n in ("weights_in", "bias_in", "weights_out")
        )
        rows = x.reshape(-1, x.shape[2])
        logits = functional.linear(rows, weights_in.flatten(0, 1), bias_in.flatten())
        mask = path_mask(self.torch, logits, *bias_in.shape)
        y = (functional.gelu(logits) * mask) @ weights_out.flatten(0, 1)
        return y.view(x.shape)


class TorchTraining(TorchEncoder):
    """A masked language model's training step in PyTorch, by the crammed recipe.

    As in ours, only labelled positions are decoded. The optimizer is PyTorch's fused AdamW.
    """

    name = "PyTorch step, masked FFF"

    def __init__(
        self, model: FastBertForMaskedLM, threads: int, recipe: Any, max_norm: float
    ) -> None:
        super().__init__(model.encoder, threads)
        self.max_norm = max_norm
        for tensor in self.params.values():
            tensor.requires_grad_()
        no_decay = {n for n in self.params if any(word in n for word in recipe["no_decay"])}
        groups = [
            {"params": [t for n, t in self.params.items() if n not in no_decay]},
            {"params": [self.params[n] for n in no_decay], "weight_decay": 0.0},
        ]
        options = {name: value for name, value in recipe.items() if name != "no_decay"}
        self.optimizer = self.torch.optim.AdamW(groups, fused=True, **options)

    def gradients(self, ids: Array, labels: Array) -> tuple[float, dict[str, Any]]:
        """Return the loss and the gradients by name."""
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        wanted = torch.from_numpy(labels).view(-1)
        positions = (wanted != -100).nonzero().squeeze(1)
        hidden = self.hidden(torch.from_numpy(ids)).flatten(0, 1)[positions]
        logits = torch.nn.functional.linear(hidden, self.params["encoder.embedding.words"])
        loss = torch.nn.functional.cross_entropy(logits, wanted[positions])
        loss.backward()
        return loss.item(), {name: tensor.grad for name, tensor in self.params.items()}

    def step(self, ids: Array, labels: Array) -> float:
        """Make one step and return the loss before it."""
        loss, _ = self.gradients(ids, labels)
        self.torch.nn.utils.clip_grad_norm_(self.params.values(), self.max_norm, foreach=True)
        self.optimizer.step()
        return loss


def _sinusoids(embedding: Embedding) -> Array:
    """Return a copy of the table of positions."""
    return embedding.positions(embedding.config.positions).copy()


def _positions(embedding: Embedding, length: int) -> Array:
    """Return the positions that are added to the tokens of a sequence."""
    return embedding.params["position_scale"] * _sinusoids(embedding)[:length]
