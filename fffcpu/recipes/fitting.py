"""From a table to a predictor: one call that makes a layer, trains it and evaluates it.

`fit` combines scaling, the order of batches, an optimizer and a `Trainer`. The command
``fffcpu train`` calls this function, and reads and writes the files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.columns.fields import is_number
from fffcpu.data import Column, Encoding, Table
from fffcpu.errors import ArgumentError, describe
from fffcpu.inference.predictor import Predictor, Schema
from fffcpu.inference.routes import RouteStatistics
from fffcpu.layers import DenseFeedForward, layer_of
from fffcpu.recipes.evaluation import check_targets
from fffcpu.recipes.memory import check_fit, layer_config, takes_rows
from fffcpu.recipes.scaling import Moments, Scaling, TargetScaling
from fffcpu.recipes.shards import LocalShards, Shards
from fffcpu.recipes.starts import sample_step, start_from_clusters
from fffcpu.recipes.table_objective import TableObjective, tally_of
from fffcpu.recipes.table_parts import (
    ColumnTotals,
    TablePart,
    check_part,
    column_totals,
    cut_table,
    input_moments,
    part_routes,
    part_tally,
    sampled_rows,
    start_inputs,
)
from fffcpu.recipes.tally import Tally
from fffcpu.training import SGD, Adam, AdamW, LocalAdam, LocalSGD, constant, cosine
from fffcpu.training.batches import BatchOrder, Deal, split_rows
from fffcpu.training.schedules import one_cycle_triangle
from fffcpu.training.trainer import (
    Callback,
    Moment,
    Outcome,
    Trainer,
    TrainerSettings,
    identity_of,
)

__all__ = [
    "EPOCHS",
    "FEWEST_STEPS",
    "FIT_HARDENING",
    "LAYER_NAMES",
    "OPTIMIZERS",
    "SCHEDULES",
    "SHRINKAGE",
    "STARTS",
    "WEIGHT_DECAY",
    "FitSettings",
    "Fitted",
    "absorb_scaling",
    "backward_options",
    "check_rows",
    "evaluate_table",
    "fit",
    "forward_options",
    "layer_name",
    "new_layer",
    "new_optimizer",
    "with_exact_scaling",
]

Array = NDArray[Any]

_LOGGER = logging.getLogger(__name__)

LAYER_NAMES = ("fast", "leaf", "dense")
"""Names of FastFeedForward, LeafFeedForward and, for comparison, DenseFeedForward."""

_FORMER_NAMES = {"node": "fast"}
"""Former names of layers. Settings accept them too, and old checkpoints contain them."""


OPTIMIZERS = {"adamw": 0.006, "adam": 0.003, "sgd": 0.1, "local-adam": 0.003, "local-sgd": 0.1}
"""Default peak learning rate of each optimizer."""

EPOCHS = 20
"""Default number of passes, if they have `FEWEST_STEPS`."""

FEWEST_STEPS = 250
"""Default number of steps where `EPOCHS` passes have fewer. With 40 steps, a layer has not yet
learned a table of 100 rows."""

SHRINKAGE = 2.0
"""Default weight decay of the fast layer with AdamW, times the number of steps and the peak rate.

Over a run with a cosine schedule, decay alone shrinks a weight to 1/e, however many rows there are.
So small tables get a stronger decay per step (arXiv 2405.13698)."""

WEIGHT_DECAY = 0.1
"""Default weight decay of the other layers with AdamW. A stronger one keeps the gates of a leaf
layer from deciding."""

SAMPLED_ROWS = 1000
"""Approximate number of rows of x in the checksum that identifies a run's data."""

FIT_HARDENING = 0.3
"""Default weight of the hardening loss."""

STARTS = ("uniform", "clusters")
"""What decides the initial routes of a fast layer."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "triangle": one_cycle_triangle,
    "constant": constant,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Settings of a training run.

    Parameters
    ----------
    layer : {"fast", "leaf", "dense"}
        FastFeedForward, LeafFeedForward or DenseFeedForward. The former name ``"node"`` for
        ``"fast"`` is also accepted.
    depth : int
        Depth of the trees.
    trees : int
        Fast layer: number of trees, whose outputs are summed.
    two_sided : bool
        Fast layer: whether each node has output weights for each side; see
        `fffcpu.FastFeedForward`.
    leaf_width : int
        Leaf layer: neurons per leaf.
    width : int
        Dense layer: number of neurons.
    activation : str, optional
        Activation of the neurons; by default the layer's own.
    epochs : int, optional
        Passes over the rows to train on; by default `EPOCHS`, or as many as have `FEWEST_STEPS`
        steps.
    batch_size : int
        Rows per step.
    optimizer : str
        One of `OPTIMIZERS`.
    lr : float, optional
        Peak learning rate; by default the optimizer's.
    schedule : {"cosine", "triangle", "constant"}
        Schedule of the learning rate.
    weight_decay : float, optional
        Weight decay of AdamW (except for biases), SGD and the local optimizers. By default that of
        AdamW is `WEIGHT_DECAY`, or for the fast layer `SHRINKAGE` over the peak learning rate and
        the number of steps, at least `FEWEST_STEPS`. That of others is 0.
    momentum : float
        Momentum of SGD and LocalSGD.
    local_batch_size : int, optional
        Local optimizers: rows that use a node before it is updated; by default the batch size over
        the number of leaves, at least 1.
    max_norm : float, optional
        Largest norm of the gradients; None does not clip them.
    standardize : {"columns", "table", "none"}
        Scaling of the inputs, which becomes part of the layer; see `Scaling.of`.
    clip : bool
        Whether values outside of the range that a column has in the rows to train on count as the
        nearest value in it. A layer continues its slopes without end, so that one misplaced decimal
        point can spoil more than thousands of good predictions.
    hardening : float, optional
        Leaf layer: weight of the hardening loss, by default `FIT_HARDENING`. With a weight of 0,
        gates with little effect stay undecided. Inference has to decide, and is then worse.
    hardening_schedule : {"constant", "linear"}
        Whether that weight is constant, or rises from 0.
    region_leak, dropout : float
        Leaf layer: see `LeafFeedForward.forward`.
    start : {"uniform", "clusters"}
        Fast layer: initial routes. Uniform takes random ones. With clusters each node separates two
        clusters of the rows that reach it; see `fffcpu.recipes.starts`.
    straight_through : bool
        Fast layer: whether routes are trained as well; see `FastFeedForward.backward`.
    gradients : {"auto", "dense", "rows"}
        Fast layer: whether gradients hold all nodes, or only those that the batch visited. Auto
        uses rows if a batch can visit less than half of the nodes.
    validation : float
        Share of the rows to validate with.
    patience : int, optional
        Number of epochs without improvement after which the run stops, with the best parameters.
    seed : int
        Random seed for initial values, split, batches and so on.
    checkpoint_seconds : float
        Seconds between checkpoints.
    keep : int
        Number of checkpoints to keep.
    shards : int
        Number of shards, at most ``batch_size``: the table is cut into as many parts, and each
        batch takes rows of all of them. A shard is computed on one core. The bits of the result
        depend on this number, and not on who computes the shards; see `fffcpu.dask.fit`. A single
        one is computed by all threads.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a value is out of range or has the wrong type.
    """

    layer: str = "fast"
    depth: int = 4
    trees: int = 4
    two_sided: bool = True
    leaf_width: int = 8
    width: int = 16
    activation: str | None = None
    epochs: int | None = None
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float | None = None
    schedule: str = "cosine"
    weight_decay: float | None = None
    momentum: float = 0.0
    local_batch_size: int | None = None
    max_norm: float | None = 1.0
    standardize: str = "columns"
    clip: bool = False
    hardening: float | None = None
    hardening_schedule: str = "constant"
    region_leak: float = 0.0
    dropout: float = 0.0
    start: str = "uniform"
    straight_through: bool = True
    gradients: str = "auto"
    validation: float = 0.1
    patience: int | None = None
    seed: int = 0
    checkpoint_seconds: float = 30.0
    keep: int = 2
    shards: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", layer_name(self.layer))
        self._check_choices()
        self._check_numbers()
        self._check_together()

    def _check_choices(self) -> None:
        """Raise unless names are known and flags are booleans."""
        check_flag("straight_through", self.straight_through)
        check_flag("two_sided", self.two_sided)
        check_flag("clip", self.clip)
        for name, values in (
            ("layer", LAYER_NAMES),
            ("optimizer", tuple(OPTIMIZERS)),
            ("schedule", tuple(SCHEDULES)),
            ("standardize", ("columns", "table", "none")),
            ("hardening_schedule", ("constant", "linear")),
            ("gradients", ("auto", "dense", "rows")),
            ("start", STARTS),
        ):
            if getattr(self, name) not in values:
                raise ArgumentError(
                    f"argument '{name}' must be one of {', '.join(values)}, "
                    f"got {describe(getattr(self, name))}"
                )

    def _check_numbers(self) -> None:
        """Raise unless numbers are in their ranges."""
        # Wrong numbers are errors before any data is read.
        layer_config(self, 1, 1)
        for name in ("lr", "weight_decay", "hardening", "max_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0.0)
        for name in ("momentum", "region_leak", "dropout"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        check_number("checkpoint_seconds", self.checkpoint_seconds, 0.0)
        for name in ("batch_size", "keep"):
            check_integer(name, getattr(self, name), 1)
        for name in ("epochs", "patience", "local_batch_size"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1)
        check_integer("shards", self.shards, 1, self.batch_size)
        check_integer("seed", self.seed, 0)
        if not check_number("validation", self.validation, 0.0) < 1.0:
            raise ArgumentError(
                f"argument 'validation' must be from 0 to below 1, got {self.validation}"
            )

    def _check_together(self) -> None:
        """Raise unless the options fit together."""
        if self.patience is not None and not self.validation:
            raise ArgumentError(
                "argument 'patience' must be None where no rows are held out for validation, "
                f"got {self.patience}"
            )
        if self.layer != "leaf" and (self.hardening or self.region_leak or self.dropout):
            raise ArgumentError(
                "arguments 'hardening', 'region_leak' and 'dropout' must be 0 except for the leaf "
                f"layer, got {self.hardening}, {self.region_leak} and {self.dropout} for "
                f"{self.layer}"
            )
        if self.optimizer == "adam" and self.weight_decay:
            raise ArgumentError(
                f"argument 'weight_decay' must be 0 for adam, got {self.weight_decay}; use adamw"
            )
        if self.gradients == "rows" and self.mixes_momentum_and_decay:
            raise ArgumentError(
                "argument 'gradients' must not be rows where sgd has both momentum and weight "
                f"decay, got {self.momentum} and {self.weight_decay}"
            )
        if self.layer == "dense" and self.optimizer.startswith("local"):
            raise ArgumentError(
                f"argument 'optimizer' must not be local for the dense layer, got {self.optimizer}"
            )

    @property
    def mixes_momentum_and_decay(self) -> bool:
        """Whether the optimizer cannot defer the steps of rows."""
        return self.optimizer == "sgd" and self.momentum > 0.0 and bool(self.weight_decay)

    @property
    def starts_from_clusters(self) -> bool:
        """Whether the rows decide the initial routes of a layer."""
        return self.layer == "fast" and self.start == "clusters"

    @property
    def hardening_weight(self) -> float:
        """The weight of the hardening loss."""
        return FIT_HARDENING if self.hardening is None else self.hardening

    @property
    def peak_rate(self) -> float:
        """The peak learning rate."""
        return OPTIMIZERS[self.optimizer] if self.lr is None else self.lr

    def passes(self, rows: int) -> int:
        """Return the number of passes over the rows to train on."""
        if self.epochs is not None:
            return self.epochs
        return max(EPOCHS, -(-FEWEST_STEPS // self._steps_per_pass(rows)))

    def for_rows(self, rows: int) -> FitSettings:
        """Return the settings with the defaults that depend on the number of rows to train on."""
        decay = self._default_decay(rows) if self.weight_decay is None else self.weight_decay
        return dataclasses.replace(self, epochs=self.passes(rows), weight_decay=decay)

    def _default_decay(self, rows: int) -> float:
        """Return the default weight decay for a number of rows to train on."""
        if self.optimizer != "adamw":
            return 0.0
        if self.layer != "fast":
            return WEIGHT_DECAY
        steps = self.passes(rows) * self._steps_per_pass(rows)
        steps = max(steps, FEWEST_STEPS)  # a short run has enough to do to learn at all
        return SHRINKAGE / (self.peak_rate * steps) if self.peak_rate else 0.0

    def _steps_per_pass(self, rows: int) -> int:
        return BatchOrder(rows, self.batch_size).steps_per_epoch


def layer_name(name: Any) -> Any:
    """Return the name for a layer's former name; return anything else unchanged."""
    return _FORMER_NAMES.get(name, name) if isinstance(name, str) else name


class Fitted(NamedTuple):
    """The result of `fit`."""

    predictor: Predictor
    """The trained layer, scaling included, and the meaning of its outputs."""
    outcome: Outcome
    """The outcome of the run."""
    validation: dict[str, float]
    """Figures of the predictor on the rows held out: ``loss``, and ``accuracy`` or ``r2``."""
    held_out: NDArray[np.int64]
    """Numbers of these rows."""


def fit(
    table: Table,
    settings: FitSettings,
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    make_layer: Callable[[FitSettings, int, int], Any] | None = None,
    spread: Callable[[Sequence[TablePart]], Shards] = LocalShards,
) -> Fitted:
    """Train a layer on a table.

    Parameters
    ----------
    table : Table
        Table with targets.
    settings : FitSettings
        The settings.
    folder : path, optional
        Folder for the checkpoints and the history.
    resume : bool
        Whether to continue from the newest checkpoint in the folder, if there is one.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    callbacks : sequence of callable
        Functions that are called after each evaluation with an `Evaluation`; see `Trainer`.
    make_layer : callable, optional
        Maps the settings, input width and output width to the untrained layer; by default
        `new_layer`. It serves layers of the class in the settings with another start or another
        training. Checkpoints do not contain it.
    spread : callable
        Maps the parts of the table, one for each shard, to the `Shards` that compute with them; by
        default in this process.

    Returns
    -------
    Fitted
        The predictor and the outcome of the run.

    Raises
    ------
    ArgumentError
        If the table has no targets or too few rows, or if both ``folder`` and ``make_layer`` are
        given.
    DataError
        If a number in the table is not finite.
    CheckpointError
        If the folder contains another run, or an unfinished run and ``resume`` is False.
    NotEnoughMemoryError
        If there is too little memory for the training; the message has the deepest tree that fits.
    Interrupted
        If the run was interrupted; see `Trainer.run`.
    """
    if table.y is None:
        raise ArgumentError("argument 'table' must have targets, got none")
    if make_layer is not None and folder is not None:
        raise ArgumentError(
            "argument 'folder' must be None if 'make_layer' is given, because checkpoints do not "
            f"contain it, got '{os.fspath(folder)}'"
        )
    _check_classes(table)
    training, validation = _split(table, settings)
    settings = settings.for_rows(len(training))
    parts = cut_table(table, training, validation, settings.shards)
    with contextlib.closing(spread(parts)) as shards:
        shown = progress if len(parts) == 1 else False
        dtype = "float64" if settings.standardize == "columns" else "float32"
        if _may_hold_nan(table):
            shards.map(check_part, dtype, shown)
        check_fit(settings, table.inputs, _outputs(table), len(training))
        layer = (make_layer or new_layer)(settings, table.inputs, _outputs(table))
        encoding = _encoding(table, shards, settings)
        moments = functools.reduce(Moments.plus, shards.map(input_moments, encoding))
        scaling = Scaling.from_moments(moments, settings.standardize, _input_names(table))
        outputs = _target_scaling(table, training)
        if make_layer is None and settings.starts_from_clusters:
            step = sample_step(len(training), table.inputs)
            some = np.concatenate(shards.map(start_inputs, step, encoding, scaling))
            start_from_clusters(layer, some, np.random.default_rng((settings.seed, 1)))
        trainer = Trainer(
            shards.objective(layer, _Maker(settings, encoding, scaling, outputs)),
            new_optimizer(settings, layer),
            _trainer_settings(settings, len(training), bool(table.classes)),
            folder=folder,
            identity=_identity(table, settings, scaling, shards),
            former_values={"layer": _FORMER_NAMES},
            progress=progress,
            callbacks=callbacks,
        )
        _LOGGER.info("training on %r", table)
        trainer.begin(resume)
        outcome = trainer.run()
        exact = absorb_scaling(layer, scaling, outputs)
        schema = _schema(table, with_exact_scaling(encoding, table.features, exact), outputs)
        predictor = Predictor(layer, schema)
        predictor.routes = _route_statistics(predictor, shards)
        tally = functools.reduce(Tally.plus, shards.map(part_tally, predictor))
    return Fitted(predictor, outcome, tally.figures() if tally.weight else {}, validation)


@dataclasses.dataclass(frozen=True, eq=False)
class _Maker:
    """Makes the objective of a shard."""

    settings: FitSettings
    encoding: Encoding | None
    scaling: Scaling
    outputs: TargetScaling | None

    def __call__(self, part: TablePart, layer: Any) -> TableObjective:
        settings, outputs = self.settings, self.outputs
        return TableObjective(
            layer,
            part.inputs(self.encoding),
            part.y if outputs is None else outputs.apply(part.y, np.float32),
            BatchOrder(part.training, settings.batch_size, settings.seed, deal=part.deal),
            part.validation,
            scaling=self.scaling,
            forward_options=forward_options(settings),
            backward_options=backward_options(settings, layer),
        )


def _split(table: Table, settings: FitSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and the rows to validate with."""
    classes = table.y if table.classes else None
    training, validation = split_rows(len(table.x), settings.validation, settings.seed, classes)
    if not len(training) or (settings.validation and not len(validation)):
        raise ArgumentError(
            f"argument 'table' must have rows to train on and to validate with, "
            f"got {len(table.x)} rows in all; with a validation of 0 none are held out"
        )
    return training, validation


def _trainer_settings(settings: FitSettings, rows: int, is_classification: bool) -> TrainerSettings:
    """Return the settings of the loop, for a number of rows to train on."""
    order = BatchOrder(rows, settings.batch_size)
    return TrainerSettings(
        steps=settings.passes(rows) * order.steps_per_epoch,
        lr=settings.peak_rate,
        schedule=SCHEDULES[settings.schedule],
        max_norm=settings.max_norm,
        evaluate_every=order.steps_per_epoch,
        patience=settings.patience,
        # For a regression, the loss: R2 is undefined if the targets are constant.
        watch="validation_accuracy" if is_classification else "validation_loss",
        higher_is_better=is_classification,
        keep_best=settings.patience is not None,
        checkpoint_seconds=settings.checkpoint_seconds,
        keep=settings.keep,
        seed=settings.seed,
    )


def absorb_scaling(layer: Any, scaling: Scaling, outputs: TargetScaling | None) -> Scaling:
    """Let a layer absorb the scaling that it was trained with, as far as its dtype can.

    Returns
    -------
    Scaling
        What a predictor must apply to the inputs before: see `with_exact_scaling`.
    """
    exact, rest = scaling.split(layer.config.dtype)
    layer.absorb_input_scaling(rest.mean, rest.scale)
    if outputs is not None:
        layer.absorb_output_scaling(outputs.unit)
    return exact


def _route_statistics(predictor: Predictor, shards: Shards) -> RouteStatistics | None:
    """Return what the training rows in each leaf of a layer with trees were."""
    if isinstance(predictor.layer, DenseFeedForward):
        return None
    schema = predictor.schema
    shift = schema.offset[0] if schema.offset else 0.0
    counts = shards.map(part_routes, predictor, shift)
    return RouteStatistics.of_counts(counts, len(schema.classes), shift)


def evaluate_table(
    predictor: Predictor, table: Table, rows: NDArray[np.int64] | None = None
) -> dict[str, float]:
    """Evaluate a predictor on rows of a table: ``loss``, and ``accuracy`` or ``r2``.

    Parameters
    ----------
    predictor : Predictor
        The predictor, with the table's classes if the table has any.
    table : Table
        Table with targets.
    rows : int64 array, optional
        Numbers of the rows; by default all rows.

    Raises
    ------
    ArgumentError
        If the table has no targets, or other classes.
    """
    y = check_targets(predictor, table)
    rows = np.arange(len(table.x)) if rows is None else rows
    return tally_of(
        lambda block: predictor.table_scores(table.x[block]), y, rows, width=table.inputs
    ).figures()


def check_rows(table: Table, progress: bool | None = None, dtype: DTypeLike = np.float64) -> None:
    """Raise unless all numbers of a table's rows are finite.

    Parameters
    ----------
    table : Table
        The table, which is read in blocks.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    dtype : dtype
        The dtype in which they must be finite.

    Raises
    ------
    DataError
        If a number is not finite; the message names its row and column.
    """
    if _may_hold_nan(table):
        rows = np.empty(0, np.int64)
        check_part(
            TablePart(table.x, rows, 0, rows, rows, Deal(0, 1, 0), table.path), dtype, progress
        )


def _may_hold_nan(table: Table) -> bool:
    """Whether rows may have numbers that are not finite; an encoding replaces missing values."""
    return table.x.dtype.kind == "f" and table.encoding is None


def _check_classes(table: Table) -> None:
    """Raise unless there are at least two classes, and two rows per class."""
    if table.classes is None:
        return
    if len(table.classes) < 2:
        raise ArgumentError(
            f"argument 'table' must have at least two classes, got only {table.classes[0]!r}"
        )
    if 2 * len(table.classes) > len(table.x):
        hint = "; numbers to predict are a regression, --task regression (task='regression')"
        numbers = all(is_number(str(label)) for label in table.classes)
        raise ArgumentError(
            f"argument 'table' must have at least two rows per class, got {len(table.classes):,} "
            f"classes in {len(table.x):,} rows{hint * numbers}"
        )


def _outputs(table: Table) -> int:
    """Return the number of outputs of a layer for this table."""
    return len(table.classes) if table.classes else int(table.y.shape[1])  # type: ignore[union-attr]


def _input_names(table: Table) -> Sequence[str] | None:
    """Return the names of a layer's inputs for this table."""
    return table.features if table.encoding is None else table.encoding.inputs


def _encoding(table: Table, shards: Shards, settings: FitSettings) -> Encoding | None:
    """Return how columns become inputs, with statistics of the rows to train on.

    These are the mean of each column, which replaces missing values, and with ``clip`` its range.
    """
    encoding = table.encoding
    if encoding is None and settings.clip:
        encoding = _plain_encoding(table.features, table.x.shape[1])
    if encoding is None:
        return None
    found = functools.reduce(ColumnTotals.plus, shards.map(column_totals))
    empty = found.counts == 0
    values = {"fill": found.totals / np.maximum(found.counts, 1.0)}
    if settings.clip:
        values["low"] = np.where(empty, 0.0, found.low)
        values["high"] = np.where(empty, 0.0, found.high)
    return encoding.with_values(**values)


def _plain_encoding(names: Sequence[str] | None, width: int) -> Encoding:
    """Return the encoding of columns of plain numbers."""
    known = [f"x{column}" for column in range(width)] if names is None else names
    return Encoding(known, [Column()] * width)


def with_exact_scaling(
    encoding: Encoding | None, names: Sequence[str] | None, exact: Scaling
) -> Encoding | None:
    """Return an encoding that applies the scaling that a layer cannot absorb.

    Parameters
    ----------
    encoding : Encoding or None
        The encoding of a table; None if its columns are plain numbers.
    names : sequence of str or None
        Names of these columns.
    exact : Scaling
        The first part of `Scaling.split`, for the inputs.
    """
    if not exact.mean.any() and (exact.scale == 1.0).all():
        return encoding
    if encoding is None:
        encoding = _plain_encoding(names, len(exact.mean))
    columns, inputs = encoding.value_inputs()
    offset, scale = np.zeros(len(encoding.columns)), np.ones(len(encoding.columns))
    offset[columns], scale[columns] = exact.mean[inputs], exact.scale[inputs]
    return encoding.with_values(offset=offset, scale=scale)


def _target_scaling(table: Table, training: NDArray[np.int64]) -> TargetScaling | None:
    """Return the scaling of a regression's targets."""
    if table.classes or table.y is None:
        return None
    name = "argument 'table'" if table.target is None else f"target {', '.join(table.target)!r}"
    return TargetScaling.of(table.y[training], name=name)


def new_layer(
    settings: FitSettings, inputs: int, outputs: int, dtype: DTypeLike = np.float32
) -> Any:
    """Return an untrained layer."""
    return layer_of(layer_config(settings, inputs, outputs, dtype), settings.seed)


def new_optimizer(settings: FitSettings, layer: Any) -> Any:
    """Return an optimizer over a layer's parameters, with settings `FitSettings.for_rows`."""
    params, rate, decay = layer.params, settings.peak_rate, settings.weight_decay
    assert decay is not None
    local = settings.local_batch_size or max(1, settings.batch_size >> settings.depth)
    if settings.optimizer == "adamw":
        return AdamW(params, rate, weight_decay=decay)
    if settings.optimizer == "adam":
        return Adam(params, rate)
    if settings.optimizer == "local-adam":
        return LocalAdam(params, rate, local, weight_decay=decay)
    if settings.optimizer == "local-sgd":
        return LocalSGD(params, rate, local, momentum=settings.momentum, weight_decay=decay)
    return SGD(params, rate, momentum=settings.momentum, weight_decay=decay)


def forward_options(settings: FitSettings) -> Callable[[Moment], dict[str, Any]] | None:
    """Return the options of a step's forward."""
    if settings.layer != "leaf":
        return None
    return lambda moment: {
        "region_leak": settings.region_leak,
        "dropout": settings.dropout,
        "rng": moment.rng,
    }


def backward_options(
    settings: FitSettings, layer: Any
) -> Callable[[Moment], dict[str, Any]] | None:
    """Return the options of a step's backward."""
    if settings.layer == "leaf":
        linear = settings.hardening_schedule == "linear"
        return lambda moment: {
            "hardening": settings.hardening_weight * (moment.fraction if linear else 1.0)
        }
    if settings.layer == "fast":
        options = {
            "row_sparse": takes_rows(settings, layer.config),
            "straight_through": settings.straight_through,
        }
        return lambda moment: options
    return None


def _schema(table: Table, encoding: Encoding | None, outputs: TargetScaling | None) -> Schema:
    """Return the schema of a layer trained on a table."""
    return Schema(
        "classification" if table.classes else "regression",
        table.classes or (),
        table.features,
        table.target,
        () if outputs is None else tuple(outputs.offset.tolist()),
        None if encoding is None else encoding.columns,
        outputs is not None and outputs.is_far(np.float32),
    )


def _identity(
    table: Table, settings: FitSettings, scaling: Scaling, shards: Shards
) -> dict[str, Any]:
    """Return the values that identify this run, without those about checkpoints."""
    values = identity_of(settings, added={"two_sided": False, "shards": 1, "start": "uniform"}) | {
        "lr": settings.peak_rate,
        "hardening": settings.hardening_weight,
    }
    if settings.layer != "fast":
        for name in ("straight_through", "two_sided", "start"):
            values.pop(name, None)
    if table.encoding is not None:
        values["inputs"] = list(table.encoding.inputs)
    every = max(1, len(table.x) // SAMPLED_ROWS)
    some = np.concatenate(shards.map(sampled_rows, every))
    return {
        **values,
        "rows": len(table.x),
        "columns": int(table.x.shape[1]),
        "classes": list(table.classes or ()),
        "features": list(table.features or ()),
        "contents of x": [_digest(some), _digest(scaling.mean), _digest(scaling.scale)],
        "contents of y": _digest(table.y),
    }


def _digest(array: Any) -> int:
    """Return a checksum of an array's numbers."""
    return zlib.crc32(np.ascontiguousarray(array).tobytes())
