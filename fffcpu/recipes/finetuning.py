"""From a pretrained FastBERT or BERT and labelled texts to a classifier, in one call.

The recipe has dropout, AdamW without weight decay, and no clipping. The learning rate falls along a
cosine after a warm-up. "Exponentially Faster Language Modelling" (arXiv 2311.10770) used it to
fine-tune UltraFastBERT, after "Cramming" (arXiv 2212.14034).
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.config.encoder import POOLERS
from fffcpu.errors import ArgumentError, CheckpointError, DataError, describe
from fffcpu.models.model import Model, check_float_weights
from fffcpu.models.opening import model_class
from fffcpu.models.sequence_classification import SequenceClassification
from fffcpu.recipes.memory import check_text_training
from fffcpu.recipes.text_objective import TextObjective, text_figures
from fffcpu.text import LabelledTexts, Tokenizer
from fffcpu.training import AdamW, cosine
from fffcpu.training.batches import BatchOrder, split_rows
from fffcpu.training.trainer import Callback, Outcome, Trainer, TrainerSettings, identity_of

__all__ = ["FinetuneSettings", "Finetuned", "evaluate_texts", "finetune"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Settings of a fine-tuning.

    Parameters
    ----------
    epochs : int
        Passes over the texts.
    batch_size : int
        Texts per step.
    lr : float
        Peak learning rate. The default is the published one for models of BERT's size; small models
        need a larger one.
    eps, weight_decay : float
        Options of AdamW.
    dropout : float
        Share of the activations that are dropped in the embedding, in the attention, in the outputs
        of attention and feedforward, and in the classifier.
    pooler : str
        Method to pool a text into one vector: see `fffcpu.config.encoder.POOLERS`. In training, all
        methods except ``"zero_index"`` pool over padding too, as published; evaluations use texts
        without padding.
    straight_through : bool
        Whether the routes of the trees are trained as well; see `fffcpu.FastFeedForward.backward`.
        The published recipe holds them constant.
    length : int, optional
        Maximum number of tokens per text; further tokens are dropped. It is the model's limit by
        default.
    validation : float
        Share of the texts to validate with.
    seed : int
        Random seed.
    checkpoint_seconds : float
        Seconds between checkpoints.
    keep : int
        Number of checkpoints to keep.
    """

    epochs: int = 5
    batch_size: int = 16
    lr: float = 4e-5
    eps: float = 1e-6
    weight_decay: float = 0.0
    dropout: float = 0.1
    pooler: str = "zero_index"
    straight_through: bool = False
    length: int | None = None
    validation: float = 0.1
    seed: int = 0
    checkpoint_seconds: float = 60.0
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "keep"):
            check_integer(name, getattr(self, name), 1)
        check_integer("seed", self.seed, 0)
        for name in ("lr", "eps", "weight_decay", "checkpoint_seconds"):
            check_number(name, getattr(self, name), 0.0)
        check_number("dropout", self.dropout, 0.0, 1.0)
        check_flag("straight_through", self.straight_through)
        if self.length is not None:
            check_integer("length", self.length, 3)  # a token between its markers
        if self.pooler not in POOLERS:
            names = ", ".join(repr(pooler) for pooler in POOLERS)
            raise ArgumentError(
                f"argument 'pooler' must be one of {names}, got {describe(self.pooler)}"
            )
        if check_number("validation", self.validation, 0.0) >= 1.0:
            raise ArgumentError(f"argument 'validation' must be below 1, got {self.validation}")


_KEPT = ("encoder.", "pooler.")
"""Beginnings of the names of what a classifier has from the model that it starts from."""


class Finetuned(NamedTuple):
    """The result of a fine-tuning."""

    model: SequenceClassification[Any]
    outcome: Outcome


def finetune(
    pretrained: Model[Any],
    tokenizer: Tokenizer,
    data: LabelledTexts,
    settings: FinetuneSettings,
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Finetuned:
    """Train a classifier, or a regression, that starts from a pretrained model.

    Parameters
    ----------
    pretrained : FastBertForMaskedLM or BertEncoder, or another model of either
        The model to start from, which is not changed. The classifier has its encoder and, if there
        is one, its pooler; the rest is new.
    tokenizer : Tokenizer
        The tokenizer of that model.
    data : LabelledTexts
        The texts and their labels.
    settings : FinetuneSettings
        The settings.
    folder : path, optional
        Folder for the checkpoints and the history.
    resume : bool
        Whether to continue from the newest checkpoint in the folder, if there is one.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    callbacks : sequence of callable
        Functions that are called after each evaluation with an `Evaluation`; see `Trainer`.

    Returns
    -------
    Finetuned
        The model and the outcome of the run.

    Raises
    ------
    ArgumentError, ArgumentTypeError, DataError
        If a setting is out of range, the model has int8 weights, or there are too few texts or
        classes.
    NotEnoughMemoryError
        If there is too little memory for the training; nothing of it was taken.
    CheckpointError
        If the folder contains another run, or an unfinished run and ``resume`` is False, or if
        the tokenizer does not fit the model.
    Interrupted
        If the run was interrupted; see `Trainer.run`.
    """
    check_float_weights(pretrained, "pretrained")
    config = pretrained.config
    if tokenizer.vocabulary > config.vocabulary:
        raise CheckpointError(
            f"the tokenizer must have at most the model's {config.vocabulary} tokens, "
            f"got {tokenizer.vocabulary}"
        )
    if data.classes is not None and len(data.classes) < 2:
        raise DataError(f"there must be at least two classes, got only {data.classes[0]!r}")
    length = config.longest if settings.length is None else settings.length
    if length > config.longest:
        raise ArgumentError(
            f"argument 'length' must be at most the model's {config.longest}, got {length}"
        )
    own = config.classifier(
        len(data.classes) if data.classes else 1,
        data.classes,
        pooler=settings.pooler,
        dropout=settings.dropout,
    )
    # Short texts make short batches, so a step may keep next to nothing.
    check_text_training(own, 1, 1, labelled=1)
    model = cast("SequenceClassification[Any]", model_class(own)(own, rng=settings.seed))
    for name, array in pretrained.params.items():
        if name.startswith(_KEPT):
            model.params[name][...] = array
    training, validation = split_rows(len(data.texts), settings.validation, settings.seed)
    if not len(training) or (settings.validation and not len(validation)):
        raise DataError(f"there must be texts to train on and to hold out, got {len(data.texts)}")
    order = BatchOrder(training, settings.batch_size, settings.seed)
    objective = TextObjective(
        model,
        tokenizer.encode(data.texts, length),
        data.labels,
        order,
        validation,
        padding_id=tokenizer.padding_id,
        row_sparse=model.config.visits_few(settings.batch_size * length),
        straight_through=settings.straight_through,
    )
    steps = settings.epochs * order.steps_per_epoch
    trainer = Trainer(
        objective,
        AdamW(model.params, settings.lr, eps=settings.eps, weight_decay=settings.weight_decay),
        TrainerSettings(
            steps=steps,
            lr=settings.lr,
            # Half a step ahead, so that neither the first step nor the last has rate 0.
            schedule=lambda fraction: cosine(fraction + 0.5 / steps),
            evaluate_every=order.steps_per_epoch,
            note_every=max(1, order.steps_per_epoch // 20),
            watch="validation_loss" if data.classes is None else "validation_accuracy",
            higher_is_better=data.classes is not None,
            checkpoint_seconds=settings.checkpoint_seconds,
            keep=settings.keep,
            seed=settings.seed,
        ),
        folder=folder,
        identity=_identity(pretrained, tokenizer, data, settings),
        unit="texts",
        progress=progress,
        callbacks=callbacks,
    )
    trainer.begin(resume)
    return Finetuned(model, trainer.run())


def evaluate_texts(
    model: SequenceClassification[Any], tokenizer: Tokenizer, data: LabelledTexts
) -> dict[str, float]:
    """Evaluate a model on texts: ``loss`` and, for a classifier, ``accuracy``.

    Raises
    ------
    DataError
        If the classes of the texts are not those of the model.
    """
    if data.classes != model.config.labels:
        raise DataError(
            f"the texts must have the model's classes {model.config.labels}, got {data.classes}"
        )
    tokens = tokenizer.encode(data.texts, model.config.longest)
    return text_figures(model, tokens, data.labels, tokenizer.padding_id)


def _identity(
    pretrained: Model[Any],
    tokenizer: Tokenizer,
    data: LabelledTexts,
    settings: FinetuneSettings,
) -> dict[str, object]:
    """Return the values that identify this run, without those about checkpoints."""
    checksum = 0
    for array in pretrained.params.values():
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    return {
        **identity_of(settings, added={"straight_through": False}),
        "pretrained": checksum,
        "tokenizer": tokenizer.fingerprint,
        "texts": zlib.crc32("\0".join(data.texts).encode("utf-8", "replace")),
        "labels": zlib.crc32(data.labels.tobytes()),
        "classes": list(data.classes or ()),
    }
