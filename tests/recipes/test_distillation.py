"""Distillation: what the student learns, exact scales, gradients, and runs that are interrupted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fffcpu.errors import ArgumentError, CheckpointError, DataError
from fffcpu.models import BertConfig, BertEncoder
from fffcpu.recipes.distillation import (
    DistillSettings,
    EncoderObjective,
    LayersObjective,
    Texts,
    distill,
    similarity_correlation,
)
from fffcpu.training.trainer import Moment
from tests.support.finite_differences import check_gradients

CONFIG = BertConfig(
    40, 8, 2, 2, feedforward_size=12, positions=10, initial_std=0.5, dtype="float64", normalize=True
)
SETTINGS = DistillSettings(
    trees=2, depth=2, epochs=2, batch_tokens=40, evaluations=2, lr=0.02, checkpoint_seconds=0.0
)


def teacher(**changes):
    model, rng = (
        BertEncoder(dataclasses.replace(CONFIG, **changes), rng=0),
        np.random.default_rng(1),
    )
    for array in model.params.values():
        array += 0.2 * rng.standard_normal(array.shape)
    return model


def rows(count=60):
    rng = np.random.default_rng(0)
    return [[1, *rng.integers(3, 40, rng.integers(1, 9)).tolist(), 2] for _ in range(count)]


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
    assert done.layers.steps > 0
    assert done.encoder.rows > 0


def test_a_student_has_the_pooler_of_its_teacher():
    model = teacher(head="pooler")
    done = distill(model, rows(), SETTINGS, validation=0.0)
    for name in ("pooler.weights", "pooler.bias"):
        np.testing.assert_array_equal(done.model.params[name], model.params[name])


@pytest.mark.parametrize("feedforward", ["fff", "ff"])
def test_a_student_absorbs_the_scales(feedforward):
    model = teacher()
    config = dataclasses.replace(CONFIG, feedforward=feedforward, feedforward_size=3)
    texts = Texts(rows(), 40, 0, 0)
    objective = LayersObjective(model, config, texts, None, 0)
    student = objective.student()
    ids, real = texts.batch(0)
    pairs = model.feedforwards(ids, real)
    for i, (x, _) in enumerate(pairs):
        inputs, outputs = objective.scales[i]
        scaled = objective.layers[i](inputs.apply(x[real], "float64"))
        own = student.layers[i]
        found = own.feedforward(x[real]) + own.bias_out
        np.testing.assert_allclose(found, scaled * outputs.unit + outputs.offset, atol=1e-9)
    for name, array in model.params.items():
        if ".feedforward." not in name and not name.endswith("bias_out"):
            np.testing.assert_array_equal(student.params[name], array)


def moment(step):
    return Moment(step, 0.0, np.random.default_rng(0), 0)


@pytest.mark.parametrize("pooling", ["mean", "start"])
def test_gradients_of_the_encoder(pooling):
    model = teacher(pooling=pooling)
    config = dataclasses.replace(model.config, feedforward_size=3)
    student = BertEncoder(config, rng=5)
    objective = EncoderObjective(model, student, Texts(rows(), 30, 0, 0), None)
    grads = objective.step(moment(1)).grads
    pairs = [(student.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: objective.step(moment(1)).loss, pairs)


def test_gradients_of_the_layers():
    config = dataclasses.replace(CONFIG, feedforward_size=3)
    objective = LayersObjective(teacher(), config, Texts(rows(), 30, 0, 0), None, 0)
    grads = objective.step(moment(1)).grads
    pairs = [(objective.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: objective.step(moment(1)).loss, pairs)


def test_batches_hold_every_text_once_per_pass():
    texts = Texts(rows(), 40, 0, 3)
    found = []
    for step in range(len(texts.batches)):
        ids, real = texts.batch(step)
        assert real.sum() <= 40 + 10
        found += [tuple(row[mask].tolist()) for row, mask in zip(ids, real, strict=True)]
    assert sorted(found) == sorted(map(tuple, rows()))


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
    assert (resumed.layers is None) == (stage == "similarity")


def test_similarities_are_ranked():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, 5))
    turned = vectors @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
    assert similarity_correlation(vectors, 3 * turned) == pytest.approx(1.0)
    assert abs(similarity_correlation(vectors, rng.standard_normal((20, 4)))) < 0.3
    assert np.isnan(similarity_correlation(vectors[:2], vectors[:2]))


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
