"""From a table to a predictor: every layer and optimizer, scaling, resuming, what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fffcpu import FastFeedForward
from fffcpu.data import Table, load_digits
from fffcpu.errors import ArgumentError, CheckpointError, DataError
from fffcpu.recipes.fitting import OPTIMIZERS, FitSettings, evaluate_table, fit
from fffcpu.recipes.table_objective import TableObjective
from fffcpu.training import StopTraining, trainer
from fffcpu.training.run_folder import RunFolder

IMAGES, LABELS = load_digits()
DIGITS = Table(IMAGES, LABELS, classes=tuple(range(10)))

RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((400, 3)) * [1, 1000, 1e-3] + [0, 5000, 0]
SUMS = (INPUTS - INPUTS.mean(axis=0)) / INPUTS.std(axis=0) @ [[1.0, 2.0], [3.0, 0.0], [-1.0, 1.0]]
HOUSES = Table(INPUTS, 1000 + 50 * SUMS, features=("a", "b", "c"), target=("u", "v"))

QUICK = {"epochs": 2, "depth": 3, "trees": 2, "batch_size": 32}


def few(table, rows=300):
    return dataclasses.replace(table, x=table.x[:rows], y=table.y[:rows])


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["fast", "leaf", "dense"])
def test_learns_digits(layer):
    enough = {"fast": 0.85, "leaf": 0.75, "dense": 0.85}[layer]
    fitted = fit(DIGITS, FitSettings(layer=layer, epochs=8, width=20, seed=1))
    assert fitted.validation["accuracy"] > enough
    assert fitted.outcome.figures["validation_accuracy"] == pytest.approx(
        fitted.validation["accuracy"], abs=0.02
    )
    labels = fitted.predictor.predict(IMAGES)
    assert (labels == LABELS).mean() > enough


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["fast", "leaf", "dense"])
def test_learns_numbers_in_their_own_units(layer):
    settings = FitSettings(layer=layer, epochs=60, depth=2, lr=0.02, batch_size=32)
    fitted = fit(HOUSES, settings)
    assert fitted.validation["r2"] > 0.9
    predicted = fitted.predictor.predict(INPUTS)
    assert predicted.shape == (400, 2)
    assert abs(predicted.mean() - HOUSES.y.mean()) < 20
    assert fitted.predictor.schema.features == ("a", "b", "c")


def test_defaults_that_depend_on_the_rows():
    few, many = FitSettings().for_rows(100), FitSettings().for_rows(6400)
    assert (few.epochs, many.epochs) == (125, 20)  # 250 steps, and 2,000
    assert few.weight_decay == pytest.approx(2 / (0.006 * 250))
    assert many.weight_decay == pytest.approx(2 / (0.006 * 2000))
    assert many.for_rows(10) == many
    short = FitSettings(epochs=1).for_rows(100)
    assert short.weight_decay == few.weight_decay
    given = FitSettings(epochs=3, weight_decay=0.5).for_rows(100)
    assert (given.epochs, given.weight_decay) == (3, 0.5)
    for other in (FitSettings(optimizer="sgd"), FitSettings(lr=0.0)):
        assert other.for_rows(100).weight_decay == 0.0
    for layer in ("leaf", "dense"):
        other = FitSettings(layer=layer).for_rows(100)
        assert (other.epochs, other.weight_decay) == (125, 0.1)


@pytest.mark.slow
def test_a_run_has_the_defaults_for_its_rows():
    fitted = fit(few(DIGITS, 80), FitSettings(depth=1, trees=1))
    assert fitted.outcome.steps == 250


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_brings_the_loss_down(optimizer, tmp_path):
    settings = FitSettings(**{**QUICK, "epochs": 6}, optimizer=optimizer)
    fit(few(DIGITS), settings, folder=tmp_path)
    losses = [line["train_loss"] for line in RunFolder(tmp_path).read_history()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("gradients", ["dense", "rows"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_gradients_of_rows_or_of_all_nodes(gradients, optimizer, monkeypatch):
    asked = asked_of_backward(monkeypatch)
    settings = FitSettings(**QUICK, gradients=gradients, optimizer=optimizer)
    assert np.isfinite(fit(few(DIGITS), settings).validation["loss"])
    assert {options["row_sparse"] for options in asked} == {gradients == "rows"}


def asked_of_backward(monkeypatch):
    """Return a list of the options with which FastFeedForward.backward is called from here on."""
    asked = []
    backward = FastFeedForward.backward

    def watch(layer, dy, cache, **options):
        asked.append(options)
        return backward(layer, dy, cache, **options)

    monkeypatch.setattr(FastFeedForward, "backward", watch)
    return asked


def test_rows_are_taken_where_a_batch_visits_few_nodes(monkeypatch):
    asked = asked_of_backward(monkeypatch)
    fit(few(DIGITS), FitSettings(depth=3, epochs=1))
    fit(few(DIGITS, 40), FitSettings(depth=9, epochs=1, batch_size=4))
    assert asked[0]["row_sparse"] is False
    assert asked[-1]["row_sparse"] is True


def test_a_layer_of_ones_own_is_trained(tmp_path):
    made = []

    def make(settings, inputs, outputs):
        made.append(FastFeedForward(inputs, outputs, settings.depth, settings.trees, rng=5))
        return made[0]

    settings = FitSettings(epochs=1)
    fitted = fit(few(DIGITS, 40), settings, make_layer=make)
    assert fitted.predictor.layer is made[0]
    with pytest.raises(ArgumentError, match="'folder' must be None if 'make_layer'"):
        fit(few(DIGITS, 40), settings, make_layer=make, folder=tmp_path)


@pytest.mark.parametrize("layer", ["leaf", "dense"])
def test_a_run_of_another_layer_is_the_same_whether_routes_would_learn(tmp_path, layer):
    table = few(DIGITS, 40)
    fit(table, FitSettings(layer=layer, epochs=1), folder=tmp_path)
    other = FitSettings(layer=layer, epochs=1, straight_through=False)
    fit(table, other, folder=tmp_path, resume=True)


@pytest.mark.parametrize("straight_through", [True, False])
def test_routes_learn_unless_they_are_not_to(monkeypatch, straight_through):
    asked = asked_of_backward(monkeypatch)
    fit(few(DIGITS, 40), FitSettings(epochs=1, straight_through=straight_through))
    assert {options["straight_through"] for options in asked} == {straight_through}


@pytest.mark.parametrize(
    "options",
    [
        {"layer": "fast", "gradients": "rows"},
        {"layer": "leaf", "region_leak": 0.1, "dropout": 0.1, "hardening": 0.3},
        {"layer": "fast", "optimizer": "local-adam"},
        {"layer": "fast", "optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_resumes_to_the_bits_of_an_unbroken_run(options, tmp_path, monkeypatch):
    settings = FitSettings(**QUICK, **options, checkpoint_seconds=0, keep=100)
    whole = fit(few(DIGITS), settings, folder=tmp_path)
    for path in RunFolder(tmp_path).checkpoints()[:-3]:
        path.unlink()
    resumed = fit(few(DIGITS), settings, folder=tmp_path, resume=True)
    for name, array in whole.predictor.layer.params.items():
        assert array.tobytes() == resumed.predictor.layer.params[name].tobytes(), name
    assert resumed.validation == whole.validation


@pytest.mark.slow
def test_a_constant_column_does_no_harm():
    x = np.column_stack([np.full(400, 0.3), INPUTS])
    table = dataclasses.replace(HOUSES, x=x, y=HOUSES.y[:, :1], features=None)
    fitted = fit(table, FitSettings(epochs=30, depth=2, lr=0.02, batch_size=32))
    assert fitted.validation["r2"] > 0.8
    assert np.abs(fitted.predictor.layer.params["weights_in"][..., 0]).max() < 10


def test_targets_that_never_change_are_learned():
    table = dataclasses.replace(HOUSES, y=np.full((400, 1), 0.1), target=("t",))
    fitted = fit(table, FitSettings(**QUICK, patience=1))
    assert np.abs(fitted.predictor.predict(INPUTS) - 0.1).mean() < 0.1


def test_other_data_are_another_run(tmp_path):
    settings = FitSettings(**QUICK)
    fit(few(DIGITS), settings, folder=tmp_path)
    shuffled = dataclasses.replace(few(DIGITS), y=LABELS[:300][::-1])
    with pytest.raises(CheckpointError, match="'contents of y'"):
        fit(shuffled, settings, folder=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="'contents of x'"):
        fit(
            dataclasses.replace(few(DIGITS), x=IMAGES[:300][::-1]),
            settings,
            folder=tmp_path,
            resume=True,
        )


def test_the_former_name_of_the_fast_layer_is_accepted():
    assert FitSettings(layer="node") == FitSettings() == FitSettings(layer="fast")
    assert dataclasses.replace(FitSettings(layer="leaf"), layer="node").layer == "fast"
    with pytest.raises(ArgumentError, match="'layer' must be one of fast, leaf, dense, got 'path'"):
        FitSettings(layer="path")


def test_an_unfinished_run_from_before_two_sided_nodes_is_resumed(tmp_path):
    def run(two_sided, resume):
        settings = FitSettings(**QUICK, two_sided=two_sided, checkpoint_seconds=0)
        return fit(few(DIGITS), settings, folder=tmp_path, resume=resume)

    whole = run(False, resume=False)
    folder = RunFolder(tmp_path)
    folder.checkpoints()[0].unlink()  # as if killed before the last step
    assert "two_sided" not in folder.latest()[1]["identity"]
    with pytest.raises(CheckpointError, match="'two_sided'"):
        run(True, resume=True)
    assert run(False, resume=True).outcome.steps == whole.outcome.steps


def test_an_unfinished_run_of_the_former_name_is_resumed(tmp_path):
    settings = FitSettings(**QUICK, checkpoint_seconds=0)
    whole = fit(few(DIGITS), settings, folder=tmp_path)
    folder = RunFolder(tmp_path)
    folder.checkpoints()[0].unlink()  # as if killed before the last step
    path, notes, arrays = folder.latest()
    assert notes["identity"]["layer"] == "fast"
    notes["identity"]["layer"] = "node"
    path.unlink()
    folder.save(notes["step"], arrays, notes, keep=2)
    with pytest.raises(CheckpointError, match="'layer' was 'fast' and is 'leaf'"):
        fit(few(DIGITS), FitSettings(**QUICK, layer="leaf"), folder=tmp_path, resume=True)
    resumed = fit(few(DIGITS), settings, folder=tmp_path, resume=True)
    assert resumed.outcome.steps == whole.outcome.steps
    for name, array in whole.predictor.layer.params.items():
        assert resumed.predictor.layer.params[name].tobytes() == array.tobytes()


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    settings = FitSettings(**QUICK)
    fit(few(DIGITS), settings, folder=tmp_path)
    with pytest.raises(CheckpointError, match="Pass resume=True to continue it"):
        fit(few(DIGITS), settings, folder=tmp_path)
    with pytest.raises(CheckpointError, match="'rows' was 300 and is 200"):
        fit(few(DIGITS, 200), settings, folder=tmp_path, resume=True)
    other = dataclasses.replace(settings, depth=4)
    with pytest.raises(CheckpointError, match="'depth' was 3 and is 4"):
        fit(few(DIGITS), other, folder=tmp_path, resume=True)


def test_momentum_with_decay_takes_dense_gradients():
    options = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}
    fit(few(DIGITS, 60), FitSettings(depth=9, epochs=1, batch_size=4, **options))


def test_patience_keeps_the_best_epoch(monkeypatch):
    accuracies = iter([0.5, 0.9, 0.3, 0.2, 0.1])
    kept = {}
    plain = trainer.Trainer._evaluate

    def note(self, rate):
        kept[self.step] = self.objective.params["weights_in"].copy()
        plain(self, rate)

    monkeypatch.setattr(trainer.Trainer, "_evaluate", note)
    monkeypatch.setattr(
        TableObjective, "evaluate", lambda self: {"validation_accuracy": next(accuracies)}
    )
    settings = FitSettings(**{**QUICK, "epochs": 9}, patience=2, standardize="none")
    fitted = fit(few(DIGITS), settings)
    assert fitted.outcome.stopped_early
    assert fitted.outcome.figures == {"validation_accuracy": 0.9}
    best = kept[sorted(kept)[1]]
    np.testing.assert_array_equal(fitted.predictor.layer.params["weights_in"], best)


def test_seeds_decide():
    tables = [fit(few(DIGITS), FitSettings(**QUICK, seed=seed)) for seed in (0, 0, 1)]
    weights = [fitted.predictor.layer.params["weights_in"].tobytes() for fitted in tables]
    assert weights[0] == weights[1] != weights[2]


def test_bytes_are_a_table_too():
    pixels = dataclasses.replace(DIGITS, x=(IMAGES * 16).astype(np.uint8))
    fitted = fit(few(pixels), FitSettings(**{**QUICK, "epochs": 5}, standardize="table"))
    assert fitted.validation["accuracy"] > 0.3


def test_figures_of_another_table():
    fitted = fit(few(DIGITS), FitSettings(**QUICK))
    figures = evaluate_table(fitted.predictor, DIGITS)
    assert figures["accuracy"] == (fitted.predictor.predict(IMAGES) == LABELS).mean()
    with pytest.raises(ArgumentError, match="'table'"):
        evaluate_table(fitted.predictor, dataclasses.replace(DIGITS, classes=("a", "b")))
    with pytest.raises(ArgumentError, match="'table'"):
        evaluate_table(fitted.predictor, dataclasses.replace(DIGITS, y=None, classes=None))


def test_refuses_a_table():
    x = IMAGES.copy()
    x[7, 3] = np.nan
    with pytest.raises(DataError, match="row 7, column 3"):
        fit(dataclasses.replace(DIGITS, x=x), FitSettings())
    with pytest.raises(ArgumentError, match="targets"):
        fit(dataclasses.replace(DIGITS, y=None, classes=None), FitSettings())
    with pytest.raises(ArgumentError, match="two rows per class"):
        fit(few(DIGITS, 15), FitSettings())
    with pytest.raises(ArgumentError, match="at least two classes"):
        fit(dataclasses.replace(DIGITS, y=0 * LABELS, classes=(7,)), FitSettings())
    with pytest.raises(ArgumentError, match="1 rows"):
        fit(few(HOUSES, 1), FitSettings())
    with pytest.raises(ArgumentError, match=r"column 'a' .* can be squared"):
        fit(dataclasses.replace(HOUSES, x=INPUTS + 1e300), FitSettings())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layer": "tree"}, "layer"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"schedule": "step"}, "schedule"),
        ({"standardize": "rows"}, "standardize"),
        ({"gradients": "some"}, "gradients"),
        ({"hardening_schedule": "cubic"}, "hardening_schedule"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"validation": 1.0}, "validation"),
        ({"validation": 0.0, "patience": 3}, "patience"),
        ({"hardening": 0.3}, "hardening"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay"),
        ({"layer": "dense", "optimizer": "local-sgd"}, "optimizer"),
        ({"local_batch_size": 0}, "local_batch_size"),
        ({"depth": 99}, "depth"),
        ({"layer": "leaf", "leaf_width": 0}, "leaf_width"),
        ({"layer": "dense", "width": 0}, "width"),
        ({"lr": -1.0}, "lr"),
        ({"momentum": 2.0}, "momentum"),
        ({"patience": 0}, "patience"),
        (
            {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1, "gradients": "rows"},
            "gradients",
        ),
    ],
)
def test_refuses_settings(options, named):
    with pytest.raises(ArgumentError, match=f"'{named}'"):
        FitSettings(**options)


def test_callbacks_see_every_epoch_and_stop_the_run():
    seen = []

    def stop(evaluation):
        seen.append((evaluation.number, evaluation.figures["validation_accuracy"]))
        if evaluation.number == 2:
            raise StopTraining

    fitted = fit(few(DIGITS), FitSettings(**QUICK | {"epochs": 5}), callbacks=[stop])
    assert [number for number, _ in seen] == [1, 2]
    assert fitted.outcome.stopped_early
    assert fitted.outcome.figures["validation_accuracy"] == seen[-1][1]
