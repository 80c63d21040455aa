"""Losses against finite differences in float64, and against values that PyTorch computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fffcpu.training import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy

SEEDS = st.integers(0, 2**32 - 1)
LEADING = st.lists(st.integers(1, 3), max_size=2).map(tuple)


def finite_differences(loss, x, step=1e-5):
    """Gradient of a function of one array by central differences."""
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[place] = step
        gradient[place] = (loss(x + nudge) - loss(x - nudge)) / (2 * step)
    return gradient


@st.composite
def logits_and_labels(draw):
    """Float64 logits (..., C) and labels (...), some of which may be -100."""
    rng = np.random.default_rng(draw(SEEDS))
    shape = (*draw(LEADING), draw(st.integers(1, 5)))
    labels = rng.integers(0, shape[-1], shape[:-1])
    ignored = rng.random(shape[:-1]) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return rng.normal(scale=3.0, size=shape), np.where(ignored, -100, labels)


# Softmax cross-entropy

LOGITS = [[1.0, 2.0, 3.0, -1.0], [0.5, -0.5, 0.0, 2.0], [10.0, -10.0, 3.0, 0.0]]
LABELS = [2, -100, 1]
# torch.nn.functional.cross_entropy, PyTorch 2.13, float64
TORCH_LOSS = 10.210336736183866
TORCH_DLOGITS = [
    [0.04447340864870214, 0.12089125857940036, -0.17138348858407232, 0.006018821355969727],
    [0.0, 0.0, 0.0, 0.0],
    [0.4995218157798469, -0.4999999989704088, 0.0004555049352106876, 2.2678255351233958e-05],
]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-15), (np.float32, 1e-7), (np.float16, 3e-4)]
)
def test_cross_entropy_agrees_with_pytorch(dtype, tolerance):
    loss, dlogits = softmax_cross_entropy(np.array(LOGITS, dtype), np.array(LABELS))
    assert type(loss) is float
    assert loss == pytest.approx(TORCH_LOSS, rel=max(tolerance, 1e-15))
    assert dlogits.dtype == dtype
    np.testing.assert_allclose(dlogits, TORCH_DLOGITS, rtol=0, atol=tolerance)


@settings(deadline=None, max_examples=50)
@given(logits_and_labels())
def test_cross_entropy_gradient_is_the_finite_difference(case):
    logits, labels = case
    ref = finite_differences(lambda z: softmax_cross_entropy(z, labels)[0], logits)
    _, comp = softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(comp, ref, rtol=0, atol=1e-9)


@given(logits_and_labels())
def test_cross_entropy_is_the_mean_over_labelled_rows(case):
    logits, labels = case
    losses = [
        -np.log(np.exp(logits[place][label]) / np.exp(logits[place]).sum())
        for place, label in np.ndenumerate(labels)
        if label != -100
    ]
    loss, dlogits = softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx(np.mean(losses) if losses else 0.0, rel=1e-12, abs=1e-14)
    assert dlogits.shape == logits.shape
    assert not dlogits[labels == -100].any()


@given(logits_and_labels())
def test_cross_entropy_leaves_its_arguments_alone(case):
    logits, labels = case
    before = logits.copy(), labels.copy()
    logits.flags.writeable = labels.flags.writeable = False
    softmax_cross_entropy(logits, labels)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_is_stable_for_large_logits(dtype):
    logits = np.array([[1e4, 0.0], [-1e4, 0.0], [3e4, 3e4]], dtype)
    loss, dlogits = softmax_cross_entropy(logits, [1, 0, 0])
    assert loss == pytest.approx((1e4 + 1e4 + np.log(2)) / 3, rel=1e-12)
    np.testing.assert_allclose(dlogits * 3, [[1, -1], [-1, 1], [-0.5, 0.5]], atol=1e-7)


def test_half_precision_loses_digits_only_at_the_end():
    logits = np.random.default_rng(3).normal(scale=2.0, size=(4, 50)).astype(np.float16)
    ref_loss, ref = softmax_cross_entropy(logits.astype(np.float64), [0, 1, 2, 3])
    loss, comp = softmax_cross_entropy(logits, [0, 1, 2, 3])
    assert loss == pytest.approx(ref_loss, rel=1e-6)
    np.testing.assert_allclose(comp, ref, rtol=5.1e-4, atol=6e-8)  # half a unit of the last place


def test_class_of_logit_minus_infinity_is_impossible():
    loss, dlogits = softmax_cross_entropy([[0.0, -np.inf, 0.0]], [0])
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(dlogits, [[-0.5, 0.0, 0.5]])


def test_ignored_rows_are_not_read():
    logits = np.array([[1.0, 2.0], [np.nan, np.inf]])
    loss, dlogits = softmax_cross_entropy(logits, [1, -100])
    assert loss == softmax_cross_entropy(logits[:1], [1])[0]
    np.testing.assert_array_equal(dlogits[1], 0.0)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (4,)])
def test_no_labelled_row_gives_no_loss_and_no_gradient(shape):
    loss, dlogits = softmax_cross_entropy(
        np.full(shape, np.nan, np.float32), np.full(shape[:-1], -100)
    )
    assert loss == 0.0
    assert dlogits.dtype == np.float32
    np.testing.assert_array_equal(dlogits, np.zeros(shape))


@pytest.mark.parametrize("labels", [np.empty(0, np.int64), []], ids=["array", "list"])
def test_cross_entropy_of_an_empty_batch(labels):
    loss, dlogits = softmax_cross_entropy(np.empty((0, 4), np.float32), labels)
    assert loss == 0.0
    assert dlogits.shape == (0, 4)
    assert dlogits.dtype == np.float32


def test_one_row_without_axes_in_front():
    loss, dlogits = softmax_cross_entropy([0.0, 0.0], 1)
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(dlogits, [0.5, -0.5])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_labels_of_any_integer_dtype(dtype):
    ref = softmax_cross_entropy(LOGITS, [2, 0, 1])
    comp = softmax_cross_entropy(LOGITS, np.array([2, 0, 1], dtype))
    assert comp[0] == ref[0]
    np.testing.assert_array_equal(comp[1], ref[1])


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1], lambda a: a.tolist()])
def test_logits_of_any_layout(layout):
    logits = np.random.default_rng(5).normal(size=(6, 4))
    laid_out = layout(logits)
    ref = softmax_cross_entropy(np.array(laid_out), [0, 1, 2, 3, -100, 0])
    comp = softmax_cross_entropy(laid_out, [0, 1, 2, 3, -100, 0])
    assert comp[0] == ref[0]
    np.testing.assert_array_equal(comp[1], ref[1])


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.ones((2, 3)), [0, 3], ValueError, r"from 0 to 2, or -100 .*, got 3 at index 1"),
        (np.ones((2, 3)), [-1, 0], ValueError, r"'labels' must hold integers .* got -1 at index"),
        (np.ones((1, 2, 3)), [[0, 9]], ValueError, r"got 9 at index \(0, 1\)"),
        (np.ones((2, 3)), [0, 1, 2], ValueError, r"'labels' must have shape \(2,\), got"),
        (np.ones((2, 3)), [[0], [1]], ValueError, r"got shape \(2, 1\)"),
        (np.ones((2, 3)), [[0], [1, 2]], ValueError, "'labels' must be rectangular"),
        (np.ones((2, 0)), [0, 0], ValueError, "'logits' must be .* with at least 1 class"),
        (1.0, 0, ValueError, r"'logits' must be an array of shape \(\.\.\., classes\)"),
        (np.ones((2, 3)), [0.0, 1.0], TypeError, "'labels' must hold integers, got .* float64"),
        (np.ones((2, 3)), [True, False], TypeError, "'labels' must hold integers, got .* bool"),
        (np.ones((2, 3)), ["a", "b"], TypeError, "'labels' must hold real numbers"),
        (np.ones((2, 3), complex), [0, 1], TypeError, "'logits' must hold real numbers"),
    ],
)
def test_cross_entropy_says_what_is_wrong(logits, labels, error, message):
    with pytest.raises(error, match=message):
        softmax_cross_entropy(logits, labels)


# Mean squared error


def test_squared_error_agrees_with_pytorch():
    loss, dpredictions = mean_squared_error([[1.0, 2.0], [3.0, -1.0]], [[0.5, 2.5], [1.0, 1.0]])
    assert type(loss) is float
    assert loss == 2.125
    np.testing.assert_array_equal(dpredictions, [[0.25, -0.25], [1.0, -1.0]])


@settings(deadline=None, max_examples=50)
@given(shape=LEADING, seed=SEEDS)
def test_squared_error_gradient_is_the_finite_difference(shape, seed):
    rng = np.random.default_rng(seed)
    predictions, targets = rng.normal(size=shape), rng.normal(size=shape)
    ref = finite_differences(lambda y: mean_squared_error(y, targets)[0], predictions)
    loss, comp = mean_squared_error(predictions, targets)
    assert loss == pytest.approx(np.mean((predictions - targets) ** 2), rel=1e-12)
    np.testing.assert_allclose(comp, ref, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("targets_dtype", [np.int64, np.float32, np.float64])
def test_squared_error_gradient_has_the_dtype_of_the_predictions(dtype, targets_dtype):
    predictions, targets = np.array([1.0, 4.0], dtype), np.array([0, 1], targets_dtype)
    predictions.flags.writeable = targets.flags.writeable = False
    loss, dpredictions = mean_squared_error(predictions, targets)
    assert loss == 5.0
    assert dpredictions.dtype == dtype
    np.testing.assert_array_equal(dpredictions, [1.0, 3.0])


def test_squares_are_summed_in_float64():
    loss, _ = mean_squared_error(np.full(4, 1e30, np.float32), np.zeros(4, np.float32))
    assert loss == pytest.approx(1e60, rel=1e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_squared_error_of_an_empty_batch(shape):
    loss, dpredictions = mean_squared_error(np.empty(shape, np.float32), np.empty(shape))
    assert loss == 0.0
    assert dpredictions.shape == shape
    assert dpredictions.dtype == np.float32


@pytest.mark.parametrize(
    ("predictions", "targets", "error", "message"),
    [
        (np.ones((4, 1)), np.ones(4), ValueError, r"'targets' must be .* \(4, 1\), as predictions"),
        (np.ones(3), np.ones((1, 3)), ValueError, r"got an array of shape \(1, 3\)"),
        (np.ones(2), [1j, 2j], TypeError, "'targets' must hold real numbers"),
        (["a", "b"], np.ones(2), TypeError, "'predictions' must hold real numbers"),
    ],
)
def test_squared_error_says_what_is_wrong(predictions, targets, error, message):
    with pytest.raises(error, match=message):
        mean_squared_error(predictions, targets)


# Sigmoid cross-entropy


@st.composite
def logits_and_truth(draw):
    """Float64 logits (..., O) and targets of the same shape from 0 to 1."""
    rng = np.random.default_rng(draw(SEEDS))
    shape = (*draw(LEADING), draw(st.integers(1, 4)))
    return rng.normal(scale=3.0, size=shape), rng.choice([0.0, 0.3, 1.0], shape)


@settings(deadline=None, max_examples=50)
@given(logits_and_truth())
def test_sigmoid_cross_entropy_is_its_definition_and_the_gradient_its_difference(case):
    logits, truth = case
    loss, comp = sigmoid_cross_entropy(logits, truth)
    p = 1 / (1 + np.exp(-logits))
    assert loss == pytest.approx(-(truth * np.log(p) + (1 - truth) * np.log1p(-p)).mean())
    ref = finite_differences(lambda z: sigmoid_cross_entropy(z, truth)[0], logits)
    np.testing.assert_allclose(comp, ref, rtol=0, atol=1e-9)


def test_two_classes_are_one_label():
    z = np.random.default_rng(0).normal(size=7)
    truth = np.arange(7) % 2
    loss, dlogits = sigmoid_cross_entropy(z[:, np.newaxis], truth[:, np.newaxis] == 1)
    ref_loss, ref = softmax_cross_entropy(np.column_stack([np.zeros(7), z]), truth)
    assert loss == pytest.approx(ref_loss, rel=1e-12)
    np.testing.assert_allclose(dlogits[:, 0], ref[:, 1], rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sigmoid_cross_entropy_is_stable_and_keeps_the_dtype(dtype):
    logits = np.array([[3e4, -3e4], [-3e4, 3e4]], dtype)
    logits.flags.writeable = False
    loss, dlogits = sigmoid_cross_entropy(logits, [[True, False], [True, False]])
    assert loss == pytest.approx(1.5e4, rel=1e-3)
    assert dlogits.dtype == dtype
    np.testing.assert_array_equal(dlogits, [[0, 0], [-0.25, 0.25]])


def test_sigmoid_cross_entropy_of_an_empty_batch():
    loss, dlogits = sigmoid_cross_entropy(np.empty((0, 3), np.float32), np.empty((0, 3)))
    assert loss == 0.0
    assert (dlogits.shape, dlogits.dtype) == ((0, 3), np.float32)


@pytest.mark.parametrize(
    ("logits", "targets", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), ValueError, r"'targets' must be .* as logits"),
        (
            np.ones((2, 3)),
            np.array([[0, 0, 0], [0, 1.5, 9]]),
            ValueError,
            r"'targets' must hold numbers from 0 to 1, got 1.5 at index \(1, 1\)",
        ),
        (
            np.ones((2, 3)),
            np.full((2, 3), np.nan),
            ValueError,
            "'targets' must .* 0 to 1, got nan at",
        ),
        (np.ones((1, 1)), [["yes"]], TypeError, "'targets' must hold real numbers"),
    ],
)
def test_sigmoid_cross_entropy_says_what_is_wrong(logits, targets, error, message):
    with pytest.raises(error, match=message):
        sigmoid_cross_entropy(logits, targets)


# Weights

LOSSES = {
    softmax_cross_entropy: lambda rng: rng.integers(0, 3, 6),
    sigmoid_cross_entropy: lambda rng: rng.random((6, 3)),
    mean_squared_error: lambda rng: rng.normal(size=(6, 3)),
}


@settings(deadline=None, max_examples=20)
@pytest.mark.parametrize("loss_of", LOSSES)
@given(seed=SEEDS)
def test_a_weight_is_a_repetition(loss_of, seed):
    rng = np.random.default_rng(seed)
    outputs, targets, weights = rng.normal(size=(6, 3)), LOSSES[loss_of](rng), rng.integers(0, 4, 6)
    weights[rng.integers(6)] = 2
    rows = np.repeat(np.arange(6), weights)
    loss, gradient = loss_of(outputs, targets, weights)
    assert loss == pytest.approx(loss_of(outputs[rows], targets[rows])[0], rel=1e-12)
    assert loss == pytest.approx(loss_of(outputs, targets, weights * 7.5)[0], rel=1e-12)
    ref = finite_differences(lambda z: loss_of(z, targets, weights)[0], outputs)
    np.testing.assert_allclose(gradient, ref, rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss_of", LOSSES)
def test_a_row_without_weight_is_not_read(loss_of):
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(6, 3)), LOSSES[loss_of](rng)
    outputs[4] = [np.nan, np.inf, 0.0]
    with np.errstate(invalid="ignore"):
        loss, gradient = loss_of(outputs, targets, [1, 1, 1, 1, 0, 1])
    rest = np.array([0, 1, 2, 3, 5])
    ref_loss, ref = loss_of(outputs[rest], targets[rest])
    assert loss == pytest.approx(ref_loss, rel=1e-12)
    np.testing.assert_allclose(gradient[rest], ref, rtol=1e-12)
    assert not gradient[4].any()


@pytest.mark.parametrize("loss_of", LOSSES)
def test_no_weight_at_all_gives_no_loss_and_no_gradient(loss_of):
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(6, 3)).astype(np.float32), LOSSES[loss_of](rng)
    loss, gradient = loss_of(outputs, targets, np.zeros(6))
    assert loss == 0.0
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, np.zeros((6, 3)))


def test_rows_ignored_have_no_part_in_the_whole():
    loss, dlogits = softmax_cross_entropy(LOGITS, LABELS, [1.0, 100.0, 3.0])
    ref_loss, ref = softmax_cross_entropy([LOGITS[0]] + [LOGITS[2]] * 3, [2, 1, 1, 1])
    assert loss == pytest.approx(ref_loss, rel=1e-12)
    np.testing.assert_allclose(dlogits[0], ref[0], rtol=1e-12)
    assert not dlogits[1].any()


@pytest.mark.parametrize("loss_of", LOSSES)
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(5), ValueError, r"'weights' must be an array of shape \(6,\), one weight for"),
        (np.ones((6, 1)), ValueError, r"got an array of shape \(6, 1\)"),
        (
            -np.ones(6),
            ValueError,
            "'weights' must hold finite numbers of at least 0, got -1.0 at index 0",
        ),
        (
            np.array([1, 1, 1, 1, 1, np.inf]),
            ValueError,
            "'weights' must hold finite numbers of at least 0, got inf at index 5",
        ),
        (["a"] * 6, TypeError, "'weights' must hold real numbers"),
    ],
)
def test_losses_say_what_is_wrong_with_weights(loss_of, weights, error, message):
    rng = np.random.default_rng(0)
    with pytest.raises(error, match=message):
        loss_of(rng.normal(size=(6, 3)), LOSSES[loss_of](rng), weights)


@pytest.mark.parametrize("loss_of", [sigmoid_cross_entropy, mean_squared_error])
def test_a_single_number_has_no_row_to_weigh(loss_of):
    with pytest.raises(ValueError, match="'weights' must be None for a single number"):
        loss_of(1.0, 1.0, 1.0)
