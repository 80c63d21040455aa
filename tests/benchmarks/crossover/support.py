"""Points of dense models, which the tests of this folder share."""

from __future__ import annotations

from benchmarks.crossover import models, verdicts


def point(model: str, cost: float, accuracy: float):
    return verdicts.Point(model, models.MODELS[model].family, cost, accuracy)


DENSE = [point("dense-4", 1.0, 0.80), point("dense-16", 4.0, 0.90), point("dense-64", 9.0, 0.89)]
