"""
Looking into a tree
===================

Which rows go where, and is every part of a tree of use? `fffcpu.diagnosis` counts, `fffcpu.plots`
draws. The tree of this lesson has eight leaves, which have to tell ten digits apart.
"""

# %%
# A leaf layer, trained through its estimator. ``layer_`` is the layer itself.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from fffcpu.data import load_digits
from fffcpu.diagnosis import diagnose, leaf_means, reached_leaves
from fffcpu.plots import plot_prototypes, plot_tree
from fffcpu.sklearn import FFFClassifier

images, labels = load_digits()
classifier = FFFClassifier(
    layer="leaf", depth=3, leaf_width=8, region_leak=0.1, max_iter=20, random_state=0
)
classifier.fit(images[:1400], labels[:1400])
print(f"test accuracy {classifier.score(images[1400:], labels[1400:]):.3f}")
layer = classifier.layer_

# %%
# Usage
# -----
# A report counts the rows that visit each node. Balance is 1 where all leaves have the same number
# of rows; a dead subtree is one that no row enters, and so is memory for nothing; near ties are
# decisions that a small change would turn round.

report = diagnose(layer, images)
print(report)

# %%
# The numbers behind it are arrays, one entry a node or leaf.

tree = report.trees[0]
print("rows that each leaf gets:", tree.leaf_visits)
print(f"as uneven as {tree.effective_leaves:.1f} leaves, all used alike, are even")

# %%
# The same as a picture. The functions of `fffcpu.plots` write files; here the file is shown again.


def show(path):
    """Show a picture that was written to a file."""
    picture = plt.imread(path)
    height, width = picture.shape[:2]
    axes = plt.figure(figsize=(10, 10 * height / width)).add_axes((0, 0, 1, 1))
    axes.imshow(picture)
    axes.set_axis_off()
    plt.show()


folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "picture.png"
plot_tree(tree, path, "A leaf layer on the digits")
show(path)

# %%
# Which rows go where
# -------------------
# ``reached_leaves`` has the leaf of each row. Counted by digit it shows the groups that training
# found: a digit has one or two leaves for the most part, and a leaf tells a few digits apart.

leaves = reached_leaves(layer, images)
counts = np.zeros((10, len(tree.leaf_visits)), int)
np.add.at(counts, (labels, leaves), 1)
figure, axes = plt.subplots(layout="constrained")
axes.imshow(counts, cmap="Purples", aspect="auto", interpolation="nearest")
for (digit, leaf), count in np.ndenumerate(counts):
    colour = "white" if count > counts.max() / 2 else "black"
    axes.annotate(count or "", (leaf, digit), ha="center", va="center", color=colour)
axes.set_xticks(range(len(tree.leaf_visits)))
axes.set_yticks(range(10))
axes.set_xlabel("leaf")
axes.set_ylabel("digit")
axes.set_title("Rows by digit and leaf")
plt.show()

# %%
# The mean image of each leaf's rows. Where a leaf has one digit it can be read; where it has
# several they lie over each other.

reached = np.flatnonzero(tree.leaf_visits)
means = leaf_means(layer, images, reached)
captions = [f"leaf {leaf}: {tree.leaf_visits[leaf]} rows" for leaf in reached]
plot_prototypes(means.reshape(-1, 8, 8), captions, path, "Mean image of each leaf's rows")
show(path)
folder.cleanup()
