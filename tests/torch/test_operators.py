"""The operators as PyTorch's compilers, tracers and transforms see them."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad
from torch.library import opcheck

from fffcpu.torch import FastFeedForward, LeafFeedForward, operators

OPERATORS = torch.ops.fffcpu

pytestmark = [
    # PyTorch calls what it deprecates, opcheck looks at gradients of what is no leaf, and 2.4 says
    # that it exports operators of others as they are.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:At pre-dispatch tracing, we will assume:UserWarning"),
    pytest.mark.filterwarnings("ignore:You are using `torch.load` with:FutureWarning"),
]


def fast(**options):
    return FastFeedForward(9, 5, 3, 2, **options)


def leaf(**options):
    return LeafFeedForward(9, 5, 2, 3, **options).eval()


KINDS = pytest.mark.parametrize("make", [fast, leaf])


def detached(arguments):
    return tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)


def path_samples(dtype, bias, two_sided, straight_through):
    """Each operator of FastFeedForward, with its arguments."""
    made = fast(bias=bias, two_sided=two_sided, dtype=dtype)
    parameters = (made.weights_in, made.bias_in, made.weights_out, "gelu")
    x = torch.randn(4, 9, dtype=dtype, requires_grad=True)
    y, logits, nodes = OPERATORS.path_forward(x, *parameters, straight_through)
    backward = detached((torch.randn_like(y), x, logits, nodes, *parameters, straight_through))
    yield OPERATORS.path_forward, (x, *parameters, straight_through)
    yield OPERATORS.path_infer, detached((x, *parameters))
    yield OPERATORS.path_backward, backward
    yield OPERATORS.path_backward_x, backward


@pytest.mark.parametrize(
    ("dtype", "bias", "two_sided", "straight_through"),
    [(torch.float32, True, False, False), (torch.float64, False, True, True)],
)
def test_operators_of_fast_feed_forward_pass_opcheck(dtype, bias, two_sided, straight_through):
    for operator, arguments in path_samples(dtype, bias, two_sided, straight_through):
        opcheck(operator.default, arguments)


def test_operators_of_leaf_feed_forward_pass_opcheck():
    made = leaf()
    x = torch.randn(4, 9, requires_grad=True)
    arguments = (x, *made.parameters(), "relu")
    opcheck(OPERATORS.leaf_infer.default, arguments)
    opcheck(OPERATORS.leaf_backward.default, detached((torch.randn(4, 5), *arguments)))


@KINDS
def test_gradients_pass_gradcheck(make):
    """At steps of 1e-6, no logit of these rows changes its sign."""
    made = make(dtype=torch.float64, activation="gelu")
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*made.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters))


@KINDS
def test_second_derivatives_are_an_error_or_plain_pytorchs(make):
    made = make(dtype=torch.float64)
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(made(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        dx.sum().backward()
    hessian = torch.func.hessian(lambda x: made(x).square().sum())(x)
    assert hessian.shape == (4, 9, 4, 9)
    assert hessian.abs().max() > 0


@KINDS
def test_transforms_take_plain_pytorch(make):
    made = make(dtype=torch.float64)
    x = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(made(x).sum(), x)
    rows = x.detach()
    parameters = {name: value.detach() for name, value in made.named_parameters()}

    def total(parameters, row):
        return torch.func.functional_call(made, parameters, (row,)).sum()

    torch.testing.assert_close(torch.func.grad(lambda x: made(x).sum())(rows), wanted)
    per_row = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(parameters, rows)
    made.zero_grad()
    made(x).sum().backward()
    for name, value in made.named_parameters():
        torch.testing.assert_close(per_row[name].sum(0), value.grad)
    direction = torch.randn_like(rows)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(made)(rows), made(rows))
        _, along = torch.func.jvp(made, (rows,), (direction,))
        torch.testing.assert_close(along.sum(), (direction * wanted).sum())
        with forward_ad.dual_level():
            dual = made(forward_ad.make_dual(rows, direction))
            torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, along)


COMPILER = pytest.param(
    "inductor",
    marks=[
        pytest.mark.thorough,
        pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler"),
        # It imports modules that are deprecated by others.
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        pytest.mark.filterwarnings("ignore::FutureWarning"),
        pytest.mark.filterwarnings("ignore::UserWarning"),
    ],
)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("compiler", ["eager", "aot_eager", COMPILER])
@pytest.mark.parametrize("training", [True, False])
def test_modules_compile_as_one_graph(make, compiler, training):
    torch._dynamo.reset()
    made = make().train(training)
    compiled = torch.compile(made, fullgraph=True, backend=compiler)
    for rows in (3, 5, 5, 8):  # the second size makes the number of rows dynamic
        x = torch.randn(rows, 2, 9, requires_grad=True)
        inputs = (x, *made.parameters())
        wanted = torch.autograd.grad(made(x).square().sum(), inputs)
        for grad, want in zip(
            torch.autograd.grad(compiled(x).square().sum(), inputs), wanted, strict=True
        ):
            torch.testing.assert_close(grad, want)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), made(x))


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_plain_pytorch_compiles_as_one_graph(make, training):
    torch._dynamo.reset()
    made = make(dtype=torch.bfloat16).train(training)
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    x = torch.randn(5, 9)
    torch.testing.assert_close(compiled(x), made(x))
    compiled(x).sum().backward()


@pytest.mark.slow
def test_a_network_that_holds_modules_compiles_and_learns_routes():
    torch._dynamo.reset()
    network = torch.nn.Sequential(
        torch.nn.Linear(9, 9), fast(two_sided=True, straight_through=True), torch.nn.Linear(5, 1)
    )
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=True)
    x = torch.randn(20, 9)
    wanted = torch.autograd.grad(network(x).sum(), tuple(network.parameters()))
    grads = torch.autograd.grad(compiled(x).sum(), tuple(network.parameters()))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("strict", [True, False])
def test_modules_export_with_any_number_of_rows(make, strict, tmp_path):
    torch._dynamo.reset()
    made = make()
    shapes = ({0: torch.export.Dim("rows", min=1)},)
    with torch.no_grad():
        program = torch.export.export(
            made, (torch.randn(4, 9),), dynamic_shapes=shapes, strict=strict
        )
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    name = "path_infer" if isinstance(made, FastFeedForward) else "leaf_infer"
    assert getattr(OPERATORS, name).default in calls
    torch.export.save(program, tmp_path / "module.pt2")
    loaded = torch.export.load(tmp_path / "module.pt2").module()
    for rows in (1, 6, 50):
        x = torch.randn(rows, 9)
        assert torch.equal(loaded(x), made(x))


@KINDS
def test_modes_see_each_operator(make):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    made, seen = make(), []
    with torch.no_grad():
        made(torch.randn(2, 9))
        with Names():
            made(torch.randn(2, 9))
    assert any(name.startswith("fffcpu.") for name in seen)


@KINDS
def test_fake_tensors_give_shapes(make):
    from torch._subclasses.fake_tensor import FakeTensorMode

    made = make()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = made(mode.from_tensor(torch.randn(7, 2, 9)))
    assert y.shape == (7, 2, 5)
    assert type(y).__name__ == "FakeTensor"


def test_private_parts_of_pytorch_are_where_they_are_looked_for():
    """What `fffcpu.torch` asks that PyTorch has no public function for."""
    assert operators.dispatch_modes() == 0
    assert operators.tracing_state() is None
    assert forward_ad._current_level == -1
    assert not operators.is_transformed()
    assert torch.func.vmap(lambda x: x * operators.is_transformed())(torch.ones(2)).all()
    with forward_ad.dual_level():
        assert operators.is_transformed()
