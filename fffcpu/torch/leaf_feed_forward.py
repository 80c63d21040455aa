"""LeafFeedForward as a module of PyTorch.

The soft mixture of training consists of products of whole matrices, in `fffcpu.LeafFeedForward` as
well. So PyTorch computes it on every device, and autograd differentiates it; the kernel is that of
inference, where a row reads one leaf.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

import fffcpu.layers
from fffcpu.checkpoints import fastfeedforward
from fffcpu.checks import check_flag, check_number
from fffcpu.config import LeafFeedForwardConfig
from fffcpu.torch import plain
from fffcpu.torch.module import FeedForward, own_dtype, uniform_bound
from fffcpu.torch.operators import leaf_infer
from fffcpu.torch.plain import Mixture

__all__ = ["LeafFeedForward"]


class LeafFeedForward(FeedForward):
    """Fast feedforward layer with a small network in every leaf, as ``torch.nn.Module``.

    Parameters
    ----------
    input_dim, output_dim, depth, leaf_width, activation
        As of `fffcpu.LeafFeedForward`.
    region_leak : float
        Probability of inverting each gate's choice for a row, in training.
    dropout : float
        Probability of dropping an activation of a leaf, in training.
    hardened : bool
        Whether to round the choices in training, as inference does. They then pass no gradient to
        the gates, except through the entropies.
    device, dtype : optional
        Device and dtype of the parameters; by default PyTorch's.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Parameters have the names, the shapes and the initial values of `fffcpu.LeafFeedForward`.

    ``module(x)`` takes a tensor of shape (..., I) and returns one of shape (..., O) in the
    parameters' dtype, to which x is converted, under autocast as well. After ``train()`` it mixes
    all leaves, as `mixture` does. After ``eval()`` one leaf computes each row: on the CPU, in
    float32 and float64, by the kernels of fffcpu, with their bits; gradients then hold routes
    constant. ``region_leak``, ``dropout`` and ``hardened`` are attributes that may be changed.

    Examples
    --------
    >>> import torch
    >>> from fffcpu.torch import LeafFeedForward
    >>> module = LeafFeedForward(16, 4, depth=3, leaf_width=2)
    >>> y, entropies, *_ = module.mixture(torch.ones(5, 16))
    >>> y.shape, entropies.shape
    (torch.Size([5, 4]), torch.Size([7]))
    """

    layer_type = fffcpu.layers.LeafFeedForward
    published: ClassVar[ModuleType] = fastfeedforward

    region_leak: float
    """Probability of inverting each gate's choice for a row, in training."""
    dropout: float
    """Probability of dropping an activation of a leaf, in training."""
    hardened: bool
    """Whether choices are rounded in training."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        depth: int,
        leaf_width: int,
        *,
        activation: str = "relu",
        region_leak: float = 0.0,
        dropout: float = 0.0,
        hardened: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config = LeafFeedForwardConfig(
            input_dim, output_dim, depth, leaf_width, activation=activation
        )
        self._set_options(region_leak, dropout, hardened)
        self._start(config, device, dtype)

    def _set_options(self, region_leak: float, dropout: float, hardened: bool) -> None:
        self.region_leak = check_number("region_leak", region_leak, 0, 1)
        self.dropout = check_number("dropout", dropout, 0, 1)
        self.hardened = check_flag("hardened", hardened)

    @classmethod
    def from_layer(
        cls,
        layer: Any,
        *,
        region_leak: float = 0.0,
        dropout: float = 0.0,
        hardened: bool = False,
    ) -> Self:
        """Make a module of a layer, in the same memory.

        Parameters
        ----------
        layer : fffcpu.LeafFeedForward
            The layer. It changes as the module is trained; a copy of it, ``layer.copy()``, does
            not. Parameters that are read-only are copied.
        region_leak, dropout, hardened
            As in the constructor.

        Returns
        -------
        LeafFeedForward
            The module, on the CPU.

        Raises
        ------
        ArgumentTypeError
            If ``layer`` is anything else, such as a quantized layer.
        """
        module = cls._from_layer(layer)
        module._set_options(region_leak, dropout, hardened)
        return module

    def _bounds(self) -> dict[str, float]:
        config = self._config
        return {
            name: uniform_bound(config.leaf_width if name.endswith("_out") else config.input_dim)
            for name in config.shapes()
        }

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer: the mixture of all leaves in training, else one leaf per row.

        Parameters
        ----------
        x : tensor of shape (..., I)
            Real numbers of any dtype, on the parameters' device.

        Returns
        -------
        tensor of shape (..., O)
            The output, in the parameters' dtype.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If ``x`` is not such a tensor.
        """
        return self.mixture(x).y if self.training else super().forward(x)

    def _kernels(self, rows: Tensor) -> Tensor:
        return leaf_infer(rows, *self._tensors(), self._config.activation)

    def _plain(self, rows: Tensor) -> Tensor:
        return plain.leaf_inference(rows, self._tensors(), self._config.activation)

    def mixture(self, x: Tensor) -> Mixture:
        """Mix all leaves, as training does.

        Parameters
        ----------
        x : tensor of shape (..., I)
            Real numbers of any dtype, on the parameters' device.

        Returns
        -------
        Mixture
            ``y`` (..., O), the mean ``entropies`` of the gates' choices (G,), and ``gate_usage``
            and ``leaf_usage``. The hardening loss is ``h * entropies.sum()`` (arXiv 2308.14711,
            section 2.3); autograd differentiates it.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If ``x`` is not such a tensor.

        Notes
        -----
        In training, region leak and dropout draw from PyTorch's generator; after ``eval()`` there
        are none. The entropies are a result and not kept by the module, so that a module that is
        called twice, copied or compiled gives each call its own.
        """
        rows = self._rows(x)
        flips = kept = None
        if self.training and self.region_leak:
            gates = (len(rows), len(self.gate_bias))
            flips = torch.rand(gates, device=rows.device) < self.region_leak
        if self.training and self.dropout:
            ones = rows.new_ones((len(rows), *self.leaf_bias_in.shape))
            kept = functional.dropout(ones, self.dropout)
        hardened = self.training and self.hardened
        with own_dtype(rows):
            y, *rest = plain.mixture(
                rows, self._tensors(), self._config.activation, flips, kept, hardened
            )
        return Mixture(self._shaped(y, x), *rest)
