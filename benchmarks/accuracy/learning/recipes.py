"""Recipes: everything that decides how a layer learns; and the changes of them that are tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

BASE = "base"
"""The name of the try that changes nothing."""

UNIFORM, BALANCED, TARGETS = "uniform", "balanced", "targets"
CLUSTERS, NEURONS, NORMS = "clusters", "neurons", "norms"
"""Initial weights; `benchmarks.accuracy.learning.starts` makes all but the uniform ones."""

NORMAL, SMOOTH_STEP = "normal", "smooth-step"
"""Densities; `benchmarks.accuracy.learning.routes` defines them."""


class Recipe(NamedTuple):
    """A layer and its training."""

    trees: int
    depth: int
    epochs: int
    batch_size: int
    lr: float
    """Peak learning rate."""
    weight_decay: float
    rows: int | None = None
    """Number of training rows, the first ones; None for all."""

    # The layer.
    width: int = 0
    """Number of neurons of a dense layer; 0 for trees."""
    two_sided: bool = True
    activation: str = "gelu"
    side_constants: bool = False
    """Whether each side of a node adds a vector of its own, without activation."""

    # Initial weights.
    start: str = UNIFORM
    input_scale: float = 1.0
    """Factor of the initial input weights."""
    output_scale: float = 1.0
    """Factor of the initial output weights."""

    # The gradient of routes.
    straight_through: bool = True
    """Whether routes have a gradient."""
    route_factor: float = 1.0
    density: str = NORMAL
    density_width: float = 1.0
    final_density_width: float | None = None
    """Width at the end of the training, to which it falls by equal factors; None for no change."""

    # Constraints on routes, at each step.
    balancing: float = 0.0
    """Step of the bias of a node towards equally many rows on both sides."""
    fixed_norms: bool = False
    """Whether the input weights of a node keep their initial norm."""

    # The optimizer.
    second_moment: float = 0.999
    epsilon: float = 1e-8
    input_rate: float = 1.0
    """Factor of the learning rate of input weights and biases."""
    level_rate: float = 1.0
    """Factor of the learning rate from each level to the next."""
    averaging: float = 0.0
    """Share of the averaged weights that stays at each step; 0 for no average."""

    # The rows and the forward pass.
    noise: float = 0.0
    """Standard deviation of the noise on inputs."""
    flips: float = 0.0
    """Share of the choices in which a row takes the other side."""
    soft_share: float = 0.0
    """Share of the steps that compute all nodes."""
    temperature: float = 0.2
    """Temperature of choices at the first of these steps."""
    final_temperature: float = 0.05

    @property
    def reweighs_routes(self) -> bool:
        """Whether the gradient of routes differs from that of the layer."""
        return self.straight_through and (
            self.route_factor != 1.0
            or self.density != NORMAL
            or self.density_width != 1.0
            or self.final_density_width is not None
        )


class Times(NamedTuple):
    """A change that multiplies the number of the base."""

    factor: float


Changes = Mapping[str, Any]
"""New values of fields of a `Recipe`, or `Times` for a multiple of the old one."""

TRIES: dict[str, Changes] = {
    BASE: {},
    "one-sided": {"two_sided": False},
    "side-constants": {"side_constants": True},
    "relu": {"activation": "relu"},
    "identity": {"activation": "identity"},
    "constant-routes": {"straight_through": False},
    "routes-x0.3": {"route_factor": 0.3},
    "routes-x3": {"route_factor": 3.0},
    "density-0.5": {"density_width": 0.5},
    "density-2": {"density_width": 2.0},
    "density-2-to-0.5": {"density_width": 2.0, "final_density_width": 0.5},
    "density-smooth-step": {"density": SMOOTH_STEP, "density_width": 2.0},
    "soft": {"soft_share": 0.75, "epochs": Times(4 / 3)},
    "balanced-start": {"start": BALANCED},
    "start-from-targets": {"start": TARGETS},
    "start-from-clusters": {"start": CLUSTERS},
    "balancing-0.001": {"balancing": 0.001},
    "balancing-0.01": {"balancing": 0.01},
    "fixed-norms": {"fixed_norms": True},
    "flips-0.01": {"flips": 0.01},
    "flips-0.05": {"flips": 0.05},
    "input-weights-x0.5": {"input_scale": 0.5},
    "input-weights-x2": {"input_scale": 2.0},
    "output-weights-0": {"output_scale": 0.0},
    "rate-x0.5": {"lr": Times(0.5)},
    "rate-x2": {"lr": Times(2.0)},
    "input-rate-x0.5": {"input_rate": 0.5},
    "input-rate-x2": {"input_rate": 2.0},
    "level-rates-x0.85": {"level_rate": 0.85},
    "level-rates-x1.15": {"level_rate": 1.15},
    "decay-x0.1": {"weight_decay": Times(0.1)},
    "decay-x0.3": {"weight_decay": Times(0.3)},
    "decay-x3": {"weight_decay": Times(3.0)},
    "batch-x0.5": {"batch_size": Times(0.5)},
    "batch-x2": {"batch_size": Times(2.0)},
    "second-moment-0.99": {"second_moment": 0.99},
    "epsilon-1e-6": {"epsilon": 1e-6},
    "averaged-weights": {"averaging": 0.999},
    "noise-0.1": {"noise": 0.1},
    "epochs-x1.33": {"epochs": Times(4 / 3)},
    "epochs-x2.67": {"epochs": Times(8 / 3)},
}
"""The tries of every set, by name."""

TEACHER_TRIES: dict[str, Changes] = {
    "start-from-neurons": {"start": NEURONS},
    "start-from-norms": {"start": NORMS},
}
"""Further tries where the targets are outputs of a feedforward whose neurons are known."""


def changed(base: Recipe, changes: Changes) -> Recipe:
    """Return the recipe of a try."""
    return base._replace(
        **{name: changed_value(getattr(base, name), value) for name, value in changes.items()}
    )


def changed_value(old: Any, new: Any) -> Any:
    """Return the new value of a field. Multiples of whole numbers are rounded."""
    if not isinstance(new, Times):
        return new
    return round(old * new.factor) if isinstance(old, int) else old * new.factor
