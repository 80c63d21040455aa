"""
Quantized inference
===================

``layer.quantize`` rounds the weights of a trained layer to bfloat16, two bytes each, or to int8,
one byte each and a scale for each neuron. This lesson measures the price: how far outputs move, how
many rows change their route, and what becomes of accuracy. And it shows what the scaling of inputs
has to do with it.
"""

# %%
# Two layers for the digits
# -------------------------
# They differ in one thing. ``standardize="columns"`` divides each pixel by its own deviation, and
# ``"table"`` divides all by the same number. After training, the scaling becomes part of the
# weights.

import matplotlib.pyplot as plt
import numpy as np

from fffcpu.data import load_digits
from fffcpu.sklearn import FFFClassifier

images, labels = load_digits()
order = np.random.default_rng(0).permutation(len(images))
train, test = order[:1200], order[1200:]
layers = {}
for scaling in ("table", "columns"):
    classifier = FFFClassifier(trees=4, depth=6, max_iter=15, standardize=scaling, random_state=0)
    layers[scaling] = classifier.fit(images[train], labels[train]).layer_

# %%
# The price
# ---------
# ``route`` has the nodes that a row visits in each tree. A row is flipped if one of its paths has
# changed. Its output is then another altogether, so the largest error is taken of the other rows.
# It is relative to the largest output.

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
# The bytes are a little more than a half and a quarter, since biases and the scales of int8 stay
# float32. With one scaling for the table both types cost next to nothing: few rows flip, and
# accuracy stays. With a scaling for each column bfloat16 does as well, and int8 much worse.

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
axes.set_xlabel("error of a row, relative to the largest output")
axes.set_ylabel("share of the rows with at most that")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %%
# Why int8 minds the scaling
# --------------------------
# Some pixels at the border are almost always paper. Their deviation is tiny, so the weight that has
# taken up the scaling is huge. int8 has 127 steps up to the largest weight of a neuron, and a
# weight below half a step becomes 0. In bfloat16 each number has its own exponent, so it does not
# mind.

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
axes.axvline(0.5, color="black", linestyle="--", linewidth=1, label="below this: rounded to 0")
axes.set_xscale("log")
axes.set_xlabel("size of an input weight, in steps of int8")
axes.set_ylabel("weights")
axes.legend()
plt.show()

# %%
# So where columns are of one kind, as pixels are, a layer for int8 had better be trained with one
# scaling for the whole table. Where they are not, compare accuracy and routes before and after.
