"""FFFClassifier: one class per row, or several labels per row."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from fffcpu.errors import ArgumentError, describe
from fffcpu.inference.predictor import Schema
from fffcpu.sklearn.estimator import Estimator
from fffcpu.sklearn.validation import (
    balanced_weights,
    check_sample_weight,
    check_table,
    class_factors,
    class_numbers,
    label_truth,
)

__all__ = ["FFFClassifier"]

Array = NDArray[Any]


class FFFClassifier(ClassifierMixin, Estimator):
    """Classifier with one fast feedforward layer.

    Parameters
    ----------
    layer : {"fast", "leaf"}
        FastFeedForward or LeafFeedForward.
    depth : int
        Depth of the trees.
    trees : int, optional
        Fast layer: number of trees that are summed, 8 by default. The leaf layer has 1.
    two_sided : bool
        Fast layer: whether each node has output weights for each side, see
        `fffcpu.FastFeedForward`.
    leaf_width : int
        Leaf layer: neurons of a leaf.
    hardening : float, optional
        Leaf layer: weight of the hardening loss, 1 by default.
    region_leak : float
        Leaf layer: probability that training flips a gate's choice. 0.1 often helps on small data.
    start : {"uniform", "clusters"}
        Fast layer: initial routes, which are random or separate clusters of rows.
    straight_through : bool
        Fast layer: whether routes are trained as well, see `fffcpu.FastFeedForward.backward`.
    standardize : {"columns", "table", "none"}
        Columns: each column is shifted by its mean and divided by its standard deviation. Table: it
        is divided by the deviation of the whole table. None: rows are taken as they are. The
        scaling becomes part of the layer.
    alpha : float
        Weight decay of AdamW; biases do not decay. A step shrinks weights by the learning rate
        times this factor. The number of rows does not matter.
    batch_size : int or "auto"
        Rows of a step. Auto takes all rows of a table of at most 1000, and 128 rows of a larger
        one. Training is in float64 if a step takes all rows, else in float32.
    learning_rate_init : float
        Initial learning rate. In `fit` it falls to 0 along a cosine.
    max_iter : int
        Number of passes over the rows.
    early_stopping : bool
        Whether to hold out some rows, to stop when their predictions no longer improve, and to keep
        the best layer.
    validation_fraction : float
        Fraction of the rows that is held out.
    n_iter_no_change : int
        Number of passes without improvement after which training stops early.
    class_weight : dict or "balanced", optional
        Factor of the weights of each class's rows, 1 for classes without one. Balanced: all classes
        have the same total weight. It must be None for several labels per row.
    warm_start : bool
        Whether `fit` continues from the present layer and its scaling. The parameters must describe
        a layer of its shape.
    random_state : None, int or numpy.random.RandomState
        Source of initial values, batches, held-out rows and the region leak.
    verbose : bool
        Whether to show a progress bar on standard error.

    Attributes
    ----------
    classes_ : array of shape (C,)
        The classes, or the numbers of the labels where a row has several.
    layer_ : FastFeedForward or LeafFeedForward
        The trained layer. It takes rows that are not scaled.
    n_features_in_ : int
        Input width I.
    feature_names_in_ : array of str of shape (I,)
        Names of a data frame's columns.
    n_iter_ : int
        Number of passes made.
    loss_, loss_curve_ : float, list of float
        Mean loss of the last pass, and of each pass.
    validation_scores_ : list of float
        With early stopping: accuracy on the held-out rows after each pass.

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
        two_sided: bool = True,
        leaf_width: int = 8,
        hardening: float | None = None,
        region_leak: float = 0.0,
        start: str = "uniform",
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
            two_sided=two_sided,
            leaf_width=leaf_width,
            hardening=hardening,
            region_leak=region_leak,
            start=start,
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
            Rows. A sparse matrix becomes dense one batch at a time.
        y : array_like of shape (B,) or (B, O)
            The class of each row; or 1 for each true label and 0 for each other label.
        sample_weight : array_like of shape (B,), optional
            Weight of each row, at least 0.

        Returns
        -------
        FFFClassifier
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or has the wrong type.
        """
        return self._fit(X, y, sample_weight, None, incremental=False)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train on more rows, each seen once, at a constant learning rate.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows. The first call's rows determine the scaling.
        y : array_like of shape (B,) or (B, O)
            As for `fit`.
        classes : array_like of shape (C,), optional
            All classes that any call will see. The first call needs them, unless rows have several
            labels.
        sample_weight : array_like of shape (B,), optional
            As for `fit`.

        Returns
        -------
        FFFClassifier
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or has the wrong type.
        """
        return self._fit(X, y, sample_weight, classes, incremental=True)

    def _fit(self, x: Any, y: Any, sample_weight: Any, classes: Any, *, incremental: bool) -> Self:
        new = self._is_new(incremental=incremental)
        x, y = check_table(self, x, y, reset=new)
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ArgumentError(
                "argument 'y' must have one class per row, or 0 or 1 for each label, got several "
                "classes per row"
            )
        self._learn_classes(y, kind == "multilabel-indicator", classes, new, incremental)
        classes = self.classes_
        targets: Array = (
            label_truth(y, len(classes)) if self._multilabel else class_numbers(y, classes)
        )
        weights = check_sample_weight(sample_weight, x.shape[0])
        if self.class_weight is not None:
            weights = self._weigh_classes(targets, weights, incremental)
        self._train(x, targets, weights, new=new, incremental=incremental)
        return self

    def _learn_classes(
        self, y: Array, multilabel: bool, classes: Any, new: bool, incremental: bool
    ) -> None:
        """Find the classes, or check that they have not changed."""
        if not new:
            if multilabel != self._multilabel:
                raise ArgumentError(
                    f"argument 'y' must have {_kind_of_targets(self._multilabel)}, as before, "
                    f"got {_kind_of_targets(multilabel)}"
                )
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

    def _weigh_classes(
        self, numbers: NDArray[np.int64], weights: Array | None, incremental: bool
    ) -> Array:
        """Return the rows' weights times the factors of their classes."""
        if self._multilabel:
            raise ArgumentError(
                "argument 'class_weight' must be None where a row may have several labels, "
                f"got {describe(self.class_weight)}"
            )
        weights = np.ones(len(numbers)) if weights is None else weights
        if not isinstance(self.class_weight, str):
            return weights * class_factors(self.class_weight, self.classes_)[numbers]
        if self.class_weight != "balanced" or incremental:
            raise ArgumentError(
                "argument 'class_weight' must be a mapping, None, or for fit 'balanced', "
                f"got {describe(self.class_weight)}"
            )
        return balanced_weights(weights, numbers, len(self.classes_))

    def _width(self, y: Array) -> int:
        return len(self.classes_)

    def decision_function(self, X: Any) -> Array:
        """Return the scores of the classes or labels.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.

        Returns
        -------
        array of shape (B, C), (B,) or (B, O)
            One class, or more than two: the layer's outputs; the class of the largest is predicted.
            Two classes: the output of the second minus that of the first; above 0 the second is
            predicted. Several labels per row: the layer's outputs; above 0 a label is predicted.
        """
        outputs = self._outputs(X)
        if len(self.classes_) == 2 and not self._multilabel:
            difference: Array = outputs[:, 1] - outputs[:, 0]
            return difference
        return outputs

    def predict(self, X: Any) -> Array:
        """Return the class of each row (B,), or 0 or 1 for each label (B, O).

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
        """Return the probability of each class (B, C), or of each label (B, O).

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.
        """
        outputs = self._outputs(X)
        probabilities: Array = expit(outputs) if self._multilabel else softmax(outputs, axis=1)
        return probabilities

    def _labels(self) -> tuple[str, tuple[Any, ...]]:
        task = "multilabel" if self._multilabel else "classification"
        return task, tuple(self.classes_.tolist())

    def _take(self, layer: Any, schema: Schema) -> None:
        super()._take(layer, schema)
        self._multilabel = schema.task == "multilabel"
        self.classes_ = np.array(schema.classes)


def _kind_of_targets(multilabel: bool) -> str:
    return "several labels per row" if multilabel else "one class per row"
