"""
Fast layer or leaf layer
========================

There are two fast feedforward layers. In `fffcpu.FastFeedForward` every node of a tree is a neuron
and a row uses those on its path. In `fffcpu.LeafFeedForward` nodes only decide, and a row uses the
small network in the leaf that it reaches. This lesson trains both, and a dense layer, on the
digits, and sets accuracy against the multiply-adds that a row costs.
"""

# %%
# What a row costs
# ----------------
# With I inputs and O outputs a neuron costs I multiply-adds to be computed and O to be added to the
# output; a gate costs I. A layer's ``config.multiply_adds`` adds them up for one row.

import matplotlib.pyplot as plt
import numpy as np

from fffcpu.data import Table, load_digits
from fffcpu.recipes.fitting import FitSettings, evaluate_table, fit

# %%
# Training
# --------
# `fffcpu.recipes.fitting.fit` trains all three alike. Settings differ in what makes a row dearer:
# more trees, wider leaves, more neurons.

images, labels = load_digits()
order = np.random.default_rng(0).permutation(len(images))
train, test = (
    Table(images[rows], labels[rows], classes=tuple(range(10)))
    for rows in (order[:1400], order[1400:])
)
recipe = {"epochs": 15, "lr": 0.01, "validation": 0.0}
runs = {
    "fast": [FitSettings(layer="fast", depth=3, trees=n, **recipe) for n in (1, 2, 4, 8)],
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
            f"{name:<6} {cost:>5,} multiply-adds a row, "
            f"{predictor.layer.config.neurons:>3} neurons held, accuracy {accuracy:.3f}"
        )

# %%
# Comparison
# ----------
# For the same multiply-adds both trees hold more neurons than the dense layer. With the fewest
# the fast layer is ahead; on a table this small a dense layer of sixteen neurons is as good and
# needs no tree. Trees are for tasks that need more neurons than every row can pay for. The two
# differ in where decisions are made: the neurons of the fast layer decide and add to the output,
# and the leaf layer pays for gates that only decide. With narrow leaves most of its price is gates;
# with wide ones nearly all of it is neurons.

figure, axes = plt.subplots(layout="constrained")
styles = {"fast": ("o-", "tab:purple"), "leaf": ("s-", "tab:orange"), "dense": ("^--", "gray")}
for name, (style, colour) in styles.items():
    axes.plot(*zip(*points[name], strict=True), style, color=colour, label=f"{name} layer")
axes.set_xscale("log", base=2)
axes.set_xticks([256, 512, 1024, 2048], labels=["256", "512", "1,024", "2,048"])
axes.set_xlabel("multiply-adds a row")
axes.set_ylabel("accuracy on test rows")
axes.grid(alpha=0.3)
axes.legend()
plt.show()
