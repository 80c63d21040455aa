"""FFFRegressor: one or several numbers per row."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from fffcpu.errors import ShapeError
from fffcpu.recipes.scaling import TargetScaling
from fffcpu.sklearn.estimator import Estimator
from fffcpu.sklearn.validation import check_sample_weight, check_table

__all__ = ["FFFRegressor"]

Array = NDArray[Any]


class FFFRegressor(RegressorMixin, Estimator):
    """Regressor with one fast feedforward layer.

    In training, targets are shifted by their means and divided by their standard deviations.

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
    warm_start : bool
        Whether `fit` continues from the present layer and its scaling. The parameters must describe
        a layer of its shape.
    random_state : None, int or numpy.random.RandomState
        Source of initial values, batches, held-out rows and the region leak.
    verbose : bool
        Whether to show a progress bar on standard error.

    Attributes
    ----------
    layer_ : FastFeedForward or LeafFeedForward
        The trained layer. It takes rows that are not scaled, and its outputs lack the means of the
        targets.
    n_features_in_ : int
        Input width I.
    feature_names_in_ : array of str of shape (I,)
        Names of a data frame's columns.
    n_iter_ : int
        Number of passes made.
    loss_, loss_curve_ : float, list of float
        Mean squared error of the scaled targets in the last pass, and in each pass.
    validation_scores_ : list of float
        With early stopping: explained fraction of the variance of the held-out rows after each
        pass.

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
            Rows. A sparse matrix becomes dense one batch at a time.
        y : array_like of shape (B,) or (B, O)
            Numbers to predict.
        sample_weight : array_like of shape (B,), optional
            Weight of each row, at least 0.

        Returns
        -------
        FFFRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or has the wrong type.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on more rows, each seen once, at a constant learning rate.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows. The first call's rows and targets determine the scaling of both.
        y : array_like of shape (B,) or (B, O)
            Numbers to predict.
        sample_weight : array_like of shape (B,), optional
            As for `fit`.

        Returns
        -------
        FFFRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is out of range or has the wrong type.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _fit(self, x: Any, y: Any, sample_weight: Any, *, incremental: bool) -> Self:
        new = self._is_new(incremental=incremental)
        x, y = check_table(self, x, y, reset=new, y_numeric=True)
        y = np.asarray(y, np.float64).reshape(x.shape[0], -1)
        outputs = y.shape[1] if new else self.layer_.config.output_dim
        if y.shape[1] != outputs:
            raise ShapeError(
                f"argument 'y' must have {outputs} numbers per row, as before, got {y.shape[1]}"
            )
        weights = check_sample_weight(sample_weight, x.shape[0])
        self._train(x, y, weights, new=new, incremental=incremental)
        return self

    def _scaling_of_targets(self, y: Array, weights: Array | None) -> TargetScaling:
        return TargetScaling.of(y, weights)

    def _width(self, y: Array) -> int:
        return int(y.shape[1])

    def predict(self, X: Any) -> Array:
        """Return the predicted numbers, (B, O), or (B,) for one number per row.

        Parameters
        ----------
        X : array_like, CSR matrix or data frame of shape (B, I)
            Rows.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def _labels(self) -> tuple[str, tuple[Any, ...]]:
        return "regression", ()
