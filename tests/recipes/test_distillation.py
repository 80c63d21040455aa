"""Distillation: both stages learn, interrupted runs end with the same bits, and room is checked."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    DataError,
    NotEnoughMemoryError,
)
from fffcpu.models import BertConfig, BertEncoder, BertForMaskedLM
from fffcpu.recipes import distillation
from fffcpu.recipes.distillation import DistillSettings, distill
from fffcpu.recipes.memory import distillation_bytes, distillation_disk
from fffcpu.system import files, memory
from fffcpu.system.memory import Available
from tests.support.encoders import CONFIG, rows, teacher

SETTINGS = DistillSettings(
    trees=2, depth=2, epochs=2, batch_tokens=40, evaluations=2, lr=0.02, checkpoint_seconds=0.0
)


@pytest.mark.parametrize("width", [None, 3])
def test_both_stages_learn(width):
    figures = []
    settings = dataclasses.replace(SETTINGS, width=width, epochs=6, encoder_lr=0.003)
    done = distill(
        teacher(),
        rows(150),
        settings,
        validation=0.2,
        callbacks=[lambda evaluation: figures.append(evaluation.figures)],
    )
    layers = [one["r2"] for one in figures if "r2" in one]
    encoder = [one["similarity"] for one in figures if "similarity" in one]
    assert layers[-1] > max(0.2, layers[0])
    assert encoder[-1] > 0.3
    assert done.model.config.feedforward == ("fff" if width is None else "ff")
    assert done.model.config.normalize
    assert done.layers.outcome.steps == done.layers.history[-1]["step"] > 0
    assert done.encoder.outcome.rows == done.encoder.history[-1]["tokens"] > 0


@pytest.mark.parametrize(("classes", "figure"), [(3, "agreement"), (1, "output_r2")])
def test_a_classifier_is_distilled_with_its_head(classes, figure):
    model = teacher(classes=classes)
    settings = dataclasses.replace(SETTINGS, epochs=6, encoder_lr=0.003)
    done = distill(model, rows(150), settings, validation=0.2)
    figures = [line[figure] for line in done.encoder.history if figure in line]
    assert type(done.model) is type(model)
    assert figures[-1] > 0.5
    assert (done.model.params["head.weights"] != model.params["head.weights"]).any()
    assert done.model([[1, 5, 2]]).shape == (1, classes)


def test_a_student_has_the_pooler_of_its_teacher():
    model = teacher(head="pooler")
    done = distill(model, rows(), SETTINGS, validation=0.0)
    for name in ("pooler.weights", "pooler.bias"):
        np.testing.assert_array_equal(done.model.params[name], model.params[name])


@pytest.mark.parametrize("stage", ["r2", "similarity"])
def test_an_interrupted_run_ends_with_the_same_bits(stage, tmp_path):
    whole = distill(teacher(), rows(), SETTINGS, validation=0.2)

    def fail(evaluation):
        if stage in evaluation.figures:
            raise RuntimeError("killed")

    where = {"folder": tmp_path / "run", "validation": 0.2}
    with pytest.raises(RuntimeError, match="killed"):
        distill(teacher(), rows(), SETTINGS, callbacks=[fail], **where)
    with pytest.raises(CheckpointError, match="unfinished"):
        distill(teacher(), rows(), SETTINGS, **where)
    resumed = distill(teacher(), rows(), SETTINGS, resume=True, **where)
    for name, array in whole.model.params.items():
        np.testing.assert_array_equal(resumed.model.params[name], array)
    assert resumed.layers.outcome.steps == whole.layers.outcome.steps
    for own, theirs in zip(resumed[1:3], whole[1:3], strict=True):
        assert [line["step"] for line in own.history] == [line["step"] for line in theirs.history]


def test_a_run_continues_only_a_first_stage_of_its_own(tmp_path):
    def fail(evaluation):
        if "similarity" in evaluation.figures:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        distill(teacher(), rows(), SETTINGS, folder=tmp_path, callbacks=[fail])
    for checkpoint in tmp_path.glob("checkpoint-*"):  # as if it was killed a little earlier
        checkpoint.unlink()
    other = dataclasses.replace(SETTINGS, lr=0.03)
    with pytest.raises(CheckpointError, match=r"from another run: 'lr' was 0.02 and is 0.03"):
        distill(teacher(), rows(), other, folder=tmp_path, resume=True)
    of_starts = teacher(pooling="start")
    with pytest.raises(CheckpointError, match=r"run: 'teacher_pooling' was 'mean' and is 'start'$"):
        distill(of_starts, rows(), SETTINGS, folder=tmp_path, resume=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 1.0, "seconds": 2.0},
        {"epochs": 0},
        {"trees": 0},
        {"depth": -1},
        {"width": 0},
        {"length": 2},
        {"layers_share": 1.5},
        {"lr": -1.0},
        {"two_sided": 1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises((ArgumentError, TypeError), match=f"'{next(iter(wrong))}'"):
        DistillSettings(**wrong)


def test_too_few_texts_are_an_error():
    with pytest.raises(DataError, match="at least two texts, got 1"):
        distill(teacher(), [[1, 2], []], SETTINGS)
    with pytest.raises(DataError, match=r"'validation' must leave .* got 0.9 of 3 texts"):
        distill(teacher(), rows(3), SETTINGS, validation=0.9)


def test_a_teacher_must_be_an_encoder_or_a_classifier():
    with pytest.raises(ArgumentTypeError, match=r"'teacher' must be a BertEncoder or .*MaskedLM"):
        distill(BertForMaskedLM(CONFIG, rng=0), rows(), SETTINGS)


def test_a_teacher_must_have_float_weights():
    with pytest.raises(ArgumentTypeError, match="'teacher' must be a model with float weights"):
        distill(teacher().quantize("int8"), rows(), SETTINGS)


def test_held_out_texts_are_spread_over_all_that_were_held_out(monkeypatch):
    monkeypatch.setattr(distillation, "EVALUATED_TEXTS", 5)
    split = distillation.Split.of(CONFIG, rows(100), SETTINGS, 0.3)
    assert len(split.training.rows) == 70
    assert len(split.held_out.rows) == 5
    assert distillation.Split.of(CONFIG, rows(100), SETTINGS, 0.0).held_out is None


def test_texts_are_cut():
    settings = dataclasses.replace(SETTINGS, length=4)
    long = [list(range(1, 9))] * 4
    assert {len(row) for row in distillation.Split.of(CONFIG, long, settings, 0).training.rows} == {
        4
    }


@pytest.mark.slow
def test_the_memory_is_foreseen():
    wide = dataclasses.replace(CONFIG, width=64, dtype="float32", initial_std=0.05)
    model = BertEncoder(wide, rng=0)
    settings = dataclasses.replace(SETTINGS, trees=4, depth=9, epochs=0.5)
    distill(model, rows(), settings, progress=False)  # imports, and compiles
    tracemalloc.start()
    try:
        done = distill(model, rows(), settings, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    need = distillation_bytes(settings.config(wide), done.texts.training.shapes)
    assert 0.6 * peak < need < peak


LARGE = BertConfig(1000, 256, 6, 4, feedforward_size=512, positions=64)


def test_too_little_memory_is_an_error_that_names_what_fits(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: Available(4e8, "there is only"))
    with pytest.raises(NotEnoughMemoryError, match=r"distilling a Bert.* depth 8"):
        DistillSettings(trees=8, depth=13).check_room(LARGE)
    DistillSettings(trees=8, depth=8).check_room(LARGE)
    with pytest.raises(NotEnoughMemoryError):
        DistillSettings(trees=8, depth=9).check_room(LARGE)


def test_too_little_memory_is_an_error_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CHECKED_BYTES", 0)
    monkeypatch.setattr(memory, "available_memory", lambda: Available(100, "there is only"))
    with pytest.raises(NotEnoughMemoryError):
        distill(teacher(), rows(), SETTINGS, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_an_error_before_anything_is_written(monkeypatch, tmp_path):
    need = distillation_disk(SETTINGS.config(CONFIG), SETTINGS.keep)
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage._replace(free=need - 1))
    with pytest.raises(OSError, match=r"keeps 2 checkpoints needs .* room for only") as caught:
        distill(teacher(), rows(), SETTINGS, folder=tmp_path / "run")
    assert caught.value.errno in files.NO_SPACE
    assert not (tmp_path / "run").exists()


def test_the_disk_is_foreseen(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=4)
    largest = 0

    def weigh(evaluation):
        nonlocal largest
        sizes = [file.stat().st_size for file in tmp_path.rglob("*") if file.suffix != ".jsonl"]
        largest = max(largest, sum(sizes))

    distill(teacher(), rows(), settings, folder=tmp_path, validation=0.2, callbacks=[weigh])
    config = settings.config(CONFIG)
    # A checkpoint that is being written, and the student's folder, come on top.
    need = distillation_disk(config, settings.keep) - 4 * config.nbytes
    assert 0.5 * need < largest < 1.2 * need + 50_000
