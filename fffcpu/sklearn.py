"""FFFClassifier and FFFRegressor: the layers as estimators of scikit-learn (extra: sklearn).

Parameters are those of scikit-learn's MLPClassifier where they mean the same. An estimator trains a
layer with what `fffcpu.recipes.fitting.fit` uses, and what it has learned is that layer: it leaves
as a `fffcpu.Predictor`, and from a predictor an estimator is made again.

Where every step takes all rows, as it does when they are few, training is in float64, and a row of
weight 2 does what two rows do, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import as_real_array, check_flag, check_integer, check_nonnegative, check_number
from fffcpu.config import FastFeedForwardConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe, require_extra
from fffcpu.inference.predictor import Meaning, Predictor
from fffcpu.layers import FastFeedForward, LeafFeedForward
from fffcpu.recipes.fitting import (
    FitSettings,
    backward_options,
    forward_options,
    layer_name,
    new_layer,
    new_optimizer,
)
from fffcpu.recipes.table_objective import (
    Scaling,
    TableObjective,
    block_rows,
    dense_rows,
    deviations,
)
from fffcpu.training import constant, cosine
from fffcpu.training.batches import BatchOrder, split_rows
from fffcpu.training.trainer import Moment, Trainer, TrainerSettings

require_extra("sklearn", "sklearn")

from scipy.special import expit, softmax  # noqa: E402
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.class_weight import compute_class_weight  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets, type_of_target  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402

__all__ = ["FFFClassifier", "FFFRegressor"]

Array = NDArray[Any]
Rows = NDArray[np.int64]

DTYPES = (np.float64, np.float32)
"""Of rows that are taken as they are."""

FULL_BATCH_ROWS = 1000
FULL_BATCH_NUMBERS = 1 << 22
"""Up to so many rows, and numbers in them, are one batch where the batch size is "auto"."""

BATCH_ROWS = 128
"""Rows of a batch where there are more."""

TREES = 8
"""Trees of the fast layer where none are given."""

HARDENING = 1.0
"""Weight of the leaf layer's hardening loss where none is given. It is more than in
`fffcpu.recipes.fitting`, since few rows make few steps, in which gates must have decided."""


class _Estimator(BaseEstimator):
    """What the two estimators share: parameters, training, outputs, the way to a layer and back.

    Training changes ``_layer``, which takes scaled rows. ``layer_`` is a copy that has taken up the
    scaling, made when a training ends.
    """

    _tasks: tuple[str, ...]
    """Of the predictors it can be made from."""
    _watched: str
    _score: str
    """Figures of an evaluation: by which the best is found, and which `score` returns."""
    _moments: dict[str, Array] | None
    """What the optimizer of `partial_fit` remembers."""

    def __init__(
        self,
        *,
        layer: str = "fast",
        depth: int = 3,
        trees: int | None = None,
        leaf_width: int = 8,
        hardening: float | None = None,
        region_leak: float = 0.0,
        straight_through: bool = True,
        standardize: str = "columns",
        alpha: float = 0.3,
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
        self.leaf_width = leaf_width
        self.hardening = hardening
        self.region_leak = region_leak
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
        """Whether training begins with a new layer, and not with the one there is."""
        warm = check_flag("warm_start", self.warm_start) or incremental
        return not (warm and hasattr(self, "layer_"))

    def _table(self, x: Any, y: Any, *, reset: bool, y_numeric: bool = False) -> tuple[Any, Any]:
        """Return checked rows, dense or CSR, and targets, dense."""
        x, y = validate_data(
            self,
            x,
            y,
            reset=reset,
            accept_sparse="csr",
            dtype=DTYPES,
            multi_output=True,
            y_numeric=y_numeric,
        )
        return x, y.toarray() if hasattr(y, "toarray") else y

    def _train(
        self, x: Any, y: Array, weights: Array | None, *, new: bool, incremental: bool
    ) -> None:
        """Train on checked rows.

        Parameters
        ----------
        x : array or CSR matrix of shape (R, I)
            Rows.
        y : array
            Class numbers (R,), which labels are true, bool (R, O), or numbers (R, O).
        weights : float64 array of shape (R,), optional
            Rows of weight 0 are passed over.
        new : bool
            Whether to begin with a new layer.
        incremental : bool
            Whether to see each row once, with the optimizer as the call before left it.
        """
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        seed += 0 if new else self.n_iter_
        rows, validation = self._split(x.shape[0], weights, seed, incremental)
        settings = self._settings(len(rows), x.shape[1], seed)
        if new:
            self._begin(settings, x, y, weights, rows)
        else:
            self._check_shape(settings)
        order = BatchOrder(rows, settings.batch_size, seed)
        objective = TableObjective(
            self._layer,
            x,
            self._scaled(y),
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
            steps=order.steps_per_epoch * (1 if incremental else settings.epochs),
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
        self._note(trainer.history)
        self.layer_ = self._layer.copy()
        self.layer_.absorb_input_scaling(self._scaling.mean, self._scaling.scale)
        self.layer_.absorb_output_scaling(self._unit)

    def _split(
        self, count: int, weights: Array | None, seed: int, incremental: bool
    ) -> tuple[Rows, Rows]:
        """Return the rows to train on, and those to validate with."""
        rows = np.arange(count) if weights is None else np.flatnonzero(weights)
        if not len(rows):
            raise ArgumentError(
                "argument 'sample_weight' must leave a row of weight, got zero for all"
            )
        chosen, held_out = np.arange(len(rows)), np.arange(0)
        stopping = check_flag("early_stopping", self.early_stopping)
        if stopping and incremental:
            raise ArgumentError("argument 'early_stopping' must be False for partial_fit, got True")
        if stopping:
            fraction = check_number("validation_fraction", self.validation_fraction, 0.0, 1.0)
            chosen, held_out = split_rows(len(rows), fraction, seed)
            if not len(chosen) or not len(held_out):
                raise ArgumentError(
                    "argument 'validation_fraction' must leave rows to train on and to validate "
                    f"with, got {len(chosen)} and {len(held_out)}"
                )
        return rows[chosen], rows[held_out]

    def _settings(self, rows: int, width: int, seed: int) -> FitSettings:
        """Return what the parameters say, checked, for so many rows to train on."""
        layer = layer_name(self.layer)
        if layer not in ("fast", "leaf"):
            raise ArgumentError(
                f"argument 'layer' must be fast or leaf, got {describe(self.layer)}"
            )
        most = 1 if layer == "leaf" else None
        hardening = HARDENING if layer == "leaf" and self.hardening is None else self.hardening
        trees = (most or TREES) if self.trees is None else self.trees
        check_integer("trees", trees, 1, most)
        patience = check_integer("n_iter_no_change", self.n_iter_no_change, 1)
        return FitSettings(
            layer=layer,
            depth=self.depth,
            trees=trees,
            leaf_width=self.leaf_width,
            epochs=check_integer("max_iter", self.max_iter, 1),
            batch_size=self._batch_rows(rows, width),
            lr=check_number("learning_rate_init", self.learning_rate_init, 0.0),
            weight_decay=check_number("alpha", self.alpha, 0.0),
            standardize=self.standardize,
            hardening=hardening,
            region_leak=self.region_leak,
            straight_through=self.straight_through,
            patience=patience if self.early_stopping else None,
            seed=seed,
        )

    def _batch_rows(self, rows: int, width: int) -> int:
        """Return how many rows a step takes, of those to train on."""
        if self.batch_size == "auto":
            small = rows <= FULL_BATCH_ROWS and rows * width <= FULL_BATCH_NUMBERS
            return rows if small else BATCH_ROWS
        return min(rows, check_integer("batch_size", self.batch_size, 1))

    def _begin(
        self, settings: FitSettings, x: Any, y: Array, weights: Array | None, rows: Rows
    ) -> None:
        """Make a new layer, and find the scaling of its inputs and outputs."""
        # If training fails, an old layer is not left beside the new scaling.
        self.__dict__.pop("layer_", None)
        self._scaling = Scaling.of(x, rows, settings.standardize, weights)
        self._offset, self._unit = self._output_scaling(
            y[rows], None if weights is None else weights[rows]
        )
        dtype = np.float64 if settings.batch_size == len(rows) else np.float32
        self._layer = new_layer(settings, x.shape[1], len(self._unit), dtype)
        self._moments = None
        self._forget()

    def _check_shape(self, settings: FitSettings) -> None:
        """Raise unless the parameters are those of the layer that training goes on from."""
        for name, value in _shape_of(self._layer).items():
            if getattr(settings, name) != value:
                raise ArgumentError(
                    f"argument '{name}' must be {value!r}, as of the layer to go on from, "
                    f"got {getattr(settings, name)!r}"
                )

    def _output_scaling(self, y: Array, weights: Array | None) -> tuple[Array, Array]:
        """Return what is added to outputs, empty if nothing is, and their unit (O,)."""
        raise NotImplementedError

    def _scaled(self, y: Array) -> Array:
        """Return what the layer is trained towards."""
        return y

    def _forget(self) -> None:
        """Begin the records of training."""
        self.n_iter_ = 0
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []

    def _note(self, history: list[dict[str, Any]]) -> None:
        """Add a training to the records."""
        self.n_iter_ += len(history)
        self.loss_curve_ += [line["train_loss"] for line in history]
        self.loss_ = self.loss_curve_[-1]
        scores = [line[self._score] for line in history if self._score in line]
        self.validation_scores_ += [math.nan if score is None else score for score in scores]

    # --- Outputs ---------------------------------------------------------------------------------

    def _outputs(self, x: Any) -> Array:
        """Return the layer's outputs (B, O), with the offset added."""
        check_is_fitted(self, "layer_")
        x = validate_data(self, x, reset=False, accept_sparse="csr", dtype=DTYPES)
        step = block_rows(x.shape[1]) if hasattr(x, "toarray") else x.shape[0]
        outputs: Array = np.concatenate(
            [
                self.layer_(dense_rows(x, slice(start, start + step)))
                for start in range(0, x.shape[0], step)
            ]
        )
        if len(self._offset):
            outputs += self._offset.astype(outputs.dtype)
        return outputs

    # --- To a layer and back ---------------------------------------------------------------------

    def to_predictor(self) -> Predictor:
        """Return what was learned as a predictor, which is saved without scikit-learn.

        Returns
        -------
        Predictor
            Of a copy of ``layer_``, with the names of classes and features.

        Raises
        ------
        ArgumentError
            If a class is neither a string nor an integer.
        """
        check_is_fitted(self, "layer_")
        task, classes = self._labels()
        names = getattr(self, "feature_names_in_", None)
        features = None if names is None else tuple(map(str, names))
        offset = tuple(float(value) for value in self._offset)
        return Predictor(self.layer_.copy(), Meaning(task, classes, features, offset=offset))

    def _labels(self) -> tuple[str, tuple[Any, ...]]:
        """Return the task and the classes, as a predictor knows them."""
        raise NotImplementedError

    @classmethod
    def from_predictor(cls, predictor: Predictor, **parameters: Any) -> Self:
        """Return an estimator that knows what a predictor has learned.

        Parameters
        ----------
        predictor : Predictor
            Of a FastFeedForward or a LeafFeedForward, which is copied.
        **parameters : object
            Of the estimator, those aside that say what layer it is.

        Returns
        -------
        FFFClassifier or FFFRegressor
            Fitted. `partial_fit`, and `fit` with ``warm_start``, go on from the layer, and take
            rows as they are: a scaling has become part of the layer.

        Raises
        ------
        ArgumentError
            If the predictor is for another task.
        ArgumentTypeError
            If its layer is of another kind.
        """
        layer, meaning = predictor.layer, predictor.meaning
        if meaning.task not in cls._tasks:
            raise ArgumentError(
                f"argument 'predictor' must be for {' or '.join(cls._tasks)}, "
                f"got one for {meaning.task}"
            )
        if not isinstance(layer, FastFeedForward | LeafFeedForward):
            raise ArgumentTypeError(
                "argument 'predictor' must be of a FastFeedForward or a LeafFeedForward, "
                f"got {describe(layer)}"
            )
        estimator = cls(**_shape_of(layer), **parameters)
        estimator._take(layer, meaning)
        return estimator

    def _take(self, layer: Any, meaning: Meaning) -> None:
        """Take over a trained layer and what its outputs mean."""
        inputs, outputs = layer.config.input_dim, layer.config.output_dim
        self._scaling = Scaling(np.zeros(inputs), np.ones(inputs))
        self._offset, self._unit = np.array(meaning.offset), np.ones(outputs)
        self._layer, self.layer_ = layer.copy(), layer.copy()
        self._moments = None
        self._forget()
        self.n_features_in_ = inputs
        if meaning.features is not None:
            self.feature_names_in_ = np.array(meaning.features, object)


class FFFClassifier(ClassifierMixin, _Estimator):
    """Classifier with one fast feedforward layer.

    Parameters
    ----------
    layer : {"fast", "leaf"}
        FastFeedForward or LeafFeedForward.
    depth : int
        Of the trees.
    trees : int, optional
        Fast layer: how many trees are summed; 8 by default. The leaf layer has 1.
    leaf_width : int
        Leaf layer: neurons of a leaf.
    hardening : float, optional
        Leaf layer: weight of the hardening loss, 1 by default.
    region_leak : float
        Leaf layer: with which probability a gate's choice is turned round in training. 0.1 often
        helps on small data.
    straight_through : bool
        Fast layer: whether routes learn as well, see `fffcpu.FastFeedForward.backward`.
    standardize : {"columns", "table", "none"}
        Whether each column is shifted and scaled by its own mean and deviation, or by the deviation
        of the whole table, or all is taken as it is. The scaling becomes part of the layer.
    alpha : float
        Weight decay of AdamW, which spares biases. A step shrinks weights by the learning rate
        times this, however many rows there are.
    batch_size : int or "auto"
        Rows of a step. Auto takes all rows together up to 1000 of them, and 128 where there are
        more. Where a step takes all rows, training is in float64, else in float32.
    learning_rate_init : float
        Learning rate, from which `fit` falls to 0 along a cosine.
    max_iter : int
        Passes over the rows.
    early_stopping : bool
        Whether a part of the rows is held out, training stops when they are predicted no better,
        and the best layer is kept.
    validation_fraction : float
        Which part is held out.
    n_iter_no_change : int
        Stop after so many passes without a better one.
    class_weight : dict or "balanced", optional
        From classes to factors of the weights of their rows, those of other classes being 1; or
        every class has the same weight in all. Not for several labels a row.
    warm_start : bool
        Whether `fit` goes on from the layer there is, whose shape the parameters must have, and
        with its scaling.
    random_state : None, int or numpy.random.RandomState
        For initial values, batches, rows held out and the region leak.
    verbose : bool
        Whether to show a progress bar on standard error.

    Attributes
    ----------
    classes_ : array of shape (C,)
        The classes; with several labels a row, their numbers.
    layer_ : FastFeedForward or LeafFeedForward
        What was learned; it takes rows as they are.
    n_features_in_ : int
        Input width I.
    feature_names_in_ : array of str of shape (I,)
        Of a data frame's columns.
    n_iter_ : int
        Passes made.
    loss_, loss_curve_ : float, list of float
        Mean loss of the last pass, and of each.
    validation_scores_ : list of float
        With early stopping: accuracy on the rows held out, after each pass.

    Examples
    --------
    >>> from fffcpu.data import load_digits
    >>> from fffcpu.sklearn import FFFClassifier
    >>> images, labels = load_digits()
    >>> classifier = FFFClassifier(max_iter=50, random_state=0).fit(images[:900], labels[:900])
    >>> classifier.score(images[900:], labels[900:]) > 0.9
    True
    """

    _tasks = ("classification", "multilabel")
    _watched = _score = "validation_accuracy"
    _multilabel: bool
    classes_: Array

    def __init__(
        self,
        *,
        layer: str = "fast",
        depth: int = 3,
        trees: int | None = None,
        leaf_width: int = 8,
        hardening: float | None = None,
        region_leak: float = 0.0,
        straight_through: bool = True,
        standardize: str = "columns",
        alpha: float = 0.3,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.02,
        max_iter: int = 200,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            layer=layer,
            depth=depth,
            trees=trees,
            leaf_width=leaf_width,
            hardening=hardening,
            region_leak=region_leak,
            straight_through=straight_through,
            standardize=standardize,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on a table.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows. Of a sparse matrix only a batch at a time becomes dense.
        y : array_like of shape (B,) or (B, O)
            A class for each row; or for each of O labels 1 where it is true, else 0.
        sample_weight : array_like of shape (B,), optional
            How much each row counts, at least 0.

        Returns
        -------
        FFFClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or of the wrong kind.
        """
        return self._fit(X, y, sample_weight, None, incremental=False)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train on some more rows, each seen once, at a constant learning rate.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows. The scaling is that of the first call's rows.
        y : array_like of shape (B,) or (B, O)
            As for `fit`.
        classes : array_like of shape (C,), optional
            All classes there will ever be; must be given on the first call, unless a row may have
            several labels.
        sample_weight : array_like of shape (B,), optional
            As for `fit`.

        Returns
        -------
        FFFClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or of the wrong kind.
        """
        return self._fit(X, y, sample_weight, classes, incremental=True)

    def _fit(self, x: Any, y: Any, sample_weight: Any, classes: Any, *, incremental: bool) -> Self:
        new = self._is_new(incremental=incremental)
        x, y = self._table(x, y, reset=new)
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ArgumentError(
                "argument 'y' must have one class a row, or 0 or 1 for each label, got several "
                "classes a row"
            )
        self._learn_classes(y, kind == "multilabel-indicator", classes, new, incremental)
        targets: Array = self._truth(y) if self._multilabel else self._numbers(y)
        weights = _weights(sample_weight, x.shape[0])
        if self.class_weight is not None:
            weights = self._class_weights(targets, weights, incremental)
        self._train(x, targets, weights, new=new, incremental=incremental)
        return self

    def _learn_classes(
        self, y: Array, multilabel: bool, classes: Any, new: bool, incremental: bool
    ) -> None:
        """Find the classes, or see that they are those known."""
        if not new:
            if multilabel != self._multilabel:
                raise ArgumentError("argument 'y' must be of the same kind as before, got another")
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ArgumentError(
                    f"argument 'classes' must be {self.classes_.tolist()}, as before, "
                    f"got {describe(classes)}"
                )
            return
        self._multilabel = multilabel
        if multilabel:
            self.classes_ = np.arange(y.shape[1])
        elif incremental and classes is None:
            raise ArgumentError(
                "argument 'classes' must be given on the first call of partial_fit, got None"
            )
        else:
            self.classes_ = np.unique(classes if incremental else y)

    def _truth(self, y: Array) -> NDArray[np.bool_]:
        """Return which labels are true (R, O)."""
        if y.shape[1] != len(self.classes_) or not ((y == 0) | (y == 1)).all():
            raise ArgumentError(
                f"argument 'y' must have 0 or 1 for each of {len(self.classes_)} labels, "
                f"got {describe(y)}"
            )
        truth: NDArray[np.bool_] = y == 1
        return truth

    def _numbers(self, y: Array) -> NDArray[np.int64]:
        """Return the number of each row's class (R,)."""
        y = column_or_1d(y, warn=True)
        numbers = np.searchsorted(self.classes_, y)
        numbers[numbers == len(self.classes_)] = 0
        wrong = self.classes_[numbers] != y
        if wrong.any():
            raise ArgumentError(
                f"argument 'y' must hold classes of {self.classes_.tolist()}, got {y[wrong][0]!r}"
            )
        return numbers

    def _class_weights(
        self, numbers: NDArray[np.int64], weights: Array | None, incremental: bool
    ) -> Array:
        """Return the rows' weights times those of their classes."""
        if self._multilabel:
            raise ArgumentError(
                "argument 'class_weight' must be None where a row may have several labels, "
                f"got {describe(self.class_weight)}"
            )
        weights = np.ones(len(numbers)) if weights is None else weights
        if not isinstance(self.class_weight, str):
            # Every class once, so that one that no row has may be among the keys.
            by_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_
            )
            if not (np.isfinite(by_class) & (by_class >= 0)).all():
                raise ArgumentError(
                    "argument 'class_weight' must hold finite numbers of at least 0, "
                    f"got {describe(self.class_weight)}"
                )
            return np.asarray(weights * by_class[numbers], np.float64)
        if self.class_weight != "balanced" or incremental:
            raise ArgumentError(
                "argument 'class_weight' must be a mapping, None, or for fit 'balanced', "
                f"got {describe(self.class_weight)}"
            )
        totals = np.bincount(numbers, weights, len(self.classes_))
        totals[totals == 0] = 1.0  # of a class whose rows have no weight
        return np.asarray(weights / totals[numbers], np.float64)

    def _output_scaling(self, y: Array, weights: Array | None) -> tuple[Array, Array]:
        return np.zeros(0), np.ones(len(self.classes_))

    def decision_function(self, X: Any) -> Array:
        """Return the scores of classes.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.

        Returns
        -------
        array of shape (B, C), (B,) or (B, O)
            The layer's outputs: of several classes, the largest is the class predicted. For two
            classes the second's less the first's, and for several labels a row those of the labels;
            then what is above 0 is predicted.
        """
        outputs = self._outputs(X)
        if len(self.classes_) == 2 and not self._multilabel:
            difference: Array = outputs[:, 1] - outputs[:, 0]
            return difference
        return outputs

    def predict(self, X: Any) -> Array:
        """Return the class of each row (B,), or for each label 0 or 1 (B, O).

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.
        """
        outputs = self._outputs(X)
        if self._multilabel:
            return (outputs > 0).astype(np.int64)
        labels: Array = self.classes_[outputs.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class (B, C), or of each label to be true (B, O).

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.
        """
        outputs = self._outputs(X)
        probabilities: Array = expit(outputs) if self._multilabel else softmax(outputs, axis=1)
        return probabilities

    def _labels(self) -> tuple[str, tuple[Any, ...]]:
        classes = tuple(self.classes_.tolist())
        if not all(type(label) in (str, int) for label in classes):
            raise ArgumentError(
                "a predictor's classes must be strings or integers, "
                f"got {describe(self.classes_.tolist())}"
            )
        return "multilabel" if self._multilabel else "classification", classes

    def _take(self, layer: Any, meaning: Meaning) -> None:
        super()._take(layer, meaning)
        self._multilabel = meaning.task == "multilabel"
        self.classes_ = np.array(meaning.classes)


class FFFRegressor(RegressorMixin, _Estimator):
    """Regressor with one fast feedforward layer.

    Targets are shifted and scaled by their means and deviations while the layer learns.

    Parameters
    ----------
    layer : {"fast", "leaf"}
        FastFeedForward or LeafFeedForward.
    depth : int
        Of the trees.
    trees : int, optional
        Fast layer: how many trees are summed; 8 by default. The leaf layer has 1.
    leaf_width : int
        Leaf layer: neurons of a leaf.
    hardening : float, optional
        Leaf layer: weight of the hardening loss, 1 by default.
    region_leak : float
        Leaf layer: with which probability a gate's choice is turned round in training. 0.1 often
        helps on small data.
    straight_through : bool
        Fast layer: whether routes learn as well, see `fffcpu.FastFeedForward.backward`.
    standardize : {"columns", "table", "none"}
        Whether each column is shifted and scaled by its own mean and deviation, or by the deviation
        of the whole table, or all is taken as it is. The scaling becomes part of the layer.
    alpha : float
        Weight decay of AdamW, which spares biases. A step shrinks weights by the learning rate
        times this, however many rows there are.
    batch_size : int or "auto"
        Rows of a step. Auto takes all rows together up to 1000 of them, and 128 where there are
        more. Where a step takes all rows, training is in float64, else in float32.
    learning_rate_init : float
        Learning rate, from which `fit` falls to 0 along a cosine.
    max_iter : int
        Passes over the rows.
    early_stopping : bool
        Whether a part of the rows is held out, training stops when they are predicted no better,
        and the best layer is kept.
    validation_fraction : float
        Which part is held out.
    n_iter_no_change : int
        Stop after so many passes without a better one.
    warm_start : bool
        Whether `fit` goes on from the layer there is, whose shape the parameters must have, and
        with its scaling.
    random_state : None, int or numpy.random.RandomState
        For initial values, batches, rows held out and the region leak.
    verbose : bool
        Whether to show a progress bar on standard error.

    Attributes
    ----------
    layer_ : FastFeedForward or LeafFeedForward
        What was learned; it takes rows as they are, and its outputs lack the targets' means.
    n_features_in_ : int
        Input width I.
    feature_names_in_ : array of str of shape (I,)
        Of a data frame's columns.
    n_iter_ : int
        Passes made.
    loss_, loss_curve_ : float, list of float
        Mean squared error of the scaled targets in the last pass, and in each.
    validation_scores_ : list of float
        With early stopping: share of the variance explained on the rows held out, after each pass.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu.sklearn import FFFRegressor
    >>> x = np.random.default_rng(0).standard_normal((300, 2))
    >>> y = 100 + 20 * x[:, 0] * x[:, 1]
    >>> FFFRegressor(random_state=0).fit(x[:200], y[:200]).score(x[200:], y[200:]) > 0.8
    True
    """

    _tasks = ("regression",)
    _watched, _score = "validation_loss", "validation_r2"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on a table.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows. Of a sparse matrix only a batch at a time becomes dense.
        y : array_like of shape (B,) or (B, O)
            Numbers to predict.
        sample_weight : array_like of shape (B,), optional
            How much each row counts, at least 0.

        Returns
        -------
        FFFRegressor
            Itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or of the wrong kind.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on some more rows, each seen once, at a constant learning rate.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows. The scaling, of targets as well, is that of the first call's rows.
        y : array_like of shape (B,) or (B, O)
            Numbers to predict.
        sample_weight : array_like of shape (B,), optional
            As for `fit`.

        Returns
        -------
        FFFRegressor
            Itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or of the wrong kind.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _fit(self, x: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Self:
        new = self._is_new(incremental=incremental)
        x, y = self._table(x, y, reset=new, y_numeric=True)
        y = np.asarray(y, np.float64).reshape(x.shape[0], -1)
        if not new and y.shape[1] != len(self._unit):
            raise ShapeError(
                f"argument 'y' must have {len(self._unit)} numbers a row, as before, "
                f"got {y.shape[1]}"
            )
        weights = _weights(sample_weight, x.shape[0])
        self._train(x, y, weights, new=new, incremental=incremental)
        return self

    def _output_scaling(self, y: Array, weights: Array | None) -> tuple[Array, Array]:
        offset = np.average(y, axis=0, weights=weights)
        variance = np.average(np.square(y - offset), axis=0, weights=weights)
        return offset, deviations(offset, variance)

    def _scaled(self, y: Array) -> Array:
        return (y - self._offset) / self._unit

    def predict(self, X: Any) -> Array:
        """Return the numbers predicted, (B, O), or (B,) if there is one a row.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def _labels(self) -> tuple[str, tuple[Any, ...]]:
        return "regression", ()

    def _take(self, layer: Any, meaning: Meaning) -> None:
        super()._take(layer, meaning)
        if not meaning.offset:
            self._offset = np.zeros(len(self._unit))


def _shape_of(layer: FastFeedForward | LeafFeedForward) -> dict[str, Any]:
    """Return the parameters of an estimator that say what layer it is."""
    config = layer.config
    if isinstance(config, FastFeedForwardConfig):
        return {"layer": "fast", "depth": config.depth, "trees": config.trees}
    return {"layer": "leaf", "depth": config.depth, "leaf_width": config.leaf_width}


def _weights(sample_weight: Any, rows: int) -> Array | None:
    """Return the rows' weights, checked."""
    if sample_weight is None:
        return None
    weights = as_real_array(sample_weight, "sample_weight").astype(np.float64)
    if weights.shape != (rows,):
        raise ShapeError(
            f"argument 'sample_weight' must have shape {(rows,)}, got shape {weights.shape}"
        )
    check_nonnegative(weights, "sample_weight")
    return weights


def _backward_options(
    settings: FitSettings, layer: Any, order: BatchOrder, weights: Array | None
) -> Callable[[Moment], dict[str, Any]] | None:
    """Return what a step's backward takes; rows weigh in the hardening loss as in the other."""
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
    """Fall from the peak along half a cosine: a first step counts, even if it is the only one."""
    return cosine(fraction, warmup=0.0)
