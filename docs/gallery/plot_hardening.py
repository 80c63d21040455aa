"""
Hardening: from a mixture of leaves to one leaf
===============================================

In training, a `fffcpu.LeafFeedForward` mixes all its leaves: each gate sends a share of the row to
either side. At inference each gate sends the whole row to one side, and one leaf computes the
output. The two agree only if the gates have decided. The hardening loss makes them decide. This
lesson trains one layer without it and one with it, and compares them.
"""

# %%
# Soft and hard outputs
# ---------------------
# ``layer.forward`` returns the mixture, or soft output. ``layer(x)`` returns the hard output of one
# leaf. After each pass over the rows, the lesson measures the accuracy of both.

import matplotlib.pyplot as plt
import numpy as np

from fffcpu import LeafFeedForward
from fffcpu.data import load_digits
from fffcpu.training import AdamW, softmax_cross_entropy

images, labels = load_digits()
order = np.random.default_rng(0).permutation(len(images))
train, test = order[:1400], order[1400:]

PASSES, BATCH = 25, 50


def accuracy(outputs):
    """Share of the test rows whose digit is predicted correctly."""
    return (outputs.argmax(axis=1) == labels[test]).mean()


def learn(hardening):
    """Train a layer. Return it, and per pass its soft and hard accuracy and the gates' entropy."""
    layer = LeafFeedForward(64, 10, depth=3, leaf_width=8, rng=0)
    optimizer = AdamW(layer.params, lr=0.005)
    rng = np.random.default_rng(0)
    history = []
    for _ in range(PASSES):
        for batch in rng.permutation(train).reshape(-1, BATCH):
            outputs, cache = layer.forward(images[batch])
            _, gradient = softmax_cross_entropy(outputs, labels[batch])
            _, gradients = layer.backward(gradient, cache, hardening=hardening)
            optimizer.step(gradients)
        mixture, cache = layer.forward(images[test])
        history.append((accuracy(mixture), accuracy(layer(images[test])), cache.entropies.mean()))
    return layer, np.array(history)


# %%
# The argument ``hardening`` of ``backward`` is the weight of the hardening loss, which is the sum
# of the gates' mean entropies. An entropy of 0 means that a gate has decided. The largest value,
# log 2 or 0.69, means that it sends half of each row to either side.

runs = {"without hardening": learn(0.0), "with hardening": learn(0.3)}
for name, (_, history) in runs.items():
    soft, hard, entropy = history[-1]
    print(f"{name}: soft {soft:.3f}, hard {hard:.3f}, entropy {entropy:.3f}")

# %%
# During training
# ---------------
# Left: without hardening, the mixture learns well, but its gates stay undecided. Inference must
# decide, so it loses what the other leaves would have added: the solid line stays far below the
# dashed one. Right: with hardening, the two lines meet after two passes, and the solid line covers
# the dashed one. The price is a mixture with less freedom: its accuracy is a little lower than on
# the left.

figure, panels = plt.subplots(1, 2, figsize=(10, 5), sharey=True, layout="constrained")
for axes, (name, (_, history)) in zip(panels, runs.items(), strict=True):
    passes = np.arange(1, PASSES + 1)
    axes.plot(passes, history[:, 0], "--", color="tab:orange", label="soft output: all leaves")
    axes.plot(passes, history[:, 1], "-", color="tab:purple", label="hard output: one leaf")
    axes.plot(passes, history[:, 2], ":", color="gray", label="mean entropy of the gates")
    axes.set_title(name)
    axes.set_xlabel("passes over the rows")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("accuracy on test rows, or entropy")
lines, names = panels[0].get_legend_handles_labels()
figure.legend(lines, names, loc="outside lower center", ncols=3)
plt.show()

# %%
# The mixture
# -----------
# The cache of ``forward`` contains the share of each row that reaches each leaf. The picture counts
# rows by the largest of their eight shares. A value of 1 means that one leaf does all the work, and
# 1/8 that all leaves take equal parts. With hardening, nearly all rows are at 1.

figure, axes = plt.subplots(layout="constrained")
for (name, (layer, _)), colour in zip(runs.items(), ("tab:orange", "tab:purple"), strict=True):
    _, cache = layer.forward(images[test])
    shares = cache.reach[:, len(layer.params["gate_bias"]) :]
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    axes.hist(shares.max(axis=1), bins=20, range=(0, 1), alpha=0.6, color=colour, label=name)
axes.set_xlabel("largest share of a row that one leaf gets")
axes.set_ylabel("number of test rows")
axes.legend()
plt.show()

# %%
# ``forward(..., hardened=True)`` rounds the choices of the gates. So it returns the output of
# inference, up to rounding, together with a cache.

layer, _ = runs["with hardening"]
rounded, _ = layer.forward(images[test], hardened=True)
assert np.allclose(rounded, layer(images[test]), atol=1e-4)
