"""From an encoder to a smaller one: its feedforwards are distilled into trees, or narrow ones.

Two stages follow each other, each a run of a `Trainer`:

    layers    every feedforward of the student learns the outputs of the teacher's feedforward from
              the teacher's inputs, all of them from the same tokens
    encoder   the student as a whole, which has the teacher's other weights, learns the teacher's
              hidden states and the vectors of texts, from its own inputs

Layers learn from inputs and outputs that are standardized by column. The student's weights absorb
the scales. The batch of a step depends on the number of the step alone.

Shapes: B texts of S tokens, N tokens in all without padding, D width.
"""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.config.bert import BertConfig
from fffcpu.errors import ArgumentError, DataError
from fffcpu.layers import DenseFeedForward, FastFeedForward
from fffcpu.models.bert import BertEncoder
from fffcpu.recipes.scaling import Scaling, TargetScaling
from fffcpu.text.padding import padded
from fffcpu.training import AdamW, cosine
from fffcpu.training.batches import BatchOrder, split_rows
from fffcpu.training.trainer import (
    Callback,
    Moment,
    Outcome,
    StepResult,
    Trainer,
    TrainerSettings,
    identity_of,
)

__all__ = ["DistillSettings", "Distilled", "Texts", "distill", "similarity_correlation"]

Array = NDArray[Any]
Feedforward = FastFeedForward | DenseFeedForward

SCALED_TOKENS = 16_384
"""Tokens whose inputs and outputs decide the scales of columns."""

EVALUATED_TEXTS = 512
"""Most held-out texts of an evaluation."""

NOTES = 200
"""Approximate number of lines in the history of a stage whose budget is in steps."""

LAYERS, LAYERS_STUDENT = "layers", "layers-student"
"""Folders of the first stage, and of the student after it, in the folder of the run."""


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
        if self.epochs is not None and self.seconds is not None:
            raise ArgumentError("argument 'epochs' or 'seconds' must be given alone, got both")
        if self.epochs is None and self.seconds is None:
            object.__setattr__(self, "epochs", 16.0)
        for name in ("epochs", "seconds"):
            value = getattr(self, name)
            if value is not None and check_number(name, value, 0.0) == 0:
                raise ArgumentError(f"argument '{name}' must be above 0, got {value}")
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


class Distilled(NamedTuple):
    """The result of a distillation."""

    model: BertEncoder
    layers: Outcome | None
    """Outcome of the first stage; None if an earlier run had finished it."""
    encoder: Outcome
    """Outcome of the second stage."""


class Texts:
    """The tokens of texts, in batches of texts of about one length.

    Parameters
    ----------
    rows : sequence of sequences of int
        The tokens of each text, none empty.
    tokens : int
        Approximate number of tokens of a batch.
    padding_id : int
        The token that pads.
    seed : int
        Seed of the order of the batches.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], tokens: int, padding_id: int, seed: int
    ) -> None:
        self.rows, self.padding_id = rows, padding_id
        lengths = np.array([len(row) for row in rows])
        order = np.argsort(lengths, kind="stable")
        batch = (np.cumsum(lengths[order]) - 1) // tokens
        self.batches = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
        self._order = BatchOrder(len(self.batches), 1, seed)

    def batch(self, number: int) -> tuple[Array, NDArray[np.bool_]]:
        """Return the tokens (B, S) of the batch of a step, and the attention mask."""
        (place,) = self._order.rows(number)
        return padded([self.rows[k] for k in self.batches[place]], self.padding_id)

    @property
    def checksum(self) -> int:
        """Checksum of all tokens."""
        total = 0
        for row in self.rows:
            total = zlib.crc32(np.asarray(row, np.int32).tobytes(), total)
        return total


def distill(
    teacher: BertEncoder,
    rows: Sequence[Sequence[int]],
    settings: DistillSettings,
    *,
    validation: float = 0.02,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Distilled:
    """Distil an encoder into one with other feedforwards.

    Parameters
    ----------
    teacher : BertEncoder
        The teacher, which is not changed.
    rows : sequence of sequences of int
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
        The student and the outcomes of the stages.

    Raises
    ------
    ArgumentError
        If a setting is out of range.
    DataError
        If there are fewer than two texts.
    CheckpointError
        If the folder contains another run, or an unfinished run and ``resume`` is False.
    Interrupted
        If the run was interrupted; see `Trainer.run`.

    Notes
    -----
    With a budget of passes, a run that was killed at any moment and resumed gives the same bits as
    an uninterrupted run, on the same machine with the same number of threads.
    """
    config = settings.config(teacher.config)
    cut = [list(row[: min(settings.length, teacher.config.longest)]) for row in rows if len(row)]
    if len(cut) < 2:
        raise DataError(f"argument 'rows' must hold at least two texts, got {len(cut)}")
    check_number("validation", validation, 0.0, 1.0)
    chosen, held = split_rows(len(cut), validation, settings.seed)
    padding_id = teacher.config.padding_id
    texts = Texts([cut[k] for k in chosen], settings.batch_tokens, padding_id, settings.seed)
    evaluated = held[np.linspace(0, len(held) - 1, min(len(held), EVALUATED_TEXTS)).astype(int)]
    tests = Texts([cut[k] for k in evaluated], 2048, padding_id, 0) if len(held) else None
    place = None if folder is None else Path(folder)
    identity = {**identity_of(settings), "texts": texts.checksum, "teacher": _checksum(teacher)}

    def stage(objective: Any, name: str, share: float, lr: float, decay: float) -> Outcome:
        steps = None
        if settings.epochs is not None:
            steps = max(1, round(share * settings.epochs * len(texts.batches)))
        every = 250 if steps is None else max(1, steps // settings.evaluations)
        trainer = Trainer(
            objective,
            AdamW(objective.params, lr, weight_decay=decay),
            TrainerSettings(
                steps=steps,
                seconds=None if steps else share * float(settings.seconds or 0.0),
                lr=lr,
                schedule=cosine,
                max_norm=settings.max_norm,
                evaluate_every=every,
                note_every=max(1, steps // NOTES) if steps else 10,
                checkpoint_seconds=settings.checkpoint_seconds,
                keep=settings.keep,
                seed=settings.seed,
            ),
            folder=None if place is None else place / name,
            identity={**identity, "stage": name or "encoder"},
            unit="tokens",
            progress=progress,
            callbacks=callbacks,
        )
        trainer.begin(resume)
        return trainer.run()

    between = None if place is None else place / LAYERS_STUDENT
    layers = None
    if resume and between is not None and between.exists():
        student = BertEncoder.from_pretrained(between, teacher.config.dtype)
    else:
        first = LayersObjective(teacher, config, texts, tests, settings.seed)
        layers = stage(first, LAYERS, settings.layers_share, settings.lr, settings.weight_decay)
        student = first.student()
        if between is not None:
            student.save_pretrained(between)
    second = EncoderObjective(teacher, student, texts, tests)
    lr, decay = settings.encoder_lr, settings.encoder_weight_decay
    return Distilled(student, layers, stage(second, "", 1.0 - settings.layers_share, lr, decay))


class LayersObjective:
    """Feedforwards that learn those of a teacher from the teacher's inputs; an `Objective`.

    Parameters
    ----------
    teacher : BertEncoder
        The teacher.
    config : BertConfig
        Config of the student.
    texts, tests : Texts
        The texts to learn from, and to evaluate with.
    seed : int
        Seed of the initial values.
    """

    def __init__(
        self, teacher: BertEncoder, config: BertConfig, texts: Texts, tests: Texts | None, seed: int
    ) -> None:
        self.teacher, self.config, self.texts, self.tests = teacher, config, texts, tests
        pairs = _recorded(teacher, texts, SCALED_TOKENS)
        every = [np.arange(len(x)) for x, _ in pairs]
        self.scales = [
            (Scaling.of(x, rows, "columns"), TargetScaling.of(y))
            for (x, y), rows in zip(pairs, every, strict=True)
        ]
        self.layers = [_new_layer(config, seed + i) for i in range(config.layers)]
        self._params = {
            f"layers.{i}.{name}": array
            for i, layer in enumerate(self.layers)
            for name, array in layer.params.items()
        }

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters of all feedforwards."""
        return self._params

    def step(self, moment: Moment) -> StepResult:
        """Return the mean squared error of a batch's outputs, and its gradients."""
        ids, real = self.texts.batch(moment.step)
        loss = 0.0
        grads: dict[str, Any] = {}
        for i, (x, y) in enumerate(self._scaled(ids, real)):
            layer = self.layers[i]
            found, cache = layer.forward(x)
            difference = found - y
            loss += float(np.square(difference).mean()) / len(self.layers)
            difference *= 2 / (difference.size * len(self.layers))
            own = _backward(layer, difference, cache)
            grads |= {f"layers.{i}.{name}": grad for name, grad in own.items()}
        return StepResult(loss, grads, int(real.sum()), {})

    def evaluate(self) -> dict[str, float]:
        """Return the R2 of each layer on held-out texts, and the mean."""
        if self.tests is None:
            return {}
        errors = np.zeros(len(self.layers))
        tokens = 0
        for number in range(len(self.tests.batches)):
            ids, real = self.tests.batch(number)
            for i, (x, y) in enumerate(self._scaled(ids, real)):
                errors[i] += float(np.square(self.layers[i](x) - y).mean(axis=1).sum())
            tokens += int(real.sum())
        found = 1 - errors / tokens
        figures = {f"r2_{i}": float(one) for i, one in enumerate(found)}
        return {"loss": float(errors.mean() / tokens), "r2": float(found.mean()), **figures}

    def student(self) -> BertEncoder:
        """Return the teacher with these feedforwards in place of its own."""
        student = BertEncoder(self.config, rng=0)
        for name, array in student.params.items():
            if name in self.teacher.params and ".feedforward." not in name:
                array[...] = self.teacher.params[name]
        for own, scaled, scales in zip(student.layers, self.layers, self.scales, strict=True):
            inputs, outputs = scales
            layer = scaled.copy()
            layer.absorb_input_scaling(inputs.mean, inputs.scale)
            layer.absorb_output_scaling(outputs.unit)
            for name, array in layer.params.items():
                own.feedforward.params[name][...] = array
            own.bias_out[...] = outputs.offset
        return student

    def _scaled(self, ids: Array, real: NDArray[np.bool_]) -> Any:
        """Yield the standardized inputs and outputs (N, D) of each feedforward of the teacher."""
        dtype = self.config.dtype
        pairs = self.teacher.feedforwards(ids, real)
        for (x, y), (inputs, outputs) in zip(pairs, self.scales, strict=True):
            yield inputs.apply(x[real], dtype), outputs.apply(y[real], dtype)


class EncoderObjective:
    """A student that learns the hidden states and vectors of a teacher; an `Objective`.

    The loss is the mean squared error of the hidden states over their variance, plus the mean of 1
    minus the cosine between the vectors of student and teacher for a text.

    Parameters
    ----------
    teacher, student : BertEncoder
        The teacher, and the student, which is trained.
    texts, tests : Texts
        The texts to learn from, and to evaluate with.
    """

    def __init__(
        self, teacher: BertEncoder, student: BertEncoder, texts: Texts, tests: Texts | None
    ) -> None:
        self.teacher, self.student, self.texts, self.tests = teacher, student, texts, tests
        self._start = teacher.config.pooling == "start"

    @property
    def params(self) -> Mapping[str, Array]:
        """The student's parameters, without the pooler, on which nothing here depends."""
        params = self.student.params
        return {name: array for name, array in params.items() if not name.startswith("pooler.")}

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a batch, and its gradients."""
        ids, real = self.texts.batch(moment.step)
        wanted = self.teacher(ids, real)
        hidden, cache = self.student.forward(ids, real)
        weights = self._weights(real).astype(hidden.dtype)
        difference = (hidden - wanted) * real[..., np.newaxis]
        scale = 1 / (int(real.sum()) * hidden.shape[2] * float(wanted[real].var()))
        loss = scale * float(np.square(difference).sum())
        cosine_loss, d_vectors = _cosine_loss(
            np.einsum("bs,bsd->bd", weights, hidden), np.einsum("bs,bsd->bd", weights, wanted)
        )
        d_hidden = difference * (2 * scale) + weights[..., np.newaxis] * d_vectors[:, np.newaxis]
        grads = self.student.backward(
            d_hidden.astype(hidden.dtype, copy=False),
            cache,
            straight_through=self.student.config.feedforward == "fff",
        )
        grads = {name: grads[name] for name in self.params}
        return StepResult(loss + cosine_loss, grads, int(real.sum()), {})

    def evaluate(self) -> dict[str, float]:
        """Return figures of held-out texts: R2 of hidden states, and correlation of similarities.

        ``similarity`` is Spearman's correlation between the similarities of all pairs of texts by
        the student and by the teacher.
        """
        if self.tests is None:
            return {}
        errors = variance = 0.0
        tokens = 0
        found: dict[str, list[Array]] = {"teacher": [], "student": []}
        for number in range(len(self.tests.batches)):
            ids, real = self.tests.batch(number)
            wanted, hidden = self.teacher(ids, real), self.student(ids, real)
            errors += float(np.square((hidden - wanted)[real]).sum())
            variance += float(np.square(wanted[real] - wanted[real].mean(axis=0)).sum())
            tokens += int(real.sum())
            weights = self._weights(real)
            for name, states in (("teacher", wanted), ("student", hidden)):
                found[name].append(np.einsum("bs,bsd->bd", weights, states))
        vectors = [np.concatenate(found[name]) for name in ("teacher", "student")]
        return {
            "loss": errors / variance,
            "hidden_r2": 1 - errors / variance,
            "similarity": similarity_correlation(*vectors),
        }

    def _weights(self, real: NDArray[np.bool_]) -> Array:
        """Return the weight of each position (B, S) in the vector of its text."""
        if self._start:
            return np.eye(1, real.shape[1]).repeat(len(real), axis=0)
        weights: Array = real / real.sum(axis=1, keepdims=True)
        return weights


def similarity_correlation(first: Array, second: Array) -> float:
    """Return Spearman's correlation between the similarities of all pairs of texts.

    Parameters
    ----------
    first, second : array of shape (B, D) and (B, E)
        Vectors of the same texts by two encoders. Similarities are cosines. With fewer than three
        texts, there is one pair at most, and the result is NaN.
    """
    if len(first) < 3:
        return math.nan
    from scipy.stats import spearmanr

    upper = np.triu_indices(len(first), 1)
    values = []
    for vectors in (first, second):
        scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        values.append((scaled @ scaled.T)[upper])
    return float(spearmanr(*values).statistic)


def _cosine_loss(vectors: Array, wanted: Array) -> tuple[float, Array]:
    """Return the mean of 1 minus the cosines of vectors (B, D), and the gradient (B, D)."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    own, target = vectors / length, wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    cosines = (own * target).sum(axis=1, keepdims=True)
    gradient = (cosines * own - target) / (length * len(vectors))
    return float(1 - cosines.mean()), gradient


def _new_layer(config: BertConfig, seed: int) -> Feedforward:
    """Return an untrained feedforward of a student."""
    width, size = config.width, config.feedforward_size
    how: dict[str, Any] = {
        "activation": config.activation,
        "dtype": config.dtype,
        "rng": seed,
    }
    if config.feedforward == "ff":
        return DenseFeedForward(width, width, size, **how)
    return FastFeedForward(width, width, config.depth, size, two_sided=config.two_sided, **how)


def _backward(layer: Feedforward, dy: Array, cache: Any) -> dict[str, Any]:
    """Return the gradients of a feedforward, whose routes learn if it has any."""
    if isinstance(layer, FastFeedForward):
        return layer.backward(dy, cache, straight_through=True)[1]
    return layer.backward(dy, cache)[1]


def _recorded(teacher: BertEncoder, texts: Texts, tokens: int) -> list[tuple[Array, Array]]:
    """Return inputs and outputs (N, D) of each feedforward of the teacher, for some tokens."""
    found: list[list[tuple[Array, Array]]] = [[] for _ in teacher.layers]
    count = 0
    for number in range(len(texts.batches)):
        ids, real = texts.batch(number)
        for own, (x, y) in zip(found, teacher.feedforwards(ids, real), strict=True):
            own.append((x[real], y[real]))
        count += int(real.sum())
        if count >= tokens:
            break
    return [tuple(map(np.concatenate, zip(*own, strict=True))) for own in found]  # type: ignore[misc]


def _checksum(model: BertEncoder) -> int:
    """Return a checksum of some numbers of a model."""
    total = 0
    for array in model.params.values():
        some = array.reshape(-1)[:: max(1, array.size // 1000)]
        total = zlib.crc32(np.ascontiguousarray(some).tobytes(), total)
    return total
