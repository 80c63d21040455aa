"""Predictions at masked positions: sequence by sequence, and in padded batches."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.encoder.run import MASKED, Run
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.system.terminal import progress_bar

Array = np.ndarray


def alone(run: Run) -> None:
    """Predictions at masked positions, sequence by sequence and in padded batches."""
    options = run.options
    if options.model:
        model = FastBertForMaskedLM.from_pretrained(options.model)
    else:
        model = FastBertForMaskedLM(run.sizes.trained, rng=0)
    config, rng = model.config, np.random.default_rng(3)
    masked = changed = sequences = 0
    moved, largest = [], 0.0
    progress = progress_bar(
        description="sequences", total=options.count, shown=not options.json, kept=True
    )
    with progress:
        for start in range(0, options.count, options.batch):
            size = min(options.batch, options.count - start)
            ids, mask, places = masked_sequences(config, size, options.mask_id, rng)
            together = model.logits_at(ids, places, mask)
            by_itself = np.concatenate(
                [
                    model.logits_at(ids[[k], :length], places[[k], :length])
                    for k, length in enumerate(mask.sum(axis=1))
                ]
            )
            other = together.argmax(axis=1) != by_itself.argmax(axis=1)
            masked += len(other)
            changed += int(other.sum())
            sequences += len(np.unique(np.nonzero(places)[0][other]))
            moved.append(np.abs(together - by_itself).max(axis=1))
            largest = max(largest, float(np.abs(by_itself).max()))
            progress.update(size)
    movement = np.concatenate(moved)
    run.note(
        f"alone: {model!r}; {options.count:,} sequences of 1 to {config.positions} tokens, in "
        f"padded batches of {options.batch}"
    )
    run.counts = {
        "masked positions": masked,
        "predictions that change": changed,
        "sequences with such a prediction": sequences,
        "movement of a position's logits, median": float(np.median(movement)),
        "movement of a position's logits, largest": float(movement.max()),
        "largest logit": largest,
    }


def masked_sequences(
    config: FastBertConfig, count: int, mask_id: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return random sequences of random lengths: tokens, attention mask, masked positions."""
    lengths = rng.integers(1, config.positions + 1, count)[:, np.newaxis]
    places = np.arange(lengths.max())
    mask = places < lengths
    masked = mask & (rng.random(mask.shape) < MASKED)
    masked[:, 0] |= ~masked.any(axis=1)  # at least one in each sequence
    ids = np.where(mask, rng.integers(1, config.vocabulary, mask.shape), config.padding_id)
    return np.where(masked, mask_id, ids), mask.astype(np.int64), masked
