"""FastFeedForward as a module of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

import fffcpu.layers
from fffcpu.checkpoints import ultrafastbert
from fffcpu.checks import check_flag
from fffcpu.config import FastFeedForwardConfig
from fffcpu.torch.module import FeedForward, needs_gradients, uniform_bound
from fffcpu.torch.operators import path_forward, path_infer
from fffcpu.torch.plain import fast_feed_forward

__all__ = ["FastFeedForward"]


class FastFeedForward(FeedForward):
    """Fast feedforward layer with a neuron at every node, as ``torch.nn.Module``.

    Parameters
    ----------
    input_dim, output_dim, depth, trees, bias, two_sided, activation
        As of `fffcpu.FastFeedForward`.
    straight_through : bool
        Whether routes have a gradient: the derivative of a choice, which is ``s > 0``, is taken to
        be the normal density at s. Otherwise routes are held constant. It may be changed later.
    device, dtype : optional
        Device and dtype of the parameters; by default PyTorch's.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Parameters are ``weights_in`` (T, N, I), ``bias_in`` (T, N) or None, and ``weights_out``
    (T, N, O), or (T, N, 2, O) if two-sided, with the initial values of `fffcpu.FastFeedForward`.

    ``module(x)`` takes a tensor of shape (..., I) and returns one of shape (..., O) in the
    parameters' dtype, to which x is converted, under autocast as well. On the CPU, in float32 and
    float64, it runs the kernels of fffcpu, and its outputs have their bits; elsewhere plain
    PyTorch. There are no second derivatives of kernels.

    Examples
    --------
    >>> import torch
    >>> from fffcpu.torch import FastFeedForward
    >>> module = FastFeedForward(16, 4, depth=3)
    >>> module(torch.ones(2, 5, 16)).shape
    torch.Size([2, 5, 4])
    """

    layer_type = fffcpu.layers.FastFeedForward
    published: ClassVar[ModuleType] = ultrafastbert

    straight_through: bool
    """Whether routes have a gradient."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        depth: int,
        trees: int = 1,
        *,
        bias: bool = True,
        two_sided: bool = False,
        activation: str = "gelu",
        straight_through: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config = FastFeedForwardConfig(
            input_dim,
            output_dim,
            depth,
            trees,
            bias=bias,
            two_sided=two_sided,
            activation=activation,
        )
        self.straight_through = check_flag("straight_through", straight_through)
        self._start(config, device, dtype)

    @classmethod
    def from_layer(cls, layer: Any, *, straight_through: bool = False) -> Self:
        """Make a module of a layer, in the same memory.

        Parameters
        ----------
        layer : fffcpu.FastFeedForward
            The layer. It changes as the module is trained; a copy of it, ``layer.copy()``, does
            not. Parameters that are read-only are copied.
        straight_through : bool
            As in the constructor.

        Returns
        -------
        FastFeedForward
            The module, on the CPU.

        Raises
        ------
        ArgumentTypeError
            If ``layer`` is anything else, such as a quantized layer.
        """
        module = cls._from_layer(layer)
        module.straight_through = check_flag("straight_through", straight_through)
        return module

    def _set_up(self, config: Any, tensors: Mapping[str, Tensor]) -> None:
        super()._set_up(config, tensors)
        if not config.bias:
            self.bias_in = None

    def _bounds(self) -> dict[str, float]:
        config = self._config
        bounds = dict.fromkeys(config.shapes(), uniform_bound(config.input_dim))
        return bounds | {"weights_out": uniform_bound(config.trees * (config.depth + 1))}

    def _kernels(self, rows: Tensor) -> Tensor:
        tensors, activation = self._arguments(rows), self._config.activation
        if needs_gradients(*tensors):
            return path_forward(*tensors, activation, self.straight_through)[0]
        return path_infer(*tensors, activation)

    def _plain(self, rows: Tensor) -> Tensor:
        options = self._config.activation, self.straight_through
        return fast_feed_forward(self._arguments(rows), *options)

    def _arguments(self, rows: Tensor) -> tuple[Tensor | None, ...]:
        return rows, self.weights_in, self.bias_in, self.weights_out
