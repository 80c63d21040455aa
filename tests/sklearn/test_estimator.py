"""What both estimators share: training, weights, sparse rows, frames, predictors."""

from __future__ import annotations

import pickle

import numpy as np
import pandas
import polars
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, Predictor, Schema
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.sklearn import FFFClassifier, FFFRegressor
from tests.sklearn.support import (
    LABELS,
    LEAF,
    NUMBERS,
    QUICK,
    SCALED,
    SHAPES,
    TRUTH,
    X,
    classifier,
    regressor,
)


def test_the_former_name_of_the_fast_layer_is_accepted():
    found = [
        classifier(layer=name, max_iter=3).fit(X, LABELS).predict_proba(X)
        for name in ("fast", "node")
    ]
    np.testing.assert_array_equal(*found)


def test_routes_learn_unless_they_are_not_to(monkeypatch):
    asked = []
    backward = FastFeedForward.backward

    def watch(layer, dy, cache, **options):
        asked.append(options["straight_through"])
        return backward(layer, dy, cache, **options)

    monkeypatch.setattr(FastFeedForward, "backward", watch)
    for straight_through in (True, False):
        asked.clear()
        classifier(straight_through=straight_through, max_iter=2).fit(X, LABELS)
        assert set(asked) == {straight_through}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])  # of small tables and large ones
def test_routes_can_start_from_clusters(dtype):
    few = {"depth": 2, "max_iter": 1, "learning_rate_init": 0.0, "start": "clusters"}
    rows = len(X) if dtype == np.float64 else 64
    fitted = classifier(**few, batch_size=rows).fit(X, LABELS)
    layer = fitted.layer_
    assert layer.config.dtype == np.dtype(dtype).name
    usage = layer.usage(layer.forward(X)[1])["weights_in"]
    assert (usage[:, 1:3] == len(X) / 2).all()
    uniform = classifier(**few | {"start": "uniform"}, batch_size=rows).fit(X, LABELS).layer_
    assert (uniform.usage(uniform.forward(X)[1])["weights_in"][:, 1:3] != len(X) / 2).any()


def test_the_scaling_is_a_parameter():
    assert classifier().fit(X, LABELS).score(X, LABELS) > 0.85
    raw = classifier(standardize="none").fit(X, LABELS)
    assert raw.score(X, LABELS) < 0.8
    assert np.array_equal(raw._layer(X), raw.layer_(X))
    again = classifier(standardize="none").fit(SCALED, LABELS)
    assert np.allclose(
        again.decision_function(SCALED), classifier().fit(X, LABELS).decision_function(X), atol=1e-6
    )


def test_few_rows_are_one_batch_in_float64(monkeypatch):
    from fffcpu.sklearn import estimator

    assert classifier(max_iter=3).fit(X, LABELS).layer_.config.dtype == "float64"
    assert classifier(max_iter=3, batch_size=120).fit(X, LABELS).layer_.config.dtype == "float64"
    assert classifier(max_iter=3, batch_size=50).fit(X, LABELS).layer_.config.dtype == "float32"
    monkeypatch.setattr(estimator, "FULL_BATCH_ROWS", 100)
    assert classifier(max_iter=3).fit(X, LABELS).layer_.config.dtype == "float32"
    assert classifier(max_iter=3).fit(X[:100], LABELS[:100]).layer_.config.dtype == "float64"
    monkeypatch.setattr(estimator, "FULL_BATCH_NUMBERS", 399)
    assert classifier(max_iter=3).fit(X[:100], LABELS[:100]).layer_.config.dtype == "float32"


def test_early_stopping_keeps_the_best():
    parameters = {"early_stopping": True, "n_iter_no_change": 5, "max_iter": 300}
    learned = classifier(**parameters).fit(X, LABELS)
    assert len(learned.validation_scores_) == learned.n_iter_ < 300
    best = int(np.argmax(learned.validation_scores_))
    assert best == learned.n_iter_ - 6
    fitted = regressor(**parameters, validation_fraction=0.3).fit(X, NUMBERS)
    assert len(fitted.validation_scores_) == fitted.n_iter_
    assert max(fitted.validation_scores_) > 0.5


def test_warm_start_goes_on():
    cold = classifier(max_iter=10).fit(X, LABELS)
    warm = classifier(max_iter=10, warm_start=True).fit(X, LABELS).fit(X, LABELS)
    assert warm.n_iter_ == 20
    assert warm.loss_curve_[:10] == cold.loss_curve_
    assert warm.loss_ < cold.loss_
    with pytest.raises(ArgumentError, match=r"'y' must hold classes of \['cat'.*got fox at index"):
        warm.fit(X, np.where(LABELS == "cat", "fox", LABELS))
    numbers = regressor(warm_start=True, max_iter=2).fit(X, NUMBERS)
    with pytest.raises(ShapeError, match="'y' must have 2 numbers"):
        numbers.fit(X, NUMBERS[:, 0])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (QUICK, {"depth": 3}, "'depth' must be 2, .*that training continues from, got 3"),
        (QUICK, {"trees": 5}, "'trees' must be 4"),
        (QUICK, LEAF | {"trees": None}, "'layer' must be 'fast', .*got 'leaf'"),
        (LEAF, {"layer": "fast"}, "'layer' must be 'leaf', .*got 'fast'"),
        (LEAF, {"leaf_width": 3}, "'leaf_width' must be 8"),
    ],
)
def test_training_goes_on_from_a_layer_of_the_same_shape(before, after, message):
    learned = FFFClassifier(**before | {"max_iter": 1, "warm_start": True}).fit(X, LABELS)
    learned.set_params(**after)
    with pytest.raises(ArgumentError, match=message):
        learned.fit(X, LABELS)
    with pytest.raises(ArgumentError, match=message):
        learned.partial_fit(X, LABELS)


def test_what_fails_to_learn_anew_does_not_mix_old_and_new():
    learned = regressor(max_iter=1, standardize="none").fit(SCALED, NUMBERS)
    with pytest.raises(FloatingPointError):
        learned.fit(SCALED * 1e200, NUMBERS + 5)
    with pytest.raises(NotFittedError):
        learned.predict(SCALED)


@pytest.mark.parametrize("estimator", [classifier(), regressor(layer="leaf", trees=1)])
def test_a_seed_gives_the_same_again_and_another_gives_another(estimator):
    y = TRUTH[:, 0]
    first, second = clone(estimator).fit(X, y), clone(estimator).fit(X, y)
    assert first.layer_(X).tobytes() == second.layer_(X).tobytes()
    other = clone(estimator).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(first.layer_(X), other.layer_(X))
    assert not np.array_equal(
        clone(estimator).set_params(random_state=np.random.RandomState(0)).fit(X, y).layer_(X),
        other.layer_(X),
    )


def test_partial_fits_add_up():
    learned = classifier()
    for _ in range(15):
        for start in range(0, 120, 40):
            rows = slice(start, start + 40)
            learned.partial_fit(X[rows], LABELS[rows], classes=["owl", "dog", "cat"])
    assert learned.score(X, LABELS) > 0.85
    assert learned.n_iter_ == 45
    assert learned.classes_.tolist() == ["cat", "dog", "owl"]
    numbers = regressor(learning_rate_init=0.05)
    for _ in range(60):
        numbers.partial_fit(X, NUMBERS)
    assert numbers.score(X, NUMBERS) > 0.8


def test_partial_fit_takes_up_the_optimizer_where_it_was():
    whole = classifier(batch_size=60)
    halves = pickle.loads(pickle.dumps(whole.partial_fit(X, LABELS, classes=np.unique(LABELS))))
    whole.partial_fit(X, LABELS)
    halves.partial_fit(X, LABELS)
    assert whole.layer_(X).tobytes() == halves.layer_(X).tobytes()
    forgetful = classifier(batch_size=60).partial_fit(X, LABELS, classes=np.unique(LABELS))
    forgetful._moments = None
    forgetful.partial_fit(X, LABELS)
    assert not np.array_equal(forgetful.layer_(X), whole.layer_(X))


@SHAPES
@pytest.mark.parametrize("y", [LABELS, TRUTH, NUMBERS], ids=["classes", "labels", "numbers"])
def test_weights_are_repetitions(shape, y):
    estimator = FFFRegressor(**shape) if y is NUMBERS else FFFClassifier(**shape)
    weights = np.random.default_rng(1).integers(0, 4, 120)
    rows = np.random.default_rng(2).permutation(np.repeat(np.arange(120), weights))
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    repeated = clone(estimator).fit(X[rows], y[rows])
    assert np.allclose(weighted.layer_(X), repeated.layer_(X), rtol=1e-8, atol=1e-8)
    assert not np.allclose(clone(estimator).fit(X, y).layer_(X), weighted.layer_(X), rtol=1e-3)
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-8)


def test_weights_count_among_the_rows_held_out():
    held = {"early_stopping": True, "validation_fraction": 0.5, "max_iter": 1}
    weights = np.ones(120)
    weights[::2] = 1e-9
    learned = classifier(**held).fit(X, LABELS, sample_weight=weights)
    assert learned.validation_scores_ != classifier(**held).fit(X, LABELS).validation_scores_


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array])
def test_sparse_rows_give_what_dense_ones_do(kind):
    x = np.where(np.abs(SCALED) > 1, SCALED, 0)
    for batch_size in ("auto", 32):
        dense = classifier(max_iter=5, batch_size=batch_size).fit(x, LABELS)
        thin = classifier(max_iter=5, batch_size=batch_size).fit(kind(x), LABELS)
        assert np.array_equal(thin.layer_(x), dense.layer_(x))
        assert np.array_equal(thin.predict_proba(kind(x)), dense.predict_proba(x))
    numbers = regressor(max_iter=5).fit(kind(x), NUMBERS)
    assert np.array_equal(numbers.predict(x), numbers.predict(kind(x)))


def test_no_more_than_a_block_of_a_sparse_table_becomes_dense(monkeypatch):
    from fffcpu.recipes import scaling

    monkeypatch.setattr(scaling, "EVALUATED_NUMBERS", 1 << 16)
    blocks = []
    densify = sparse.csr_matrix.toarray

    def watch(matrix, *arguments, **options):
        blocks.append(matrix.shape[0])
        return densify(matrix, *arguments, **options)

    monkeypatch.setattr(sparse.csr_matrix, "toarray", watch)
    x = sparse.csr_matrix(sparse.eye(3000, 1000))
    learned = classifier(max_iter=1, batch_size=64, early_stopping=True)
    learned.fit(x, np.arange(3000) % 2).predict(x)
    assert sum(blocks) > 3 * 3000 - 700  # scaling, a pass, an evaluation, predictions
    assert max(blocks) <= 65


def test_frames_lend_their_names():
    names = ["a", "b", "ç", "d e"]
    frames = (pandas.DataFrame(X, columns=names), polars.DataFrame(X, schema=names))
    for frame in frames:
        learned = classifier(max_iter=5).fit(frame, LABELS)
        assert learned.feature_names_in_.tolist() == names
        assert np.array_equal(
            learned.predict_proba(frame), classifier(max_iter=5).fit(X, LABELS).predict_proba(X)
        )
        assert learned.to_predictor().schema.features == tuple(names)
        with pytest.raises(ValueError, match="feature names"):
            learned.predict(frame[names[::-1]])
    weighted = regressor(max_iter=5).fit(
        frames[0], pandas.Series(NUMBERS[:, 0]), sample_weight=pandas.Series(np.ones(120))
    )
    assert weighted.predict(frames[0]).shape == (120,)


def test_one_class_and_one_number():
    assert classifier(max_iter=2).fit(X, ["only"] * 120).predict(X).tolist() == ["only"] * 120
    same = regressor(max_iter=60).fit(X, np.full(120, 7.0))
    assert np.allclose(same.predict(X), 7.0, atol=0.2)
    nothing = regressor(max_iter=2, early_stopping=True).fit(X, np.full(120, 7.0))
    assert np.isnan(nothing.validation_scores_).tolist() == [True, True]


@pytest.mark.parametrize("estimator", [classifier(), regressor(), FFFClassifier(**LEAF)])
def test_pickles_predict_the_same(estimator):
    learned = estimator.fit(X, TRUTH[:, 0])
    again = pickle.loads(pickle.dumps(learned))
    assert again.predict(X).tobytes() == learned.predict(X).tobytes()
    assert again.get_params() == learned.get_params()


@pytest.mark.parametrize("two_sided", [True, False])
def test_nodes_have_two_sides_or_one(two_sided):
    learned = classifier(two_sided=two_sided).fit(X, LABELS)
    assert learned.layer_.config.two_sided == two_sided
    again = FFFClassifier.from_predictor(learned.to_predictor())
    assert again.get_params()["two_sided"] == two_sided


@SHAPES
@pytest.mark.parametrize("y", [LABELS, TRUTH, NUMBERS], ids=["classes", "labels", "numbers"])
def test_through_a_file_and_back(shape, y, tmp_path):
    kind = FFFRegressor if y is NUMBERS else FFFClassifier
    learned = kind(**shape).fit(X, y)
    path = tmp_path / "model.safetensors"
    learned.to_predictor().save(path)
    predictor = Predictor.load(path)
    assert np.array_equal(predictor.predict(X), learned.predict(X))
    assert fffcpu.load(path)(X).tobytes() == learned.layer_(X).tobytes()
    again = kind.from_predictor(predictor, max_iter=3, warm_start=True)
    assert np.array_equal(again.predict(X), learned.predict(X))
    assert again.get_params() == kind(
        **{**shape, "max_iter": 3, "warm_start": True, "random_state": None}
    ).get_params() | {"trees": again.trees}
    if kind is FFFClassifier:
        assert np.allclose(again.predict_proba(X), predictor.probabilities(X), rtol=1e-12)
    before = predictor.layer(X).copy()
    again.fit(X, y)
    again.partial_fit(X, y)
    assert not np.array_equal(again.layer_(X), before)
    assert np.array_equal(predictor.layer(X), before)


def test_a_predictor_does_not_change_with_its_estimator():
    learned = classifier(warm_start=True).fit(X, LABELS)
    predictor = learned.to_predictor()
    before = predictor.scores(X)
    learned.fit(X, LABELS)
    assert np.array_equal(predictor.scores(X), before)


@pytest.mark.parametrize(
    ("kind", "predictor", "error", "message"),
    [
        (
            FFFRegressor,
            Predictor(FastFeedForward(4, 2, 1), Schema("classification", (0, 1))),
            ArgumentError,
            "'predictor' must be for regression, got one for classification",
        ),
        (
            FFFClassifier,
            Predictor(LeafFeedForward(4, 2, 1, 3), Schema("regression")),
            ArgumentError,
            "'predictor' must be for classification or multilabel, got one for regression",
        ),
        (
            FFFRegressor,
            Predictor(DenseFeedForward(4, 2, 3), Schema("regression")),
            ArgumentTypeError,
            "'predictor' must hold a FastFeedForward or a LeafFeedForward, got <DenseFeed",
        ),
        (
            FFFRegressor,
            Predictor(FastFeedForward(4, 2, 3).quantize("int8"), Schema("regression")),
            ArgumentTypeError,
            "got <QuantizedFast",
        ),
    ],
)
def test_refuses_a_predictor(kind, predictor, error, message):
    with pytest.raises(error, match=message):
        kind.from_predictor(predictor)


@pytest.mark.parametrize("estimator", [classifier(), regressor()])
def test_who_has_not_learned_says_so(estimator):
    for method in (estimator.predict, lambda x: estimator.to_predictor()):
        with pytest.raises(NotFittedError):
            method(X)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"layer": "dense"}, ValueError, "'layer' must be fast or leaf, got 'dense'"),
        ({"layer": "leaf"}, ValueError, "'trees' must be an integer from 1 to 1, got 4"),
        ({"trees": 0}, ValueError, "'trees' must be"),
        ({"trees": 2.0}, TypeError, "'trees' must be"),
        ({"depth": -1}, ValueError, "'depth' must be"),
        ({"layer": "leaf", "trees": None, "leaf_width": 0}, ValueError, "'leaf_width' must be"),
        ({"hardening": 0.1}, ValueError, "'hardening'"),
        ({"region_leak": 0.1}, ValueError, "'region_leak'"),
        ({"layer": "leaf", "trees": 1, "hardening": -1.0}, ValueError, "'hardening' must be"),
        ({"layer": "leaf", "trees": 1, "region_leak": 2.0}, ValueError, "'region_leak' must be"),
        ({"standardize": "rows"}, ValueError, "'standardize' must be"),
        ({"alpha": -1.0}, ValueError, "'alpha' must be"),
        ({"alpha": "big"}, TypeError, "'alpha' must be"),
        ({"batch_size": 0}, ValueError, "'batch_size' must be"),
        ({"batch_size": "all"}, TypeError, "'batch_size' must be"),
        ({"learning_rate_init": -0.1}, ValueError, "'learning_rate_init' must be"),
        ({"max_iter": 0}, ValueError, "'max_iter' must be"),
        ({"early_stopping": 1}, TypeError, "'early_stopping' must be"),
        ({"early_stopping": True, "validation_fraction": 0.0}, ValueError, "got 120 and 0"),
        ({"early_stopping": True, "validation_fraction": 1.0}, ValueError, "got 0 and 120"),
        ({"n_iter_no_change": 0}, ValueError, "'n_iter_no_change' must be"),
        ({"warm_start": "yes"}, TypeError, "'warm_start' must be"),
        ({"random_state": "odd"}, ValueError, "odd"),
    ],
)
def test_refuses_parameters_when_it_learns(parameters, error, message):
    with pytest.raises(error, match=message):
        classifier(**parameters).fit(X, LABELS)


def test_weights_of_constant_columns_decay_to_0():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 6)).astype(np.float32)
    x[:, 3:] = 1
    model = FFFClassifier(batch_size=10, alpha=15.0, max_iter=60, random_state=0)
    layer = model.fit(x, x[:, 0] > 0).layer_
    assert not layer.params["weights_in"][..., 3:].any()
    for name, array in layer.params.items():
        small = np.abs(array) < np.finfo(array.dtype).tiny
        assert not array[small].any(), name
