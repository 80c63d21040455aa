"""The commands: tries and their recipes, runs that are done once, and the tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.learning import recipes, sets, show, training
from benchmarks.accuracy.learning.__main__ import TRIES, main, parse
from benchmarks.accuracy.learning.recipes import Recipe, Times
from benchmarks.accuracy.learning.sets import SOURCES, Rows, recipe_of, tries_of
from benchmarks.data.bert import Neurons, gelu
from benchmarks.data.minilm import array_path, neurons_path
from benchmarks.records import append_records, read_records
from fffcpu.data import Table
from fffcpu.recipes.fitting import FitSettings, fit
from fffcpu.recipes.scaling import Scaling, TargetScaling


@pytest.fixture
def data(tmp_path):
    """The folders of the activations of a small feedforward, and of a table of letters."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((6, 5))
    for split, rows in (("training", 300), ("held-out", 60)):
        x = rng.standard_normal((rows, 6)).astype(np.float32)
        y = 3 + x @ weights + 0.1 * np.sin(3 * x[:, :1])
        np.save(array_path(tmp_path, 4, split, "inputs"), x)
        np.save(array_path(tmp_path, 4, split, "outputs"), y.astype(np.float32))
    shapes = {"weights_in": (4, 6), "bias_in": (4,), "weights_out": (4, 5)}
    neurons = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    np.savez(neurons_path(tmp_path, 4), **neurons)
    x = rng.integers(0, 16, (4300, 3))
    lines = [f"{a},{b},{c},{'ABC'[a // 6]}" for a, b, c in x]
    (tmp_path / "letters.csv").write_text("\n".join(["a,b,c,class", *lines]) + "\n")
    return [str(tmp_path), str(tmp_path)]


def train(data: list[str], out: Path, *options: str) -> list[dict]:
    main(["train", *data, str(out), "--quick", *options])
    return read_records(training.records_path(out / "quick"))


def small_rows(classes: int = 0) -> Rows:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((130, 4)).astype(np.float32)
    y = np.sin(3 * x[:, :3])
    if classes:
        return Rows(x, y.argmax(1), x[:50], y[:50].argmax(1), 3)
    shapes = (300, 4), (300,), (300, 3)
    return Rows(x, y, x, y, 3, Neurons(*(rng.standard_normal(s, np.float32) for s in shapes)))


def test_a_try_changes_the_base():
    base = SOURCES["letters"].base
    changes = {"lr": Times(0.5), "epochs": Times(8 / 3), "noise": 0.1}
    found = recipes.changed(base, changes)
    assert found == base._replace(lr=base.lr / 2, epochs=107, noise=0.1)
    assert recipe_of("minilm-4", "6x10", False)[:2] == (6, 10)
    assert recipe_of("minilm-4", "soft", False).epochs == 8
    assert recipe_of("minilm-4", "batch-x0.5", False).batch_size == 128
    assert recipe_of("mnist", "dense-32", False).width == 32


@pytest.mark.parametrize("data", SOURCES)
def test_tries_differ_from_each_other(data):
    found = [recipe_of(data, name, False) for name in tries_of(data)]
    assert len(set(found)) == len(found)
    assert found[0] == SOURCES[data].base


def test_scaled_neurons_give_the_scaled_targets():
    rng = np.random.default_rng(0)
    x = (3 + 2 * rng.standard_normal((50, 4))).astype(np.float32)
    shapes = (30, 4), (30,), (30, 3)
    neurons = Neurons(*(rng.standard_normal(shape, np.float32) for shape in shapes))
    y = gelu(x @ neurons.weights_in.T + neurons.bias_in) @ neurons.weights_out
    scaling, targets = Scaling.of(x, np.arange(50), "columns"), TargetScaling.of(y)
    weights_in, bias_in, weights_out = sets.scaled_neurons(neurons, scaling, targets)
    scaled = gelu(scaling.apply(x, np.float32) @ weights_in.T + bias_in) @ weights_out
    difference = scaled - targets.apply(y, np.float32)
    np.testing.assert_allclose(difference, np.broadcast_to(difference[0], (50, 3)), atol=1e-4)


def test_every_shape_uses_about_as_many_neurons_as_the_base():
    for source in SOURCES.values():
        used = source.base.trees * (source.base.depth + 1)
        for trees, depth in source.shapes:
            assert trees * (depth + 1) == pytest.approx(used, rel=0.07)


def test_the_plan_has_one_seed_after_the_other():
    tries = "--tries", "relu", "base", "6x10", "2x7"
    command = "train", "a", "t", "o", "--sets", "letters", "minilm-4", *tries, "--seeds", "2"
    options = parse(command)
    found = [(run.seed, run.data, run.name) for run in training.plan(options)]
    assert found == [
        (seed, data, name)
        for seed in range(2)
        for data, shape in (("letters", "2x7"), ("minilm-4", "6x10"))
        for name in ("base", "relu", shape)
    ]
    everything = parse(["train", "a", "t", "o"])
    assert len(list(training.plan(everything))) == sum(len(tries_of(data)) for data in SOURCES)


def test_the_base_is_what_fit_does():
    rows = small_rows(classes=3)
    recipe = Recipe(
        trees=2, depth=2, epochs=3, batch_size=32, lr=0.02, weight_decay=0.1, two_sided=True
    )
    found = training.train_model(rows, recipe, seed=1)
    settings = FitSettings(
        trees=2, depth=2, epochs=3, batch_size=32, lr=0.02, weight_decay=0.1, two_sided=True,
        seed=1, validation=0.0, standardize="none",
    )  # fmt: skip
    table = Table(rows.x, rows.y, classes=("a", "b", "c"))
    expected = fit(table, settings, progress=False).predictor.layer
    for name, param in expected.params.items():
        np.testing.assert_array_equal(found.params[name], param)


def test_learning_rates_are_those_of_the_recipe():
    rows = small_rows()
    base = Recipe(trees=2, depth=2, epochs=1, batch_size=65, lr=0.01, weight_decay=0.1)
    start = training.new_model(rows, base, 0)

    def moves(**change):
        # Of two steps the first has a rate of 0, so there is one move.
        params = training.train_model(rows, base._replace(**change), 0).params
        return {name: params[name] - start.params[name] for name in params}

    usual, inputs, by_level = moves(), moves(input_rate=2.0), moves(level_rate=2.0)
    for name, move in usual.items():
        np.testing.assert_allclose(
            inputs[name], move * (1.0 if name == "weights_out" else 2.0), atol=1e-7
        )
        for level, factor in enumerate((0.5, 1.0, 2.0)):
            nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
            np.testing.assert_allclose(by_level[name][:, nodes], factor * move[:, nodes], atol=1e-7)


def test_weights_are_averaged():
    rows = small_rows()
    base = Recipe(trees=1, depth=1, epochs=1, batch_size=65, lr=0.01, weight_decay=0.1)
    start = training.new_model(rows, base, 0)
    last = training.train_model(rows, base, 0)
    average = training.train_model(rows, base._replace(averaging=0.75), 0)
    for name, param in average.params.items():  # two steps, the first of rate 0
        expected = 0.75 * start.params[name] + 0.25 * last.params[name]
        np.testing.assert_allclose(param, expected, atol=1e-7)


@pytest.mark.slow
def test_training_continues_where_it_was_killed(data, tmp_path, capsys):
    out = tmp_path / "out"
    options = "--sets", "mnist", "letters", "minilm-4", "--tries", "base", "soft", "dense-16"
    done = train(data, out, *options)
    assert f"mnist left out: no {tmp_path / 'mnist'}" in capsys.readouterr().err
    assert [(run["set"], run["try"]) for run in done] == [
        *(("letters", name) for name in ("base", "soft", "dense-16")),
        *(("minilm-4", name) for name in ("base", "soft")),
    ]
    assert set(done[0]) == {"set", "try", "seed", "score", "train_score", "seconds", "recipe"}
    assert done[0]["score"] > 0.4
    path = training.records_path(out / "quick")
    path.write_bytes(path.read_bytes()[:-40])  # killed while it wrote the last line
    resumed = train(data, out, *options)
    assert resumed[:-1] == done[:-1]  # the seconds too: they were not done again
    assert {**resumed[-1], "seconds": 0} == {**done[-1], "seconds": 0}
    assert train(data, out, *options) == resumed
    more = train(data, out, *options, "--seeds", "2")
    assert [run["seed"] for run in more] == [0] * 5 + [1] * 5


def test_a_run_of_another_recipe_is_done_again_and_not_shown(data, tmp_path, capsys):
    options = "--sets", "letters", "--tries", "base"
    (done,) = train(data, tmp_path, *options)
    path = training.records_path(tmp_path / "quick")
    other, older = {**done["recipe"], "lr": 9.0}, {"lr": 9.0, "forgotten": 1}
    path.write_text("".join(json.dumps({**done, "recipe": r}) + "\n" for r in (other, older)))
    with pytest.raises(SystemExit, match="no runs in"):
        main(["show", str(tmp_path), "--quick"])
    again = train(data, tmp_path, *options)
    assert {**again[2], "seconds": 0} == {**done, "seconds": 0}
    main(["show", str(tmp_path), "--quick"])
    assert "| base | 1 |" in capsys.readouterr().out


def test_the_best_try_comes_first(tmp_path, capsys):
    def lines(data, name, *scores):
        recipe = recipe_of(data, name, quick=False)._asdict()
        for seed, score in enumerate(scores):
            run = {"set": data, "try": name, "seed": seed, "score": score, "recipe": recipe}
            more = {"train_score": score + 0.01, "seconds": 1500.0}
            append_records(training.records_path(tmp_path), [run | more])

    lines("minilm-4", "base", 0.69, 0.71, 0.73)
    lines("minilm-4", "soft", 0.70, 0.73)
    lines("minilm-4", "relu", 0.5)
    lines("letters", "rate-x2", 0.9)
    main(["show", str(tmp_path)])
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("###")] == ["### minilm-4", "### letters"]
    base = "trees 8, depth 7, epochs 6, batch_size 256, lr 0.004, weight_decay 0.3, rows 200000"
    assert shown[2] == f"Base: {base}."
    assert [line for line in shown if line.startswith("| ")] == [
        "| try | seeds | R2 on the tokens held out | difference to base | train | training |",
        "| --- | --- | --- | --- | --- | --- |",
        "| soft | 2 | 0.7150 ± 0.0150 | +0.0150 | 0.7250 | 1,500 s |",
        "| base | 3 | 0.7100 ± 0.0200 | - | 0.7200 | 1,500 s |",
        "| relu | 1 | 0.5000 | -0.1900 | 0.5100 | 1,500 s |",
        "| try | seeds | accuracy on the test rows | difference to base | train | training |",
        "| --- | --- | --- | --- | --- | --- |",
        "| rate-x2 | 1 | 90.00% | - | 91.00% | 1,500 s |",
    ]
    runs = show.read_runs(parse(["show", str(tmp_path), "--sets", "letters"]))
    assert list(runs) == ["letters"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIES)
def test_every_try_can_be_trained(name):
    rows = small_rows()
    for data in SOURCES:
        if name in tries_of(data):
            recipe = recipe_of(data, name, quick=True)._replace(batch_size=32)
            record = training.do(training.Run(data, name, 0, recipe), rows)
            assert np.isfinite(record["score"])
            break
