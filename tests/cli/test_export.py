"""``fffcpu export``: files and folders as ONNX files."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.models import BertConfig, FastBertConfig
from fffcpu.models.opening import model_class

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")


def outputs_of(path, **inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [output.name for output in session.get_outputs()], session.run(None, inputs)


@pytest.fixture
def layer(tmp_path):
    made = FastFeedForward(4, 2, 3, rng=0)
    made.save(tmp_path / "layer.safetensors")
    Predictor(made, Schema("classification", ("a", "b"))).save(tmp_path / "model.safetensors")
    return made


def test_a_layer_and_a_predictor(tmp_path, layer, command):
    x = np.ones((1, 4), np.float32)
    out = tmp_path / "out.onnx"
    status, printed, err = command("export", tmp_path / "layer.safetensors", out)
    assert (status, err) == (0, "")
    table, size = printed.rstrip().rsplit("\n", 1)
    assert [line.split()[:3] for line in table.splitlines()[-2:]] == [
        ["input", "x", "float"],
        ["output", "y", "float"],
    ]
    assert "(rows, 4)" in table
    assert size == f"{out}: {out.stat().st_size:,} bytes"
    names, (y,) = outputs_of(out, x=x)
    assert names == ["y"]
    np.testing.assert_allclose(y, layer(x), rtol=1e-5)
    assert command("export", tmp_path / "model.safetensors", out)[0] == 0
    assert outputs_of(out, x=x)[0] == ["label", "probabilities"]


@pytest.mark.parametrize("kind", [FastBertConfig, BertConfig])
@pytest.mark.parametrize(
    ("classes", "options", "output"),
    [
        (None, (), ("logits", (1, 3, 30))),
        (2, (), ("logits", (1, 2))),
        (2, ("--encoder",), ("last_hidden_state", (1, 3, 8))),
    ],
)
def test_the_folder_of_a_text_model(tmp_path, command, kind, classes, options, output):
    own = {"head": "masked_lm"} if kind is BertConfig else {}
    sizes = {"feedforward": "fff", "feedforward_size": 1, "depth": 2, "positions": 8}
    config = kind(30, 8, 1, 2, classes=classes, **sizes, **own)
    model_class(config)(config, rng=0).save_pretrained(tmp_path / "bert")
    out = tmp_path / "out.onnx"
    assert command("export", tmp_path / "bert", out, *options)[0] == 0
    ids = np.array([[3, 4, 5]])
    names, (found,) = outputs_of(out, input_ids=ids, attention_mask=np.ones_like(ids))
    assert (names[0], found.shape) == output


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("layer.safetensors", "layer.txt"), "'OUT' must end in .onnx"),
        (("layer.safetensors", "x.onnx", "--encoder"), "'--encoder' is for folders"),
        (("none.safetensors", "x.onnx"), "No such file"),
        (("layer.safetensors", "none/x.onnx"), "No such file"),
        (("same.onnx", "same.onnx"), "'OUT' must not be one of the inputs"),
    ],
)
def test_errors_are_told_in_a_line(tmp_path, layer, command, monkeypatch, argv, error):
    monkeypatch.chdir(tmp_path)
    layer.save("same.onnx")
    status, out, err = command("export", *argv)
    assert (status, out) == (1, "")
    assert error in err
    assert not (tmp_path / "x.onnx").exists()


def test_the_missing_extra_is_named(tmp_path, layer, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, err = command("export", tmp_path / "layer.safetensors", tmp_path / "x.onnx")
    assert status == 1
    assert "fffcpu[onnx]" in err
