"""The classifier: classes and labels, their weights, and partial fits."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from scipy import sparse

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentError
from fffcpu.sklearn import FFFClassifier
from tests.sklearn.support import (
    DIGITS,
    IMAGES,
    LABELS,
    LONG,
    SHAPES,
    TRUTH,
    X,
    classifier,
)


@SHAPES
def test_learns_classes_of_columns_in_any_unit(shape):
    learned = FFFClassifier(**shape | LONG).fit(X, LABELS)
    assert learned.score(X, LABELS) > 0.9
    assert learned.classes_.tolist() == ["cat", "dog", "owl"]
    assert learned.n_iter_ == len(learned.loss_curve_) == 200
    assert learned.loss_ == learned.loss_curve_[-1] < learned.loss_curve_[0]
    assert learned.validation_scores_ == []


@SHAPES
def test_learns_several_labels(shape):
    learned = FFFClassifier(**shape | LONG).fit(X, TRUTH)
    probabilities, scores = learned.predict_proba(X), learned.decision_function(X)
    assert (learned.predict(X) == TRUTH).mean() > 0.9
    assert np.allclose(probabilities, 1 / (1 + np.exp(-scores)))
    assert np.array_equal(learned.predict(X), probabilities > 0.5)
    assert learned.classes_.tolist() == [0, 1, 2]
    thin = FFFClassifier(**shape | LONG).fit(X, sparse.csr_matrix(TRUTH))
    assert np.array_equal(thin.predict(X), learned.predict(X))


def test_scores_probabilities_and_labels_agree():
    learned = classifier().fit(X, LABELS)
    scores, probabilities = learned.decision_function(X), learned.predict_proba(X)
    assert np.allclose(probabilities, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    assert np.array_equal(learned.predict(X), learned.classes_[scores.argmax(axis=1)])
    two = classifier().fit(X, LABELS == "owl")
    assert two.decision_function(X).shape == (120,)
    assert np.array_equal(two.predict(X), two.decision_function(X) > 0)
    assert np.allclose(
        two.predict_proba(X)[:, 1], 1 / (1 + np.exp(-two.decision_function(X))), rtol=1e-6
    )


@pytest.mark.slow
def test_the_defaults_learn_digits():
    assert (
        FFFClassifier(max_iter=60, random_state=0)
        .fit(IMAGES[:900], DIGITS[:900])
        .score(IMAGES[900:], DIGITS[900:])
        > 0.9
    )


def test_partial_fit_of_several_labels_needs_no_classes():
    learned = classifier()
    for _ in range(40):
        learned.partial_fit(X, TRUTH)
    assert (learned.predict(X) == TRUTH).mean() > 0.8
    with pytest.raises(ArgumentError, match="0 or 1 for each of 3 labels"):
        learned.partial_fit(X, TRUTH[:, :2])
    with pytest.raises(ArgumentError, match="several labels per row, as before, got one class"):
        learned.partial_fit(X, LABELS)


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({}, {}, "'classes' must be given on the first call"),
        ({}, {"classes": ["cat", "dog"]}, r"'y' must hold classes of .*got owl at index \d"),
        ({"early_stopping": True}, {"classes": ["cat", "dog", "owl"]}, "'early_stopping' must be"),
        ({"class_weight": "balanced"}, {"classes": ["cat", "dog", "owl"]}, "for fit 'balanced'"),
    ],
)
def test_partial_fit_says_what_is_wrong(parameters, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        classifier(**parameters).partial_fit(X, LABELS, **arguments)


def test_classes_do_not_change():
    learned = classifier().partial_fit(X, LABELS, classes=["cat", "dog", "owl"])
    with pytest.raises(ArgumentError, match=r"'classes' must be \['cat', 'dog', 'owl'\]"):
        learned.partial_fit(X, LABELS, classes=["cat", "dog"])


def test_class_weights_are_weights_of_their_rows():
    factors = {"cat": 1.0, "dog": 5.0, "owl": 0.5}
    rows = np.array([factors[label] for label in LABELS])
    by_class = classifier(class_weight=factors).fit(X, LABELS)
    by_row = classifier().fit(X, LABELS, sample_weight=rows)
    assert np.allclose(by_class.layer_(X), by_row.layer_(X), rtol=1e-9)
    both = classifier(class_weight={"dog": 5.0}).fit(X, LABELS, sample_weight=rows)
    product = classifier().fit(X, LABELS, sample_weight=rows * np.where(LABELS == "dog", 5, 1))
    assert np.allclose(both.layer_(X), product.layer_(X), rtol=1e-9)


def test_balanced_classes_count_what_their_rows_weigh():
    weights = np.random.default_rng(1).integers(1, 4, 120)
    totals = {label: weights[label == LABELS].sum() for label in np.unique(LABELS)}
    balanced = classifier(class_weight="balanced").fit(X, LABELS, sample_weight=weights)
    by_hand = classifier().fit(
        X, LABELS, sample_weight=[w / totals[k] for w, k in zip(weights, LABELS, strict=True)]
    )
    assert np.allclose(balanced.layer_(X), by_hand.layer_(X), rtol=1e-9)


def test_classes_without_weight_are_passed_over():
    weights = np.where(LABELS == "cat", 0.0, 1.0)
    learned = classifier(class_weight="balanced").fit(X, LABELS, sample_weight=weights)
    factors = {label: 1 / (label == LABELS).sum() for label in ("dog", "owl")}
    by_hand = classifier(class_weight={"cat": 0.0} | factors).fit(X, LABELS)
    assert np.allclose(learned.layer_(X), by_hand.layer_(X), rtol=1e-9)
    assert "cat" not in learned.predict(X)


def test_names_come_with_the_predictor():
    schema = Schema("classification", (3, 5), ("a", "b", "c", "d"))
    learned = FFFClassifier.from_predictor(Predictor(FastFeedForward(4, 2, 1, rng=0), schema))
    frame = pandas.DataFrame(X, columns=list("abcd"))
    assert set(learned.predict(frame)) <= {3, 5}
    assert learned.to_predictor().schema == schema


@pytest.mark.parametrize(
    "labels",
    [LABELS == "cat", (LABELS == "cat").astype(float), pandas.array(LABELS == "cat", "Int64")],
    ids=["truth values", "floats", "nullable integers"],
)
def test_labels_of_any_kind_leave_as_a_predictor_and_come_back(labels, tmp_path):
    learned = classifier(max_iter=2).fit(X, labels)
    learned.to_predictor().save(tmp_path / "model")
    predictor = Predictor.load(tmp_path / "model")
    found = predictor.predict(X)
    assert found.dtype.kind == np.asarray(learned.classes_.tolist()).dtype.kind
    assert found.tolist() == learned.predict(X).tolist()
    assert FFFClassifier.from_predictor(predictor).predict(X).tolist() == found.tolist()


def test_a_predictor_has_classes_that_a_file_can_hold():
    learned = classifier(max_iter=2).fit(X, LABELS == "cat")
    learned.classes_ = np.array([b"no", b"yes"])
    with pytest.raises(ArgumentError, match="must be all texts, all integers"):
        learned.to_predictor()
