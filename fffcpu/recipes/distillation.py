"""From a BERT to a faster one: its feedforwards are distilled into trees, or narrow ones.

Two stages follow each other, each a run of a `Trainer`:

    layers    every feedforward of the student learns the outputs of the teacher's feedforward from
              the teacher's inputs, all of them from the same tokens
    encoder   the student as a whole, which has the teacher's other weights, learns the teacher's
              hidden states and results, from its own inputs: the vectors of texts, or the
              probabilities or numbers of a classifier
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.config.bert import BertConfig
from fffcpu.errors import ArgumentTypeError, DataError, describe
from fffcpu.models.model import check_float_weights
from fffcpu.recipes.budgets import evaluate_every, note_every, settle_budget, spread
from fffcpu.recipes.distillation_objectives import (
    Distillable,
    EncoderObjective,
    LayersObjective,
    Texts,
)
from fffcpu.recipes.memory import check_distillation, distillation_disk
from fffcpu.system.files import check_disk
from fffcpu.text.corpus import check_validation
from fffcpu.text.padding import Row
from fffcpu.training import AdamW, cosine
from fffcpu.training.batches import split_rows
from fffcpu.training.trainer import (
    Callback,
    Objective,
    Outcome,
    Trainer,
    TrainerSettings,
    identity_of,
)

__all__ = ["DistillSettings", "Distilled", "Split", "distill", "weights_checksum"]

EVALUATED_TEXTS = 512
"""Most held-out texts of an evaluation."""

EVALUATED_TOKENS = 2048
"""Approximate number of tokens of a batch of an evaluation."""

LAYERS = "layers"
"""Folder of the first stage, in the folder of the run. Its last checkpoint is kept until the run
ends: a resumed run makes the student of it again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Settings of a distillation.

    Parameters
    ----------
    trees, depth : int
        Trees of each feedforward of the student, and their depth.
    two_sided : bool
        Whether the nodes of the trees have output weights for each side.
    width : int, optional
        Neurons of dense feedforwards, instead of trees.
    epochs, seconds : float, optional
        The budget of both stages together: passes over the texts, or wall-clock time. Give at most
        one; the default is 16 passes.
    layers_share : float
        Share of the budget for the first stage.
    batch_tokens : int
        Approximate number of tokens per step, without padding.
    length : int
        Number of tokens after which texts are cut, start and end included.
    lr, encoder_lr : float
        Peak learning rates of the stages.
    weight_decay, encoder_weight_decay : float
        Weight decays of the stages; biases and norms have none.
    max_norm : float
        Largest norm of the gradients.
    evaluations : int
        Number of evaluations per stage, if the budget is in passes.
    checkpoint_seconds : float
        Seconds between checkpoints.
    keep : int
        Number of checkpoints to keep.
    seed : int
        Random seed.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a value is out of range or of the wrong type.
    """

    trees: int = 8
    depth: int = 7
    two_sided: bool = True
    width: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    layers_share: float = 0.6
    batch_tokens: int = 512
    length: int = 128
    lr: float = 0.004
    encoder_lr: float = 1e-4
    weight_decay: float = 0.3
    encoder_weight_decay: float = 0.01
    max_norm: float = 1.0
    evaluations: int = 10
    checkpoint_seconds: float = 60.0
    keep: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        settle_budget(self, ("epochs", "seconds"), 16.0)
        for name in ("trees", "batch_tokens", "evaluations", "keep"):
            check_integer(name, getattr(self, name), 1)
        if self.width is not None:
            check_integer("width", self.width, 1)
        check_integer("length", self.length, 3)
        for name in ("depth", "seed"):
            check_integer(name, getattr(self, name), 0)
        check_flag("two_sided", self.two_sided)
        check_number("layers_share", self.layers_share, 0.0, 1.0)
        numbers = ("lr", "encoder_lr", "weight_decay", "encoder_weight_decay", "max_norm")
        for name in (*numbers, "checkpoint_seconds"):
            check_number(name, getattr(self, name), 0.0)

    def config(self, teacher: BertConfig) -> BertConfig:
        """Return the config of the student of a teacher."""
        if self.width is not None:
            return dataclasses.replace(
                teacher, feedforward="ff", feedforward_size=self.width, depth=0, two_sided=False
            )
        return dataclasses.replace(
            teacher,
            feedforward="fff",
            feedforward_size=self.trees,
            depth=self.depth,
            two_sided=self.two_sided,
        )

    def check_room(self, teacher: BertConfig, folder: str | os.PathLike[str] | None = None) -> None:
        """Raise unless there is room to distil a teacher, in memory and on the disk.

        Parameters
        ----------
        teacher : BertConfig
            Config of the teacher, which takes its memory already.
        folder : path, optional
            Folder for the checkpoints. What is in it counts as room.

        Raises
        ------
        NotEnoughMemoryError
            If there is too little memory; the message has a size that fits.
        OSError
            If the disk has too little space for the checkpoints.
        """
        config = self.config(teacher)
        check_distillation(config)
        if folder is not None:
            need = distillation_disk(config, self.keep)
            check_disk(folder, need, f"a distillation that keeps {self.keep} checkpoints")


class Split(NamedTuple):
    """The texts of a distillation."""

    training: Texts
    held_out: Texts | None
    """At most `EVALUATED_TEXTS` of the texts held out; None if there are none."""

    @classmethod
    def of(
        cls,
        config: BertConfig,
        rows: Sequence[Row],
        settings: DistillSettings,
        validation: float,
    ) -> Split:
        """Cut texts, and hold some out; the arguments are those of `distill`."""
        check_validation(validation)
        longest = min(settings.length, config.longest)
        cut = [np.asarray(row[:longest], np.int32) for row in rows if len(row)]
        if len(cut) < 2:
            raise DataError(f"argument 'rows' must hold at least two texts, got {len(cut)}")
        chosen, held = split_rows(len(cut), validation, settings.seed)
        if not len(chosen):
            raise DataError(
                f"argument 'validation' must leave a text to learn from, got {validation} of "
                f"{len(cut)} texts"
            )
        held = held[spread(len(held), EVALUATED_TEXTS)]

        def texts(numbers: Any, tokens: int, seed: int) -> Texts:
            return Texts([cut[k] for k in numbers], tokens, config.padding_id, seed)

        return cls(
            texts(chosen, settings.batch_tokens, settings.seed),
            texts(held, EVALUATED_TOKENS, 0) if len(held) else None,
        )


class Stage(NamedTuple):
    """A stage that is finished."""

    outcome: Outcome
    """Its outcome."""
    history: list[dict[str, Any]]
    """The lines of its history; see `Trainer`."""


class Distilled(NamedTuple):
    """The result of a distillation."""

    model: Distillable
    """The student, of its teacher's class."""
    layers: Stage
    """The first stage."""
    encoder: Stage
    """The second stage."""
    texts: Split
    """The texts that it learned from, and those of its evaluations."""


def distill(
    teacher: Distillable,
    rows: Sequence[Row],
    settings: DistillSettings,
    *,
    validation: float = 0.02,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Distilled:
    """Distil a BERT into one with other feedforwards.

    Parameters
    ----------
    teacher : BertEncoder or BertForSequenceClassification
        The teacher, which is not changed.
    rows : sequence of sequences or arrays of int
        The tokens of each text, start and end included. Texts are cut to ``settings.length``.
    settings : DistillSettings
        The settings.
    validation : float
        Share of the texts to evaluate with.
    folder : path, optional
        Folder for the checkpoints and histories of both stages.
    resume : bool
        Whether to continue from the newest checkpoint in the folder, if there is one.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    callbacks : sequence of callable
        Functions that are called after each evaluation; see `Trainer`.

    Returns
    -------
    Distilled
        The student and the stages.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is out of range or of the wrong type.
    DataError
        If there are fewer than two texts, or all are held out.
    NotEnoughMemoryError
        If there is too little memory; nothing of it was taken.
    CheckpointError
        If the folder contains another run, or an unfinished run and ``resume`` is False.
    Interrupted
        If the run was interrupted; see `Trainer.run`.
    OSError
        If the folder cannot be written to, or its disk has too little space.

    Notes
    -----
    With a budget of passes, a run that was killed at any moment and resumed gives the same bits as
    an uninterrupted run, on the same machine with the same number of threads.
    """
    if not isinstance(teacher, Distillable):
        raise ArgumentTypeError(
            "argument 'teacher' must be a BertEncoder or a BertForSequenceClassification, "
            f"got {describe(teacher)}"
        )
    check_float_weights(teacher, "teacher")
    settings.check_room(teacher.config, folder)
    texts = Split.of(teacher.config, rows, settings, validation)
    check_distillation(settings.config(teacher.config), texts.training.shapes)
    place = None if folder is None else Path(folder)
    run = _Run(teacher, settings, texts, place, resume, progress, callbacks)
    student, layers = run.distil_layers()
    return Distilled(student, layers, run.distil_encoder(student), texts)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A distillation: what both of its stages share."""

    teacher: Distillable
    settings: DistillSettings
    texts: Split
    folder: Path | None
    resume: bool
    progress: bool | None
    callbacks: Sequence[Callback]

    def distil_layers(self) -> tuple[Distillable, Stage]:
        """Run the first stage, all steps of which may have been made; return the student."""
        settings = self.settings
        objective = LayersObjective(
            self.teacher, settings.config(self.teacher.config), *self.texts, settings.seed
        )
        share, decay = settings.layers_share, settings.weight_decay
        stage = self._train(objective, LAYERS, share, settings.lr, decay)
        return objective.student(), stage

    def distil_encoder(self, student: Distillable) -> Stage:
        """Run the second stage, which changes the student."""
        objective = EncoderObjective(self.teacher, student, *self.texts)
        settings = self.settings
        share, decay = 1.0 - settings.layers_share, settings.encoder_weight_decay
        return self._train(objective, "encoder", share, settings.encoder_lr, decay)

    def _train(
        self, objective: Objective, name: str, share: float, lr: float, decay: float
    ) -> Stage:
        """Train an objective with a share of the budget."""
        trainer = Trainer(
            objective,
            AdamW(objective.params, lr, weight_decay=decay),
            self._trainer_settings(share, lr),
            folder=None if self.folder is None else stage_folder(self.folder, name),
            identity={**self._identity(), "stage": name},
            unit="tokens",
            progress=self.progress,
            callbacks=self.callbacks,
        )
        trainer.begin(self.resume)
        outcome = trainer.run()
        return Stage(outcome, trainer.history)

    def _trainer_settings(self, share: float, lr: float) -> TrainerSettings:
        """Return the settings of a stage's loop."""
        settings, steps = self.settings, None
        if settings.epochs is not None:
            steps = max(1, round(share * settings.epochs * len(self.texts.training.batches)))
        return TrainerSettings(
            steps=steps,
            seconds=None if settings.seconds is None else share * settings.seconds,
            lr=lr,
            schedule=cosine,
            max_norm=settings.max_norm,
            evaluate_every=evaluate_every(steps, settings.evaluations),
            note_every=note_every(steps),
            checkpoint_seconds=settings.checkpoint_seconds,
            keep=settings.keep,
            seed=settings.seed,
        )

    def _identity(self) -> dict[str, Any]:
        """Return the values that identify this run, without those about checkpoints."""
        config = dataclasses.asdict(self.teacher.config)
        return {
            **identity_of(self.settings),
            "texts": self.texts.training.checksum,
            "teacher": weights_checksum(self.teacher),
            **{f"teacher_{name}": value for name, value in config.items()},
        }


def stage_folder(folder: Path, name: str) -> Path:
    """Return the folder of a stage; the second one has the folder of the run itself."""
    return folder / LAYERS if name == LAYERS else folder


def weights_checksum(model: Distillable) -> int:
    """Return a checksum of some numbers of a model."""
    total = 0
    for array in model.params.values():
        some = array.reshape(-1)[:: max(1, array.size // 1000)]
        total = zlib.crc32(np.ascontiguousarray(some).tobytes(), total)
    return total
