"""Plots: measured speed-ups, quality against time, usage of trees, histories (extra: plot).

The colours are distinct for colour-blind readers and in print: orange is slower or less, purple is
faster or more. Lines also differ in their markers.
"""

from __future__ import annotations

from fffcpu.plots.figure import check_plot_path
from fffcpu.plots.history import plot_history
from fffcpu.plots.leaves import plot_prototypes, plot_regions
from fffcpu.plots.speedups import SpeedUp, plot_speedups
from fffcpu.plots.tradeoff import Timed, plot_tradeoff
from fffcpu.plots.tree import plot_tree

__all__ = [
    "SpeedUp",
    "Timed",
    "check_plot_path",
    "plot_history",
    "plot_prototypes",
    "plot_regions",
    "plot_speedups",
    "plot_tradeoff",
    "plot_tree",
]
