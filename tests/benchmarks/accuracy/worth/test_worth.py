"""The commands: runs that are done once, times, tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.worth import models, show, timing, training
from benchmarks.accuracy.worth.__main__ import main, parse
from benchmarks.data import minilm
from benchmarks.records import append_records, read_records
from fffcpu.recipes.fitting import FitSettings

SOME = ["linear", "dense-32", "dense-64", "fff-4x5", "leaf-4x32"]


@pytest.fixture
def data(tmp_path):
    """The folder of the activations of two small feedforwards."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for layer in range(2):
        weights = rng.standard_normal((6, 5))
        for split, rows in (("training", 300), ("held-out", 60)):
            x = rng.standard_normal((rows, 6)).astype(np.float32)
            y = 3 + x @ weights + 0.1 * np.sin(3 * x[:, :1])
            np.save(minilm.array_path(folder, layer, split, "inputs"), x)
            np.save(minilm.array_path(folder, layer, split, "outputs"), y.astype(np.float32))
    (folder / minilm.ABOUT_FILE).write_text(json.dumps({"layers": 2}))
    return str(folder)


def train(data: str, out: Path, *options: str) -> list[dict]:
    main(["train", data, str(out), "--epochs", "1", *options])
    return read_records(training.records_path(out))


def test_layers_are_fitted_seed_by_seed(data, tmp_path):
    found = train(data, tmp_path / "out", "--models", *SOME, "--seeds", "2")
    runs = [(run["seed"], run["layer"], run["model"]) for run in found]
    assert runs == [
        *((0, layer, model) for layer in range(2) for model in SOME),
        *((1, layer, model) for layer in range(2) for model in SOME[1:]),
    ]
    by_model = {run["model"]: run for run in found[:5]}
    assert by_model["linear"]["r2"] == pytest.approx(1, abs=0.01)
    assert [by_model[model]["used"] for model in SOME] == [0, 32, 64, 24, 32]
    assert [by_model[model]["held"] for model in SOME] == [0, 32, 64, 252, 512]
    assert by_model["dense-32"]["parameters"] == 32 * (6 + 1 + 5)
    assert {run["recipe"]["weight_decay"] for run in found} == {0.3}
    assert sorted(path.name for path in (tmp_path / "out" / "layers").iterdir()) == sorted(
        f"layer{layer}-{model}.safetensors" for layer in range(2) for model in SOME[1:]
    )


def test_training_continues_where_it_was_killed(data, tmp_path):
    out = tmp_path / "out"
    command = data, out, "--models", "dense-32", "leaf-4x32", "--layers", "1"
    done = train(*command)
    path = training.records_path(out)
    path.write_bytes(path.read_bytes()[:-40])  # killed while it wrote the last line
    resumed = train(*command)
    assert resumed[0] == done[0]  # the seconds too: it was not done again
    assert {**resumed[1], "seconds": 0} == {**done[1], "seconds": 0}
    assert train(*command) == resumed

    lost = models.layer_path(out, 1, "dense-32")
    before = lost.read_bytes()
    lost.unlink()
    again = train(*command)
    assert lost.read_bytes() == before
    assert {**again[2], "seconds": 0} == {**done[0], "seconds": 0}
    fits = show.read_fits(parse(["show", str(out)]))
    assert {model: len(fit.records) for model, fit in fits[1].items()} == {
        "dense-32": 1,
        "leaf-4x32": 1,
    }

    with pytest.raises(SystemExit, match="has runs of another recipe"):
        train(*command, "--lr", "0.1")
    assert read_records(path) == again


def test_quantized_layers_are_made_of_fitted_ones(data, tmp_path):
    out = tmp_path / "out"
    small = ["dense-32-int8", "two-4x5-bfloat16", "two-4x5-int8"]
    with pytest.raises(SystemExit, match=r"layer0-dense-32\.safetensors; fit that layer first"):
        train(data, out, "--models", *small)
    command = data, out, "--layers", "0", "--seeds", "2"
    found = train(*command, "--models", "dense-32", "two-4x5", *small)
    assert [(run["model"], run["seed"]) for run in found] == [
        *((model, 0) for model in ("dense-32", "two-4x5", *small)),
        *((model, 1) for model in ("dense-32", "two-4x5")),
    ]
    r2 = {run["model"]: run["r2"] for run in found if run["seed"] == 0}
    for name in small:
        origin = models.MODELS[name].origin
        assert 0 < abs(r2[name] - r2[origin]) < 0.05
        sizes = [models.layer_path(out, 0, model).stat().st_size for model in (name, origin)]
        assert sizes[0] < sizes[1]


def test_layers_of_int8_are_compared_with_dense_layers_of_int8():
    for name, rival in (
        ("two-4x5", "dense-32"),
        ("two-4x5-bfloat16", "dense-32"),
        ("two-4x5-int8", "dense-32-int8"),
    ):
        rivals = [model for model in models.MODELS if models.is_rival(model, name)]
        assert rivals[0] == rival
        assert len(rivals) == 5


def test_batches_of_rows_held_out_repeat_them_if_there_are_too_few():
    x = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    batches = timing.batches_of(x, 4000)
    assert [batch.shape for batch in batches] == [(4000, 2)] * 2
    np.testing.assert_array_equal(np.concatenate(batches), np.tile(x, (1600, 1)))
    single = timing.batches_of(x, 1)
    assert len(single) == timing.DISTINCT_ROWS
    np.testing.assert_array_equal(np.concatenate(single[:5]), x)


def test_worth_is_of_the_mean_over_seeds(tmp_path):
    def line(model, seed, r2):
        run = {"layer": 0, "model": model, "seed": seed, "r2": r2, "parameters": 1, "seconds": 1}
        append_records(training.records_path(tmp_path), [run | {"recipe": {}}])

    for model, r2 in (("dense-32", 0.4), ("dense-64", 0.5), ("fff-4x5", 0.45), ("two-4x5", 0.6)):
        line(model, 0, r2 - 0.02)
        line(model, 1, r2 + 0.02)
    fits = show.read_fits(parse(["show", str(tmp_path)]))
    assert show.width_of(fits[0], "fff-4x5").neurons == pytest.approx(32 * 2**0.5)
    assert show.width_of(fits[0], "dense-32") is None
    lines = show.describe_worth(fits)
    assert f"| fff-4x5 | 24 | {32 * 2**0.5 / 24:.2f} | {32 * 2**0.5 / 24:.2f} |" in lines
    assert f"| two-4x5 | 24 | >{128 / 24:.2f} | >{128 / 24:.2f} |" in lines
    assert any("| 0.450 ± 0.020 |" in line for line in show.describe_quality(fits))


def test_advantages_follow_from_worth_and_time():
    fits = {
        model: show.Fit([{"r2": r2}])
        for model, r2 in (("dense-32", 0.4), ("dense-64", 0.5), ("fff-4x5", 0.45))
    }
    times = {
        model: {"microseconds": time, "price": price}
        for model, time, price in (
            ("dense-32", 2.0, 1.0),
            ("dense-64", 8.0, 1.0),
            ("fff-4x5", 1.0, 3.0),
        )
    }
    case = show.case_of("fff-4x5", fits, {"models": times})
    assert case.advantage == pytest.approx(32 * 2**0.5 / 24 / 3)
    assert case.faster == pytest.approx(4.0)
    assert show.case_of("dense-32", fits, {"models": times}).advantage is None
    assert show.case_of("two-4x5", fits, {"models": times}) is None


@pytest.mark.parametrize("model", models.MODELS)
def test_models_have_possible_settings(model):
    sizes = models.MODELS[model].sizes
    recipe = models.recipe_of(parse(["train", "data", "out"]))
    del recipe["tokens"]
    FitSettings(seed=0, validation=0.0, **recipe, **sizes)


@pytest.mark.slow
def test_layers_are_timed_and_shown(data, tmp_path, capsys):
    out = tmp_path / "quick"
    timed = [*SOME, "dense-32-int8", "dense-64-int8", "two-4x5", "two-4x5-bfloat16", "two-4x5-int8"]
    train(data, tmp_path, "--quick", "--models", *timed)
    command = ["time", str(tmp_path), "--quick", "--repeats", "2", "--seconds", "0"]
    main(command)
    path = timing.times_path(out)
    found = read_records(path)
    kinds = [(record["layer"], record["kind"], record["rows"]) for record in found]
    assert kinds == [
        (layer, kind, rows) for layer in range(2) for kind, rows in (("batch", 512), ("single", 1))
    ]
    for record in found:
        assert set(record["models"]) == set(timed[1:])
        assert set(record["products"]) == {"24", "32", "64"}
        for own in record["models"].values():
            assert 0 < own["low"] <= own["price"] <= own["high"]
    main(command)
    assert read_records(path) == found
    main([*command, "--rows", "64", "--layers", "1"])
    assert [record["rows"] for record in read_records(path)[4:]] == [64]

    capsys.readouterr()
    main(["show", str(tmp_path), "--quick"])
    shown = capsys.readouterr().out
    titles = [line for line in shown.splitlines() if line.startswith("###")]
    assert titles == [
        "### R2 on the tokens held out",
        "### Worth: dense neurons of equal R2 per used neuron",
        "### Price and advantage: batches",
        "### Price and advantage: single rows",
    ]
    assert all(shown.count(f"| {name} |") == 3 for name in SOME[1:3])
    assert all(shown.count(f"| {name} |") == 4 for name in (*SOME[3:], *timed[-3:]))
    pictures = sorted(path.name for path in out.glob("*.svg"))
    assert pictures == ["worth-layer0.svg", "worth-layer1.svg", "worth.svg"]
    assert "float16" not in (out / "worth.svg").read_text()


def test_a_layer_that_is_not_the_one_of_its_record_is_not_timed(data, tmp_path):
    train(data, tmp_path, "--models", "dense-32", "--layers", "0")
    path = training.records_path(tmp_path)
    (record,) = read_records(path)
    path.write_text(json.dumps({**record, "r2": record["r2"] + 0.1}) + "\n")
    with pytest.raises(timing.WrongOutputError, match="dense-32 must have the R2"):
        main(["time", str(tmp_path), "--repeats", "1", "--seconds", "0"])
