"""Pictures of R2 against time."""

from __future__ import annotations

from benchmarks.accuracy.worth import pictures
from benchmarks.accuracy.worth.models import MODELS
from benchmarks.accuracy.worth.pictures import Point


def test_equal_points_give_equal_files(tmp_path):
    points = [
        Point(model, MODELS[model].family, 1.0 + k, 0.5 + k / 100)
        for k, model in enumerate(("dense-32", "dense-64", "fff-4x5", "two-4x5", "leaf-4x32"))
    ]
    for name in ("one", "two"):
        pictures.draw({"batches": points, "single rows": points[:3]}, tmp_path / f"{name}.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    for label, count in {"32": 2, "64": 2, "4 × 5": 3, "4 × 32": 1}.items():
        assert text.count(f">{label}<") == count
