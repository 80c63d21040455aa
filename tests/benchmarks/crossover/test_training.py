"""Which runs are chosen."""

from __future__ import annotations

from benchmarks.crossover import training
from benchmarks.records import append_records


def test_a_run_made_again_may_lose_its_place(tmp_path):
    def line(rate, validation):
        settings = {"lr": rate, "weight_decay": 0.2}
        run = {"data": "letters", "model": "dense-4", "seed": 0, "settings": settings}
        append_records(tmp_path / "models.jsonl", [run | {"validation": validation}])

    line(0.003, 0.8)
    line(0.008, 0.9)
    assert training.chosen(tmp_path)["letters"]["dense-4"][0]["settings"]["lr"] == 0.008
    line(0.008, 0.7)
    (best,) = training.chosen(tmp_path)["letters"]["dense-4"]
    assert (best["settings"]["lr"], best["tries"]) == (0.003, 2)
