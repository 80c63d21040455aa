"""The base of both estimators: training on checked rows, outputs, and conversion of layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fffcpu.checks import check_flag, check_integer, check_number
from fffcpu.columns.fields import clean_name
from fffcpu.config import FastFeedForwardConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, describe
from fffcpu.inference.predictor import Predictor, Schema
from fffcpu.layers import FastFeedForward, LeafFeedForward
from fffcpu.recipes.fitting import (
    FitSettings,
    absorb_scaling,
    backward_options,
    forward_options,
    layer_name,
    new_layer,
    new_optimizer,
    with_exact_scaling,
)
from fffcpu.recipes.memory import check_fit
from fffcpu.recipes.scaling import Scaling, TargetScaling, block_rows, dense_rows
from fffcpu.recipes.starts import sample_step, start_from_clusters
from fffcpu.recipes.table_objective import TableObjective
from fffcpu.sklearn.validation import check_prediction_rows
from fffcpu.training import constant, cosine
from fffcpu.training.batches import BatchOrder, split_rows
from fffcpu.training.trainer import Moment, Trainer, TrainerSettings

__all__ = ["Estimator"]

Array = NDArray[Any]
Rows = NDArray[np.int64]

FULL_BATCH_ROWS = 1000
FULL_BATCH_NUMBERS = 1 << 22
"""With batch size "auto", largest numbers of rows, and of numbers in them, in a single batch."""

BATCH_ROWS = 128
"""With batch size "auto", rows per batch of a larger table."""

TREES = 8
"""Default number of trees of the fast layer."""

ESTIMATOR_HARDENING = 1.0
"""Default weight of the leaf layer's hardening loss. It is larger than in
`fffcpu.recipes.fitting`: few rows make few steps, in which the gates must become hard."""


class Estimator(BaseEstimator):
    """The parameters, the training, the outputs and the conversions that both estimators share.

    Training changes ``_layer``, which takes scaled rows. ``layer_`` is a copy of it, made at the
    end of a training, that contains the scaling. ``_predictor`` holds this copy, and the part of
    the scaling that a layer cannot contain; its classes are numbers.
    """

    _tasks: tuple[str, ...]
    """The tasks of predictors that an estimator can be made from."""
    _watched: str
    """The figure of an evaluation that determines the best layer."""
    _score: str
    """The figure of an evaluation that is `score`."""
    _outputs_scaling: TargetScaling | None
    """The scaling of numbers to predict; None for classes and labels."""
    _predictor: Predictor
    _taken: bool
    """Whether the layer is still as a predictor had it, with the scaling of its rows."""
    _moments: dict[str, Array] | None
    """State of the optimizer between calls of `partial_fit`."""

    def __init__(
        self,
        *,
        layer: str = "fast",
        depth: int = 3,
        trees: int | None = None,
        two_sided: bool = True,
        leaf_width: int = 8,
        hardening: float | None = None,
        region_leak: float = 0.0,
        start: str = "uniform",
        straight_through: bool = True,
        standardize: str = "columns",
        alpha: float = 1.0,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.02,
        max_iter: int = 200,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.layer = layer
        self.depth = depth
        self.trees = trees
        self.two_sided = two_sided
        self.leaf_width = leaf_width
        self.hardening = hardening
        self.region_leak = region_leak
        self.start = start
        self.straight_through = straight_through
        self.standardize = standardize
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # --- Training --------------------------------------------------------------------------------

    def _is_new(self, *, incremental: bool) -> bool:
        """Whether training starts with a new layer instead of the present one."""
        warm = check_flag("warm_start", self.warm_start) or incremental
        return not (warm and hasattr(self, "layer_"))

    def _train(
        self, x: Any, y: Array, weights: Array | None, *, new: bool, incremental: bool
    ) -> None:
        """Train on checked rows.

        Parameters
        ----------
        x : array or CSR matrix of shape (R, I)
            Rows.
        y : array
            Class numbers (R,), truth of each label as bool (R, O), or numbers (R, O).
        weights : float64 array of shape (R,), optional
            Rows of weight 0 are ignored.
        new : bool
            Whether to start with a new layer.
        incremental : bool
            Whether to see each row once, with the optimizer's state of the previous call.
        """
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        seed += 0 if new else self.n_iter_
        rows, validation = self._split(y, weights, seed, incremental)
        settings = self._settings(len(rows), x.shape[1], seed)
        if new:
            self._begin(settings, x, y, weights, rows)
        else:
            self._check_shape(settings)
            if self._taken:
                self._scale_taken(Scaling.of(x, rows, settings.standardize, weights), y[rows])
        order = BatchOrder(rows, settings.batch_size, seed)
        objective = TableObjective(
            self._layer,
            x,
            y if self._outputs_scaling is None else self._outputs_scaling.apply(y, np.float64),
            order,
            validation,
            scaling=self._scaling,
            weights=weights,
            forward_options=forward_options(settings),
            backward_options=_backward_options(settings, self._layer, order, weights),
        )
        optimizer = new_optimizer(settings, self._layer)
        if incremental and self._moments is not None:
            optimizer.load_state_dict(self._moments)
        schedule = TrainerSettings(
            steps=order.steps_per_epoch * (1 if incremental else settings.passes(len(rows))),
            lr=settings.peak_rate,
            schedule=constant if incremental else _falling,
            max_norm=settings.max_norm,
            evaluate_every=order.steps_per_epoch,
            patience=settings.patience,
            watch=self._watched,
            higher_is_better=self._watched == self._score,
            keep_best=settings.patience is not None,
            seed=seed,
        )
        trainer = Trainer(objective, optimizer, schedule, progress=bool(self.verbose))
        trainer.run()
        self._moments = optimizer.state_dict() if incremental else None
        self._record(trainer.history)
        self._finish()

    def _finish(self) -> None:
        """Make the layer and the predictor of what was learned."""
        layer, outputs = self._layer.copy(), self._outputs_scaling
        dtype = layer.config.dtype
        exact = absorb_scaling(layer, self._scaling, outputs)
        task, classes = self._labels()
        encoding = with_exact_scaling(None, None, exact)
        numbers = tuple(range(len(classes)))
        self.layer_ = layer
        self._predictor = Predictor(
            layer,
            Schema(
                task,
                numbers,
                offset=() if outputs is None else tuple(outputs.offset.tolist()),
                columns=None if encoding is None else encoding.columns,
                exact=outputs is not None and outputs.is_far(dtype),
            ),
        )

    def _split(
        self, y: Array, weights: Array | None, seed: int, incremental: bool
    ) -> tuple[Rows, Rows]:
        """Return the rows to train on and the rows to validate on, split by class if y has one."""
        rows = np.arange(len(y)) if weights is None else np.flatnonzero(weights)
        if not len(rows):
            raise ArgumentError(
                "argument 'sample_weight' must be above 0 for at least one row, got zero for all"
            )
        chosen, held_out = np.arange(len(rows)), np.arange(0)
        stopping = check_flag("early_stopping", self.early_stopping)
        if stopping and incremental:
            raise ArgumentError("argument 'early_stopping' must be False for partial_fit, got True")
        if stopping:
            fraction = check_number("validation_fraction", self.validation_fraction, 0.0, 1.0)
            classes = y[rows] if y.ndim == 1 else None
            chosen, held_out = split_rows(len(rows), fraction, seed, classes)
            if not len(chosen) or not len(held_out):
                raise ArgumentError(
                    "argument 'validation_fraction' must leave rows to train on and to validate "
                    f"on, got {len(chosen)} and {len(held_out)}"
                )
        return rows[chosen], rows[held_out]

    def _settings(self, rows: int, width: int, seed: int) -> FitSettings:
        """Return the checked parameters as settings of a training on ``rows`` rows."""
        layer = layer_name(self.layer)
        if layer not in ("fast", "leaf"):
            raise ArgumentError(
                f"argument 'layer' must be fast or leaf, got {describe(self.layer)}"
            )
        most = 1 if layer == "leaf" else None
        hardening = (
            ESTIMATOR_HARDENING if layer == "leaf" and self.hardening is None else self.hardening
        )
        trees = (most or TREES) if self.trees is None else self.trees
        check_integer("trees", trees, 1, most)
        patience = check_integer("n_iter_no_change", self.n_iter_no_change, 1)
        return FitSettings(
            layer=layer,
            depth=self.depth,
            trees=trees,
            two_sided=self.two_sided,
            leaf_width=self.leaf_width,
            epochs=check_integer("max_iter", self.max_iter, 1),
            batch_size=self._batch_rows(rows, width),
            lr=check_number("learning_rate_init", self.learning_rate_init, 0.0),
            weight_decay=check_number("alpha", self.alpha, 0.0),
            standardize=self.standardize,
            hardening=hardening,
            region_leak=self.region_leak,
            start=self.start,
            straight_through=self.straight_through,
            patience=patience if self.early_stopping else None,
            seed=seed,
        )

    def _batch_rows(self, rows: int, width: int) -> int:
        """Return the number of rows per step."""
        if self.batch_size == "auto":
            small = rows <= FULL_BATCH_ROWS and rows * width <= FULL_BATCH_NUMBERS
            return rows if small else BATCH_ROWS
        return min(rows, check_integer("batch_size", self.batch_size, 1))

    def _begin(
        self, settings: FitSettings, x: Any, y: Array, weights: Array | None, rows: Rows
    ) -> None:
        """Make a new layer, and find the scaling of its inputs and outputs."""
        # If training fails, no old layer may remain with the new scaling.
        self.__dict__.pop("layer_", None)
        self._scaling = Scaling.of(x, rows, settings.standardize, weights)
        self._outputs_scaling = self._scaling_of_targets(
            y[rows], None if weights is None else weights[rows]
        )
        dtype = np.float64 if settings.batch_size == len(rows) else np.float32
        check_fit(settings, x.shape[1], self._width(y), len(rows), dtype, copies=1)
        self._layer = new_layer(settings, x.shape[1], self._width(y), dtype)
        if settings.starts_from_clusters:
            some = rows[:: sample_step(len(rows), x.shape[1])]
            inputs = self._scaling.apply(dense_rows(x, some), dtype)
            start_from_clusters(self._layer, inputs, np.random.default_rng((settings.seed, 1)))
        self._moments, self._taken = None, False
        self._clear_records()

    def _scale_taken(self, scaling: Scaling, y: Array) -> None:
        """Let the layer of a predictor, which contains its scaling, take scaled rows instead."""
        within = self._scaling
        self._layer._absorb(
            -(scaling.mean - within.mean) / scaling.scale, within.scale / scaling.scale
        )
        self._scaling = scaling
        if self._outputs_scaling is not None:
            unit = TargetScaling.of(y).unit
            self._layer.absorb_output_scaling(1.0 / unit)
            self._outputs_scaling = self._outputs_scaling._replace(unit=unit)
        self._taken = False

    def _check_shape(self, settings: FitSettings) -> None:
        """Raise unless the parameters describe the layer that training continues from."""
        for name, value in _shape_of(self._layer).items():
            if getattr(settings, name) != value:
                raise ArgumentError(
                    f"argument '{name}' must be {value!r}, as in the layer that training "
                    f"continues from, got {getattr(settings, name)!r}"
                )

    def _scaling_of_targets(self, y: Array, weights: Array | None) -> TargetScaling | None:
        """Return the scaling of numbers to predict."""
        return None

    def _width(self, y: Array) -> int:
        """Return the number of the layer's outputs for targets."""
        raise NotImplementedError

    def _clear_records(self) -> None:
        """Start new records of training."""
        self.n_iter_ = 0
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []

    def _record(self, history: list[dict[str, Any]]) -> None:
        """Add the history of a training to the records."""
        self.n_iter_ += len(history)
        self.loss_curve_ += [line["train_loss"] for line in history]
        self.loss_ = self.loss_curve_[-1]
        scores = [line[self._score] for line in history if self._score in line]
        self.validation_scores_ += [math.nan if score is None else score for score in scores]

    # --- Outputs ---------------------------------------------------------------------------------

    def _outputs(self, x: Any) -> Array:
        """Return the layer's outputs (B, O), with the offset added."""
        if "layer_" not in self.__dict__:
            check_is_fitted(self, "layer_")
        x = check_prediction_rows(self, x)
        if not hasattr(x, "toarray"):
            return self._predictor.scores(x)
        step = block_rows(x.shape[1])
        return np.concatenate(
            [
                self._predictor.scores(dense_rows(x, slice(start, start + step)))
                for start in range(0, x.shape[0], step)
            ]
        )

    # --- To a predictor and back -----------------------------------------------------------------

    def to_predictor(self) -> Predictor:
        """Return the trained layer as a predictor, whose files need no scikit-learn.

        Returns
        -------
        Predictor
            It holds a copy of ``layer_`` and the names of classes and features.

        Raises
        ------
        ArgumentError
            If a class is no text, integer, float or truth value.
        """
        check_is_fitted(self, "layer_")
        names = getattr(self, "feature_names_in_", None)
        features = None if names is None else tuple(map(clean_name, names))
        _, labels = self._labels()
        if len({type(label) for label in labels}) > 1 or not all(
            type(label) in (str, int, float, bool) for label in labels
        ):
            raise ArgumentError(
                "a predictor's classes must be all texts, all integers, all floats or all truth "
                f"values, got {describe(labels)}"
            )
        schema = dataclasses.replace(self._predictor.schema, classes=labels, features=features)
        return Predictor(self.layer_.copy(), schema)

    def _labels(self) -> tuple[str, tuple[Any, ...]]:
        """Return the task and the classes."""
        raise NotImplementedError

    @classmethod
    def from_predictor(cls, predictor: Predictor, **parameters: Any) -> Self:
        """Return a fitted estimator that predicts as a predictor does.

        Parameters
        ----------
        predictor : Predictor
            It holds a FastFeedForward or a LeafFeedForward, which is copied.
        **parameters : object
            Parameters of the estimator, without those that describe the layer.

        Returns
        -------
        FFFClassifier or FFFRegressor
            The estimator. `partial_fit`, and `fit` with ``warm_start``, continue from the layer,
            scaled by the rows of the first of these calls.

        Raises
        ------
        ArgumentError
            If the predictor is for another task.
        ArgumentTypeError
            If the predictor's layer has another class.
        """
        layer, schema = predictor.layer, predictor.schema
        if schema.task not in cls._tasks:
            raise ArgumentError(
                f"argument 'predictor' must be for {' or '.join(cls._tasks)}, "
                f"got one for {schema.task}"
            )
        if not isinstance(layer, FastFeedForward | LeafFeedForward):
            raise ArgumentTypeError(
                "argument 'predictor' must hold a FastFeedForward or a LeafFeedForward, "
                f"got {describe(layer)}"
            )
        estimator = cls(**_shape_of(layer), **parameters)
        estimator._take(layer, schema)
        return estimator

    def _take(self, layer: Any, schema: Schema) -> None:
        """Adopt a trained layer and the schema of its outputs."""
        encoding = schema.encoding
        inputs = layer.config.input_dim
        if encoding is not None and any(
            column.kind != "number" or column.missing for column in encoding.columns
        ):
            raise ArgumentError(
                "argument 'predictor' must take columns of numbers only, because estimators do, "
                f"got {encoding!r}"
            )
        self._scaling = Scaling.none(inputs)
        if encoding is not None:
            self._scaling = Scaling(*encoding.scaling())
        self._outputs_scaling = None
        if schema.task == "regression":
            width = layer.config.output_dim
            self._outputs_scaling = TargetScaling(
                np.array(schema.offset or (0.0,) * width), np.ones(width)
            )
        self._layer, self.layer_ = layer.copy(), layer.copy()
        self._moments, self._taken = None, True
        self._clear_records()
        self.n_features_in_ = inputs
        if schema.features is not None:
            self.feature_names_in_ = np.array(schema.features, object)
        numbers = tuple(range(len(schema.classes)))
        plain = dataclasses.replace(schema, classes=numbers, features=None)
        self._predictor = Predictor(self.layer_, plain)


def _shape_of(layer: FastFeedForward | LeafFeedForward) -> dict[str, Any]:
    """Return the parameters of an estimator that describe a layer."""
    config = layer.config
    if isinstance(config, FastFeedForwardConfig):
        sizes = {"depth": config.depth, "trees": config.trees}
        return {"layer": "fast", **sizes, "two_sided": config.two_sided}
    return {"layer": "leaf", "depth": config.depth, "leaf_width": config.leaf_width}


def _backward_options(
    settings: FitSettings, layer: Any, order: BatchOrder, weights: Array | None
) -> Callable[[Moment], dict[str, Any]] | None:
    """Return a step's options of ``backward``, in which rows have weights in the hardening loss."""
    options_of = backward_options(settings, layer)
    if options_of is None or weights is None or settings.layer != "leaf":
        return options_of

    def weighted(moment: Moment) -> dict[str, Any]:
        options = options_of(moment)
        batch = weights[order.rows(moment.step)]
        options["hardening"] = options["hardening"] * batch / batch.mean()
        return options

    return weighted


def _falling(fraction: float) -> float:
    """Return half a cosine from 1 to 0, without a warmup: a single step must not have rate 0."""
    return cosine(fraction, warmup=0.0)
