"""The command: what it prints, what it refuses, and with which exit status."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fffcpu
from fffcpu import (
    DenseFeedForward,
    FastFeedForward,
    LeafFeedForward,
    Predictor,
    Schema,
)
from fffcpu.benchmarking.timing import Timing
from fffcpu.checkpoints import fastfeedforward, ultrafastbert, ultrafastbert_bmm
from fffcpu.checkpoints import safetensors as safetensors_file
from fffcpu.cli import bench, info, inspection, main, warmup
from fffcpu.cli.bench import sweep
from fffcpu.cli.demo import speed
from fffcpu.diagnosis import diagnose, leaf_means
from fffcpu.errors import WrongOutputError
from fffcpu.kernels.backends import vectorized
from fffcpu.lowbit import from_bfloat16, to_bfloat16
from fffcpu.models import BertConfig, BertEncoder
from fffcpu.plots import leaves
from fffcpu.system.threads import get_thread_layer

TINY = ["--input-dim", "6", "--output-dim", "4", "--depth", "3", "--seconds", "0.001"]
PLAIN = ["bench", *TINY, "--rows", "1", "5", "--threads", "1", "--backends", "vectorized", "dense"]


LAYERS = {
    "FastFeedForward": lambda: FastFeedForward(6, 4, depth=2, trees=3, bias=False, rng=0),
    "LeafFeedForward": lambda: LeafFeedForward(6, 4, depth=2, leaf_width=3, rng=0),
    "DenseFeedForward": lambda: DenseFeedForward(6, 4, width=5, dtype=np.float64, rng=0),
}
"""A small layer of each kind."""


@pytest.fixture(autouse=True)
def without_rests(monkeypatch):
    """Figures do not matter here, so nothing waits until idle threads sleep."""
    monkeypatch.setattr(
        "fffcpu.benchmarking.timing.time", types.SimpleNamespace(sleep=lambda seconds: None)
    )


def start_python(*arguments: str) -> subprocess.Popen[str]:
    """Start `python -m fffcpu` with the package under test."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fffcpu.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "fffcpu", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_output_that_its_encoding_lacks_is_escaped(monkeypatch, tmp_path):
    path = tmp_path / "\u00b5.safetensors"
    FastFeedForward(3, 2, 1, rng=0).save(path)
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    assert main(["info", str(path)]) == 0
    assert b"\\xb5.safetensors" in output.buffer.getvalue()


def assert_one_line(status: int, out: str, err: str) -> None:
    assert status == 1
    assert out == ""
    assert err.startswith("fffcpu: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")


# --- The command itself -------------------------------------------------------------------------


def test_module_runs_and_lists_the_commands():
    with start_python("--help") as process:
        out, err = process.communicate()
    assert process.returncode == 0
    assert err == ""
    for name in ("demo", "info", "inspect", "quantize", "convert", "bench", "warmup"):
        assert f"    {name} " in out
    assert out.startswith("usage: fffcpu ")


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fffcpu {fffcpu.__version__}\n"


@pytest.mark.parametrize(
    "name", ["demo", "info", "inspect", "quantize", "convert", "bench", "warmup"]
)
def test_help_has_examples_and_says_how_to_read_the_output(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"  fffcpu {name}" in out
    assert "examples:" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["destroy"],
        ["info"],
        ["info", "a", "b"],
        ["quantize", "a", "b"],
        ["quantize", "a", "--weights", "int8"],
        ["inspect", "a"],
        ["inspect", "a", "b", "--draw", "everything"],
        ["convert", "a"],
        ["convert", "a", "b", "--to", "onnx"],
        ["bench", "--depth", "deep"],
        ["bench", "--rows"],
        ["bench", "--nonsense"],
        ["demo", "--seed", "1.5"],
    ],
)
def test_wrong_usage_has_status_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: fffcpu" in captured.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["info", "absent.safetensors"], "No such file or directory: 'absent.safetensors'"),
        (["bench", "--depth", "-1"], "argument 'depth' must be"),
        (["bench", "--depth", "30"], "argument 'depth' must be an integer from 0 to 29, got 30"),
        (["bench", "--depth", "29"], "must fit into the memory"),
        (["bench", "--input-dim", "0"], "argument 'input_dim' must be"),
        (["bench", "--trees", "0"], "argument 'trees' must be"),
        (["bench", "--rows", "4", "0"], "argument 'rows' must be an integer of at least 1, got 0"),
        (["bench", "--rows", "9" * 18], "must fit into the memory"),
        (["bench", "--threads", "0"], "argument 'threads' must be"),
        (["bench", "--threads", "1", "100000"], "argument 'threads' must be"),
        (["bench", "--backends", "nonsense"], "got 'nonsense'"),
        (["bench", "--backends", "json"], "path_infer"),
        (["bench", "--dtype", "float16"], "argument 'dtype' must be float32 or float64"),
        (["bench", "--seconds", "nan"], "argument 'seconds' must be"),
        (["bench", "--seconds", "-1"], "argument 'seconds' must be"),
        (["warmup", "absent.safetensors"], "No such file or directory: 'absent.safetensors'"),
        (["warmup", "--dtype", "float16"], "argument 'dtype' must be float32 or float64"),
        (["bench", "--seed", "-1"], "argument 'seed' must be"),
        (["bench", "--plot", "speed.txt"], "argument 'plot' must end in one of"),
        (["bench", "--plot", "absent/speed.png"], "No such folder: 'absent'"),
        (["bench", "--plot", "speed.png", "--minutes", "-1"], "argument 'minutes' must be"),
        (["bench", "--plot", "speed.png", "--seed", "-1"], "argument 'seed' must be"),
        (["bench", "--plot", "speed.png", "--input-dim", "0"], "argument 'input_dim' must be"),
        (["demo", "--seed", "-1"], "argument 'seed' must be"),
        (["demo", "--out", "absent/digits.safetensors"], "No such file or directory: 'absent'"),
        (["demo", "--out", "."], "Is a directory: '.'"),
    ],
)
def test_errors_are_one_line(argv, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*argv)
    assert_one_line(status, out, err)
    assert message in err


def test_traceback_on_request():
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "info", "absent.safetensors"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate"), "not enough memory: Unable to allocate"),
        (ImportError("no module"), "no module"),
        (OSError("plain"), "plain"),
        (WrongOutputError("wrong\noutput"), "wrong output"),
        (ValueError(), "ValueError"),
    ],
)
def test_every_message_is_one_line(error, message, command, monkeypatch):
    def fail(path: object) -> None:
        raise error

    monkeypatch.setattr(info, "describe_file", fail)
    status, out, err = command("info", "file")
    assert_one_line(status, out, err)
    assert err == f"fffcpu: error: {message}\n"


def test_interruption_has_status_130(command, monkeypatch):
    def interrupt(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "describe_file", interrupt)
    assert command("info", "file") == (130, "", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_gone_is_no_error(unbuffered, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    path = tmp_path / "layer.safetensors"
    LAYERS["FastFeedForward"]().save(path)
    with start_python("info", str(path)) as process:
        process.stdout.close()  # long before Python is up
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_help_loads_nothing_heavy():
    program = (
        "import contextlib, sys\n"
        "from fffcpu.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "print('LOADED', *sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fffcpu.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert not loaded & {"numba", "scipy", "safetensors", "tqdm"}


# --- info ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "used", "held", "own"),
    [
        ("FastFeedForward", 9, 21, 9 * 10),
        ("LeafFeedForward", 3, 12, 2 * 6 + 3 * 10),
        ("DenseFeedForward", 5, 5, 5 * 10),
    ],
)
def test_info_in_json(kind, used, held, own, command, tmp_path):
    layer = LAYERS[kind]()
    path = tmp_path / "layer.safetensors"
    layer.save(path)
    status, out, err = command("info", path, "--json")
    assert (status, err) == (0, "")
    description = json.loads(out)
    assert description == {
        "file": str(path),
        "bytes": path.stat().st_size,
        "format_version": 1,
        "schema": None,
        "kind": kind,
        "config": layer.config.to_dict(),
        "neurons": {"held": held, "used": used},
        "parameters": [
            {
                "name": name,
                "shape": list(array.shape),
                "dtype": layer.config.dtype,
                "bytes": array.nbytes,
            }
            for name, array in layer.params.items()
        ],
        "multiply_adds": {"layer": own, "dense": held * 10, "ratio": held * 10 / own},
    }


@pytest.mark.parametrize("kind", LAYERS)
def test_info_for_people(kind, command, tmp_path):
    layer = LAYERS[kind]()
    path = tmp_path / "layer.safetensors"
    layer.save(path)
    status, out, err = command("info", path)
    assert (status, err) == (0, "")
    assert kind in out
    for name, array in layer.params.items():
        assert f"\n{name} " in out
        assert str(array.shape) in out


def test_info_refuses_what_is_no_layer(command, tmp_path):
    layer = LAYERS["FastFeedForward"]()
    layer.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    files = {
        "empty": b"",
        "text": b"what is it like to be a file?\n" * 99,
        "pickle": pickle.dumps([1, 2, 3]),
        "truncated": whole[:-1],
        "spoilt": whole.replace(b"FastFeedForward", b"FastFeedForwarp"),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        status, out, err = command("info", path)
        assert_one_line(status, out, err)
        assert str(path) in err
    assert_one_line(*command("info", tmp_path))


# --- quantize -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("FastFeedForward", "bfloat16"),
        ("FastFeedForward", "int8"),
        ("LeafFeedForward", "bfloat16"),
        ("LeafFeedForward", "int8"),
        ("DenseFeedForward", "int8"),
    ],
)
def test_quantize(kind, weights, command, tmp_path):
    layer = LAYERS[kind]()
    path, out = tmp_path / "layer.safetensors", tmp_path / "small.safetensors"
    layer.save(path)
    status, printed, err = command("quantize", path, out, "--weights", weights)
    assert (status, err) == (0, "")
    small = fffcpu.load(out)
    expected = layer.quantize(weights)
    assert small.config == expected.config
    for name, array in expected.params.items():
        np.testing.assert_array_equal(small.params[name], array)
    for line, sizes in zip(
        printed.splitlines()[1:3],
        ((layer.nbytes, path.stat().st_size), (small.nbytes, out.stat().st_size)),
        strict=True,
    ):
        assert line.split()[-2:] == [f"{size:,}" for size in sizes]
    assert f"{small.nbytes / layer.nbytes:.1%} of" in printed
    status, printed, err = command("info", out, "--json")
    assert (status, err) == (0, "")
    description = json.loads(printed)
    assert description["kind"] == f"Quantized{kind}"
    assert description["config"]["weights"] == weights
    narrow = [item for item in description["parameters"] if item["dtype"] == weights]
    assert len(narrow) == 2
    assert description["multiply_adds"]["layer"] == layer.config.multiply_adds


def test_quantize_refuses_what_it_cannot_round(command, tmp_path):
    path, out = tmp_path / "layer.safetensors", tmp_path / "small.safetensors"
    for layer, weights, message in (
        (LAYERS["FastFeedForward"](), "int4", "'weights' must be 'bfloat16' or 'int8', got 'int4'"),
        (LAYERS["DenseFeedForward"](), "bfloat16", "must be 'int8' for dense products, got 'bf"),
        (LAYERS["FastFeedForward"]().quantize("int8"), "int8", "got a QuantizedFastFeedForward"),
    ):
        layer.save(path)
        status, printed, err = command("quantize", path, out, "--weights", weights)
        assert_one_line(status, printed, err)
        assert message in err
        assert not out.exists()


def test_quantize_a_folder(command, tmp_path):
    config = BertConfig(30, 8, 1, 2, feedforward_size=12, positions=6)
    model = BertEncoder(config, rng=0)
    model.save_pretrained(tmp_path / "model", files={"tokenizer.json": "{}"})
    status, printed, err = command(
        "quantize", tmp_path / "model", tmp_path / "small", "--weights", "int8"
    )
    assert (status, err) == (0, "")
    small = BertEncoder.from_pretrained(tmp_path / "small")
    np.testing.assert_array_equal(small([[1, 2, 3]]), model.quantize("int8")([[1, 2, 3]]))
    assert (tmp_path / "small" / "tokenizer.json").read_text() == "{}"
    assert f"{small.nbytes / model.nbytes:.1%} of" in printed
    assert "tokenizer: 'tokenizer.json' is copied" in printed
    for source, weights, message in (
        ("model", "bfloat16", "'weights' must be one of 'int8', got 'bfloat16'"),
        ("small", "int8", "a model must have float weights to be quantized"),
    ):
        out = tmp_path / "other"
        status, printed, err = command("quantize", tmp_path / source, out, "--weights", weights)
        assert_one_line(status, printed, err)
        assert message in err
        assert not out.exists()


def test_quantize_leaves_no_tokenizer_of_another_model(command, tmp_path):
    model = BertEncoder(BertConfig(30, 8, 1, 2, feedforward_size=12, positions=6), rng=0)
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "small", files={"tokenizer.json": "{}"})
    status, printed, _ = command(
        "quantize", tmp_path / "model", tmp_path / "small", "--weights", "int8"
    )
    assert status == 0
    assert "tokenizer: IN has no 'tokenizer.json'" in printed
    assert not (tmp_path / "small" / "tokenizer.json").exists()


# --- inspect ------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A file of rows as wide as the layers of `LAYERS` read them."""
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).standard_normal((5000, 6)))
    return path


@pytest.mark.parametrize("kind", ["FastFeedForward", "LeafFeedForward"])
@pytest.mark.parametrize("weights", [None, "int8"])
def test_inspect_in_json(kind, weights, command, table, tmp_path):
    layer, path = LAYERS[kind](), tmp_path / "layer.safetensors"
    layer = layer if weights is None else layer.quantize(weights)
    layer.save(path)
    status, out, err = command("inspect", path, table, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report.pop("model"), report.pop("data")) == (str(path), str(table))
    expected = diagnose(layer, np.load(table)).to_dict()
    assert report["kind"] == layer.config.kind
    assert report["rows"] == 5000
    assert [tree["visits"] for tree in report["trees"]] == [
        tree["visits"] for tree in expected["trees"]
    ]


def test_inspect_for_people(command, table, tmp_path):
    layer, path = LAYERS["FastFeedForward"](), tmp_path / "layer.safetensors"
    layer.save(path)
    report = diagnose(layer, np.load(table))
    status, out, err = command("inspect", path, table)
    assert (status, err, out) == (0, "", f"{report}\n")
    status, out, err = command("inspect", path, table, "--tree", "2")
    assert (status, err, out) == (0, "", f"{report.of_tree(2)}\n")
    assert_one_line(*command("inspect", path, table, "--tree", "3"))


def test_inspect_takes_a_model_s_columns_by_name(command, tmp_path, monkeypatch):
    monkeypatch.setattr(leaves, "REGION_CELLS", 16)
    path, table = tmp_path / "model.safetensors", tmp_path / "table.csv"
    layer = FastFeedForward(2, 2, 3, rng=0)
    schema = Schema("classification", ("cat", "dog"), features=("height", "weight"))
    Predictor(layer, schema).save(path)
    table.write_text("weight,height,animal\n3,-1,cat\n4,2,dog\n-2,5,dog\n")
    picture = tmp_path / "map.svg"
    status, out, err = command("inspect", path, table, "--json", "--plot", picture, "--draw", "map")
    assert (status, err) == (0, "")
    expected = diagnose(layer, np.array([[-1.0, 3.0], [2.0, 4.0], [5.0, -2.0]]))
    assert json.loads(out)["trees"][0]["visits"] == expected.visits[0].tolist()
    assert picture.exists()


@pytest.mark.parametrize("draw", ["tree", "prototypes", None])
def test_inspect_draws(draw, command, table, tmp_path, monkeypatch):
    layer, path = LAYERS["LeafFeedForward"](), tmp_path / "layer.safetensors"
    layer.save(path)
    drawn = []
    for name in ("plot_tree", "plot_prototypes"):
        monkeypatch.setattr(inspection, name, lambda *a, name=name: drawn.append((name, *a)))
    picture = tmp_path / "use.png"
    argv = ["inspect", path, table, "--plot", picture]
    argv += [] if draw is None else ["--draw", draw]
    argv += ["--image-shape", "2x3"] if draw == "prototypes" else []
    status, out, err = command(*argv)
    assert (status, err) == (0, "")
    assert out.endswith(f"\n\ndrawn to {picture}\n")
    ((name, what, *others),) = drawn
    assert others[-2:] == [
        str(picture),
        f"{path}: LeafFeedForward, tree 0\n5,000 rows: {table}",
    ]
    visits = diagnose(layer, np.load(table)).trees[0].leaf_visits
    if draw == "prototypes":
        order = sorted(range(4), key=lambda leaf: -visits[leaf])
        assert name == "plot_prototypes"
        means = leaf_means(layer, np.load(table), order).reshape(4, 2, 3)
        np.testing.assert_allclose(what, means)
        assert others[0] == [f"leaf {leaf}\n{visits[leaf]:,} rows" for leaf in order]
    else:
        assert name == "plot_tree"
        np.testing.assert_array_equal(what.leaf_visits, visits)


def test_prototypes_are_of_leaves_that_rows_reach(monkeypatch):
    usage = types.SimpleNamespace(leaf_visits=np.array([0, 5, 7, 0, 5, 1]))
    assert inspection._most_visited(usage) == [2, 1, 4, 5]
    monkeypatch.setattr(inspection, "PROTOTYPES", 2)
    assert inspection._most_visited(usage) == [2, 1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--draw", "map"], "argument '--draw' must come with --plot"),
        (["--image-shape", "2x3"], "argument '--image-shape' must come with --draw prototypes"),
        (["--plot", "use.txt"], "argument 'plot' must end in one of"),
        (["--plot", "use.png", "--draw", "map"], "unless the layer reads two features, got 'map'"),
        (["--plot", "use.png", "--draw", "prototypes"], "HEIGHTxWIDTH of 6 pixels"),
        (
            ["--plot", "use.png", "--draw", "prototypes", "--image-shape", "2x4"],
            "argument '--image-shape' must be HEIGHTxWIDTH of 6 pixels, as the layer reads, got '2",
        ),
        (["--plot", "use.png", "--draw", "prototypes", "--image-shape", "6"], "got '6'"),
        (["--tree", "-1"], "argument 'tree' must be an integer from 0 to 2, got -1"),
    ],
)
def test_inspect_refuses_what_it_cannot_draw(argv, message, command, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LAYERS["FastFeedForward"]().save("layer.safetensors")
    status, out, err = command("inspect", "layer.safetensors", table, *argv)
    assert_one_line(status, out, err)
    assert message in err
    assert not (tmp_path / "use.png").exists()


def test_square_images_need_no_shape():
    assert inspection._image_shape(None, 784) == (28, 28)


def test_inspect_refuses_wrong_files(command, table, tmp_path):
    path, narrow = tmp_path / "layer.safetensors", tmp_path / "narrow.npy"
    LAYERS["FastFeedForward"]().save(path)
    np.save(narrow, np.ones((3, 5)))
    status, out, err = command("inspect", path, narrow)
    assert_one_line(status, out, err)
    assert "rows of 6 numbers, got shape (3, 5)" in err
    assert_one_line(*command("inspect", path, tmp_path / "absent.npy"))
    assert_one_line(*command("inspect", tmp_path / "absent", table))
    LAYERS["DenseFeedForward"]().save(path)
    status, out, err = command("inspect", path, table)
    assert_one_line(status, out, err)
    assert "must be a FastFeedForward or a LeafFeedForward" in err


def test_inspect_names_the_missing_extra(command, table, tmp_path, monkeypatch):
    path = tmp_path / "layer.safetensors"
    LAYERS["FastFeedForward"]().save(path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, err = command("inspect", path, table, "--plot", tmp_path / "use.png")
    assert_one_line(status, out, err)
    assert "pip install 'fffcpu[plot]'" in err


# --- convert ------------------------------------------------------------------------------------


CONVERTED = {
    "ultrafastbert": (
        lambda dtype: FastFeedForward(6, 6, 2, 3, dtype=dtype, rng=0),
        ["--depth", "2"],
        ultrafastbert,
    ),
    "ultrafastbert_bmm": (
        lambda dtype: FastFeedForward(6, 4, 3, bias=False, dtype=dtype, rng=0),
        [],
        ultrafastbert_bmm,
    ),
    "fastfeedforward": (
        lambda dtype: LeafFeedForward(6, 4, 2, 3, activation="gelu", dtype=dtype, rng=0),
        ["--activation", "gelu"],
        fastfeedforward,
    ),
}
"""A layer that each published format can hold, what its file does not store, and its module."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONVERTED)
def test_convert_there_and_back(name, dtype, command, tmp_path):
    make, told, module = CONVERTED[name]
    first, published, second = (tmp_path / f"{i}.safetensors" for i in range(3))
    layer = make(dtype)
    layer.save(first)
    status, out, err = command("convert", first, published, "--to", name)
    assert (status, err) == (0, "")
    assert out.startswith(f"{first} (native) -> {published} ({name})\n  {layer.config.kind}: ")
    state, expected = load_file(published), module.to_state_dict(layer.config, layer.params)
    assert set(state) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(state[key], array, strict=True)
    status, out, err = command("convert", published, second, *told)
    assert (status, err) == (0, "")
    assert out.startswith(f"{published} ({name}) -> {second} (native)\n")
    assert second.read_bytes() == first.read_bytes()


def test_convert_from_one_published_format_to_another(command, tmp_path):
    layer = CONVERTED["ultrafastbert_bmm"][0](np.float32)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    save_file(ultrafastbert_bmm.to_state_dict(layer.config, layer.params), paths[0])
    assert command("convert", paths[0], paths[1], "--to", "ultrafastbert")[0] == 0
    argv = ("convert", paths[1], paths[2], "--to", "ultrafastbert_bmm", "--trees", "1")
    status, out, _ = command(*argv)
    assert status == 0
    assert "biases: there is no linear_in.bias" in out
    assert paths[2].read_bytes() == paths[0].read_bytes()


def test_convert_widens_bfloat16(command, tmp_path):
    layer = CONVERTED["ultrafastbert_bmm"][0](np.float32)
    state = ultrafastbert_bmm.to_state_dict(layer.config, layer.params)
    halves = {name: to_bfloat16(array) for name, array in state.items()}
    published, path = tmp_path / "published.safetensors", tmp_path / "layer.safetensors"
    safetensors_file.write_tensors(published, halves, dtypes=dict.fromkeys(halves, "bfloat16"))
    status, _, err = command("convert", published, path)
    assert (status, err) == (0, "")
    found = fffcpu.load(path)
    assert found.config == layer.config
    rounded = {name: from_bfloat16(array) for name, array in halves.items()}
    expected = ultrafastbert_bmm.from_state_dict(layer.config, rounded)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.params[name], array, strict=True)


def test_convert_replaces_its_own_file(command, tmp_path):
    path = tmp_path / "layer.safetensors"
    layer = CONVERTED["ultrafastbert_bmm"][0](np.float32)
    layer.save(path)
    assert command("convert", path, path, "--to", "ultrafastbert_bmm")[0] == 0
    assert set(load_file(path)) == {"w1s", "w2s"}
    assert command("convert", path, path)[0] == 0
    assert fffcpu.load(path).config == layer.config


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            "ultrafastbert",
            [
                "ties: ultrafastbert and FastFeedForward go right on logit > 0",
                "activation: gelu, which OUT does not store",
            ],
        ),
        (
            "ultrafastbert_bmm",
            ["ties: ultrafastbert_bmm goes right on logit >= 0, FastFeedForward on logit > 0; "],
        ),
        (
            "fastfeedforward",
            [
                "ties: fastfeedforward and LeafFeedForward go right on logit >= 0",
                "output biases: the published inference leaves b2s out; ",
                "activation: gelu, which OUT does not store",
            ],
        ),
    ],
)
def test_convert_tells_what_differs(name, notes, command, tmp_path):
    path, out = tmp_path / "layer.safetensors", tmp_path / "published.safetensors"
    CONVERTED[name][0](np.float32).save(path)
    lines = command("convert", path, out, "--to", name)[1].splitlines()
    for line, note in zip(lines[2:], notes, strict=True):
        assert line.startswith(f"  {note}")


def test_convert_tells_what_is_lost_or_assumed(command, tmp_path):
    path, published = tmp_path / "layer.safetensors", tmp_path / "published.safetensors"
    layer = FastFeedForward(6, 4, 2, bias=False, rng=0)
    Predictor(layer, Schema("classification", tuple("abcd"))).save(path)
    _, out, _ = command("convert", path, published, "--to", "ultrafastbert")
    assert "widths: the published layer runs only if" in out
    assert "biases: there is no linear_in.bias" in out
    assert "schema: names of classes" in out
    _, out, _ = command("convert", published, path, "--depth", "2")
    assert "activation: taken to be gelu, which IN does not store" in out
    _, out, _ = command("convert", published, path, "--depth", "2", "--activation", "relu")
    assert "activation relu" in out
    assert "taken to be" not in out
    assert fffcpu.load(path).config.activation == "relu"


def test_a_leaf_layer_without_gates_is_recognised(command, tmp_path):
    path, out = tmp_path / "leaf.safetensors", tmp_path / "layer.safetensors"
    layer = LeafFeedForward(6, 4, 0, 3, rng=0)
    state = fastfeedforward.to_state_dict(layer.config, layer.params)
    save_file({key: value for key, value in state.items() if not key.startswith("node")}, path)
    assert command("convert", path, out)[0] == 0
    assert fffcpu.load(out).config == layer.config


@pytest.mark.parametrize("start", [b"PK\x03\x04" + 20 * b"x", pickle.dumps({"a": [1, 2, 3]})])
def test_convert_opens_no_pickle(start, command, tmp_path):
    path, out = tmp_path / "layer.pt", tmp_path / "layer.safetensors"
    path.write_bytes(start)
    status, printed, err = command("convert", path, out)
    assert_one_line(status, printed, err)
    assert "pickles are never opened here" in err
    assert "'fffcpu convert --help'" in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["native", "out.pt"], "argument 'OUT' must end in .safetensors, got 'out.pt'"),
        (["native", "absent/out.safetensors"], "No such file or directory: 'absent'"),
        (["native", "out.safetensors"], "'--to' must be another format than IN's, got native"),
        (["native", "out.safetensors", "--to", "fastfeedforward"], "must hold a LeafFeedForward"),
        (["native", "out.safetensors", "--to", "ultrafastbert_bmm"], "cannot hold"),
        (["small", "out.safetensors", "--to", "ultrafastbert"], "got a QuantizedFastFeedForward"),
        (["native", "out.safetensors", "--to", "ultrafastbert", "--depth", "2"], "'--depth' must"),
        (["absent", "out.safetensors"], "No such file or directory: 'absent'"),
        (["text", "out.safetensors"], "file 'text' is not a safetensors file"),
        (
            ["text", "out.safetensors", "--from", "native", "--to", "ultrafastbert"],
            "file 'text' is not a safetensors file: its header would take",
        ),
        (["unknown", "out.safetensors"], "got the names ['a', 'b']"),
        (["unknown", "out.safetensors", "--from", "ultrafastbert"], "'unknown': the state dict is"),
        (["linear", "out.safetensors"], "argument 'depth' or 'trees' must be given"),
        (["linear", "out.safetensors", "--depth", "5"], "file 'linear': "),
        (["eighths", "out.safetensors"], "'w1s' has the type 'F8_E4M3'"),
        (["native", "out.safetensors", "--to", "crammed_bert"], "of a layer where IN is a file"),
        ([".", "out.safetensors"], "argument 'OUT' must be a folder, as IN is"),
    ],
)
def test_convert_refuses(argv, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = LAYERS["FastFeedForward"]()
    layer.save("native")
    layer.quantize("int8").save("small")
    (tmp_path / "text").write_text("what is it like to be a file?\n" * 99)
    save_file({"a": np.ones(3), "b": np.ones(3)}, "unknown")
    save_file(ultrafastbert.to_state_dict(layer.config, layer.params), "linear")
    header = {"w1s": {"dtype": "F8_E4M3", "shape": [1, 1], "data_offsets": [0, 1]}}
    text = json.dumps(header).encode()
    (tmp_path / "eighths").write_bytes(len(text).to_bytes(8, "little") + text + bytes(1))
    before = sorted(os.listdir())
    status, out, err = command("convert", *argv)
    assert_one_line(status, out, err)
    assert message in err
    assert sorted(os.listdir()) == before


def test_convert_leaves_the_old_file_where_writing_fails(command, tmp_path, monkeypatch):
    path, out = tmp_path / "layer.safetensors", tmp_path / "published.safetensors"
    CONVERTED["ultrafastbert"][0](np.float32).save(path)
    out.write_text("old")

    def fail(temporary: Path, *_: object, **__: object) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(temporary))

    monkeypatch.setattr(safetensors_file, "write_temporary", fail)
    status, printed, err = command("convert", path, out, "--to", "ultrafastbert")
    assert_one_line(status, printed, err)
    assert f"No space left on device: '{out}'" in err
    assert out.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["layer.safetensors", "published.safetensors"]


# --- bench --------------------------------------------------------------------------------------


def test_bench_in_json(command):
    status, out, err = command(*PLAIN, "--trees", "2", "--dtype", "float64", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert set(report) == {"machine", "layer", "results", "skipped"}
    assert report["layer"] == {
        "input_dim": 6,
        "output_dim": 4,
        "depth": 3,
        "trees": 2,
        "bias": True,
        "two_sided": False,
        "activation": "gelu",
        "dtype": "float64",
        "neurons": 30,
        "active_neurons": 8,
    }
    assert report["skipped"] == []
    points = [(result["rows"], result["backend"]) for result in report["results"]]
    assert points == [(1, "vectorized"), (1, "dense"), (5, "vectorized"), (5, "dense")]
    for result in report["results"]:
        assert set(result) == {
            "backend",
            "rows",
            "threads",
            "microseconds_a_row",
            "spread",
            "rows_a_second",
            "gigabytes_a_second",
            "gigaflops",
            "copy_gigabytes_a_second",
            "gemm_gigaflops",
            "fraction_of_roofline",
            "dense_ratio",
            "doubts",
            "seconds_a_call",
        }
        assert result["threads"] == 1
        assert len(result["seconds_a_call"]) == 7
        assert result["microseconds_a_row"] * result["rows_a_second"] == pytest.approx(1e6)
        assert result["dense_ratio"] > 0
        assert 0 < result["gigabytes_a_second"] < result["copy_gigabytes_a_second"]
        assert 0 < result["gigaflops"] < result["gemm_gigaflops"]
        assert 0 < result["fraction_of_roofline"] < 1
    assert report["results"][1]["dense_ratio"] == 1


def test_bench_table(command):
    status, out, err = command(*PLAIN)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "4 neurons used of 15" in lines[0]
    assert "copy " in lines[1]
    assert lines[3].split()[:3] == ["backend", "rows", "threads"]
    rows = lines[4:8]
    assert [line.split()[0] for line in rows] == ["vectorized", "dense", "vectorized", "dense"]
    assert all("%" in line for line in rows)
    assert lines[-2:] == ["", f"thread layer: {get_thread_layer()}"]
    assert all(line.startswith("doubtful: ") for line in lines[8:-2])


@pytest.fixture
def busy(monkeypatch):
    """Timings of a machine on which another program runs: dense layers take seconds."""

    def is_fast(one):
        return not one.name.startswith("dense")

    def alternate(contenders, *_, **__):
        return [
            Timing(one.name, one.rows, 1, (0.01,) * 3 if is_fast(one) else (1.0, 2.0, 3.0))
            for one in contenders
        ]

    for module in (bench, sweep, speed):
        monkeypatch.setattr(module, "alternate", alternate)


@pytest.mark.usefixtures("busy")
def test_bench_says_which_figures_are_doubtful(command, small_grid, tmp_path):
    limits = r"200\.0x exceeds the 3\.8x that the arithmetic allows"
    both = f"dense has a spread of 25%, {limits}"
    out = command(*PLAIN)[1]
    for rows in (1, 5):
        line = f"^doubtful: vectorized at {rows} rows, threads 1: {both}$"
        assert re.search(line, out, re.M)
        assert f"\ndoubtful: dense at {rows} rows, threads 1: dense has a spread of 25%\n" in out
    (first, second, *_) = json.loads(command(*PLAIN, "--json")[1])["results"]
    assert re.fullmatch(limits, first["doubts"][-1])
    assert second["doubts"] == ["dense has a spread of 25%"]
    out = command("bench", *small_grid, "--plot", tmp_path / "speed.png")[1]
    assert "5 of 5 points are doubtful, such as depth 2 at 5 rows: dense has a spread of 25%" in out


@pytest.mark.usefixtures("busy")
@pytest.mark.slow
def test_the_demo_says_which_figures_are_doubtful(capsys):
    speed.compare_at_bert_size([1], 0.0, 0)
    out = capsys.readouterr().out
    assert "\nSome figures are doubtful; another program may have run meanwhile:\n" in out
    assert "\n  batch 1: dense 4,095 has a spread of 25%\n" in out
    assert "200.0x exceeds the 341" not in out


@pytest.mark.slow
def test_bench_of_all_threads_and_backends(command):
    before = fffcpu.get_num_threads()
    status, out, err = command("bench", *TINY, "--rows", "3", "--json")
    assert (status, err) == (0, "")
    results = json.loads(out)["results"]
    assert {result["threads"] for result in results} == {1, before}
    assert {result["backend"] for result in results} == {"rowwise", "vectorized", "dense"}
    assert fffcpu.get_num_threads() == before


@pytest.mark.parametrize(
    ("limit", "reason"), [("DENSE_BYTES", "memory"), ("DENSE_WORK", "multiply")]
)
def test_bench_leaves_out_too_large_a_dense_layer_by_name(limit, reason, command, monkeypatch):
    monkeypatch.setattr(bench, limit, 0)
    status, out, err = command(*PLAIN, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert [result["backend"] for result in report["results"]] == 2 * ["vectorized"]
    assert all(result["dense_ratio"] is None for result in report["results"])
    assert [(item["backend"], item["rows"]) for item in report["skipped"]] == [
        ("dense", 1),
        ("dense", 5),
    ]
    assert reason in report["skipped"][0]["reason"]
    _, out, _ = command(*PLAIN)
    assert "dense left out at 5 rows: " in out


@pytest.fixture
def small_grid(monkeypatch):
    """A grid to draw that takes no time, and the tiny layer's options."""
    monkeypatch.setattr(sweep, "GRID_DEPTHS", (0, 1))
    monkeypatch.setattr(sweep, "GRID_ROWS", (1, 5))
    monkeypatch.setattr(sweep, "DEEP_DEPTHS", (2,))
    monkeypatch.setattr(sweep, "DEEP_ROWS", (5,))
    monkeypatch.setattr(sweep, "DENSE_ROWS", 2)
    return ["--input-dim", "6", "--output-dim", "4", "--seconds", "0.001", "--threads", "1"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bench_draws(dtype, command, small_grid, tmp_path):
    picture = tmp_path / "speed.png"
    status, out, err = command("bench", *small_grid, "--dtype", dtype, "--plot", picture, "--json")
    assert (status, err) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = json.loads(out)
    points = [(point["neurons"], point["active"], point["rows"]) for point in report["points"]]
    assert points == [(1, 1, 1), (1, 1, 5), (3, 2, 1), (3, 2, 5), (7, 3, 5)]
    assert all(point["value"] > 0 for point in report["points"])
    assert report["dense"].split()[0] in ("fffcpu", "onnxruntime")


def test_bench_tells_what_it_drew(command, small_grid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    picture = tmp_path / "speed.svg"
    status, out, err = command("bench", *small_grid, "--plot", picture)
    assert (status, err) == (0, "")
    assert "against dense by fffcpu" in out
    assert "pip install 'fffcpu[bench]'" in out
    assert "     5 rows: " in out
    assert out.endswith(f"drawn to {picture}\n")


def test_bench_draws_what_the_time_allowed(command, small_grid, tmp_path):
    picture = tmp_path / "speed.png"
    status, out, err = command("bench", *small_grid, "--plot", picture, "--minutes", "0")
    assert (status, err) == (0, "")
    assert "4 points left out, from depth 0 and 5 rows on" in out
    assert picture.exists()


def test_bench_refuses_a_wrong_output_before_it_draws(command, small_grid, tmp_path, monkeypatch):
    right = FastFeedForward.__call__
    monkeypatch.setattr(
        FastFeedForward, "__call__", lambda layer, x, out=None: right(layer, x, out) + 1
    )
    picture = tmp_path / "speed.png"
    status, out, err = command("bench", *small_grid, "--plot", picture)
    assert_one_line(status, out, err)
    assert "outputs differ" in err
    assert not picture.exists()


def test_bench_of_a_module_from_elsewhere(command, monkeypatch):
    module = types.ModuleType("kernels_from_elsewhere")
    vars(module).update({name: getattr(vectorized, name) for name in vectorized.__all__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    argv = [
        "bench",
        *TINY,
        "--rows",
        "2",
        "--threads",
        "1",
        "--backends",
        module.__name__,
        "--json",
    ]
    status, out, err = command(*argv)
    assert (status, err) == (0, "")
    assert [result["backend"] for result in json.loads(out)["results"]] == [module.__name__]

    def wrong(y: np.ndarray, *arguments: object) -> None:
        y[...] = 0

    module.path_infer = wrong
    status, out, err = command(*argv)
    assert_one_line(status, out, err)
    assert "outputs differ" in err


def test_bench_restores_the_threads_after_an_error(command):
    before = fffcpu.get_num_threads()
    assert_one_line(*command("bench", *TINY, "--threads", "1", "100000"))
    assert fffcpu.get_num_threads() == before


# --- warmup -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.thorough
def test_warmup_tells_what_it_compiled_and_where_that_lies(command):
    status, out, err = command("warmup", "--dtype", "float32", "float64", "--training")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["layer", "dtype", "call", "kernel", "on", "seconds", "from"]
    rows = lines[1 : lines.index([])]
    assert len({(row[1], row[3], row[4]) for row in rows}) == len(rows), "listed twice"
    kernels_seen = {(row[1], row[3]) for row in rows}
    for dtype in ("float32", "float64"):
        assert {(dtype, "_path_infer"), (dtype, "_leaf_infer")} <= kernels_seen
        assert (dtype, "_path_gradients") in kernels_seen
    assert {row[4] for row in rows} <= {"caller", "pool"}
    assert {row[6] for row in rows} <= {"compiled", "cache", "memory"}
    assert f"of {len(rows)} kernels" in out
    assert out.splitlines()[-1].startswith("kept in ")


@pytest.mark.slow
def test_warmup_of_a_file_in_json(command, tmp_path):
    LAYERS["LeafFeedForward"]().save(tmp_path / "leaf.safetensors")
    status, out, err = command("warmup", tmp_path / "leaf.safetensors", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert set(report) == {"cache", "kernels"}
    assert {one["layer"] for one in report["kernels"]} == {"LeafFeedForward"}
    names = ["layer", "dtype", "call", "kernel", "parallel", "seconds", "source"]
    assert all(list(one) == names for one in report["kernels"])


@pytest.mark.slow
def test_warmup_of_a_dense_layer(command, tmp_path):
    LAYERS["DenseFeedForward"]().save(tmp_path / "dense.safetensors")
    status, out, err = command("warmup", tmp_path / "dense.safetensors")
    assert (status, err) == (0, "")
    assert "DenseFeedForward" in out


def test_warmup_where_nothing_compiles():
    assert warmup._format([], None).startswith("nothing to compile: ")


def test_a_quantized_model_keeps_its_meaning(command, tmp_path):
    schema = fffcpu.Schema("classification", ("a", "b", "c", "d"), target=("letter",))
    fffcpu.Predictor(LAYERS["FastFeedForward"](), schema).save(tmp_path / "model")
    paths = tmp_path / "model", tmp_path / "small"
    assert command("quantize", *paths, "--weights", "int8")[0] == 0
    assert fffcpu.Predictor.load(tmp_path / "small").schema == schema
