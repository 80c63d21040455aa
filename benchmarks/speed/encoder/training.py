"""A training step by the crammed recipe, with the same model in PyTorch."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.encoders import TorchTraining
from benchmarks.speed.encoder.run import BATCHES, MASKED, OURS, Run, random_tokens
from fffcpu.benchmarking.timing import Contender, cycling
from fffcpu.benchmarking.verification import check_close
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.system.memory import keep_freed_memory
from fffcpu.training import AdamW, clip_gradients

Array = np.ndarray
GRADIENT_TOLERANCE = 1e-3
"""Largest error of gradients in float32: they pass all layers and are sums over all positions."""
MAX_NORM = 0.5
RECIPE = {
    "lr": 1e-3,
    "betas": (0.9, 0.98),
    "eps": 1e-12,
    "weight_decay": 0.01,
    "no_decay": ("bias", "norm"),
}
"""The crammed recipe at its peak rate."""
IGNORED = -100


def training(run: Run) -> None:
    """A training step by the crammed recipe, and that of PyTorch with masked FFF."""
    config, batch = run.sizes.trained, run.sizes.trained_batch
    model = FastBertForMaskedLM(config, rng=0)
    batches = [masked_batch(config, batch, seed) for seed in range(BATCHES)]
    run.note(f"training: {model!r}, {batch} x {config.positions}, {MASKED:.0%} masked")
    if keep_freed_memory():
        run.note("training: freed memory is kept for all contenders, as fffcpu pretrain does")
    contenders = [ours_training(model.copy(), batches)]
    other = None
    if run.has(TorchTraining):
        other = TorchTraining(model, run.options.threads, RECIPE, MAX_NORM)
        check_gradients(model, other, *batches[0])
        contenders.append(
            Contender(
                other.name, cycling(lambda pair: other.step(*pair), batches), batches[0][0].size
            )
        )
    timings = run.race(f"training step, {batch} x {config.positions}", contenders)
    if other is not None:
        run.times_faster(f"{other.name} / {OURS}", timings[other.name], timings[OURS], 1.5)


def ours_training(model: FastBertForMaskedLM, batches: list[tuple[Array, Array]]) -> Contender:
    """Return our training step, which is that of `fffcpu.recipes.pretraining.pretrain`."""
    optimizer = AdamW(model.params, **RECIPE)
    tokens = batches[0][0].size
    sparse = model.config.visits_few(tokens)

    def step(pair: tuple[Array, Array]) -> None:
        ids, labels = pair
        _, cache = model.forward(ids, labels=labels)
        grads = model.backward(cache, row_sparse=sparse)
        clip_gradients(grads, MAX_NORM)
        optimizer.step(grads)

    return Contender(OURS, cycling(step, batches), tokens)


def masked_batch(config: FastBertConfig, batch: int, seed: int) -> tuple[Array, Array]:
    """Return tokens and labels. The same share of every sequence is masked, with token 4."""
    rng = np.random.default_rng(seed)
    ids = random_tokens(config, batch, seed)
    count = max(1, round(MASKED * config.positions))
    places = rng.permuted(np.tile(np.arange(config.positions), (batch, 1)), axis=1)[:, :count]
    labels = np.full_like(ids, IGNORED)
    np.put_along_axis(labels, places, np.take_along_axis(ids, places, axis=1), axis=1)
    np.put_along_axis(ids, places, 4, axis=1)
    return ids, labels


def check_gradients(
    model: FastBertForMaskedLM, other: TorchTraining, ids: Array, labels: Array
) -> None:
    """Compare the loss and all gradients of a step."""
    loss, cache = model.forward(ids, labels=labels)
    other_loss, others = other.gradients(ids, labels)
    check_close(np.array([other_loss]), np.array([loss]), 1e-5)
    for name, grad in model.backward(cache).items():
        check_close(others[name].numpy(), grad, GRADIENT_TOLERANCE)
