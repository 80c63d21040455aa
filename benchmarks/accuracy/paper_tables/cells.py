"""The cells of the tables: layers with their settings on a data set, trained with each seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Data(NamedTuple):
    """The sizes of a data set, and the scaling of its columns."""

    inputs: int
    outputs: int
    standardize: str
    """Pixels have one common scale, measurements each their own."""


DATA = {
    "mnist": Data(784, 10, "table"),
    "fashion-mnist": Data(784, 10, "table"),
    "letters": Data(16, 26, "columns"),
    "satellite": Data(36, 6, "columns"),
}

WIDTHS = (16, 32, 64, 128)
"""Training widths of table 1."""

LEAF_WIDTHS = (8, 4, 2, 1)

DEEPEST = 15
"""Largest depth of a tree. One more level would double its 65,535 neurons."""

RECIPES: dict[str, dict[str, Any]] = {
    "mnist": {"epochs": 25, "batch_size": 256},
    "fashion-mnist": {"epochs": 25, "batch_size": 256},
    "letters": {"epochs": 100, "batch_size": 256},
    "satellite": {"epochs": 100, "batch_size": 256},
}
"""Settings of all layers in table 1, in addition to the defaults of `FitSettings`. For letters and
satellite they were chosen from `RECIPE_CHOICES`, by the leaf layer 8 of 128 and the dense layer 128
alike."""

RECIPE_CHOICES = ((25, 256), (25, 64), (100, 256))
"""Epochs and rows per step."""


class Chosen(NamedTuple):
    """Settings of the trees, or of their dense layer."""

    lr: float
    weight_decay: float
    validation: float
    """Mean accuracy on the held-out rows, by which they were chosen."""


CHOSEN = {
    ("mnist", "fast"): Chosen(0.004, 0.2, 0.960),
    ("mnist", "dense"): Chosen(0.004, 0.2, 0.958),
    ("fashion-mnist", "fast"): Chosen(0.004, 0.2, 0.880),
    ("fashion-mnist", "dense"): Chosen(0.004, 0.2, 0.876),
    ("letters", "fast"): Chosen(0.04, 0.01, 0.882),
    ("letters", "dense"): Chosen(0.02, 0.01, 0.836),
    ("satellite", "fast"): Chosen(0.04, 0.01, 0.897),
    ("satellite", "dense"): Chosen(0.04, 0.0, 0.901),
}
"""For letters and satellite they were chosen from `RATES` x `DECAYS` (`choose`), by 4 trees of
depth 3 and the dense layer of 16 neurons. For the images see docs/benchmarks.md. Accuracies are
means of seeds 0, 1 and 2, for letters that of seed 0."""

RATES = (0.002, 0.004, 0.01, 0.02, 0.04)
DECAYS = (0.0, 0.01, 0.2)

ROUTES = {"fast": {"straight_through": True}, "dense": {}}
"""Recorded with each run, since the default may change."""

FOREST = {"trees": 4, "depth": 3}
LEAVES = {"depth": 4, "leaf_width": 8}
"""The layers that settings are chosen by, and that methods are tried on."""


class Method(NamedTuple):
    """One change in the way to train."""

    name: str
    layers: tuple[str, ...]
    """The kinds of layers that it is for."""
    changes: dict[str, Any]
    """Fields of `FitSettings` that have other values."""
    maker: str = ""
    """Key of `methods.MAKERS`, if the library does not have the method."""


BOTH = ("leaf", "fast")

METHODS = (
    Method("as in the other tables", BOTH, {}),
    Method("no hardening", ("leaf",), {"hardening": 0.0}),
    Method("hardening 1", ("leaf",), {"hardening": 1.0}),
    Method("hardening 3", ("leaf",), {"hardening": 3.0}),
    Method("hardening rises to 0.3", ("leaf",), {"hardening_schedule": "linear"}),
    Method("hardening rises to 3", ("leaf",), {"hardening": 3.0, "hardening_schedule": "linear"}),
    Method("region leak 0.05", ("leaf",), {"region_leak": 0.05}),
    Method("dropout 0.1", ("leaf",), {"dropout": 0.1}),
    Method("no weight decay", BOTH, {"weight_decay": 0.0}),
    Method("local Adam, no weight decay", BOTH, {"optimizer": "local-adam", "weight_decay": 0.0}),
    Method("SGD, 0.1, no weight decay", BOTH, {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0}),
    Method(
        "local SGD, 0.1, no weight decay",
        BOTH,
        {"optimizer": "local-sgd", "lr": 0.1, "weight_decay": 0.0},
    ),
    Method("routes held constant", ("fast",), {"straight_through": False}),
    *(
        Method(name, (layer,), changes, name)
        for layer, name, changes in (
            ("fast", "soft routes, temperature 1 to 0.03", {}),
            ("fast", "soft routes, temperature 0.3 to 0.03", {}),
            ("fast", "load balancing 0.1", {}),
            ("fast", "dropout of nodes 0.1", {}),
            ("fast", "decay doubles from level to level", {"weight_decay": 0.0}),
            ("fast", "decay halves from level to level", {"weight_decay": 0.0}),
            ("fast", "balanced routes", {}),
            ("leaf", "load balancing of leaves 0.1", {}),
            ("leaf", "load balancing of leaves 1", {}),
            ("leaf", "master leaf, half of the neurons", {}),
        )
    ),
)
"""A local optimizer adds its weight decay to the gradient, and AdamW does not. So they are compared
without weight decay."""


class Cell(NamedTuple):
    """A layer with its settings on a data set, which is trained with each seed."""

    data: str
    layer: str
    """Name of the layer in `FitSettings`: "fast", "leaf" or "dense"."""
    sizes: dict[str, Any]
    settings: dict[str, Any]
    label: str = ""
    """Its name in a table, where data and sizes are not enough."""
    maker: str = ""
    """Key of `methods.MAKERS`."""

    def run(self, seed: int) -> dict[str, Any]:
        """Return the values that identify a run."""
        return {
            "data": self.data,
            "layer": self.layer,
            "sizes": self.sizes,
            "seed": seed,
            "settings": self.settings,
            "maker": self.maker,
        }

    def __str__(self) -> str:
        """The layer, by its sizes."""
        sizes = self.sizes
        if self.layer == "fast":
            trees = "1 tree" if sizes["trees"] == 1 else f"{sizes['trees']} trees"
            return f"{trees} of depth {sizes['depth']}"
        if self.layer == "leaf":
            return f"{sizes['leaf_width']} of {sizes['leaf_width'] << sizes['depth']}"
        return f"dense {sizes['width']}"


def table1_cells(data: Iterable[str]) -> list[Cell]:
    """Return the dense layer of each training width, and the leaf layers."""
    cells = []
    for name in data:
        settings = recipe(name)
        for width in WIDTHS:
            cells.append(Cell(name, "dense", {"width": width}, settings))
            cells += [Cell(name, "leaf", sizes, settings) for sizes in leaf_sizes(width)]
    return cells


def recipe(data: str) -> dict[str, Any]:
    """Return the settings of table 1."""
    return {**RECIPES[data], "standardize": DATA[data].standardize, "activation": "relu"}


def leaf_sizes(width: int) -> list[dict[str, Any]]:
    """Return the sizes of the leaf layers of a training width, which is a power of two."""
    return [
        {"depth": (width // leaf_width).bit_length() - 1, "leaf_width": leaf_width}
        for leaf_width in LEAF_WIDTHS
    ]


def tree_sizes(active: int) -> list[dict[str, Any]]:
    """Return the sizes of all forests that use ``active`` neurons per row, up to `DEEPEST`."""
    return [
        {"trees": trees, "depth": active // trees - 1}
        for trees in range(1, active + 1)
        if active % trees == 0 and active // trees - 1 <= DEEPEST
    ]


def trees_cells(data: Iterable[str], active: int, learn: bool = True) -> list[Cell]:
    """Return forests and a dense layer of ``active`` neurons per row.

    The routes of the forests are trained if ``learn`` is true.
    """
    cells = []
    for name in data:
        dense = {"width": active}
        forest = tuned(name, "fast") | {"straight_through": learn}
        cells += [Cell(name, "fast", sizes, forest) for sizes in tree_sizes(active)]
        cells.append(Cell(name, "dense", dense, tuned(name, "dense")))
    return cells


def tuned(data: str, layer: str) -> dict[str, Any]:
    """Return the chosen settings of the trees, or of their dense layer."""
    chosen = CHOSEN[data, layer]
    return {
        **ROUTES[layer],
        "lr": chosen.lr,
        "weight_decay": chosen.weight_decay,
        "standardize": DATA[data].standardize,
    }


def methods_cells(data: Iterable[str]) -> list[Cell]:
    """Return each layer as in the other tables, and with each of the methods."""
    cells = []
    for name in data:
        bases = {
            "leaf": (LEAVES, recipe(name)),
            "fast": (FOREST, tuned(name, "fast")),
        }
        for layer, (sizes, settings) in bases.items():
            cells += [
                Cell(name, layer, sizes, {**settings, **method.changes}, method.name, method.maker)
                for method in METHODS
                if layer in method.layers
            ]
    return cells


def choose_cells(data: Iterable[str]) -> list[Cell]:
    """Return the layers that settings are chosen by, with each of the settings."""
    cells = []
    for name in data:
        common = {"standardize": DATA[name].standardize}
        for layer, sizes in (("fast", FOREST), ("dense", {"width": 16})):
            cells += [
                Cell(
                    name,
                    layer,
                    sizes,
                    {**ROUTES[layer], **common, "lr": rate, "weight_decay": decay},
                    f"learning rate {rate:g}, weight decay {decay:g}",
                )
                for rate in RATES
                for decay in DECAYS
            ]
        for layer, sizes in (("leaf", LEAVES), ("dense", {"width": 128})):
            cells += [
                Cell(
                    name,
                    layer,
                    sizes,
                    {**common, "activation": "relu", "epochs": epochs, "batch_size": rows},
                    f"{epochs} epochs, {rows} rows per step",
                )
                for epochs, rows in RECIPE_CHOICES
            ]
    return cells
