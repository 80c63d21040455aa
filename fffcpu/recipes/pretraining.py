"""From a corpus to a FastBERT: pretraining by the crammed recipe, in one call.

The recipe is that of "Cramming: Training a Language Model on a Single GPU in One Day"
(arXiv 2212.14034). "Exponentially Faster Language Modelling" (arXiv 2311.10770) used it to train
UltraFastBERT: no dropout, AdamW, clipped gradients, a triangular schedule of the learning rate, a
growing batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.config.fastbert import FastBertConfig
from fffcpu.errors import ArgumentError
from fffcpu.models import FastBertForMaskedLM
from fffcpu.recipes.budgets import evaluate_every, note_every, settle_budget, spread
from fffcpu.recipes.masked_lm_objective import MaskedLMObjective
from fffcpu.recipes.memory import check_text_training
from fffcpu.recipes.shards import LocalShards, Shards
from fffcpu.text import Corpus
from fffcpu.training import AdamW, one_cycle_triangle
from fffcpu.training.batches import Deal
from fffcpu.training.trainer import Callback, Outcome, Trainer, TrainerSettings, identity_of

__all__ = ["PretrainSettings", "Pretrained", "TextPart", "pretrain"]

Array = NDArray[Any]

BETAS = (0.9, 0.98)
EPS = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Settings of a pretraining.

    Parameters
    ----------
    width, layers, heads : int
        Sizes of the encoder.
    feedforward : {"fff", "ff"}
        FastFeedForward, or a dense feedforward for comparison.
    feedforward_size : int
        Trees of a FastFeedForward, or neurons of a dense feedforward.
    depth : int
        Depth of the trees.
    two_sided : bool
        Whether the nodes of the trees have output weights for each side.
    straight_through : bool
        Whether the routes of the trees are trained as well; see `fffcpu.FastFeedForward.backward`.
        The published recipe holds them constant.
    initial_std : float, optional
        Standard deviation of initial weights. The default is the published 0.02 at width 768, and
        proportional to ``1 / sqrt(width)`` at other widths. The vectors of positions scale in the
        same way, and would dominate smaller word vectors.
    length : int
        Number of tokens per sequence.
    batch_size : int
        Number of sequences per step, once the batch has its full size.
    small_batch_size : int
        Number of sequences that are computed together, which bounds the memory.
    epochs, steps, seconds : optional
        The budget: passes over the corpus, steps, or wall-clock time. Give at most one; the
        default is one pass.
    lr : float
        Peak learning rate.
    weight_decay : float
        Weight decay of all parameters except biases and norms.
    max_norm : float
        Largest norm of the gradients.
    mask_share : float
        Share of the tokens to mask.
    ramp : float
        Fraction of the budget after which the batch has its full size.
    evaluate_every : int, optional
        Steps between evaluations; by default a tenth of the budget.
    validation_sequences : int
        Largest number of held-out sequences per evaluation.
    checkpoint_seconds : float
        Seconds between checkpoints.
    keep : int
        Number of checkpoints to keep.
    seed : int
        Random seed.
    shards : int
        Number of shards, at most ``small_batch_size``: the sequences are cut into as many parts,
        each of which computes its share of every small batch on one core. The bits of the result
        depend on this number, and not on who computes the shards; see `fffcpu.dask.pretrain`. A
        single one is computed by all threads.
    """

    width: int = 256
    layers: int = 4
    heads: int = 4
    feedforward: str = "fff"
    feedforward_size: int = 4
    depth: int = 5
    two_sided: bool = False
    straight_through: bool = False
    initial_std: float | None = None
    length: int = 128
    batch_size: int = 64
    small_batch_size: int = 32
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    lr: float = 1e-3
    weight_decay: float = 0.01
    max_norm: float = 0.5
    mask_share: float = 0.25
    ramp: float = 0.6
    evaluate_every: int | None = None
    validation_sequences: int = 512
    checkpoint_seconds: float = 60.0
    keep: int = 2
    seed: int = 0
    shards: int = 1

    def __post_init__(self) -> None:
        settle_budget(self, ("epochs", "steps", "seconds"), 1.0)
        self._check_numbers()
        self.config(1, 0)  # checks the settings of the model

    def _check_numbers(self) -> None:
        """Raise unless numbers are in their ranges, and flags are booleans."""
        if self.evaluate_every is not None:
            check_integer("evaluate_every", self.evaluate_every, 1)
        for name in ("length", "batch_size", "small_batch_size", "keep"):
            check_integer(name, getattr(self, name), 1)
        for name in ("two_sided", "straight_through"):
            check_flag(name, getattr(self, name))
        for name in ("validation_sequences", "seed"):
            check_integer(name, getattr(self, name), 0)
        for name in ("lr", "weight_decay", "max_norm", "checkpoint_seconds"):
            check_number(name, getattr(self, name), 0.0)
        for name in ("mask_share", "ramp"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        if round(self.mask_share * self.length) < 1:
            raise ArgumentError(
                f"argument 'mask_share' must leave a token to guess in {self.length}, "
                f"got {self.mask_share}"
            )
        check_integer("width", self.width, 2)
        most = min(self.small_batch_size, self.batch_size)
        check_integer("shards", self.shards, 1, most)

    def config(self, vocabulary: int, padding_id: int) -> FastBertConfig:
        """Return the model's config for a vocabulary."""
        std = self.initial_std
        return FastBertConfig(
            vocabulary,
            self.width,
            self.layers,
            self.heads,
            feedforward=self.feedforward,
            feedforward_size=self.feedforward_size,
            depth=self.depth if self.feedforward == "fff" else 0,
            two_sided=self.two_sided and self.feedforward == "fff",
            positions=self.length,
            padding_id=padding_id,
            initial_std=0.02 * math.sqrt(768 / self.width) if std is None else std,
        )

    def check_memory(self, vocabulary: int, sequences: int = 0) -> None:
        """Raise unless there is memory to train a model with this vocabulary.

        Parameters
        ----------
        vocabulary : int
            Number of tokens.
        sequences : int
            Number of sequences to train on. Without any, what a step keeps is not counted.

        Raises
        ------
        NotEnoughMemoryError
            If there is too little; the message has a size that fits.
        """
        small = min(self.small_batch_size, self.batch_size, sequences)
        check_text_training(
            self.config(vocabulary, 0),
            small,
            self.length,
            labelled=small * round(self.mask_share * self.length),
            batches=-(-self.batch_size // small) if small else 1,
        )


class Pretrained(NamedTuple):
    """The result of a pretraining."""

    model: FastBertForMaskedLM
    outcome: Outcome


def pretrain(
    corpus: Corpus,
    settings: PretrainSettings,
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    spread: Callable[[Sequence[TextPart]], Shards] = LocalShards,
) -> Pretrained:
    """Train a masked language model on a corpus.

    Parameters
    ----------
    corpus : Corpus
        The text. If none of its documents are held out, nothing is evaluated.
    settings : PretrainSettings
        The settings.
    folder : path, optional
        Folder for the checkpoints and the history.
    resume : bool
        Whether to continue from the newest checkpoint in the folder, if there is one.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    callbacks : sequence of callable
        Functions that are called after each evaluation with an `Evaluation`; see `Trainer`.
    spread : callable
        Maps the parts of the data, one for each shard, to the `Shards` that compute with them; by
        default in this process.

    Returns
    -------
    Pretrained
        The model and the outcome of the run.

    Raises
    ------
    ArgumentError
        If a setting is out of range.
    NotEnoughMemoryError
        If there is too little memory for the training; nothing of it was taken.
    DataError
        If the corpus has less than one sequence.
    CheckpointError
        If the folder contains another run, or an unfinished run and ``resume`` is False.
    Interrupted
        If the run was interrupted; see `Trainer.run`.

    Notes
    -----
    With a budget of passes or steps, a run that was killed at any moment and resumed gives the same
    bits as an uninterrupted run, on the same machine with the same number of threads.
    """
    tokenizer = corpus.tokenizer
    config = settings.config(tokenizer.vocabulary, tokenizer.padding_id)
    sequences = corpus.sequences("training", settings.length)
    settings.check_memory(tokenizer.vocabulary, len(sequences))
    model = FastBertForMaskedLM(config, rng=settings.seed)
    maker = _Maker(settings, tokenizer.mask_id, tokenizer.vocabulary)
    parts = _parts(sequences, _held_out(corpus, settings), settings)
    with contextlib.closing(spread(parts)) as shards:
        steps = settings.steps
        if settings.epochs is not None:
            plan = maker(parts[0], model)
            steps = plan.steps_for(round(settings.epochs * plan.tokens_per_epoch))
        trainer = Trainer(
            shards.objective(model, maker),
            AdamW(model.params, settings.lr, BETAS, EPS, settings.weight_decay),
            _trainer_settings(settings, steps),
            folder=folder,
            identity=_identity(corpus, settings, sequences),
            unit="tokens",
            progress=progress,
            callbacks=callbacks,
        )
        trainer.begin(resume)
        return Pretrained(model, trainer.run())


def _trainer_settings(settings: PretrainSettings, steps: int | None) -> TrainerSettings:
    """Return the settings of the loop."""
    return TrainerSettings(
        steps=steps,
        seconds=settings.seconds,
        lr=settings.lr,
        schedule=one_cycle_triangle,
        max_norm=settings.max_norm,
        evaluate_every=settings.evaluate_every or evaluate_every(steps),
        note_every=note_every(steps),
        watch="validation_loss",
        checkpoint_seconds=settings.checkpoint_seconds,
        keep=settings.keep,
        seed=settings.seed,
    )


class TextPart(NamedTuple):
    """The sequences of a shard."""

    sequences: Array
    """Sequences to train on, (N, S)."""
    validation: Array
    """Sequences for evaluations, (V, S)."""
    deal: Deal
    """Which shard it is."""


def _parts(sequences: Array, validation: Array, settings: PretrainSettings) -> list[TextPart]:
    """Return the sequences of each shard."""
    check_integer("shards", settings.shards, 1, len(sequences))
    parts = []
    for shard in range(settings.shards):
        deal = Deal(shard, settings.shards, len(sequences))
        held_out = validation[deal._replace(rows=len(validation)).own]
        parts.append(TextPart(sequences[deal.own], held_out, deal))
    return parts


@dataclasses.dataclass(frozen=True, eq=False)
class _Maker:
    """Makes the objective of a shard."""

    settings: PretrainSettings
    mask_id: int
    vocabulary: int

    def __call__(self, part: TextPart, model: FastBertForMaskedLM) -> MaskedLMObjective:
        settings = self.settings
        return MaskedLMObjective(
            model,
            part.sequences,
            part.validation,
            mask_id=self.mask_id,
            vocabulary=self.vocabulary,
            batch_size=settings.batch_size,
            small_batch_size=settings.small_batch_size,
            ramp=settings.ramp,
            share=settings.mask_share,
            row_sparse=model.config.visits_few(settings.small_batch_size * settings.length),
            straight_through=settings.straight_through,
            seed=settings.seed,
            deal=part.deal,
        )


def _held_out(corpus: Corpus, settings: PretrainSettings) -> NDArray[Any]:
    """Return sequences to validate with, evenly spread over those held out."""
    if len(corpus.validation) < settings.length:
        return np.empty((0, settings.length), corpus.validation.dtype)
    sequences = corpus.sequences("validation", settings.length)
    return sequences[spread(len(sequences), settings.validation_sequences)]


def _identity(
    corpus: Corpus, settings: PretrainSettings, sequences: NDArray[Any]
) -> dict[str, Any]:
    """Return the values that identify this run, without those about checkpoints."""
    some = sequences[:: max(1, len(sequences) // 1000)]
    return {
        **identity_of(settings, added={"two_sided": False, "straight_through": False, "shards": 1}),
        "tokenizer": corpus.tokenizer.fingerprint,
        "sequences": len(sequences),
        "contents": zlib.crc32(np.ascontiguousarray(some).tobytes()),
    }
