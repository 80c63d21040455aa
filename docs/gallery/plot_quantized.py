"""
Smaller weights: bfloat16 and int8
==================================

``layer.quantize`` rounds the weights of a trained layer. bfloat16 takes two bytes per weight. int8
takes one byte, and a scale for each neuron. This lesson measures the price: how far outputs move,
how many rows change their route, and what happens to the accuracy. It also shows why the scaling of
the inputs matters.
"""

# %%
# Two layers for the digits
# -------------------------
# The two layers differ only in how pixels are scaled for training. ``standardize="columns"``
# divides each pixel by its own standard deviation. ``"table"`` divides all pixels by the same
# number. After training, the scaling becomes part of the weights. The nodes are two-sided, as by
# default.

import matplotlib.pyplot as plt
import numpy as np

from fffcpu.data import load_digits
from fffcpu.sklearn import FFFClassifier

images, labels = load_digits()
order = np.random.default_rng(0).permutation(len(images))
train, test = order[:1200], order[1200:]
layers = {}
for scaling in ("table", "columns"):
    classifier = FFFClassifier(
        trees=4, depth=6, two_sided=True, max_iter=15, standardize=scaling, random_state=0
    )
    layers[scaling] = classifier.fit(images[train], labels[train]).layer_

# %%
# The price
# ---------
# ``route`` returns the nodes that a row visits in each tree. A row is *flipped* if one of its paths
# has changed. Its output then comes from other neurons, so the largest error is that of the other
# rows. Errors are relative to the largest output.

x, y = images[test], labels[test]
errors = {}
print("scaling  weights      bytes  flipped rows  error, same route  accuracy")
for scaling, layer in layers.items():
    outputs, routes = layer(x), layer.route(x)
    for weights in ("float32", "bfloat16", "int8"):
        rounded = layer if weights == "float32" else layer.quantize(weights)
        flipped = (rounded.route(x) != routes).any(axis=(1, 2))
        error = np.abs(rounded(x) - outputs).max(axis=1) / np.abs(outputs).max()
        accuracy = (rounded(x).argmax(axis=1) == y).mean()
        print(
            f"{scaling:<8} {weights:<9} {rounded.nbytes:>8,} {flipped.mean():>13.1%} "
            f"{error[~flipped].max():>18.2%} {accuracy:>9.3f}"
        )
        errors[scaling, weights] = error

# %%
# The bytes are a little more than a half and a quarter, because biases and the scales of int8
# remain float32. With one scaling for the table, both types cost next to nothing: few rows flip,
# and the accuracy stays. With a scaling for each column, bfloat16 is as good. int8 is much worse:
# most rows flip, and the accuracy falls.
#
# The picture shows the same for all rows, flipped or not. A curve further to the left is better.
# Each tick on the horizontal axis is ten times the one before. With int8 and a scaling for each
# column, a typical error is 10% of the largest output. In the other cases it is below 0.2%.

figure, axes = plt.subplots(layout="constrained")
for (scaling, weights), error in errors.items():
    if weights != "float32":
        axes.plot(
            np.sort(error),
            np.arange(1, len(error) + 1) / len(error),
            "-" if scaling == "table" else "--",
            color="tab:purple" if weights == "bfloat16" else "tab:orange",
            label=f"{weights}, scaled by {scaling}",
        )
axes.set_xscale("log")
axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6%}".rstrip("0%").rstrip(".") + "%")
axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
axes.set_xlabel("error of a row, relative to the largest output (each tick: 10 times as large)")
axes.set_ylabel("share of the rows with at most this error")
axes.grid(alpha=0.3)
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %%
# Why scaling matters for int8
# ----------------------------
# Some pixels at the border are almost always blank. Their standard deviation is tiny, so dividing
# by it makes their weight huge. int8 has 127 steps up to the largest weight of a neuron. Beside a
# huge weight, the others have few steps left, and a weight below half a step becomes 0. In the
# picture these are the weights to the left of the dashed line: many of the orange ones, and hardly
# any of the purple ones. In bfloat16 each number has its own exponent, so this does not happen.

figure, axes = plt.subplots(layout="constrained")
for scaling, colour in (("table", "tab:purple"), ("columns", "tab:orange")):
    sizes = np.abs(layers[scaling].params["weights_in"])
    steps = 127 * sizes / sizes.max(axis=-1, keepdims=True)
    axes.hist(
        steps.ravel(),
        bins=np.geomspace(0.01, 127, 60),
        alpha=0.6,
        color=colour,
        label=f"scaled by {scaling}",
    )
axes.axvline(0.5, color="black", linestyle="--", linewidth=1, label="half a step: below, 0")
axes.set_xscale("log")
axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
axes.set_xlabel("size of an input weight, in steps of int8 (each tick: 10 times as large)")
axes.set_ylabel("number of weights")
axes.legend(loc="upper left")
plt.show()

# %%
# If all columns are of one kind, like pixels, train a layer for int8 with one scaling for the whole
# table. If they are not, compare accuracy and routes before and after.
