"""What tests of the modules share: problems as modules, tensors and gradients."""

from __future__ import annotations

import contextlib

import numpy as np
import torch

import fffcpu
from fffcpu.torch import FastFeedForward, LeafFeedForward, module

__all__ = [
    "assert_same",
    "gradients",
    "leaf_module",
    "path_module",
    "plain_pytorch",
    "tensor",
]


def path_module(problem, **options):
    """The module with the parameters of a problem."""
    layer = fffcpu.FastFeedForward.from_arrays(
        problem.weights_in, problem.weights_out, problem.bias, activation=problem.activation
    )
    return FastFeedForward.from_layer(layer, **options)


def leaf_module(problem, **options):
    """The module with the parameters of a problem."""
    layer = fffcpu.LeafFeedForward.from_arrays(**problem.params, activation=problem.activation)
    return LeafFeedForward.from_layer(layer, **options)


def tensor(array):
    """An array as a tensor whose gradient is wanted, with memory of its own."""
    return torch.from_numpy(array.copy()).requires_grad_()


def gradients(module, y, x, dy):
    """The gradients of rows and of parameters by name, as arrays."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    dx, *grads = torch.autograd.grad(y, (x, *parameters), torch.from_numpy(dy.copy()))
    return dx.numpy(), dict(zip(names, (grad.numpy() for grad in grads), strict=True))


@contextlib.contextmanager
def plain_pytorch(monkeypatch):
    """Context in which modules compute on the CPU as on other devices."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "runs_kernels", lambda tensor: False)
        yield


def assert_same(actual, expected, tolerance=1e-12, least=1e-300):
    """Fail unless arrays agree, relative to the largest number, which counts as ``least`` or more.

    PyTorch's GELU of large negative numbers is right only beside numbers of about 1.
    """
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=least)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest)
