"""FFFClassifier and FFFRegressor: the layers as estimators of scikit-learn (extra: sklearn).

Parameters have the same names as in scikit-learn's MLPClassifier if they mean the same. An
estimator trains one layer with functions of `fffcpu.recipes.fitting`. The layer is all that it
learns: `to_predictor` returns it as a `fffcpu.Predictor`, and `from_predictor` makes an estimator
from such a predictor.

While few rows are trained on, each step takes all of them. Training is then in float64, and a row
of weight 2 has the effect of two rows, up to rounding.
"""

from __future__ import annotations

import fffcpu.errors

fffcpu.errors.require_extra("sklearn", "sklearn")

from fffcpu.sklearn.classifier import FFFClassifier  # noqa: E402
from fffcpu.sklearn.regressor import FFFRegressor  # noqa: E402

__all__ = ["FFFClassifier", "FFFRegressor"]
