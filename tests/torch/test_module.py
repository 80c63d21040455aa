"""Both modules as PyTorch uses modules: memory, devices, types, copies, optimizers, threads."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.kernels.crossover import FEWEST_ROWS
from fffcpu.torch import FastFeedForward, LeafFeedForward, module, operators
from tests.support.processes import FORKS, run
from tests.torch.support import plain_pytorch


def fast(**options):
    return FastFeedForward(6, 4, 3, 2, **options).eval()


def leaf(**options):
    return LeafFeedForward(6, 4, 3, 5, **options).eval()


KINDS = pytest.mark.parametrize("make", [fast, leaf])


def expected(made, x):
    """What a copy of the module's layer gives."""
    return made.to_layer().copy()(x.detach().numpy())


@KINDS
def test_the_layer_lies_in_the_modules_memory_and_back(make):
    made = make()
    layer = made.to_layer()
    again = type(made).from_layer(layer)
    for name, parameter in made.named_parameters():
        assert layer.params[name].ctypes.data == parameter.data_ptr()
        assert getattr(again, name).data_ptr() == parameter.data_ptr()
    assert layer.config == made.config == again.config
    assert isinstance(layer, made.layer_type)


@KINDS
def test_read_only_parameters_are_copied(make):
    layer = make().to_layer().copy()
    for array in layer.params.values():
        array.flags.writeable = False
    again = type(make()).from_layer(layer)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1)
    assert all((array < 1).all() for array in layer.params.values())


@KINDS
@pytest.mark.parametrize("rows", [1, FEWEST_ROWS - 1, FEWEST_ROWS, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_are_the_layers_with_and_without_gradients(make, rows, dtype):
    made = make(dtype=dtype)
    x = torch.randn(rows, 6, dtype=dtype)
    with torch.no_grad():
        y = made(x)
    assert y.dtype == dtype
    assert not y.requires_grad
    np.testing.assert_array_equal(y.numpy(), expected(made, x))
    recorded = made(x)
    assert recorded.requires_grad
    assert torch.equal(recorded, y)
    with torch.inference_mode():
        assert torch.equal(made(x), y)
    made.requires_grad_(False)
    assert torch.equal(made(x), y)
    assert not made(x).requires_grad


@KINDS
def test_any_leading_axes_and_layouts(make):
    made = make()
    grid = torch.randn(3, 5, 4, 6)
    y = made(grid)
    assert y.shape == (3, 5, 4, 4)
    np.testing.assert_array_equal(y.detach().numpy(), expected(made, grid))
    views = {
        "one row": grid[0, 0, 0],
        "no rows": grid[:0],
        "every second": grid[::2, :, 1::2],
        "transposed": torch.randn(6, 9).T,
        "expanded": torch.randn(1, 6).expand(7, 6),
        "half": grid.half(),
        "bfloat16": grid.bfloat16(),
        "integers": (3 * grid).long(),
        "negative": torch.randn(5, 6, dtype=torch.complex64).conj().imag,
        "wants gradients": grid.clone().requires_grad_(),
    }
    for name, x in views.items():
        with torch.no_grad():
            direct = made(x)
        wide = x.detach().float().resolve_neg()
        np.testing.assert_array_equal(direct.numpy(), expected(made, wide), err_msg=name)
        assert torch.equal(made(x), direct), name


@KINDS
def test_wrong_rows_are_errors_with_and_without_gradients(make):
    made = make()
    wrong = {
        torch.randn(3, 5): (ShapeError, r"argument 'x' must have shape \(\.\.\., 6\), got shape"),
        torch.tensor(1.0): (ShapeError, r"argument 'x' must have shape \(\.\.\., 6\), got shape"),
        torch.zeros(2, 6, dtype=torch.complex64): (ArgumentTypeError, "must hold real numbers"),
        torch.zeros(2, 6, device="meta"): (ArgumentError, "on the device of the parameters, cpu"),
        "x": (ArgumentTypeError, r"argument 'x' must be a torch\.Tensor, got 'x'"),
    }
    for x, (error, message) in wrong.items():
        with pytest.raises(error, match=message):
            made(x)
        with torch.no_grad(), pytest.raises(error, match=message):
            made(x)


@KINDS
def test_contiguous_rows_are_not_copied(make, monkeypatch):
    made = make()
    places = []
    compute = made.layer_type._compute

    def keep(layer, y, rows):
        places.append((rows.ctypes.data, y.ctypes.data))
        compute(layer, y, rows)

    monkeypatch.setattr(made.layer_type, "_compute", keep)
    x = torch.randn(FEWEST_ROWS, 6)
    with torch.no_grad():
        y = made(x)
    assert places == [(x.data_ptr(), y.data_ptr())]
    assert operators.as_array(x).ctypes.data == x.data_ptr()


def change_storage(made):
    torch.nn.utils.vector_to_parameters(
        torch.nn.utils.parameters_to_vector(made.parameters()) + 0.5, made.parameters()
    )


def change_by_numbers(made):
    torch.optim.SGD(made.parameters(), 0.1).step()


def change_parameters(made):
    state = {name: value + 0.5 for name, value in made.state_dict().items()}
    made.load_state_dict(state, assign=True)


def change_layout(made):
    with torch.no_grad():
        for parameter in made.parameters():
            axes = range(parameter.ndim)[::-1]
            parameter.set_((parameter + 1).permute(*axes).contiguous().permute(*axes))


CHANGES = {
    "storage": change_storage,
    "numbers": change_by_numbers,
    "parameters": change_parameters,
    "layout": change_layout,
    "dtype": lambda made: made.double(),
    "there and back": lambda made: made.double().float(),
    "shared": lambda made: made.share_memory(),
}


@KINDS
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_parameters_is_seen_wherever_it_is_made(make, change):
    made = make()
    x = torch.randn(5, 6)
    made(x).sum().backward()
    with torch.no_grad():
        made(x)
        change(made)
        for _ in range(2):
            np.testing.assert_array_equal(made(x).numpy(), expected(made, x))


# Unpickled tensors of PyTorch 2.4 call what it deprecates.
@pytest.mark.filterwarnings("ignore:You are using `torch.load` with:FutureWarning")
@KINDS
@pytest.mark.parametrize("change", [lambda p: p[..., :1].clone(), lambda p: p.double()])
def test_parameters_that_do_not_fit_are_errors_before_kernels_read_them(make, change):
    for recorded in (True, False):
        made = make()
        name = next(name for name in made.config.shapes() if "bias_in" in name)
        with torch.no_grad():
            getattr(made, name).data = change(getattr(made, name).data)
        with torch.set_grad_enabled(recorded), pytest.raises(ShapeError, match=f"'{name}' must"):
            made(torch.randn(5, 6))


@KINDS
def test_copies_have_their_own_memory(make):
    made = make()
    x = torch.randn(5, 6)
    with torch.no_grad():
        y = made(x)
        buffer = io.BytesIO()
        torch.save(made, buffer)
        buffer.seek(0)
        copies = (
            copy.deepcopy(made),
            pickle.loads(pickle.dumps(made)),
            torch.load(buffer, weights_only=False),
        )
        for parameter in made.parameters():
            parameter.zero_()
        made(x)
        for other in copies:
            assert torch.equal(other(x), y)
            assert repr(other) == repr(made)


@KINDS
def test_half_precision_takes_plain_pytorch_and_its_layer_is_float32(make):
    made = make(dtype=torch.bfloat16)
    x = torch.randn(5, 6)
    y = made(x)
    assert y.dtype == torch.bfloat16
    assert made.config.dtype == "float32"
    layer = made.to_layer()
    assert layer.params[next(iter(layer.params))].dtype == np.float32
    np.testing.assert_allclose(y.detach().float(), layer(x.bfloat16().float()), atol=0.05)


@KINDS
def test_autocast_changes_neither_numbers_nor_types(make, monkeypatch):
    made = make()
    x = torch.randn(5, 6)
    y = made(x)
    mixed = leaf().mixture(x).y.dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(x), y)
        assert made(x.bfloat16()).dtype == mixed == torch.float32
        with plain_pytorch(monkeypatch):
            torch.testing.assert_close(made(x), y)


@KINDS
def test_devices_without_numbers_give_shapes(make):
    made = make(device="meta")
    assert made(torch.empty(2, 5, 6, device="meta")).shape == (2, 5, 4)
    made.to_empty(device="cpu").reset_parameters()
    assert made(torch.randn(5, 6)).shape == (5, 4)


@KINDS
def test_parametrizations_work(make):
    from torch.nn.utils import parametrize

    made = make()

    class Doubled(torch.nn.Module):
        def forward(self, value):
            return 2 * value

    name = next(iter(dict(made.named_parameters())))
    x = torch.randn(5, 6)
    with torch.no_grad():
        made(x)
        parametrize.register_parametrization(made, name, Doubled())
        np.testing.assert_array_equal(made(x).numpy(), expected(made, x))
        made.parametrizations[name].original.add_(1)
        np.testing.assert_array_equal(made(x).numpy(), expected(made, x))
    made(x).sum().backward()
    assert made.parametrizations[name].original.grad is not None


@KINDS
def test_one_parameter_may_serve_two_modules(make):
    first, second = make(), make()
    for name in dict(first.named_parameters()):
        setattr(second, name, getattr(first, name))
    x = torch.randn(5, 6)
    (first(x) + second(x)).sum().backward()
    shared = [parameter.grad.clone() for parameter in first.parameters()]
    first.zero_grad()
    (2 * first(x)).sum().backward()
    for one, other in zip(shared, (each.grad for each in first.parameters()), strict=True):
        torch.testing.assert_close(one, other)


@KINDS
def test_only_what_needs_a_gradient_gets_one(make):
    made = make()
    made.requires_grad_(False)
    x = torch.randn(5, 6, requires_grad=True)
    made(x).sum().backward()
    wanted = x.grad
    assert all(parameter.grad is None for parameter in made.parameters())
    made.requires_grad_(True)
    x = x.detach().requires_grad_()
    made(x).sum().backward()
    assert torch.equal(x.grad, wanted)
    x, grads = x.detach(), [parameter.grad for parameter in made.parameters()]
    made.zero_grad()
    made(x).sum().backward()
    assert x.grad is None
    for parameter, grad in zip(made.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad, grad)


def test_frozen_parameters_get_no_dense_gradients(monkeypatch):
    """The gradient of rows costs what the visited nodes cost."""
    made = fast().requires_grad_(False)
    seen = []
    backward = fffcpu.FastFeedForward.backward

    def keep(*arguments, row_sparse, **options):
        seen.append(row_sparse)
        return backward(*arguments, row_sparse=row_sparse, **options)

    monkeypatch.setattr(fffcpu.FastFeedForward, "backward", keep)
    for trained in (False, True):
        made.weights_out.requires_grad_(trained)
        made(torch.randn(5, 6, requires_grad=True)).sum().backward()
    assert seen == [True, False]


@KINDS
def test_modules_train_by_an_optimizer_and_the_layer_follows(make):
    made = make().train()
    layer = made.to_layer()
    x = torch.randn(200, 6)
    target = torch.tanh(x[:, :4])
    optimizer = torch.optim.Adam(made.parameters(), 0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(made(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    np.testing.assert_array_equal(made.eval()(x).detach().numpy(), layer(x.numpy()))


@KINDS
def test_state_dicts_have_the_names_and_shapes_of_the_layer(make):
    made = make()
    state = made.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == made.config.shapes()
    other = make()
    other.load_state_dict(state)
    x = torch.randn(5, 6)
    assert torch.equal(other(x), made(x))


def test_a_module_without_a_bias_has_none():
    made = fast(bias=False)
    assert made.bias_in is None
    assert list(made.state_dict()) == ["weights_in", "weights_out"]
    assert "bias_in" not in made.to_layer().params
    copied = copy.deepcopy(made)
    x = torch.randn(5, 6)
    assert torch.equal(copied(x), made(x))


def test_the_text_of_a_module_has_its_sizes():
    text = repr(torch.nn.Sequential(fast(two_sided=True), leaf()))
    assert "FastFeedForward(input_dim=6, output_dim=4, depth=3, trees=2" in text
    assert "two_sided=True" in text
    assert "LeafFeedForward(input_dim=6, output_dim=4, depth=3, leaf_width=5" in text


def test_dtypes_follow_pytorchs_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert fast().weights_in.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert fast().config.dtype == "float32"
    assert module.config_dtype(torch.bfloat16) == "float32"


@FORKS
@pytest.mark.slow
def test_children_of_a_fork_compute(program):
    """As the workers of a DataLoader do, after both pools of threads have started."""
    lines = run(
        program(
            "import os, sys, torch, fffcpu, warnings",
            "from fffcpu.torch import FastFeedForward",
            "warnings.simplefilter('ignore', DeprecationWarning)",
            "torch.manual_seed(0)",
            "module, x = FastFeedForward(64, 64, 8), torch.randn(4096, 64)",
            "def total():",
            "    module.zero_grad()",
            "    module(x).sum().backward()",
            "    return module.weights_in.grad.sum().item()",
            "here = total()",
            "torch.randn(500, 500) @ torch.randn(500, 500)",
            "child = os.fork()",
            "if not child:",
            "    fffcpu.set_num_threads(1)",
            "    torch.set_num_threads(1)",
            "    os._exit(total() != here)",
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), total() == here)",
        ),
        NUMBA_NUM_THREADS="2",
    )
    assert lines == ["0 True"]


@pytest.mark.slow
def test_calls_from_many_threads_at_once_are_safe():
    from concurrent.futures import ThreadPoolExecutor

    made = fast()
    batches = [torch.randn(rows, 6) for rows in (1, 7, 40, 300) for _ in range(8)]
    with torch.no_grad():
        wanted = [made(x) for x in batches]

    def call(x):
        with torch.no_grad():
            return copy.copy(made)(x)

    made._bound = None
    with ThreadPoolExecutor(4) as pool:
        for y, want in zip(pool.map(call, batches), wanted, strict=True):
            assert torch.equal(y, want)
