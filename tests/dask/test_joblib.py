"""The estimators in joblib's tasks on workers of Dask."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from fffcpu.sklearn import FFFClassifier

pytestmark = pytest.mark.slow

X, LABELS = load_iris(return_X_y=True)


def test_a_search_on_workers_finds_what_one_process_finds(client):
    def search():
        estimator = FFFClassifier(max_iter=5, random_state=0)
        return GridSearchCV(estimator, {"depth": [1, 2]}, cv=2).fit(X, LABELS)

    here = search()
    with joblib.parallel_backend("dask", client=client):
        there = search()
    np.testing.assert_array_equal(
        here.cv_results_["mean_test_score"], there.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(here.predict_proba(X), there.predict_proba(X))
