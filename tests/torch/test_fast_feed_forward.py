"""FastFeedForward of PyTorch: outputs and gradients are those of the layer, on every way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.testing import golden
from fffcpu.testing.strategies import path_problems
from fffcpu.torch import FastFeedForward, plain
from tests.support.paths import GOLDEN
from tests.torch.support import assert_same, gradients, path_module, plain_pytorch, tensor

FILES = [*golden.files("path_fff"), *sorted(GOLDEN.glob("path_fff_*.npz"))]


def of_the_layer(problem, straight_through):
    """Output and gradients of the layer."""
    layer = fffcpu.FastFeedForward.from_arrays(
        problem.weights_in, problem.weights_out, problem.bias, activation=problem.activation
    )
    y, cache = layer.forward(problem.x)
    return y, *layer.backward(problem.dy, cache, straight_through=straight_through)


@given(problem=path_problems(), straight_through=st.booleans())
def test_outputs_and_gradients_are_the_layers(problem, straight_through):
    module = path_module(problem, straight_through=straight_through)
    x = tensor(problem.x)
    y = module(x)
    expected_y, expected_dx, expected = of_the_layer(problem, straight_through)
    np.testing.assert_array_equal(y.detach().numpy(), expected_y)
    dx, grads = gradients(module, y, x, problem.dy)
    np.testing.assert_array_equal(dx, expected_dx)
    assert set(grads) == set(expected)
    for name, grad in expected.items():
        np.testing.assert_array_equal(grads[name], grad, err_msg=name)


@given(
    problem=path_problems(dtypes=(np.float64,)), straight_through=st.booleans(), every=st.booleans()
)
def test_plain_pytorch_computes_the_same(problem, straight_through, every):
    """Numbers are small integers or no logit is 0, so routes agree."""
    module = path_module(problem)
    x = tensor(problem.x)
    tensors = (x, module.weights_in, module.bias_in, module.weights_out)
    y = plain.fast_feed_forward(tensors, problem.activation, straight_through, every)
    expected_y, expected_dx, expected = of_the_layer(problem, straight_through)
    assert_same(y.detach().numpy(), expected_y, least=1)
    dx, grads = gradients(module, y, x, problem.dy)
    assert_same(dx, expected_dx, least=1)
    for name, grad in expected.items():
        assert_same(grads[name], grad, least=1)


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("two_sided", [False, True])
def test_plain_pytorch_keeps_the_rules_of_rows_that_are_not_finite(every, two_sided):
    module = FastFeedForward(5, 3, 2, 2, two_sided=two_sided, dtype=torch.float64)
    x = torch.randn(6, 5, dtype=torch.float64)
    x[1, 2], x[3, 0], x[4] = torch.nan, torch.inf, 0
    tensors = (x, module.weights_in, module.bias_in, module.weights_out)
    y = plain.fast_feed_forward(tensors, "gelu", False, every)
    expected = module.to_layer()(x.numpy())
    assert np.isnan(expected[[1, 3]]).all()
    assert_same(y.detach().numpy(), expected)


def test_a_choice_whose_other_side_is_not_finite_is_worth_nothing():
    """A root with two children; the rows go left, and the right child's weights are infinite."""
    module = FastFeedForward(2, 1, 1, straight_through=True, dtype=torch.float64)
    with torch.no_grad():
        module.weights_in[0, 0], module.bias_in[0, 0] = 0, -0.5
        module.weights_out[0, 2] = torch.inf
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    y = module(x)
    _, expected = gradients(module, y, x, np.ones((4, 1)))
    tensors = (x, module.weights_in, module.bias_in, module.weights_out)
    y = plain.fast_feed_forward(tensors, "gelu", True, every=False)
    _, grads = gradients(module, y, x, np.ones((4, 1)))
    assert np.isfinite(expected["weights_in"]).all()
    for name, grad in expected.items():
        assert_same(grads[name], grad)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("kernels", [True, False])
def test_published_outputs_and_gradients(path, kernels, monkeypatch):
    """A published state dict, loaded as it is, gives what the published module computed."""
    data = np.load(path)
    keys = ("linear_in.weight", "linear_in.bias", "linear_out.weight")
    state = {key: torch.from_numpy(data[key.replace(".", "_")]) for key in keys}
    width, depth, trees = data["x"].shape[1], int(data["depth"]), int(data["trees"])
    module = FastFeedForward(width, width, depth, trees, dtype=torch.float64)
    module.load_published_state_dict(state)
    x = tensor(data["x"])
    if kernels:
        y = module(x)
    else:
        with plain_pytorch(monkeypatch):
            y = module(x)
    assert_same(y.detach().numpy(), data["y"], 1e-10)
    dx, grads = gradients(module, y, x, data["dy"])
    assert_same(dx, data["dx"], 1e-10)
    other = FastFeedForward(width, width, depth, trees, dtype=torch.float64)
    other.load_state_dict({name: torch.from_numpy(grad) for name, grad in grads.items()})
    for key, grad in other.published_state_dict().items():
        assert_same(grad.numpy(), data[f"d_{key.replace('.', '_')}"], 1e-10)


@pytest.mark.parametrize("bias", [True, False])
def test_published_state_dicts_go_there_and_back(bias):
    from fffcpu.checkpoints import ultrafastbert

    module = FastFeedForward(6, 4, 2, 3, bias=bias)
    state = module.published_state_dict()
    assert list(state) == [
        "linear_in.weight",
        *(["linear_in.bias"] if bias else []),
        "linear_out.weight",
    ]
    assert state["linear_out.weight"].shape == (4, 3 * 7)
    # The importers take tensors as they take arrays, under our names too.
    assert ultrafastbert.infer_config(state, depth=2) == module.config
    arrays = ultrafastbert.from_state_dict(module.config, state)
    written = ultrafastbert.to_state_dict(module.config, module.state_dict())
    other = FastFeedForward(6, 4, 2, 3, bias=bias)
    other.load_published_state_dict(state)
    for name, parameter in module.state_dict().items():
        np.testing.assert_array_equal(arrays[name], parameter.numpy())
        assert torch.equal(other.state_dict()[name], parameter)
    for name, value in state.items():
        np.testing.assert_array_equal(written[name], value.numpy())


def test_a_published_state_dict_in_half_precision_is_widened():
    module, other = FastFeedForward(6, 6, 2), FastFeedForward(6, 6, 2)
    state = {name: value.bfloat16() for name, value in module.published_state_dict().items()}
    other.load_published_state_dict(state)
    assert torch.equal(other.weights_in, module.weights_in.bfloat16().float())


def test_published_layouts_that_do_not_fit_are_errors():
    module = FastFeedForward(6, 4, 2)
    with pytest.raises(fffcpu.errors.CheckpointError, match=r"linear_in\.weight"):
        module.load_published_state_dict({})
    with pytest.raises(ArgumentTypeError, match="argument 'state' must be a mapping"):
        module.load_published_state_dict(3)
    with pytest.raises(fffcpu.errors.CheckpointError, match="two_sided"):
        FastFeedForward(6, 4, 2, two_sided=True).published_state_dict()


def test_initial_values_are_the_layers():
    module = FastFeedForward(16, 8, 6, 3)
    bounds = {"weights_in": 1 / 4, "bias_in": 1 / 4, "weights_out": 1 / np.sqrt(21)}
    for name, parameter in module.named_parameters():
        assert parameter.abs().max() <= bounds[name]
        assert parameter.std().item() == pytest.approx(bounds[name] / np.sqrt(3), rel=0.05)
    torch.manual_seed(3)
    first = FastFeedForward(16, 8, 6, 3)
    torch.manual_seed(3)
    assert torch.equal(first.weights_out, FastFeedForward(16, 8, 6, 3).weights_out)


def test_routes_learn_only_if_they_are_told_to():
    module = FastFeedForward(8, 4, 3)
    x, dy = torch.randn(30, 8), np.ones((30, 4), np.float32)
    x.requires_grad_()
    _, constant = gradients(module, module(x), x, dy)
    module.straight_through = True
    _, learning = gradients(module, module(x), x, dy)
    assert not np.array_equal(constant["weights_in"], learning["weights_in"])
    np.testing.assert_array_equal(constant["weights_out"], learning["weights_out"])


def test_wrong_arguments_are_errors_that_name_them():
    with pytest.raises(ArgumentError, match="argument 'depth' must be an integer from 0"):
        FastFeedForward(4, 4, -1)
    with pytest.raises(ArgumentTypeError, match="argument 'straight_through' must be True"):
        FastFeedForward(4, 4, 1, straight_through=1)
    with pytest.raises(ArgumentError, match="argument 'activation' must be one of"):
        FastFeedForward(4, 4, 1, activation="tanh")
    quantized = fffcpu.FastFeedForward(4, 4, 1).quantize("int8")
    with pytest.raises(ArgumentTypeError, match=r"'layer' must be a fffcpu\.FastFeedForward, got"):
        FastFeedForward.from_layer(quantized)


def test_the_way_with_less_memory_is_chosen():
    """At BERT's width, the logits of all nodes are fewer numbers up to depth 12."""

    def every(depth, sides=()):
        nodes = (2 << depth) - 1
        shapes = (1, nodes, 768), (1, nodes, *sides, 768)
        return plain.every_is_smaller(*(torch.empty(shape, device="meta") for shape in shapes))

    assert [every(depth) for depth in (11, 12, 13)] == [True, True, False]
    assert [every(depth, (2,)) for depth in (11, 12, 13)] == [True, False, False]
