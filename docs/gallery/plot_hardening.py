"""
Hardening: from a mixture of leaves to one
==========================================

In training a `fffcpu.LeafFeedForward` mixes all its leaves: each gate sends a share of the row to
either side. At inference a row goes one way at each gate, and one leaf computes the output. The two
agree only where gates have decided. The hardening loss makes them decide; this lesson trains one
layer without it and one with it, and looks at the difference.
"""

# %%
# Soft and hard
# -------------
# ``layer.forward`` is the mixture, and ``layer(x)`` the one leaf. The digits are to be told apart
# both ways, after each pass over the rows.

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
    """Share of the test rows that are told rightly."""
    return (outputs.argmax(axis=1) == labels[test]).mean()


def learn(hardening):
    """Train a layer; return it with its soft and hard accuracy and gates' entropy by pass."""
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
# The last argument of ``backward`` is the weight of the hardening loss, the sum of the gates' mean
# entropies. 0 is a gate that has decided, and log 2, or 0.69, one that sends each side half.

runs = {"without hardening": learn(0.0), "with hardening": learn(0.3)}
for name, (_, history) in runs.items():
    soft, hard, entropy = history[-1]
    print(f"{name}: soft {soft:.3f}, hard {hard:.3f}, entropy {entropy:.3f}")

# %%
# During training
# ---------------
# Without hardening the mixture learns well and its gates may stay undecided: inference, which must
# decide, throws away what the other leaves would have added. With hardening the two lines meet. The
# price is a mixture that is less free.

figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for axes, (name, (_, history)) in zip(panels, runs.items(), strict=True):
    passes = np.arange(1, PASSES + 1)
    axes.plot(passes, history[:, 0], "--", color="tab:orange", label="soft: mixture of leaves")
    axes.plot(passes, history[:, 1], "-", color="tab:purple", label="hard: one leaf")
    axes.plot(passes, history[:, 2], ":", color="gray", label="mean entropy of the gates")
    axes.set_title(name)
    axes.set_xlabel("passes over the rows")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("accuracy on test rows; entropy")
panels[0].legend()
plt.show()

# %%
# The mixture
# -----------
# The cache of ``forward`` has the share of each row that reaches each gate and then each leaf. The
# largest share of a row's leaves is 1 where one leaf does all the work, and 1/8 where all eight do
# the same.

figure, axes = plt.subplots(layout="constrained")
for (name, (layer, _)), colour in zip(runs.items(), ("tab:orange", "tab:purple"), strict=True):
    _, cache = layer.forward(images[test])
    shares = cache.reach[:, len(layer.params["gate_bias"]) :]
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    axes.hist(shares.max(axis=1), bins=20, range=(0, 1), alpha=0.6, color=colour, label=name)
axes.set_xlabel("largest share of a row that a leaf has")
axes.set_ylabel("test rows")
axes.legend()
plt.show()

# %%
# ``forward(..., hardened=True)`` rounds the choices and so is inference with a cache: the outputs
# are those of ``layer(x)``, up to rounding.

layer, _ = runs["with hardening"]
rounded, _ = layer.forward(images[test], hardened=True)
assert np.allclose(rounded, layer(images[test]), atol=1e-4)
