"""The estimators with scikit-learn: its checks, pipelines, grids and workers; the extra."""

from __future__ import annotations

import importlib
import sys

import joblib
import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fffcpu.errors import MissingExtraError
from fffcpu.sklearn import FFFClassifier, FFFRegressor
from tests.sklearn.support import (
    LABELS,
    TRUTH,
    X,
    classifier,
)


@pytest.mark.slow
@parametrize_with_checks([FFFClassifier(), FFFRegressor(), FFFClassifier(layer="leaf")])
def test_scikit_learn_finds_nothing_wrong(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # or a check is skipped
    check(estimator)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "fffcpu.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fffcpu\[sklearn\]'"):
        importlib.import_module("fffcpu.sklearn")


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_names_pass_through_a_pipeline(frames):
    steps = make_pipeline(StandardScaler(), classifier(max_iter=5, standardize="none"))
    steps.set_output(transform=frames)
    names = ["a", "b", "c", "d"]
    steps.fit(pandas.DataFrame(X, columns=names), LABELS)
    assert steps[-1].feature_names_in_.tolist() == names


def test_pipelines_and_grids():
    steps = make_pipeline(StandardScaler(), classifier(max_iter=10))
    assert cross_val_score(steps, X, LABELS, cv=3).shape == (3,)
    grid = GridSearchCV(
        classifier(max_iter=10, trees=None),
        {"layer": ["fast", "leaf"], "depth": [1, 2]},
        cv=2,
        error_score="raise",
    )
    grid.fit(X, LABELS)
    assert grid.best_params_["layer"] in ("fast", "leaf")
    assert len(np.unique(grid.cv_results_["mean_test_score"])) > 1
    chain = ClassifierChain(classifier(max_iter=5)).fit(X, TRUTH)
    assert chain.predict(X).shape == TRUTH.shape


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["loky", "threading"])
def test_workers_learn_the_same(workers):
    estimators = [classifier(max_iter=5, random_state=seed) for seed in range(4)]
    with joblib.parallel_backend(workers, n_jobs=2):
        learned = joblib.Parallel()(joblib.delayed(e.fit)(X, LABELS) for e in estimators)
    for estimator, found in zip(estimators, learned, strict=True):
        assert found.layer_(X).tobytes() == clone(estimator).fit(X, LABELS).layer_(X).tobytes()
