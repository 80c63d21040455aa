"""
Looking into a tree
===================

Which rows go where, and is every part of a tree useful? `fffcpu.diagnosis` counts, and
`fffcpu.plots` draws. The tree in this lesson has eight leaves for ten digits.
"""

# %%
# The estimator trains a leaf layer. ``layer_`` is the layer itself.

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
# A report counts the rows that visit each node:
#
# - *Balance* is 1 if all leaves get the same number of rows.
# - *Effective leaves* is the number of leaves that would have the same entropy if all were used
#   evenly: these eight leaves are worth 6.3.
# - A *dead subtree* is one that no row enters. It only takes memory.
# - A *near tie* is a decision that a small change of the row would reverse.
# - *Choice entropy* is 0 if gates decide clearly, and 0.69 if they send half of a row to each side.

report = diagnose(layer, images)
print(report)

# %%
# The same numbers are also arrays, with one entry per node or leaf.

tree = report.trees[0]
print("rows per leaf:", tree.leaf_visits)

# %%
# ``plot_tree`` draws the report. Each line of cells is a level of the tree, with the root at the
# top. A cell is a node, and its number is the share of the rows that visit it. The colour compares
# this share with an even one, on a scale where each step doubles. Here the third leaf from the
# left gets the most rows, 2.4 times its even share, and the leaves at both ends get the fewest.
#
# At the bottom left, a line above the diagonal means that some leaves get more rows than others. At
# the bottom right, the values of each level range from 0 to 1. All nodes are reached, splits are
# fairly even, and hardly any decision is close.


def show(path):
    """Show a picture from a file, because the functions of `fffcpu.plots` write files."""
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
# ``reached_leaves`` returns the leaf of each row. This table counts the rows by digit and leaf,
# and shows the groups that training has found. Most zeros, sixes and nines share leaf 2, and most
# sevens go to leaf 6. Fives and eights are spread over many leaves. So the leaves do not sort the
# digits: each has a small network that tells the digits apart that reach it.

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
axes.set_title("Number of rows by digit and leaf")
plt.show()

# %%
# ``plot_prototypes`` draws the mean image of each leaf's rows. Leaf 0 shows a five and leaf 5 a
# one, because most of their rows are such digits. In leaf 2 the zeros, sixes and nines overlap.

reached = np.flatnonzero(tree.leaf_visits)
means = leaf_means(layer, images, reached)
captions = [f"leaf {leaf}: {tree.leaf_visits[leaf]} rows" for leaf in reached]
plot_prototypes(means.reshape(-1, 8, 8), captions, path, "Mean image of each leaf's rows")
show(path)
folder.cleanup()
