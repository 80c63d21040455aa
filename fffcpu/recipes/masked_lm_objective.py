"""The `Objective` of pretraining: a masked language model on packed sequences.

The batch grows with the spent fraction of the budget ("Cramming", arXiv 2212.14034, section 4.3): a
step adds up the gradients of several small batches, few at the start and all from ``ramp`` on::

    small batches   4 |          .------------
    of a step       3 |       .--'
                    2 |    .--'
                    1 |----'
                      +----------|-----------
                      0         0.6          1   fraction of the budget
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import IGNORED_LABEL, check_integer, check_number
from fffcpu.errors import ArgumentError
from fffcpu.recipes.masking import mask_tokens
from fffcpu.recipes.shards import in_proportion
from fffcpu.recipes.tally import Tally, validation_figures
from fffcpu.training.batches import BatchOrder, Deal
from fffcpu.training.losses import softmax_cross_entropy
from fffcpu.training.trainer import Moment, StepResult

__all__ = ["MaskedLMObjective", "accumulated", "steps_for"]

Array = NDArray[Any]


class _Model(Protocol):
    """The interface of a model for `MaskedLMObjective`."""

    @property
    def params(self) -> Mapping[str, Array]: ...

    def logits_at(self, input_ids: Any, wanted: Any) -> Array: ...

    def forward(self, input_ids: Any, *, labels: Any) -> tuple[float, Any]: ...

    def backward(
        self, cache: Any, *, row_sparse: bool, straight_through: bool
    ) -> dict[str, Any]: ...


class MaskedLMObjective:
    """Sequences, and a model that guesses the hidden tokens in them.

    Parameters
    ----------
    model : FastBertForMaskedLM
        The model to train.
    sequences : array of integers of shape (N, S)
        Sequences to train on; may be memory-mapped.
    validation : array of integers of shape (V, S)
        Sequences for evaluations; may be empty. The same tokens are hidden each time.
    mask_id, vocabulary : int
        The mask token, and the number of tokens.
    batch_size : int
        Number of sequences per step, once the batch has its full size.
    small_batch_size : int
        Number of sequences that are computed together, which bounds the memory of a step.
        ``batch_size`` is rounded up to a multiple of it.
    ramp : float
        Fraction of the budget after which the batch has its full size; 0 for always.
    share : float
        Share of the tokens to mask.
    row_sparse : bool
        Whether gradients of a step with one small batch hold only the nodes that it visited.
    straight_through : bool
        Whether routes are trained as well; see `fffcpu.FastFeedForward.backward`.
    seed : int
        Random seed of the order of the sequences.
    deal : Deal, optional
        The shard whose sequences these are, those for evaluations included. It computes its part of
        each small batch. By default there is one shard.

    Attributes
    ----------
    tokens_per_epoch : int
        Number of tokens per pass. A pass drops the sequences that do not fill a small batch; these
        differ from pass to pass.
    """

    def __init__(
        self,
        model: _Model,
        sequences: Array,
        validation: Array,
        *,
        mask_id: int,
        vocabulary: int,
        batch_size: int = 64,
        small_batch_size: int = 32,
        ramp: float = 0.6,
        share: float = 0.25,
        row_sparse: bool = False,
        straight_through: bool = False,
        seed: int = 0,
        deal: Deal | None = None,
    ) -> None:
        if round(share * sequences.shape[1]) < 1:
            raise ArgumentError(
                f"argument 'share' must leave a token to guess in {sequences.shape[1]}, got {share}"
            )
        self.model = model
        self._sequences, self._validation = sequences, validation
        self._deal = Deal(0, 1, len(sequences)) if deal is None else deal
        self._masks: dict[str, Any] = {"mask_id": mask_id, "vocabulary": vocabulary, "share": share}
        small = min(
            check_integer("small_batch_size", small_batch_size, 1),
            check_integer("batch_size", batch_size, 1),
            self._deal.rows,
        )
        self._most: int = -(-batch_size // small)
        self._ramp = check_number("ramp", ramp, 0.0, 1.0)
        self._row_sparse, self._straight_through = row_sparse, straight_through
        self._seed = seed
        # The order has whole small batches only, so each pass has the same number of tokens.
        self._order = BatchOrder(len(sequences), small, seed, deal=self._deal)
        self._whole: int = self._deal.rows // small
        self._tokens: int = small * sequences.shape[1]

    @property
    def params(self) -> Mapping[str, Array]:
        """The model's parameters."""
        return self.model.params

    @property
    def tokens_per_epoch(self) -> int:
        """Number of tokens per pass over the sequences."""
        return self._whole * self._tokens

    def steps_for(self, tokens: int) -> int:
        """Return the number of steps that take at least ``tokens`` tokens."""
        return steps_for(-(-tokens // self._tokens), self._most, self._ramp)

    def step(self, moment: Moment) -> StepResult:
        """Return the mean loss of a step's sequences, and its gradients.

        Of a shard they are what the shard adds to those of the step's sequences.
        """
        count = accumulated(moment.fraction, self._most, self._ramp)
        first = moment.rows // self._tokens
        sparse = self._row_sparse and count == 1
        loss, tokens = 0.0, 0
        grads: dict[str, Any] = {}
        for number in range(first, first + count):
            epoch, place = divmod(number, self._whole)
            rows = self._order.rows(epoch * self._order.steps_per_epoch + place)
            input_ids, labels = mask_tokens(self._sequences[rows], moment.rng, **self._masks)
            tokens += input_ids.size
            own, cache = self.model.forward(input_ids, labels=labels)
            loss += own / count
            new = self.model.backward(
                cache, row_sparse=sparse, straight_through=self._straight_through
            )
            if not grads:
                grads = new
                continue
            for name, grad in new.items():
                grads[name] += grad
        if count > 1:
            for grad in grads.values():
                grad *= 1 / count
        return in_proportion(StepResult(loss, grads, tokens, {}), count * self._tokens)

    def evaluate(self) -> dict[str, float]:
        """Return ``validation_loss`` and ``validation_accuracy`` over the tokens to guess."""
        return validation_figures([self.tally()])

    def tally(self) -> Tally:
        """Return what an evaluation counts: the same tokens are hidden each time."""
        seeds = np.random.SeedSequence(
            (self._seed, len(self._validation)),
            spawn_key=(self._deal.shard,) if self._deal.shards > 1 else (),
        )
        rng = np.random.default_rng(seeds)
        small = self._order.batch_size
        loss = right = count = 0.0
        for start in range(0, len(self._validation), small):
            block = self._validation[start : start + small]
            input_ids, labels = mask_tokens(block, rng, **self._masks)
            wanted = labels != IGNORED_LABEL
            logits, guessed = self.model.logits_at(input_ids, wanted), labels[wanted]
            loss += softmax_cross_entropy(logits, guessed)[0] * len(guessed)
            right += float((logits.argmax(axis=1) == guessed).sum())
            count += len(guessed)
        return Tally(count, loss, right)


def accumulated(fraction: float, most: int, ramp: float) -> int:
    """Return the number of small batches in a step.

    Parameters
    ----------
    fraction : float
        Fraction of the budget that is spent.
    most : int
        Number of small batches at the full batch size.
    ramp : float
        Fraction of the budget after which the batch has its full size.
    """
    if fraction >= ramp:
        return most
    return max(1, round(most * fraction / ramp))


def steps_for(small_batches: int, most: int, ramp: float) -> int:
    """Return the smallest number of steps that take at least ``small_batches`` in total."""

    def taken(steps: int) -> int:
        return sum(accumulated(step / steps, most, ramp) for step in range(steps))

    low, high = 1, max(1, small_batches)  # a step takes one or more
    while low < high:
        middle = (low + high) // 2
        if taken(middle) >= small_batches:
            high = middle
        else:
            low = middle + 1
    return low
