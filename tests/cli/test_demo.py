"""`fffcpu demo`: what it trains, draws, saves and prints."""

from __future__ import annotations

import numpy as np
import pytest

import fffcpu
from fffcpu import Predictor, kernels
from fffcpu.cli import demo
from fffcpu.cli.demo.digits import KINDS, _draw, draw_examples, split_digits, train
from fffcpu.cli.demo.files import save_and_reload
from fffcpu.errors import WrongOutputError
from fffcpu.recipes.fitting import evaluate_table


def test_split_is_fixed_and_keeps_rows_apart():
    digits = split_digits()
    for table, rows in zip(digits, (1438, 359), strict=True):
        assert len(table.x) == len(table.y) == rows
    for one, other in zip(digits, split_digits(), strict=True):
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.y, other.y)
    # No image is on both sides; the source has no two alike.
    both = np.concatenate([table.x for table in digits])
    assert len(np.unique(both, axis=0)) == len(both)
    assert set(digits.test.y.tolist()) == set(range(10))


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_and_ends_on_plain_images(kind):
    training, _ = split_digits()
    few = fffcpu.data.Table(training.x[:320], training.y[:320], classes=training.classes)
    network = train(kind, few, epochs=4, seed=0)
    assert network.layer.config.kind == kind
    assert network.layer.config.active_neurons == 20
    figures = evaluate_table(network, few)
    assert np.isfinite(figures["loss"])
    assert figures["accuracy"] > 0.6
    # The scaling of the images is part of the layer.
    found = (network.layer(few.x).argmax(axis=1) == few.y).mean()
    assert figures["accuracy"] == found
    other = train(kind, few, epochs=4, seed=1)
    assert other.layer(few.x).tobytes() != network.layer(few.x).tobytes()


def test_examples_show_a_mistake_if_there_is_one():
    _, test = split_digits()

    def oracle(images: np.ndarray) -> np.ndarray:
        return np.eye(10)[test.y]

    def optimist(images: np.ndarray) -> np.ndarray:
        return np.eye(10)[(test.y != 3) * test.y]

    lines = draw_examples(test, oracle).splitlines()
    assert len(lines) == 9
    assert {len(line) for line in lines[:8]} == {3 * 16 + 2 * 5}
    for network, mistakes in ((oracle, 0), (optimist, 1)):
        caption = draw_examples(test, network).splitlines()[8]
        pairs = [text.split() for text in caption.replace(",", "").split("read as")[1:]]
        assert len(pairs) == 3
        assert sum(predicted != truth for predicted, _, truth in pairs) == mistakes


def test_a_drawing_has_ink_where_the_image_has():
    image = np.zeros((8, 8), np.float32)
    image[2, 3] = 1
    lines = _draw(image.reshape(64))
    assert lines == [*2 * [16 * " "], "      @@        ", *5 * [16 * " "]]


def test_a_network_that_changes_in_its_file_is_an_error(tmp_path, monkeypatch):
    training, test = split_digits()
    network = train("FastFeedForward", training, epochs=1, seed=0)
    path = save_and_reload(network, str(tmp_path / "digits"), test)
    assert Predictor.load(path).schema.classes == tuple(range(10))
    other = train("FastFeedForward", training, epochs=1, seed=1)
    monkeypatch.setattr(Predictor, "load", lambda path: other)
    with pytest.raises(WrongOutputError, match="has different outputs"):
        save_and_reload(network, str(tmp_path / "digits"), test)


def test_demo_refuses_an_unknown_backend_before_it_starts(monkeypatch, command):
    monkeypatch.setattr(demo.kernels, "choose", lambda: kernels.load_backend("nonsense"))
    status, out, err = command("demo", "--quick")
    assert (status, out) == (1, "")
    assert err.startswith("fffcpu: error: ")
    assert err.count("\n") == 1
    assert "got 'nonsense'" in err


@pytest.mark.slow
def test_demo_from_end_to_end(command, tmp_path):
    path = tmp_path / "digits.safetensors"
    status, out, err = command("demo", "--quick", "--seed", "3", "--out", path)
    assert (status, err) == (0, "")
    network = fffcpu.load(path)
    assert network.config.active_neurons == 20
    _, test = split_digits()
    accuracy = (network(test.x).argmax(axis=1) == test.y).mean()
    assert accuracy > 0.8
    assert f"bit-identical outputs, test accuracy {accuracy:.1%}" in out
    assert "20 of 124" in out
    assert "read as " in out
    assert "12 of 4,095 neurons" in out
    assert "The arithmetic allows 341 (4,095 / 12)" in out
    assert f"fffcpu info {path}" in out
    assert [line for line in out.replace(str(path), "F").splitlines() if len(line) > 80] == []
