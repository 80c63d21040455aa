"""
Fast layer or leaf layer?
=========================

There are two fast feedforward layers. In `fffcpu.FastFeedForward` every node of a tree is a neuron,
and a row uses the neurons on its path. In `fffcpu.LeafFeedForward` the nodes only decide, and a row
uses the small network in the leaf that it reaches. This lesson trains both on the digits, and a
dense layer as well. It compares their accuracy at the same number of multiply-adds per row.
"""

# %%
# What a row costs
# ----------------
# A layer has I inputs and O outputs. A neuron costs I multiply-adds to compute, and O to add it to
# the output. A gate costs I. ``config.multiply_adds`` is the sum for one row.

import matplotlib.pyplot as plt
import numpy as np

from fffcpu.data import Table, load_digits
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit

# %%
# Training
# --------
# `fffcpu.recipes.fitting.fit` trains all three in the same way. The settings differ in what makes a
# row more expensive: more trees, wider leaves, or more neurons. The nodes of the fast layer are
# two-sided, so they have separate output weights for rows that go left and right.

images, labels = load_digits()
order = np.random.default_rng(0).permutation(len(images))
train, test = (
    Table(images[rows], labels[rows], classes=tuple(range(10)))
    for rows in (order[:1400], order[1400:])
)
recipe = {"epochs": 15, "lr": 0.01, "weight_decay": 0.1, "validation": 0.0}
runs = {
    "fast": [
        FitSettings(layer="fast", depth=3, trees=n, two_sided=True, **recipe) for n in (1, 2, 4, 8)
    ],
    "leaf": [
        FitSettings(layer="leaf", depth=3, leaf_width=n, region_leak=0.05, **recipe)
        for n in (1, 4, 12, 28)
    ],
    "dense": [FitSettings(layer="dense", width=n, **recipe) for n in (4, 8, 16, 32)],
}
points = {}
for name, settings in runs.items():
    points[name] = []
    for setting in settings:
        predictor = fit(train, setting, progress=False).predictor
        cost = predictor.layer.config.multiply_adds
        accuracy = evaluate_table(predictor, test)["accuracy"]
        points[name].append((cost, accuracy))
        print(
            f"{name:<6} {cost:>5,} multiply-adds per row, "
            f"{predictor.layer.config.neurons:>3} neurons held, accuracy {accuracy:.3f}"
        )

# %%
# Comparison
# ----------
# Each step to the right on the axis below doubles the multiply-adds per row.
#
# - On the left, where a row can use few neurons, the fast layer is far ahead. It holds 15 or 30
#   neurons where the dense layer has 4 or 8.
# - On the right, all three are level. On a table this small, a dense layer of 16 neurons is as
#   good as any, and needs no tree. Trees help where a task needs more neurons than each row can
#   pay for.
# - The leaf layer starts low. With narrow leaves, it spends most of its multiply-adds on gates,
#   which add nothing to the output. With wide leaves nearly all go to neurons.

figure, axes = plt.subplots(layout="constrained")
styles = {"fast": ("o-", "tab:purple"), "leaf": ("s-", "tab:orange"), "dense": ("^--", "gray")}
for name, (style, colour) in styles.items():
    axes.plot(*zip(*points[name], strict=True), style, color=colour, label=f"{name} layer")
axes.set_xscale("log", base=2)
axes.set_xticks([256, 512, 1024, 2048], labels=["256", "512", "1,024", "2,048"])
axes.set_xlabel("multiply-adds per row (each tick doubles)")
axes.set_ylabel("accuracy on test rows")
axes.grid(alpha=0.3)
axes.legend()
plt.show()
