"""The encoders that are compared: the teacher in its runtimes, and the students."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fffcpu.benchmarking.onnx_dense import quantized
from fffcpu.models import BertEncoder
from fffcpu.onnx import to_model
from fffcpu.recipes.distillation import weights_checksum
from fffcpu.system.terminal import print_status
from fffcpu.text.padding import compute_by_length

__all__ = ["TEACHER", "Encoder", "open_encoders", "vectors_of"]

Array = np.ndarray

TEACHER = "teacher"

ONNXRUNTIME = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
"""Whether the teacher can run in onnxruntime."""


class Encoder(NamedTuple):
    """An encoder in one of the runtimes that have it."""

    name: str
    """That of the model: ``"teacher"``, or that of the student's folder."""
    runtime: str
    model: BertEncoder
    """The model in float32."""
    run: Callable[[Array, Array], Array]
    """Maps tokens (B, S) and the attention mask to the hidden states."""

    @property
    def key(self) -> str:
        """The name in records."""
        return f"{self.name}, {self.runtime}"

    @property
    def identity(self) -> dict[str, Any]:
        """The entries of a record that say which encoder it is about."""
        return {
            "model": self.name,
            "runtime": self.runtime,
            "weights": weights_checksum(self.model),
        }

    @property
    def is_rounded(self) -> bool:
        """Whether its vectors are not those of the float32 model."""
        return "int8" in self.runtime


def open_encoders(teacher: Path, students: Sequence[Path], threads: int) -> Iterator[Encoder]:
    """Yield the teacher in fffcpu, then in its other runtimes, then the students."""
    model = BertEncoder.from_pretrained(teacher)
    yield from ours(TEACHER, model)
    if ONNXRUNTIME:
        yield from sessions(model, threads)
    else:
        print_status("onnxruntime left out: pip install 'fffcpu[bench]'")
    for folder in students:
        yield from ours(folder.resolve().name, BertEncoder.from_pretrained(folder))


def ours(name: str, model: BertEncoder) -> Iterator[Encoder]:
    """Yield a model in fffcpu, in float32 and, if models can be quantized, in int8."""
    yield Encoder(name, "fffcpu float32", model, model)
    quantize = getattr(model, "quantize", None)
    if quantize is not None:
        yield Encoder(name, "fffcpu int8", model, quantize("int8"))


def sessions(model: BertEncoder, threads: int) -> Iterator[Encoder]:
    """Yield a model in onnxruntime, in float32 and dynamically quantized to int8."""
    exported = to_model(model)
    rounded = quantized(exported, reduce_range=False, per_channel=True)
    for kind, content in (("float32", exported.SerializeToString()), ("int8", rounded)):
        yield Encoder(TEACHER, f"onnxruntime {kind}", model, session(content, threads))


def session(content: bytes, threads: int) -> Callable[[Array, Array], Array]:
    """Return a function that runs a file of ONNX."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    made = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(ids: Array, mask: Array) -> Array:
        inputs = {"input_ids": np.asarray(ids, np.int64), "attention_mask": mask.astype(np.int64)}
        (hidden,) = made.run(None, inputs)
        return hidden

    return run


def vectors_of(encoder: Encoder, rows: Sequence[Sequence[int]]) -> Array:
    """Return the vectors (texts, D) of length 1 of texts, given their tokens."""
    config = encoder.model.config

    def pooled(ids: Array, real: Array) -> Array:
        hidden = encoder.run(ids, real)
        if config.pooling == "start":
            return hidden[:, 0]
        return (hidden * real[..., np.newaxis]).sum(axis=1) / real.sum(axis=1, keepdims=True)

    vectors = np.array(compute_by_length(rows, config.padding_id, pooled), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
