"""
A classifier in a scikit-learn pipeline
=======================================

`fffcpu.sklearn.FFFClassifier` is a fast feedforward layer as an estimator. This lesson puts it
behind a scaler, lets a grid search choose its trees, looks at its probabilities, and saves what was
learned: as a pickle, and as a file that needs no scikit-learn.
"""

# %%
# The data are 569 tumours, of which 30 numbers each were measured, and which are benign or not.

import pickle
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fffcpu import Predictor
from fffcpu.sklearn import FFFClassifier

data = load_breast_cancer()
train_x, test_x, train_y, test_y = train_test_split(
    data.data, data.target_names[data.target], random_state=0, stratify=data.target
)
print(train_x.shape, test_x.shape, data.target_names)

# %%
# Pipeline and search
# -------------------
# The estimator would scale columns by itself. Here a step of the pipeline does it, so the estimator
# is told to take rows as they are. A deeper tree holds more neurons, of which a row uses one more
# for each level; more trees add up.

pipeline = make_pipeline(
    StandardScaler(), FFFClassifier(standardize="none", max_iter=30, random_state=0)
)
trees, depths = [1, 2, 4], [1, 2, 3]
search = GridSearchCV(
    pipeline, {"fffclassifier__trees": trees, "fffclassifier__depth": depths}, cv=3
)
search.fit(train_x, train_y)
print(search.best_params_)
print(f"test accuracy {search.score(test_x, test_y):.3f}")

# %%
# The scores of the search, each the mean of three folds. A difference of 0.01 is 4 rows of 426, too
# few to rely on; and the best of nine scores flatters, so test rows are what counts.

# The grid runs through all trees of a depth before it goes on: names are taken in order.
scores = search.cv_results_["mean_test_score"].reshape(len(depths), len(trees))
figure, axes = plt.subplots(layout="constrained")
mesh = axes.imshow(scores, cmap="viridis")
for (row, column), score in np.ndenumerate(scores):
    axes.annotate(f"{score:.3f}", (column, row), ha="center", va="center", backgroundcolor="white")
axes.set_xticks(range(len(trees)), labels=trees)
axes.set_yticks(range(len(depths)), labels=depths)
axes.set_xlabel("trees")
axes.set_ylabel("depth")
axes.set_title("Accuracy in cross-validation")
figure.colorbar(mesh)
plt.show()

# %%
# Probabilities
# -------------
# ``predict_proba`` has a column for each class, in the order of ``classes_``. The model
# is certain of most rows, and of these it is mostly right.

chances = search.predict_proba(test_x)
benign = chances[:, list(search.classes_).index("benign")]
figure, axes = plt.subplots(layout="constrained")
axes.hist(
    [benign[test_y == name] for name in search.classes_],
    bins=20,
    range=(0, 1),
    stacked=True,
    label=[f"is {name}" for name in search.classes_],
    color=["tab:orange", "tab:purple"],
)
axes.set_xlabel("probability of benign")
axes.set_ylabel("test rows")
axes.legend()
plt.show()

# %%
# Two ways to keep it
# -------------------
# A pickle keeps the whole pipeline. Whoever loads it needs scikit-learn, and has to trust it, since
# loading a pickle runs code.

best = search.best_estimator_
again = pickle.loads(pickle.dumps(best))
assert (again.predict_proba(test_x) == chances).all()

# %%
# The layer's format holds arrays and what they mean. ``to_predictor`` returns the layer with the
# names of its classes. It was trained on scaled rows; ``absorb_input_scaling`` makes the scaler's
# work part of its weights, so that it takes rows as they were measured, at no cost.

scaler, classifier = best[0], best[-1]
predictor = classifier.to_predictor()
predictor.layer.absorb_input_scaling(scaler.mean_, scaler.scale_)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "tumours.safetensors"
    predictor.save(path)
    print(f"{path.stat().st_size:,} bytes")
    loaded = Predictor.load(path)
print(loaded)
print(loaded.predict(test_x[:3]), loaded.probabilities(test_x[:3]).round(3))
assert np.allclose(loaded.probabilities(test_x), chances, atol=1e-6)
