"""What a student learns in each stage of a distillation: the objectives, and their batches.

A student has its teacher's class: it is an encoder, or has a head for classification.

Layers learn from inputs and outputs that are standardized by column; the student's weights absorb
the scales. Outputs of the teacher are computed again at each step: those of all its feedforwards
would take more room than most disks have. The batch of a step depends on the number of the step
alone.

Shapes: B texts of S tokens, N tokens in all without padding, D width.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.config.bert import BertConfig
from fffcpu.layers import layer_of
from fffcpu.models.bert import BertEncoder
from fffcpu.models.encoder_layer import feedforward_backward
from fffcpu.models.sequence_classification import BertForSequenceClassification
from fffcpu.recipes.scaling import Moments, Scaling, TargetScaling
from fffcpu.text.padding import Row, padded
from fffcpu.training.batches import BatchOrder
from fffcpu.training.trainer import Moment, StepResult

__all__ = [
    "Distillable",
    "EncoderObjective",
    "LayersObjective",
    "Texts",
    "encoder_of",
    "similarity_correlation",
]

Array = NDArray[Any]
Distillable = BertEncoder | BertForSequenceClassification
"""Models that can be distilled."""

SCALED_TOKENS = 16_384
"""Tokens whose inputs and outputs decide the scales of columns."""


class Texts:
    """The tokens of texts, in batches of texts of about one length.

    Parameters
    ----------
    rows : sequence of sequences or arrays of int
        The tokens of each text, none empty.
    tokens : int
        Approximate number of tokens of a batch.
    padding_id : int
        The token that pads.
    seed : int
        Seed of the order of the batches.
    """

    def __init__(self, rows: Sequence[Row], tokens: int, padding_id: int, seed: int) -> None:
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

    def first(self, tokens: int) -> Iterator[tuple[Array, NDArray[np.bool_]]]:
        """Yield the first batches, until they have ``tokens`` tokens."""
        count = 0
        for number in range(len(self.batches)):
            ids, real = self.batch(number)
            yield ids, real
            count += int(real.sum())
            if count >= tokens:
                break

    @property
    def tokens(self) -> int:
        """Number of all tokens."""
        return sum(map(len, self.rows))

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Shapes (B, S) of the batches."""
        return {(len(own), max(len(self.rows[k]) for k in own)) for own in self.batches}

    @property
    def checksum(self) -> int:
        """Checksum of all tokens."""
        total = 0
        for row in self.rows:
            total = zlib.crc32(np.asarray(row, np.int32).tobytes(), total)
        return total


def encoder_of(model: Distillable) -> BertEncoder:
    """Return the encoder of a model, which may be an encoder."""
    return model.encoder if isinstance(model, BertForSequenceClassification) else model


class LayersObjective:
    """Feedforwards that learn those of a teacher from the teacher's inputs; an `Objective`.

    Parameters
    ----------
    teacher : BertEncoder or BertForSequenceClassification
        The teacher.
    config : BertConfig
        Config of the student.
    texts, tests : Texts
        The texts to learn from, and to evaluate with.
    seed : int
        Seed of the initial values.
    """

    def __init__(
        self, teacher: Distillable, config: BertConfig, texts: Texts, tests: Texts | None, seed: int
    ) -> None:
        self.teacher, self.config, self.texts, self.tests = teacher, config, texts, tests
        self.scales = [
            (Scaling.from_moments(x, "columns"), TargetScaling.from_moments(y))
            for x, y in _moments(encoder_of(teacher), texts, SCALED_TOKENS)
        ]
        modules: Mapping[str, Any] = config.modules()
        self.layers: list[Any] = [
            layer_of(modules[f"encoder.layers.{i}.feedforward"], seed + i)
            for i in range(config.layers)
        ]
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
            _, own = feedforward_backward(
                layer, difference, cache, row_sparse=False, straight_through=True
            )
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

    def student(self) -> Distillable:
        """Return the teacher with these feedforwards in place of its own."""
        student = type(self.teacher)(self.config, rng=0)
        for name, array in student.params.items():
            if name in self.teacher.params and ".feedforward." not in name:
                array[...] = self.teacher.params[name]
        for own, scaled, scales in zip(
            encoder_of(student).layers, self.layers, self.scales, strict=True
        ):
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
        pairs = encoder_of(self.teacher).feedforwards(ids, real)
        for (x, y), (inputs, outputs) in zip(pairs, self.scales, strict=True):
            yield inputs.apply(x[real], dtype), outputs.apply(y[real], dtype)


class EncoderObjective:
    """A student that learns the hidden states and the results of a teacher; an `Objective`.

    The loss is the mean squared error of the hidden states over their variance, plus a loss of the
    results:

    - encoders: the mean of 1 minus the cosine between the vectors of student and teacher for a text
    - classifiers: the mean divergence of the student's probabilities from the teacher's
    - regressions: the mean squared error of the outputs over their variance

    Parameters
    ----------
    teacher, student : BertEncoder or BertForSequenceClassification
        The teacher, and the student, which is trained.
    texts, tests : Texts
        The texts to learn from, and to evaluate with.
    """

    def __init__(
        self, teacher: Distillable, student: Distillable, texts: Texts, tests: Texts | None
    ) -> None:
        self.teacher, self.student, self.texts, self.tests = teacher, student, texts, tests
        self._start = teacher.config.pooling == "start"
        self._variance = 1.0
        if isinstance(teacher, BertForSequenceClassification) and teacher.config.classes == 1:
            self._variance = _output_variance(teacher, texts, SCALED_TOKENS)

    @property
    def params(self) -> Mapping[str, Array]:
        """The student's parameters, without the pooler of an encoder, which the loss ignores."""
        params = self.student.params
        if isinstance(self.student, BertForSequenceClassification):
            return params
        return {name: array for name, array in params.items() if not name.startswith("pooler.")}

    def step(self, moment: Moment) -> StepResult:
        """Return the loss of a batch, and its gradients."""
        ids, real = self.texts.batch(moment.step)
        encoder = encoder_of(self.student)
        wanted = encoder_of(self.teacher)(ids, real)
        hidden, cache = encoder.forward(ids, real)
        difference = (hidden - wanted) * real[..., np.newaxis]
        scale = 1 / (int(real.sum()) * hidden.shape[2] * float(wanted[real].var()))
        loss = scale * float(np.square(difference).sum())
        result_loss, d_result, own = self._results(hidden, wanted, real)
        grads = encoder.backward(
            (difference * (2 * scale) + d_result).astype(hidden.dtype, copy=False),
            cache,
            straight_through=encoder.config.feedforward == "fff",
        )
        grads |= own
        grads = {name: grads[name] for name in self.params}
        return StepResult(loss + result_loss, grads, int(real.sum()), {})

    def _results(
        self, hidden: Array, wanted: Array, real: NDArray[np.bool_]
    ) -> tuple[float, Array, dict[str, Any]]:
        """Return the loss of results, and the gradients of hidden states and of a head."""
        if isinstance(self.student, BertForSequenceClassification):
            assert isinstance(self.teacher, BertForSequenceClassification)
            logits = self.teacher.logits_of(wanted)
            return _head_loss(self.student, hidden, logits, self._variance)
        weights = self._weights(real).astype(hidden.dtype)
        vectors, targets = (np.einsum("bs,bsd->bd", weights, array) for array in (hidden, wanted))
        loss, d_vectors = _cosine_loss(vectors, targets)
        return loss, weights[..., np.newaxis] * d_vectors[:, np.newaxis], {}

    def evaluate(self) -> dict[str, float]:
        """Return figures of held-out texts: R2 of hidden states, and agreement of the results.

        ``similarity`` is Spearman's correlation between the similarities of all pairs of texts by
        the student and by the teacher. ``cosine`` is the mean cosine between the vectors of student
        and teacher for a text. Of classifiers, ``agreement`` is the share of texts for which both
        predict the same class. Of regressions, ``output_r2`` is the R2 of the teacher's outputs.
        Both are figures of texts without padding, while a step pads its batch.
        """
        if self.tests is None:
            return {}
        errors = 0.0
        moments = _moments_of(np.empty((0, self.teacher.config.width)))
        found: dict[str, list[Array]] = {"teacher": [], "student": []}
        outputs: dict[str, list[Array]] = {"teacher": [], "student": []}
        for number in range(len(self.tests.batches)):
            ids, real = self.tests.batch(number)
            weights = self._weights(real)
            states = {}
            for name, model in (("teacher", self.teacher), ("student", self.student)):
                states[name] = encoder_of(model)(ids, real)
                found[name].append(np.einsum("bs,bsd->bd", weights, states[name]))
                if isinstance(model, BertForSequenceClassification):
                    outputs[name].append(_logits(model, states[name], real))
            wanted = states["teacher"][real]
            errors += float(np.square(states["student"][real] - wanted).sum())
            moments = moments.plus(_moments_of(wanted))
        vectors = [np.concatenate(found[name]) for name in ("teacher", "student")]
        unexplained = errors / float(moments.squares.sum())
        figures = {
            "loss": unexplained,
            "hidden_r2": 1 - unexplained,
            "similarity": similarity_correlation(*vectors),
            "cosine": 1 - _cosine_loss(*vectors)[0],
        }
        if outputs["teacher"]:
            figures |= _compare(*(np.concatenate(outputs[name]) for name in ("teacher", "student")))
        return figures

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


def _head_loss(
    student: BertForSequenceClassification, hidden: Array, logits: Array, variance: float
) -> tuple[float, Array, dict[str, Any]]:
    """Return the loss of a head, and the gradients of hidden states (B, S, D) and of the head.

    Parameters
    ----------
    student : BertForSequenceClassification
        The student.
    hidden : array of shape (B, S, D)
        Its hidden states.
    logits : array of shape (B, C)
        Outputs of the teacher.
    variance : float
        Number to divide the loss by: the variance of a regression's outputs, 1 for a classifier.
    """
    labels, least = (logits[:, 0], 0.0) if logits.shape[1] == 1 else _soft_labels(logits)
    loss, cache = student.forward_head(hidden, labels)
    d_logits = cache.d_logits * hidden.dtype.type(1 / variance)
    return (loss - least) / variance, *student.backward_head(cache._replace(d_logits=d_logits))


def _soft_labels(logits: Array) -> tuple[Array, float]:
    """Return the probabilities (B, C) of logits, and their cross-entropy with themselves."""
    from scipy.special import entr, softmax

    probabilities = softmax(logits.astype(np.float64), axis=1)
    return probabilities, float(entr(probabilities).sum(axis=1).mean())


def _logits(model: BertForSequenceClassification, hidden: Array, real: NDArray[np.bool_]) -> Array:
    """Return the outputs (B, C) of texts alone: without the padding, which some poolers include."""
    lengths = real.sum(axis=1)
    logits = np.empty((len(hidden), model.head.config.output_dim), hidden.dtype)
    for length in np.unique(lengths):
        own = lengths == length
        logits[own] = model.logits_of(hidden[own, :length])
    return logits


def _compare(wanted: Array, found: Array) -> dict[str, float]:
    """Return how well the outputs (B, C) of a student agree with its teacher's."""
    if wanted.shape[1] > 1:
        return {"agreement": float((wanted.argmax(axis=1) == found.argmax(axis=1)).mean())}
    variance = float(wanted.var())
    if not variance:
        return {"output_r2": math.nan}
    return {"output_r2": 1 - float(np.square(found - wanted).mean()) / variance}


def _output_variance(teacher: BertForSequenceClassification, texts: Texts, tokens: int) -> float:
    """Return that of a regression's outputs for some tokens; 1 if all outputs are equal."""
    found = [teacher(ids, real) for ids, real in texts.first(tokens)]
    return float(np.concatenate(found).var()) or 1.0


def _moments(teacher: BertEncoder, texts: Texts, tokens: int) -> list[tuple[Moments, Moments]]:
    """Return those of inputs and outputs of each feedforward of the teacher, for some tokens."""
    empty = _moments_of(np.empty((0, teacher.config.width)))
    found = [(empty, empty)] * len(teacher.layers)
    for ids, real in texts.first(tokens):
        pairs = teacher.feedforwards(ids, real)
        found = [
            (inputs.plus(_moments_of(x[real])), outputs.plus(_moments_of(y[real])))
            for (inputs, outputs), (x, y) in zip(found, pairs, strict=True)
        ]
    return found


def _moments_of(rows: Array) -> Moments:
    return Moments.of(rows, np.arange(len(rows)))
