"""Which runs are chosen, and which are done."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.crossover import models, training
from benchmarks.records import append_records, read_records


@pytest.fixture
def line(tmp_path):
    """Append a record of a run with some learning rate and held-out accuracy."""

    def append(rate, validation, model="dense-4"):
        settings = {**models.MODELS[model].sizes, "lr": rate, "weight_decay": 0.2}
        run = {"data": "letters", "model": model, "seed": 0, "settings": settings}
        append_records(tmp_path / "models.jsonl", [run | {"validation": validation}])

    return append


def test_a_run_made_again_may_lose_its_place(tmp_path, line):
    line(0.004, 0.8)
    line(0.02, 0.9)
    assert training.chosen(tmp_path)["letters"]["dense-4"][0]["settings"]["lr"] == 0.02
    line(0.02, 0.7)
    (best,) = training.chosen(tmp_path)["letters"]["dense-4"]
    assert (best["settings"]["lr"], best["tries"]) == (0.004, 2)


def test_settings_that_are_no_longer_tried_count_where_there_are_no_others(tmp_path, line):
    line(0.003, 0.8)
    line(0.008, 0.9)
    (best,) = training.chosen(tmp_path)["letters"]["dense-4"]
    assert (best["settings"]["lr"], best["tries"]) == (0.008, 2)
    line(0.004, 0.7)
    (best,) = training.chosen(tmp_path)["letters"]["dense-4"]
    assert (best["settings"]["lr"], best["tries"]) == (0.004, 1)


@pytest.mark.parametrize("model", ["fff-1x3", "two-1x3"])
def test_a_record_that_does_not_mention_sides_is_one_of_one_sided_nodes(model, tmp_path):
    options = argparse.Namespace(out=tmp_path, seeds=1, models=[model], quick=False)
    runs = list(training.plan(["letters"], options))
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key != "two_sided"}
        append_records(tmp_path / "models.jsonl", [run._replace(settings=settings)._asdict()])
    done = [training.run_of(record) for record in read_records(tmp_path / "models.jsonl")]
    assert [run in done for run in runs] == [model == "fff-1x3"] * 4
