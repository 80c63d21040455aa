"""`fffcpu train`: files in, a model out, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fffcpu
from fffcpu import Predictor
from fffcpu.cli import train
from fffcpu.cli.support import runs
from fffcpu.data import load_digits
from fffcpu.errors import ArgumentError
from fffcpu.training.run_folder import RunFolder

QUICK = ["--epochs", "2", "--depth", "2", "--trees", "1", "--seed", "3"]


@pytest.fixture
def houses(tmp_path):
    """A CSV of houses: two features, a price and a street."""
    rng = np.random.default_rng(0)
    lines = ["rooms,area,price,street"]
    for _ in range(120):
        rooms, area = rng.integers(1, 9), rng.uniform(20, 200)
        price = 1000 * area + 5000 * rooms
        lines.append(f"{rooms},{area:.2f},{price:.1f},{'Main' if area > 100 else 'Side'}")
    path = tmp_path / "houses.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def without(path, column):
    """The table without one of its columns."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    at = rows[0].index(column)
    kept = "\n".join(",".join(row[:at] + row[at + 1 :]) for row in rows)
    copy = path.with_name(f"without-{column}.csv")
    copy.write_text(kept + "\n")
    return copy


@pytest.fixture
def digits(tmp_path):
    """The digits as .npy files."""
    images, labels = load_digits()
    np.save(tmp_path / "x.npy", images[:300])
    np.save(tmp_path / "y.npy", labels[:300])
    return tmp_path / "x.npy", tmp_path / "y.npy"


def test_texts_to_predict_are_offered_no_regression(command, houses, tmp_path):
    options = ["--out", tmp_path / "m", *QUICK]
    status, _, told = command("train", houses, "--target", "street", *options)
    assert status == 0
    assert told.splitlines()[1] == "target 'street': classification, 2 classes"
    lines = houses.read_text().splitlines()
    lines[1:] = [f"{line},id{k}" for k, line in enumerate(lines[1:])]
    houses.write_text("\n".join([lines[0] + ",id", *lines[1:]]))
    status, _, told = command("train", houses, "--target", "id", *options, "--overwrite")
    assert status == 1
    assert told.endswith("at least two rows per class, got 120 classes in 120 rows\n")


def test_dates_to_predict_are_named_as_dates(command, tmp_path):
    path = tmp_path / "days.csv"
    path.write_text("x,day\n" + "".join(f"{k},2013-01-0{k % 4 + 1}\n" for k in range(80)))
    status, _, told = command("train", path, "--target", "day", "--out", tmp_path / "m", *QUICK)
    assert status == 0
    assert "column 'day' is taken as texts, but it looks like dates: write numbers" in told


def test_a_classifier_that_learned_nothing_is_compared_with_the_most_frequent_class(
    command, tmp_path
):
    rng = np.random.default_rng(0)
    noise, rare = rng.standard_normal(400), rng.permutation(400) < 20
    rows = [
        f"{x:.3f},{'fraud' if odd else 'ok'},{int(odd)}" for x, odd in zip(noise, rare, strict=True)
    ]
    path = tmp_path / "rare.csv"
    path.write_text("\n".join(["x,status,truth", *rows]))
    arguments = ["train", path, "--target", "status", "--out"]
    hint = "the validation accuracy is not above 0.9500, that of always predicting 'ok'"
    status, _, told = command(*arguments, tmp_path / "m", "--columns", "x", *QUICK)
    assert status == 0
    assert hint in told
    status, _, told = command(*arguments, tmp_path / "n", "--epochs", "20")
    assert status == 0
    assert hint not in told


def test_a_regression_is_reported_in_the_unit_of_its_target(command, houses, tmp_path):
    arguments = ["train", houses, "--target", "price", "--out", tmp_path / "m", *QUICK]
    _, printed, _ = command(*arguments)
    _, as_json, _ = command(*arguments, "--overwrite", "--json")
    root = json.loads(as_json)["validation"]["loss"] ** 0.5
    lines = [line.split() for line in printed.splitlines()[-2:]]
    assert lines[0] == ["rmse", "r2"]
    assert float(lines[1][1].replace(",", "")) == pytest.approx(root, rel=1e-5)


@pytest.mark.slow
def test_a_regression_from_a_csv(command, houses, tmp_path):
    out = tmp_path / "price.safetensors"
    data = without(houses, "street")
    options = ["--epochs", 40, "--batch-size", 16, "--lr", 0.02]
    status, printed, told = command("train", data, "--target", "price", "--out", out, *options)
    assert status == 0, told
    assert "120 rows of 2 columns" in told
    assert "target 'price': regression, 120 different numbers (pass --task classif" in told
    assert "validation" in printed
    predictor = Predictor.load(out)
    assert predictor.schema.features == ("rooms", "area")
    assert predictor.schema.target == ("price",)
    predicted = predictor.predict([[4, 100]])
    assert 90_000 < predicted[0] < 150_000


@pytest.mark.slow
def test_classes_from_a_csv(command, houses, tmp_path):
    out = tmp_path / "street.safetensors"
    data = without(houses, "price")
    status, printed, _ = command(
        *("train", data, "--target", "street", "--out", out, "--epochs", 30, "--json"),
        *("--test", data, "--batch-size", 16),
    )
    assert status == 0
    report = json.loads(printed)
    assert report["task"] == "classification"
    assert report["test"]["accuracy"] > 0.9
    assert Predictor.load(out).schema.classes == ("Main", "Side")
    folder = RunFolder(f"{out}.training")
    assert [line["step"] for line in folder.read_history()][-1] == report["steps"]
    assert not folder.checkpoints()


@pytest.mark.parametrize("layer", ["fast", "leaf", "dense"])
def test_arrays_and_every_layer(command, digits, tmp_path, layer):
    x, y = digits
    out = tmp_path / "digits.safetensors"
    status, printed, told = command(
        "train", x, "--target", y, "--out", out, "--layer", layer, *QUICK
    )
    assert status == 0, told
    kinds = {"fast": "FastFeedForward", "leaf": "LeafFeedForward", "dense": "DenseFeedForward"}
    assert kinds[layer] in printed
    assert fffcpu.load(out).config.kind == kinds[layer]


def test_the_former_name_of_the_fast_layer_is_accepted(command, digits, tmp_path):
    x, y = digits
    for name in ("fast", "node"):
        arguments = ["--layer", name, "--out", tmp_path / name]
        assert command("train", x, "--target", y, *arguments, *QUICK)[0] == 0
    assert (tmp_path / "fast").read_bytes() == (tmp_path / "node").read_bytes()


def test_the_same_command_gives_the_same_bytes(command, digits, tmp_path):
    x, y = digits
    for name in "ab":
        assert command("train", x, "--target", y, "--out", tmp_path / name, *QUICK)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_unfinished_training_is_taken_up_or_left_alone(command, digits, tmp_path, monkeypatch):
    x, y = digits
    arguments = ["train", x, "--target", y, *QUICK, "--checkpoint-seconds", 0]
    assert command(*arguments, "--out", tmp_path / "whole")[0] == 0

    def power_cut(layer, *arguments, **options):
        raise OSError("power cut")

    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "save", power_cut)
        assert command(*arguments, "--out", out)[0] == 1
    assert RunFolder(f"{out}.training").checkpoints()
    status, printed, told = command(*arguments, "--out", out)
    assert (status, printed) == (1, "")
    assert "--resume" in told
    assert command(*arguments, "--out", out, "--resume", "--lr", 0.5)[0] == 1
    assert command(*arguments, "--out", out, "--resume")[0] == 0
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(digits, tmp_path):
    x, y = digits
    out = tmp_path / "model"
    environment = {**os.environ, "PYTHONPATH": str(Path(fffcpu.__file__).parent.parent)}
    command = [sys.executable, "-m", "fffcpu", "train", x, "--target", y, "--out", out]
    child = subprocess.Popen(
        [*map(str, command), "--epochs", "100000", "--checkpoint-seconds", "0.05"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not RunFolder(f"{out}.training").checkpoints() and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "with --resume to continue" in told
    assert "Traceback" not in told
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--target", "colour"], "colour"),
        (["--epochs", 0], "epochs"),
        (["--validation", 1], "validation"),
        (["--layer", "fast", "--hardening", 1], "hardening"),
        (["--out", "missing/model"], "missing"),
        (["--threads", 0], "threads"),
        (["--test", "none.csv"], "none.csv"),
        (["--test", "x.npy"], "--test-target"),
        (["--depth", 99], "depth"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_says_in_one_line_what_is_wrong(command, houses, tmp_path, change, named):
    data = without(houses, "street")
    arguments = ["train", data, "--target", "price", "--out", tmp_path / "model"]
    status, printed, told = command(*arguments, *change)
    assert (status, printed) == (1, "")
    assert told.startswith("fffcpu: error: ")
    assert named in told
    assert told.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_what_is_wrong_with_a_table_is_told_with_its_place(command, houses, tmp_path):
    houses = without(houses, "street")
    lines = houses.read_text().splitlines()
    lines[6] = lines[6].replace(",", ",,", 1)
    houses.write_text("\n".join(lines))
    status, _, told = command("train", houses, "--target", "price", "--out", tmp_path / "m")
    assert status == 1
    assert "line 7" in told


def test_numbers_to_predict_are_not_taken_for_classes(command, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((100, 2)))
    np.save(tmp_path / "y.npy", rng.permutation(100))
    arguments = ["train", tmp_path / "x.npy", "--target", tmp_path / "y.npy"]
    arguments += ["--out", tmp_path / "m", *QUICK]
    status, printed, told = command(*arguments)
    assert status == 0
    assert "r2" in printed
    assert "regression, 100 different numbers (pass --task classification to change this)" in told
    status, _, told = command(*arguments, "--task", "classification", "--overwrite")
    assert status == 1
    assert "--task regression" in told


def test_an_input_is_never_overwritten(command, digits):
    x, y = digits
    before = x.read_bytes()
    for out in (x, y):
        status, _, told = command("train", x, "--target", y, "--out", out)
        assert status == 1
        assert "--out" in told
    assert x.read_bytes() == before


def test_a_loss_without_bounds_is_told_in_one_line(command, digits, tmp_path):
    x, y = digits
    wild = ["--optimizer", "sgd", "--lr", "1e30", "--max-norm", "none", "--epochs", "9"]
    status, _, told = command("train", x, "--target", y, "--out", tmp_path / "m", *wild)
    assert status == 1
    assert "smaller learning rate" in told.splitlines()[-1]


def test_something_must_be_predicted(command, digits, tmp_path):
    status, _, told = command("train", digits[0], "--out", tmp_path / "m")
    assert status == 1
    assert "--target" in told


def test_resuming_says_where_it_goes_on(command, digits, tmp_path):
    x, y = digits
    arguments = ["train", x, "--target", y, "--out", tmp_path / "m", "--resume", *QUICK]
    assert "nothing to resume: starting from the beginning" in command(*arguments)[2]
    before = (tmp_path / "m").read_bytes()
    status, printed, told = command(*arguments)
    assert (status, printed) == (1, "")
    assert f"'{tmp_path / 'm'}' is finished" in told
    assert (tmp_path / "m").read_bytes() == before


def test_a_test_table_of_another_width_is_told_before_training(command, digits, tmp_path):
    x, y = digits
    np.save(tmp_path / "narrow.npy", np.zeros((300, 3)))
    test = ["--test", tmp_path / "narrow.npy", "--test-target", y]
    status, _, told = command("train", x, "--target", y, "--out", tmp_path / "m", *test)
    assert status == 1
    assert "64 columns" in told
    assert not (tmp_path / "m").exists()


def test_a_test_table_must_have_the_same_classes(command, houses, tmp_path):
    data = without(houses, "price")
    other = tmp_path / "other.csv"
    other.write_text("rooms,area,street\n3,100,Broad\n")
    status, _, told = command(
        "train", data, "--target", "street", "--out", tmp_path / "m", "--test", other
    )
    assert status == 1
    assert "other.csv" in told
    assert "Broad" in told


@pytest.mark.parametrize(
    ("options", "learn"),
    [((), True), (("--straight-through",), True), (("--no-straight-through",), False)],
)
def test_routes_learn_and_freed_memory_is_kept(options, learn, command, tmp_path, monkeypatch):
    seen = []

    def see(table, settings, **_):
        seen.append(settings.straight_through)
        raise ArgumentError("seen")

    monkeypatch.setattr(train, "fit", see)
    monkeypatch.setattr(runs, "keep_freed_memory", lambda: seen.append("kept"))
    x, y = (tmp_path / name for name in ("x.npy", "y.npy"))
    np.save(x, np.eye(8))
    np.save(y, np.arange(8) % 2)
    status, _, told = command("train", x, "--target", y, "--out", tmp_path / "m", *options)
    assert (status, told.endswith("seen\n")) == (1, True)
    assert seen == ["kept", learn]


def test_figures_that_are_not_defined_are_null_in_json(command, tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f},1.5" for a, b in rng.standard_normal((60, 2))]
    (tmp_path / "constant.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    options = ("--target", "y", "--task", "regression", "--epochs", "1", "--json")
    out = tmp_path / "model.safetensors"
    status, printed, err = command("train", tmp_path / "constant.csv", *options, "--out", out)
    assert status == 0, err

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    report = json.loads(printed, parse_constant=refuse)
    assert report["validation"]["r2"] is None
