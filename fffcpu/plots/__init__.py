"""Pictures: measured speed-ups, how a layer's trees are used, a training's history (extra: plot).

Colour-blind readers can tell the colours apart, and so can readers of a print: orange is slower or
less, purple is faster or more. Lines differ in their markers as well.
"""

from __future__ import annotations

from fffcpu.plots.figure import check_plot_path
from fffcpu.plots.history import plot_history
from fffcpu.plots.leaves import plot_prototypes, plot_regions
from fffcpu.plots.speedups import SpeedUp, plot_speedups
from fffcpu.plots.tree import plot_tree

__all__ = [
    "SpeedUp",
    "check_plot_path",
    "plot_history",
    "plot_prototypes",
    "plot_regions",
    "plot_speedups",
    "plot_tree",
]
