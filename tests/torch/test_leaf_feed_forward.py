"""LeafFeedForward of PyTorch: the mixture of training, and inference, are those of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import fffcpu
from fffcpu.checkpoints import fastfeedforward
from fffcpu.errors import ArgumentError, ArgumentTypeError
from fffcpu.testing import golden
from fffcpu.testing.strategies import leaf_problems
from fffcpu.torch import LeafFeedForward, plain
from tests.torch.support import assert_same, gradients, leaf_module, plain_pytorch, tensor

DOUBLE = (np.float64,)


def layer_of(problem):
    return fffcpu.LeafFeedForward.from_arrays(**problem.params, activation=problem.activation)


@given(
    problem=leaf_problems(dtypes=DOUBLE, kinds=("normal",), max_width=20),
    region_leak=st.sampled_from([0.0, 0.3, 1.0]),
    dropout=st.sampled_from([0.0, 0.4, 1.0]),
    hardened=st.booleans(),
    hardening=st.sampled_from([0.0, 2.0]),
)
def test_the_mixture_and_its_gradients_are_the_layers(
    problem, region_leak, dropout, hardened, hardening
):
    layer, module = layer_of(problem), leaf_module(problem)
    expected_y, cache = layer.forward(problem.x, region_leak, dropout, hardened, rng=7)
    expected_dx, expected = layer.backward(problem.dy, cache, hardening)

    flips = None if cache.flips is None else torch.from_numpy(cache.flips)
    kept = None if cache.kept is None else torch.from_numpy(cache.kept)
    x = tensor(problem.x)
    mixed = plain.mixture(
        x, tuple(module.parameters()), problem.activation, flips, kept, hardened=hardened
    )
    assert_same(mixed.y.detach().numpy(), expected_y, least=1)
    assert_same(mixed.entropies.detach().numpy(), cache.entropies, least=1)
    assert_same(mixed.gate_usage.numpy(), cache.gate_usage)
    assert_same(mixed.leaf_usage.numpy(), cache.leaf_usage)
    loss = (mixed.y * torch.from_numpy(problem.dy)).sum() + hardening * mixed.entropies.sum()
    names, parameters = zip(*module.named_parameters(), strict=True)
    dx, *grads = torch.autograd.grad(loss, (x, *parameters))
    assert_same(dx.numpy(), expected_dx, least=1)
    for name, grad in zip(names, grads, strict=True):
        assert_same(grad.numpy(), expected[name], least=1)


@given(problem=leaf_problems())
def test_inference_has_the_layers_bits_and_its_gradients(problem):
    layer, module = layer_of(problem), leaf_module(problem).eval()
    x = tensor(problem.x)
    y = module(x)
    np.testing.assert_array_equal(y.detach().numpy(), layer(problem.x))
    with torch.no_grad():
        np.testing.assert_array_equal(module(x).numpy(), layer(problem.x))
    _, cache = layer.forward(problem.x, hardened=True)
    expected_dx, expected = layer.backward(problem.dy, cache)
    dx, grads = gradients(module, y, x, problem.dy)
    np.testing.assert_array_equal(dx, expected_dx)
    for name, grad in expected.items():
        np.testing.assert_array_equal(grads[name], grad, err_msg=name)


@given(problem=leaf_problems(dtypes=DOUBLE), every=st.booleans())
def test_plain_inference_computes_the_same_ties_included(problem, every):
    layer, module = layer_of(problem), leaf_module(problem).eval()
    x = tensor(problem.x)
    y = plain.leaf_inference(x, tuple(module.parameters()), problem.activation, every)
    assert_same(y.detach().numpy(), layer(problem.x), least=1)
    _, cache = layer.forward(problem.x, hardened=True)
    expected_dx, expected = layer.backward(problem.dy, cache)
    names, parameters = zip(*module.named_parameters(), strict=True)
    dx, *grads = torch.autograd.grad(
        y, (x, *parameters), torch.from_numpy(problem.dy), allow_unused=True
    )
    assert_same(dx.numpy(), expected_dx, least=1)
    for name, grad in zip(names, grads, strict=True):
        given = np.zeros_like(expected[name]) if grad is None else grad.numpy()
        assert_same(given, expected[name], least=1)


@pytest.mark.parametrize("path", golden.files("leaf_fff"), ids=lambda path: path.stem)
def test_published_outputs_and_gradients(path):
    """A published state dict, loaded as it is, gives what the published module computed."""
    data = np.load(path)
    entries = fastfeedforward.KEY_MAP.entries
    state = {entry.theirs: torch.from_numpy(data[entry.theirs]) for entry in entries}
    config = fastfeedforward.infer_config(state, activation=str(data["activation"]))
    sizes = config.input_dim, config.output_dim, config.depth, config.leaf_width
    module = LeafFeedForward(*sizes, activation=config.activation)
    module.load_published_state_dict(state)
    x = tensor(data["x"])
    assert_same(module.eval()(x).detach().numpy(), data["y_hard"], 2e-5)
    y, entropies, *_ = module.train().mixture(x)
    assert_same(y.detach().numpy(), data["y_soft"], 2e-5)
    assert_same(entropies.detach().numpy(), data["mean_entropies"], 2e-5)
    loss = (y * torch.from_numpy(data["dy"])).sum() + float(data["hardening"]) * entropies.sum()
    loss.backward()
    assert_same(x.grad.numpy(), data["dx"], 2e-5)
    for entry in entries:
        grad = getattr(module, entry.ours).grad.numpy()
        assert_same(entry.to_theirs(grad), data[f"d_{entry.theirs}"], 2e-5)


@pytest.mark.parametrize("depth", [0, 2])
def test_published_state_dicts_go_there_and_back(depth):
    module, other = (LeafFeedForward(6, 4, depth, 3) for _ in range(2))
    state = module.published_state_dict()
    assert set(state) == {"depth", *(entry.theirs for entry in fastfeedforward.KEY_MAP.entries)}
    assert state["node_biases"].shape == (2**depth - 1, 1)
    assert fastfeedforward.infer_config(state) == module.config
    other.load_published_state_dict(state | {"node_usage": torch.zeros(2**depth - 1)})
    for name, parameter in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], parameter)


def test_training_mixes_all_leaves_and_inference_takes_one():
    module = LeafFeedForward(5, 3, 3, 4)
    x = torch.randn(2, 7, 5)
    assert module.training
    mixed = module.mixture(x)
    assert torch.equal(module(x), mixed.y)
    assert mixed.y.shape == (2, 7, 3)
    assert mixed.entropies.shape == mixed.gate_usage.shape == (7,)
    assert mixed.leaf_usage.sum().item() == pytest.approx(14, rel=1e-5)
    assert mixed.gate_usage[0] == 14
    module.eval()
    np.testing.assert_array_equal(module(x).detach().numpy(), module.to_layer()(x.numpy()))
    # The mixture itself has no mode.
    assert torch.equal(module.mixture(x).y, mixed.y)


def test_region_leak_and_dropout_are_for_training_and_drawn_from_pytorch():
    module = LeafFeedForward(5, 3, 3, 4, region_leak=0.2, dropout=0.5)
    x = torch.randn(50, 5)
    calm = module.eval().mixture(x).y
    assert torch.equal(calm, module.mixture(x).y)
    module.train()
    first, second = (seeded(module, x, seed) for seed in (1, 2))
    assert torch.equal(first, seeded(module, x, 1))
    assert not torch.equal(first, second)
    for name in ("region_leak", "dropout"):
        setattr(module, name, 0.0)
        assert not torch.equal(first, seeded(module, x, 1))
        first = seeded(module, x, 1)
    assert torch.equal(module(x), calm)


def seeded(module, x, seed):
    torch.manual_seed(seed)
    return module(x)


def test_the_probability_of_leaks_and_drops_is_what_was_asked_for(monkeypatch):
    module = LeafFeedForward(2, 2, 6, 8, region_leak=0.25, dropout=0.125)
    seen = []

    def keep(x, parameters, activation, flips, kept, hardened):
        seen.append((flips, kept))
        return mixture(x, parameters, activation, flips, kept, hardened)

    mixture = plain.mixture
    monkeypatch.setattr(plain, "mixture", keep)
    module(torch.randn(400, 2))
    ((flips, kept),) = seen
    assert flips.double().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (kept == 0).double().mean().item() == pytest.approx(0.125, abs=0.01)
    assert kept.max().item() == pytest.approx(1 / 0.875)


def test_hardened_choices_teach_gates_by_their_entropy_only():
    module = LeafFeedForward(5, 3, 2, 4, hardened=True)
    y, entropies, *_ = module.mixture(torch.randn(20, 5))
    y.sum().backward(retain_graph=True)
    assert module.gate_weights.grad is None
    assert module.leaf_weights_in.grad.abs().max() > 0
    entropies.sum().backward()
    assert module.gate_weights.grad.abs().max() > 0


def test_no_rows_and_no_gates():
    module = LeafFeedForward(5, 3, 2, 4)
    for mode in (True, False):
        assert module.train(mode)(torch.empty(2, 0, 5)).shape == (2, 0, 3)
    assert torch.equal(module.mixture(torch.empty(0, 5)).entropies, torch.zeros(3))
    module = LeafFeedForward(5, 3, 0, 4)
    mixed = module.mixture(torch.randn(6, 5))
    assert mixed.entropies.shape == (0,)
    assert torch.equal(mixed.leaf_usage, torch.tensor([6.0]))


def test_second_derivatives_of_the_mixture_exist():
    module = LeafFeedForward(3, 2, 2, 3, activation="gelu", dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(module, (x,))


def test_other_devices_take_plain_pytorch(monkeypatch):
    module = LeafFeedForward(5, 3, 2, 4).eval()
    x = torch.randn(9, 5)
    expected = module(x)
    with plain_pytorch(monkeypatch):
        y = module(x)
    assert y.grad_fn is not None
    torch.testing.assert_close(y, expected)


def test_wrong_arguments_are_errors_that_name_them():
    with pytest.raises(ArgumentError, match="argument 'leaf_width' must be an integer of at least"):
        LeafFeedForward(4, 4, 1, 0)
    with pytest.raises(ArgumentError, match="argument 'region_leak' must be a number from 0 to 1"):
        LeafFeedForward(4, 4, 1, 2, region_leak=1.5)
    with pytest.raises(ArgumentTypeError, match="argument 'hardened' must be True"):
        LeafFeedForward.from_layer(fffcpu.LeafFeedForward(4, 4, 1, 2), hardened="yes")
    with pytest.raises(ArgumentTypeError, match=r"'layer' must be a fffcpu\.LeafFeedForward, got"):
        LeafFeedForward.from_layer(fffcpu.FastFeedForward(4, 4, 1))


def test_initial_values_are_the_layers():
    module = LeafFeedForward(25, 8, 5, 16)
    for name, parameter in module.named_parameters():
        bound = 1 / 4 if name.endswith("_out") else 1 / 5
        assert parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.2)
