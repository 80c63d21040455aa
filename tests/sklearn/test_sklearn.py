"""The estimators: checks of scikit-learn, weights, sparse rows, frames, the way to a layer."""

from __future__ import annotations

import importlib
import pickle
import sys

import joblib
import numpy as np
import pandas
import polars
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fffcpu
from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, Meaning, Predictor, kernels
from fffcpu.data import load_digits
from fffcpu.errors import ArgumentError, ArgumentTypeError, MissingExtraError, ShapeError
from fffcpu.kernels import jit
from fffcpu.kernels.backends import vectorized
from fffcpu.sklearn import FFFClassifier, FFFRegressor

IMAGES, DIGITS = load_digits()
RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 4)) * [1.0, 300.0, 1e-3, 1.0] + [0.0, 5000.0, 0.0, -1.0]
SCALED = (X - X.mean(axis=0)) / X.std(axis=0)
LABELS = np.array(["cat", "dog", "owl"])[np.digitize(SCALED[:, 0] + SCALED[:, 1], [-0.7, 0.7])]
TRUTH = (SCALED[:, :3] > 0).astype(int)
NUMBERS = 1000 + 50 * SCALED @ [[1.0, 2.0], [3.0, 0.0], [-1.0, 1.0], [0.0, 1.0]]

QUICK = {"max_iter": 40, "depth": 2, "trees": 4, "random_state": 0}
LEAF = {"layer": "leaf", "max_iter": 40, "depth": 2, "random_state": 0}
LONG = {"max_iter": 200}
SHAPES = pytest.mark.parametrize("shape", [QUICK, LEAF], ids=["fast", "leaf"])


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch):
    """Without the compiler, matrix products: row by row in plain Python trainings take minutes."""
    if not jit.JIT:
        monkeypatch.setattr(kernels, "_modules", lambda: (vectorized, vectorized))


def classifier(**parameters):
    return FFFClassifier(**{**QUICK, **parameters})


def regressor(**parameters):
    return FFFRegressor(**{**QUICK, **parameters})


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


# scikit-learn's checks


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


# What is learned


@SHAPES
def test_learns_classes_of_columns_in_any_unit(shape):
    learned = FFFClassifier(**shape | LONG).fit(X, LABELS)
    assert learned.score(X, LABELS) > 0.9
    assert learned.classes_.tolist() == ["cat", "dog", "owl"]
    assert learned.n_iter_ == len(learned.loss_curve_) == 200
    assert learned.loss_ == learned.loss_curve_[-1] < learned.loss_curve_[0]
    assert learned.validation_scores_ == []


@SHAPES
def test_learns_numbers_in_their_own_units(shape):
    learned = FFFRegressor(**shape | LONG).fit(X, NUMBERS)
    assert learned.predict(X).shape == (120, 2)
    assert learned.score(X, NUMBERS) > 0.8
    one = FFFRegressor(**shape | LONG).fit(X, NUMBERS[:, 0])
    assert one.predict(X).shape == (120,)
    assert one.score(X, NUMBERS[:, 0]) > 0.8


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
    from fffcpu import sklearn

    assert classifier(max_iter=3).fit(X, LABELS).layer_.config.dtype == "float64"
    assert classifier(max_iter=3, batch_size=120).fit(X, LABELS).layer_.config.dtype == "float64"
    assert classifier(max_iter=3, batch_size=50).fit(X, LABELS).layer_.config.dtype == "float32"
    monkeypatch.setattr(sklearn, "FULL_BATCH_ROWS", 100)
    assert classifier(max_iter=3).fit(X, LABELS).layer_.config.dtype == "float32"
    assert classifier(max_iter=3).fit(X[:100], LABELS[:100]).layer_.config.dtype == "float64"
    monkeypatch.setattr(sklearn, "FULL_BATCH_NUMBERS", 399)
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
    with pytest.raises(ArgumentError, match=r"'y' must hold classes of \['cat'.*got .*'fox'"):
        warm.fit(X, np.where(LABELS == "cat", "fox", LABELS))
    numbers = regressor(warm_start=True, max_iter=2).fit(X, NUMBERS)
    with pytest.raises(ShapeError, match="'y' must have 2 numbers"):
        numbers.fit(X, NUMBERS[:, 0])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (QUICK, {"depth": 3}, "'depth' must be 2, as of the layer to go on from, got 3"),
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


# Partial fits


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


def test_partial_fit_of_several_labels_needs_no_classes():
    learned = classifier()
    for _ in range(40):
        learned.partial_fit(X, TRUTH)
    assert (learned.predict(X) == TRUTH).mean() > 0.8
    with pytest.raises(ArgumentError, match="0 or 1 for each of 3 labels"):
        learned.partial_fit(X, TRUTH[:, :2])
    with pytest.raises(ArgumentError, match="same kind as before"):
        learned.partial_fit(X, LABELS)


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({}, {}, "'classes' must be given on the first call"),
        ({}, {"classes": ["cat", "dog"]}, r"'y' must hold classes of .*got .*'owl'"),
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


# Weights


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


# Inputs


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
    from fffcpu.recipes import table_objective

    monkeypatch.setattr(table_objective, "EVALUATED_NUMBERS", 1 << 16)
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
        assert learned.to_predictor().meaning.features == tuple(names)
        with pytest.raises(ValueError, match="feature names"):
            learned.predict(frame[names[::-1]])
    weighted = regressor(max_iter=5).fit(
        frames[0], pandas.Series(NUMBERS[:, 0]), sample_weight=pandas.Series(np.ones(120))
    )
    assert weighted.predict(frames[0]).shape == (120,)


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_names_pass_through_a_pipeline(frames):
    steps = make_pipeline(StandardScaler(), classifier(max_iter=5, standardize="none"))
    steps.set_output(transform=frames)
    names = ["a", "b", "c", "d"]
    steps.fit(pandas.DataFrame(X, columns=names), LABELS)
    assert steps[-1].feature_names_in_.tolist() == names


def test_a_column_of_classes_is_taken_with_a_warning():
    with pytest.warns(DataConversionWarning):
        learned = classifier(max_iter=2).fit(X, LABELS[:, np.newaxis])
    assert learned.predict(X).shape == (120,)


def test_one_class_and_one_number():
    assert classifier(max_iter=2).fit(X, ["only"] * 120).predict(X).tolist() == ["only"] * 120
    same = regressor(max_iter=60).fit(X, np.full(120, 7.0))
    assert np.allclose(same.predict(X), 7.0, atol=0.2)
    nothing = regressor(max_iter=2, early_stopping=True).fit(X, np.full(120, 7.0))
    assert np.isnan(nothing.validation_scores_).tolist() == [True, True]


# Company


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


@pytest.mark.parametrize("estimator", [classifier(), regressor(), FFFClassifier(**LEAF)])
def test_pickles_predict_the_same(estimator):
    learned = estimator.fit(X, TRUTH[:, 0])
    again = pickle.loads(pickle.dumps(learned))
    assert again.predict(X).tobytes() == learned.predict(X).tobytes()
    assert again.get_params() == learned.get_params()


# To a layer and back


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


def test_a_regression_without_an_offset_goes_on():
    layer = FastFeedForward(4, 1, depth=1, rng=0)
    learned = FFFRegressor.from_predictor(Predictor(layer, Meaning("regression")))
    assert np.array_equal(learned.predict(X), layer(X)[:, 0])
    assert learned.partial_fit(SCALED, SCALED[:, 0]).predict(X).shape == (120,)


def test_names_come_with_the_predictor():
    meaning = Meaning("classification", (3, 5), ("a", "b", "c", "d"))
    learned = FFFClassifier.from_predictor(Predictor(FastFeedForward(4, 2, 1, rng=0), meaning))
    frame = pandas.DataFrame(X, columns=list("abcd"))
    assert set(learned.predict(frame)) <= {3, 5}
    assert learned.to_predictor().meaning == meaning


@pytest.mark.parametrize(
    ("kind", "predictor", "error", "message"),
    [
        (
            FFFRegressor,
            Predictor(FastFeedForward(4, 2, 1), Meaning("classification", (0, 1))),
            ArgumentError,
            "'predictor' must be for regression, got one for classification",
        ),
        (
            FFFClassifier,
            Predictor(LeafFeedForward(4, 2, 1, 3), Meaning("regression")),
            ArgumentError,
            "'predictor' must be for classification or multilabel, got one for regression",
        ),
        (
            FFFRegressor,
            Predictor(DenseFeedForward(4, 2, 3), Meaning("regression")),
            ArgumentTypeError,
            "'predictor' must be of a FastFeedForward or a LeafFeedForward, got <DenseFeed",
        ),
        (
            FFFRegressor,
            Predictor(FastFeedForward(4, 2, 3).quantize("int8"), Meaning("regression")),
            ArgumentTypeError,
            "got <QuantizedFast",
        ),
    ],
)
def test_refuses_a_predictor(kind, predictor, error, message):
    with pytest.raises(error, match=message):
        kind.from_predictor(predictor)


def test_a_predictor_has_classes_that_a_file_can_hold():
    learned = classifier(max_iter=2).fit(X, LABELS == "cat")
    with pytest.raises(ArgumentError, match="strings or integers"):
        learned.to_predictor()


# What is refused


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


@pytest.mark.parametrize(
    ("x", "y", "weights", "message"),
    [
        (X[:5], LABELS, None, "inconsistent numbers of samples"),
        (np.where(X > 5300, np.nan, X), LABELS, None, "NaN"),
        (X[0], LABELS, None, "Expected 2D array"),
        (X, SCALED[:, 0], None, "Unknown label type"),
        (X, DIGITS[:240].reshape(120, 2), None, "several classes a row"),
        (X, TRUTH * 2, None, "0 or 1 for each of 3 labels"),
        (X, LABELS, np.ones(3), r"'sample_weight' must have shape \(120,\)"),
        (X, LABELS, np.ones((120, 1)), r"got shape \(120, 1\)"),
        (X, LABELS, -np.ones(120), "'sample_weight' must hold finite .* 0, got -1.0 at index 0"),
        (X, LABELS, np.full(120, np.inf), "'sample_weight' must hold finite"),
        (X, LABELS, np.zeros(120), "zero for all"),
    ],
)
def test_refuses_a_table(x, y, weights, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, y, sample_weight=weights)


@pytest.mark.parametrize(
    ("class_weight", "y", "message"),
    [
        ("even", LABELS, "'class_weight' must be a mapping, None, or for fit 'balanced'"),
        (3, LABELS, "class_weight"),
        ({"cat": -1.0}, LABELS, "'class_weight' must hold finite numbers of at least 0"),
        ({"cat": np.inf}, LABELS, "'class_weight' must hold finite numbers of at least 0"),
        ({0: 1.0}, TRUTH, "'class_weight' must be None where a row may have several labels"),
    ],
)
def test_refuses_class_weights(class_weight, y, message):
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=class_weight).fit(X, y)
