"""A BERT in float32 and with int8 weights, compared with its export in onnxruntime, in both too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.peers.encoders import ExportedEncoder, QuantizedExport
from benchmarks.speed.encoder.run import BATCHES, INT8, OURS, Run
from fffcpu.benchmarking.timing import Contender, cycling
from fffcpu.benchmarking.verification import check_close
from fffcpu.errors import WrongOutputError
from fffcpu.models import BertEncoder

Array = np.ndarray

LEAST_COSINES = {INT8: 0.97, QuantizedExport.name: 0.7}
"""Mean cosine of int8 embeddings with those of float32, below which a contender is wrong. That of
onnxruntime, with one scale for all rows, is far lower."""


def bert(run: Run) -> None:
    """A BERT of --bert in float32 and int8, with its export in onnxruntime."""
    if run.options.bert:
        encoder = BertEncoder.from_pretrained(run.options.bert)
    else:
        encoder = BertEncoder(run.sizes.bert, rng=0)
    small, threads = encoder.quantize("int8"), run.options.threads
    run.note(f"bert: {encoder!r}")
    calls: dict[str, Callable[[Array], Array]] = {OURS: encoder, INT8: small}
    for peer in (ExportedEncoder, QuantizedExport):
        if run.has(peer):
            calls[peer.name] = peer(encoder, threads).run
    for shape in run.sizes.shapes:
        batches = [random_ids(encoder, shape, seed) for seed in range(BATCHES)]
        where = f"{shape[0]} x {shape[1]}"
        check(run, calls, batches[0], where)
        contenders = [
            Contender(name, cycling(call, batches), batches[0].size) for name, call in calls.items()
        ]
        timings = run.race(where, contenders)
        run.times_faster(f"{OURS} / {INT8}, {where}", timings[OURS], timings[INT8])
        for peer, ours, goal in ((ExportedEncoder, OURS, None), (QuantizedExport, INT8, 1.1)):
            if peer.name in timings:
                what = f"{peer.name} / {ours}, {where}"
                run.times_faster(what, timings[peer.name], timings[ours], goal)


def random_ids(encoder: BertEncoder, shape: tuple[int, int], seed: int) -> Array:
    """Return tokens (B, S) without padding."""
    return np.random.default_rng(seed).integers(1, encoder.config.vocabulary, shape)


def check(run: Run, calls: dict[str, Callable[[Array], Array]], ids: Array, where: str) -> None:
    """Compare hidden states of float32, and embeddings of int8, with those of ours in float32."""
    expected = calls[OURS](ids)
    if ExportedEncoder.name in calls:
        check_close(calls[ExportedEncoder.name](ids), expected, ExportedEncoder.tolerance)
    for name, least in LEAST_COSINES.items():
        if name in calls:
            cosine = mean_cosine(calls[name](ids), expected)
            run.note(
                f"{name}, {where}: mean cosine of embeddings with those of {OURS} {cosine:.4f}"
            )
            if not cosine >= least:
                raise WrongOutputError(f"embeddings of {name} must agree, got cosine {cosine:.3f}")


def mean_cosine(hidden: Array, expected: Array) -> float:
    """Return the mean cosine of two batches' embeddings, the means of hidden states (B, S, D)."""
    a, b = hidden.mean(axis=1), expected.mean(axis=1)
    products = (a * b).sum(axis=1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((products / lengths).mean())
