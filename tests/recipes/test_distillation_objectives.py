"""What students learn: exact scales, gradients, and batches that hold every text once."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from fffcpu.config.encoder import POOLERS
from fffcpu.recipes.distillation_objectives import (
    EncoderObjective,
    LayersObjective,
    Texts,
    encoder_of,
    similarity_correlation,
)
from fffcpu.training.trainer import Moment
from tests.support.encoders import CONFIG, rows, teacher
from tests.support.finite_differences import check_gradients


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("feedforward", ["fff", "ff"])
def test_a_student_absorbs_the_scales(feedforward, classes):
    model = teacher(classes=classes)
    config = dataclasses.replace(model.config, feedforward=feedforward, feedforward_size=3)
    texts = Texts(rows(), 40, 0, 0)
    objective = LayersObjective(model, config, texts, None, 0)
    student = objective.student()
    ids, real = texts.batch(0)
    assert type(student) is type(model)
    pairs = encoder_of(model).feedforwards(ids, real)
    for i, (x, _) in enumerate(pairs):
        inputs, outputs = objective.scales[i]
        scaled = objective.layers[i](inputs.apply(x[real], "float64"))
        own = encoder_of(student).layers[i]
        found = own.feedforward(x[real]) + own.bias_out
        np.testing.assert_allclose(found, scaled * outputs.unit + outputs.offset, atol=1e-9)
    for name, array in model.params.items():
        if ".feedforward." not in name and not name.endswith("bias_out"):
            np.testing.assert_array_equal(student.params[name], array)


def test_scales_are_those_of_the_tokens_without_padding():
    model, texts = teacher(), Texts(rows(), 40, 0, 0)
    scales = LayersObjective(model, CONFIG, texts, None, 0).scales
    batches = [texts.batch(number) for number in range(len(texts.batches))]
    pairs = [
        [(x[real], y[real]) for x, y in model.feedforwards(ids, real)] for ids, real in batches
    ]
    for (inputs, outputs), own in zip(scales, zip(*pairs, strict=True), strict=True):
        x, y = (np.concatenate(arrays) for arrays in zip(*own, strict=True))
        np.testing.assert_allclose(inputs.mean, x.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(inputs.scale, x.std(axis=0))
        np.testing.assert_allclose(outputs.offset, y.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(outputs.unit, y.std(axis=0))


def test_the_memory_for_scales_does_not_grow_with_the_texts():
    peaks = []
    for count in (20, 400):
        texts = Texts(rows(count), 40, 0, 0)
        tracemalloc.start()
        try:
            LayersObjective(teacher(), CONFIG, texts, None, 0)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def moment(step):
    return Moment(step, 0.0, np.random.default_rng(0), 0)


MODELS = pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "mean"},
        {"pooling": "start"},
        {"classes": 3},
        {"classes": 3, "pooler": "avg"},
        {"classes": 1},
    ],
)


@MODELS
def test_gradients_of_a_student(changes):
    model = teacher(**changes)
    config = dataclasses.replace(model.config, feedforward_size=3)
    student = type(model)(config, rng=5)
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


def test_similarities_are_ranked():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, 5))
    turned = vectors @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
    assert similarity_correlation(vectors, 3 * turned) == pytest.approx(1.0)
    assert abs(similarity_correlation(vectors, rng.standard_normal((20, 4)))) < 0.3
    assert np.isnan(similarity_correlation(vectors[:2], vectors[:2]))


@MODELS
def test_a_perfect_student_has_perfect_figures_and_no_loss(changes):
    model = teacher(**changes)
    tests = Texts(rows(20), 40, 0, 0)
    objective = EncoderObjective(model, model.copy(), tests, tests)
    assert objective.step(moment(0)).loss == pytest.approx(0.0, abs=1e-12)
    figures = objective.evaluate()
    assert figures.pop("loss") == 0
    names = {"hidden_r2", "similarity", "cosine"}
    if "classes" in changes:
        names.add("agreement" if changes["classes"] > 1 else "output_r2")
    assert set(figures) == names
    for name in names:
        assert figures[name] == pytest.approx(1.0)


def test_the_loss_of_a_regression_does_not_depend_on_the_unit_of_its_outputs():
    losses = []
    for unit in (1.0, 1000.0):
        model = teacher(classes=1)
        student = model.copy()
        student.params["encoder.embedding.words"][...] += 0.1
        for one in (model, student):
            for name in ("head.weights", "head.bias"):
                one.params[name][...] *= unit
        objective = EncoderObjective(model, student, Texts(rows(), 30, 0, 0), None)
        losses.append(objective.step(moment(1)).loss)
    assert losses[1] == pytest.approx(losses[0])


@pytest.mark.parametrize(("classes", "figure"), [(3, "agreement"), (1, "output_r2")])
@pytest.mark.parametrize("pooler", POOLERS)
def test_figures_are_those_of_texts_without_padding(classes, figure, pooler):
    model = teacher(classes=classes, pooler=pooler)
    student = model.copy()
    for array in student.params.values():
        array += 0.1 * np.random.default_rng(0).standard_normal(array.shape)
    texts = rows(20)
    figures = [
        EncoderObjective(model, student, tests, tests).evaluate()
        for tests in (Texts(texts, tokens, 0, 0) for tokens in (1, 1000))
    ]
    assert figures[0] == pytest.approx(figures[1])
    wanted, found = (np.concatenate([one([row]) for row in texts]) for one in (model, student))
    if classes > 1:
        expected = np.mean(wanted.argmax(axis=1) == found.argmax(axis=1))
    else:
        expected = 1 - np.square(found - wanted).mean() / wanted.var()
    assert figures[1][figure] == pytest.approx(expected)
    assert expected != 1


def test_batches_know_their_shapes_and_tokens():
    texts = Texts(rows(), 40, 0, 3)
    found = {texts.batch(step)[0].shape for step in range(len(texts.batches))}
    assert texts.shapes == found
    assert texts.tokens == sum(map(len, rows()))
