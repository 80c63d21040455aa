"""The readers of files: a few small files that our writers made, and a check of what is read.

A check reads a damaged file by the public functions, and compares what came with a simple reading
by other code: the csv module and ``float``, ``json``, `numpy.load`, the safetensors library. It
returns what is wrong, or nothing. Where the other code cannot tell, nothing is compared.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import safetensors
from numpy.typing import NDArray

import fffcpu
from benchmarks.reliability.fuzzing import mutations
from benchmarks.reliability.fuzzing.judging import METER, Undecided, judge_command
from benchmarks.reliability.fuzzing.mutations import Mutation
from fffcpu.checkpoints import fastfeedforward, native, ultrafastbert, ultrafastbert_bmm
from fffcpu.checkpoints.safetensors import SafetensorsFile, write_tensors
from fffcpu.data import Table, read_blocks, read_table
from fffcpu.errors import CheckpointError, DataError
from fffcpu.inference.predictor import load_model
from fffcpu.models import FastBertConfig, FastBertForMaskedLM, FastBertForSequenceClassification
from fffcpu.recipes.fitting import FitSettings, fit
from fffcpu.text import Corpus, Tokenizer, build_corpus, read_documents, read_labelled, read_texts
from fffcpu.training import AdamW, RunFolder
from fffcpu.training.trainer import Moment, StepResult, Trainer, TrainerSettings

__all__ = ["COPIED", "READERS", "FileReader"]

Array = NDArray[Any]
Check = Callable[[Path, Random], str | None]
Command = Callable[[Path, Random], list[str]]


class FileReader(NamedTuple):
    """A reader of files, and what a campaign needs to try it."""

    prepare: Callable[[Path], dict[str, bytes]]
    """Writes the files that lie beside the damaged one; returns whole files by their names."""
    mutate: Mutation
    check: Check
    """Reads a file; returns what is wrong with the result, or None."""
    command: Command
    """Returns the arguments of a command that reads the file."""
    is_folder: bool = False
    """Whether the file is one of a folder's, so that errors may name the folder."""


def _packed(name: str, data: bytes) -> dict[str, bytes]:
    """Return a file, and the same file gzipped."""
    return {name: data, f"{name}.gz": gzip.compress(data, mtime=0)}


def _whole(path: Path) -> bytes:
    """Return a file's bytes, unpacked once if it is gzipped."""
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise AssertionError(f"a damaged gzip file was accepted: {error}") from error


def _same(what: str, got: Any, wanted: Any) -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        raise AssertionError(f"{what}: got shape {got.shape} instead of {wanted.shape}")
    kinds = {got.dtype.kind, wanted.dtype.kind}
    if not np.array_equal(got, wanted, equal_nan=kinds <= set("fiub")):
        raise AssertionError(f"{what}: got {got!r:.200} instead of {wanted!r:.200}")


# --- Tables ---------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")


def _prepare_tables(folder: Path) -> None:
    """Write a model of three columns, labels and rows for the commands."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3))
    settings = FitSettings(depth=1, trees=1, epochs=1, validation=0.0)
    table = Table(x, np.arange(12) % 3, features=NAMES, target=("y",), classes=("u", "v", "w"))
    fit(table, settings, progress=False).predictor.save(folder / "model")
    np.save(folder / "labels.npy", np.arange(12) % 3)


def _csv_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_tables(folder)
    rng = np.random.default_rng(1)
    rows = [[f"{v:.6g}" for v in row] for row in rng.standard_normal((12, 3))]
    columns = {
        "plain": [str(i % 3) for i in range(12)],
        "texts": [f'"{"uvw"[i % 3]}"' for i in range(12)],
        "numbers": [f"{i / 7:.5f}" for i in range(12)],
    }
    seeds: dict[str, bytes] = {}
    for name, labels in columns.items():
        lines = [",".join([*NAMES, "y"])]
        lines += [",".join([*row, label]) for row, label in zip(rows, labels, strict=True)]
        seeds |= _packed(f"{name}.csv", "\n".join(lines).encode() + b"\n")
    seeds["quoted.csv"] = b'\xef\xbb\xbf"a", b ,"c,""c""",y\r\n1,2,3,"x\ny"\r\n4,5e-3,-6,"z"\r\n'
    seeds["one.csv"] = b"a\n1\n2\n3\n"
    return seeds


def _records(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Return the header and the records of a CSV file, by the csv module alone."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AssertionError(f"a file that is not UTF-8 was accepted: {error}") from error
    lines = io.StringIO(text, newline="")
    try:
        found = [row for row in csv.reader(lines, strict=True, skipinitialspace=True) if row]
    except csv.Error as error:
        if "field larger" in str(error):
            raise Undecided from error
        raise AssertionError(f"a file was accepted that csv refuses: {error}") from error
    return [name.strip() for name in found[0]], found[1:]


def _numbers(texts: Sequence[str], dtype: str) -> Array | None:
    """Return the numbers of texts; None if one is no finite number of plain ASCII."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    plain = all(text.isascii() and "_" not in text for text in texts)
    with np.errstate(over="ignore"):
        array = np.array(values, np.float64).astype(dtype)
    return array if plain and np.isfinite(array).all() else None


def _check_csv(path: Path, rng: Random) -> str | None:
    target = rng.choice((None, "c")) if rng.random() < 0.2 else "y"
    target = None if path.name.startswith("one") else target
    task = rng.choice((None, None, None, "classification", "regression")) if target else None
    dtype = rng.choice(("float32", "float64"))
    with METER:
        table = read_table(path, target, task, dtype=dtype)
    names, records = _records(_whole(path))
    if table.features is None:
        return "a table of a CSV file without names of columns"
    if len(table.x) != len(records):
        return f"{len(table.x)} rows instead of {len(records)}"
    if len(table.features) == table.x.shape[1]:
        for column, name in enumerate(table.features):
            wanted = _numbers([record[names.index(name)] for record in records], dtype)
            if wanted is not None:
                _same(f"column {name!r}", table.x[:, column], wanted)
    if target is not None and table.y is not None:
        _check_targets(table, [record[names.index(target)] for record in records], dtype)
    blocks = read_blocks(path, rng.choice((1, 5, 4096)), table.features, dtype=dtype)
    _same("blocks", np.concatenate(list(blocks)), table.x)
    return None


def _check_targets(table: Table, texts: Sequence[str], dtype: str) -> None:
    """Raise unless each row has the target that is written in its record."""
    assert table.y is not None
    if table.classes is None:
        wanted = _numbers(texts, dtype)
        if wanted is not None:
            _same("targets", table.y[:, 0], wanted)
        return
    for label, text in zip(np.asarray(table.y).tolist(), texts, strict=True):
        name = table.classes[label]
        if str(name) != text.strip() and not (isinstance(name, int) and float(text) == name):
            raise AssertionError(f"label {text!r} became {name!r}")


def _table_command(path: Path, rng: Random) -> list[str]:
    """Predict, inspect or train with a table."""
    folder = path.parent
    what = rng.randrange(4)
    if what == 0:
        out = ("--out", str(folder / "out"), "--epochs", "1", "--depth", "1", "--threads", "1")
        target = ("--target", "y" if ".csv" in path.name else str(folder / "labels.npy"))
        return ["train", str(path), *(target if ".npz" not in path.name else ()), *out]
    if what == 1:
        return ["inspect", str(folder / "model"), str(path)]
    ending = rng.choice((".csv", ".npy"))
    return ["predict", str(folder / "model"), str(path), "--out", str(folder / f"out{ending}")]


def _idx_of(array: Array) -> bytes:
    codes = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}
    code = next(code for name, code in codes.items() if np.dtype(name) == array.dtype)
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, code, array.ndim)) + lengths + array.tobytes()


def _idx_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_tables(folder)
    rng = np.random.default_rng(2)
    seeds: dict[str, bytes] = {}
    for name in ("u1", "i1", ">i2", ">i4"):
        array = rng.integers(0, 100, (12, 3)).astype(name)
        seeds |= _packed(f"{name.strip('>')}-idx", _idx_of(array))
    for name in (">f4", ">f8"):
        seeds |= _packed(f"{name.strip('>')}-idx", _idx_of(rng.random((12, 3)).astype(name)))
    seeds |= _packed("images-idx3", _idx_of(rng.integers(0, 255, (12, 3, 1)).astype("u1")))
    return seeds


def _check_idx(path: Path, rng: Random) -> str | None:
    with METER:
        table = read_table(path)
    data = _whole(path)
    lengths = struct.unpack_from(f">{data[3]}I", data, 4)
    kinds = {8: "u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
    wanted = np.frombuffer(data[4 + 4 * data[3] :], kinds[data[2]])
    return _check_array_table(table, path, wanted.reshape(lengths), rng)


def _check_array_table(table: Table, path: Path, wanted: Array, rng: Random) -> str | None:
    """Compare a table with an array, and its blocks with it."""
    rows = wanted.reshape(len(wanted), -1)
    _same("x", table.x, rows)
    try:
        blocks = list(read_blocks(path, rng.choice((1, 5, 4096))))
    except DataError:
        finite = np.isfinite(rows).all() if rows.dtype.kind == "f" else True
        return "blocks were refused of a table that was read" if finite else None
    _same("blocks", np.concatenate(blocks), rows)
    return None


def _npy_of(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npy_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_tables(folder)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((12, 3))
    arrays = {
        **{name: x.astype(name) for name in ("f2", "f4", "f8", ">f4")},
        **{name: (x * 20).astype(name) for name in ("i1", "u2", "i8", "?")},
        "fortran": np.asfortranarray(x),
        "images": x.reshape(12, 3, 1),
    }
    return {f"{name.strip('>')}.npy": _npy_of(array) for name, array in arrays.items()}


def _check_npy(path: Path, rng: Random) -> str | None:
    target = path.parent / "labels.npy" if rng.random() < 0.3 else None
    with METER:
        table = read_table(path, target)
    with open(path, "rb") as file:
        wanted = np.load(file, allow_pickle=False)
    return _check_array_table(table, path, wanted, rng)


def _npz_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_tables(folder)
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((12, 3)).astype("f4"), np.arange(12) % 3
    seeds = {}
    for name, save in (("stored", np.savez), ("packed", np.savez_compressed)):
        for arrays in ({"x": x, "y": y}, {"rows": x}, {"x": x, "y": y / 7, "z": x[:2]}):
            file = io.BytesIO()
            save(file, **arrays)  # type: ignore[arg-type]
            seeds[f"{name}-{'-'.join(arrays)}-{arrays.get('y', y).dtype}.npz"] = file.getvalue()
    return seeds


def _check_npz(path: Path, rng: Random) -> str | None:
    with METER:
        table = read_table(path)
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            # Another array may be damaged.
            with contextlib.suppress(Exception):
                arrays[name] = np.asarray(archive[name])
    others = [name for name in arrays if name != "y" and arrays[name].ndim >= 2]
    wanted = arrays["x"] if "x" in arrays else arrays[others[0]]
    if table.y is not None:
        labels = arrays["y"].reshape(len(wanted), -1)
        if table.classes is None:
            _same("y", table.y, labels)
        else:
            _same("y", np.array(table.classes)[table.y], labels[:, 0])
    return _check_array_table(table, path, wanted, rng)


# --- Texts ----------------------------------------------------------------------------------------

TEXTS = ("a rose is a rose", "the sky, at night", 'it is "so"', "", "émigré ٣", "[MASK] is a rose")


def _prepare_bert(folder: Path) -> Path:
    """Write a tiny model with a tokenizer; return its folder."""
    place = folder / "bert"
    place.mkdir(exist_ok=True)
    tokenizer = Tokenizer.train([*TEXTS, "a rose and the night"] * 2, vocabulary=80)
    tokenizer.save(place)
    config = FastBertConfig(
        tokenizer.vocabulary, 8, 1, 2, feedforward_size=1, depth=1, positions=16, head_width=4
    )
    FastBertForMaskedLM(config, rng=0).save_pretrained(place)
    classifier = folder / "classifier"
    classifier.mkdir(exist_ok=True)
    tokenizer.save(classifier)
    named = dataclasses.replace(config, classes=2, labels=("no", "yes"))
    FastBertForSequenceClassification(named, rng=0).save_pretrained(classifier)
    return place


def _json_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_bert(folder)
    rows = [{"text": text, "label": "ny"[i % 2]} for i, text in enumerate(TEXTS)]
    numbered = [{"id": i, **row, "label": i % 2, "more": [1, {}]} for i, row in enumerate(rows)]
    seeds = {}
    for name, values in (("texts", rows), ("numbers", numbered)):
        seeds |= _packed(
            f"{name}.jsonl", "".join(json.dumps(value) + "\n" for value in values).encode()
        )
    raw = [json.dumps(value, ensure_ascii=False) for value in rows]
    return seeds | {"raw.jsonl": b"\xef\xbb\xbf" + "\r\n".join(raw).encode()}


def _check_json_lines(path: Path, rng: Random) -> str | None:
    if rng.random() < 0.5:
        with METER:
            texts = list(read_texts(str(path)))
        if rng.random() < 0.5:
            _same("documents", [piece.text for piece in read_documents([str(path)])], texts)
        content, labels = _whole(path).decode("utf-8-sig", "replace"), None
    else:
        with METER:
            labelled = read_labelled(str(path))
        texts, labels = labelled.texts, labelled
        content = _whole(path).decode("utf-8-sig")
    lines = io.StringIO(content, newline="\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    if texts != [row["text"] for row in rows]:
        return "other texts"
    if labels is not None and labels.classes is not None:
        got = [labels.classes[number] for number in labels.labels]
        if got != [str(row["label"]).strip() for row in rows]:
            return f"other labels: {got!r:.200}"
    return None


def _text_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_bert(folder)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("id", "text", "label"))
    writer.writerows((i, text, "ny"[i % 2]) for i, text in enumerate(TEXTS))
    return {
        **_packed("lines.txt", "\n".join(TEXTS).encode()),
        **_packed("table.csv", table.getvalue().encode()),
    }


def _check_texts(path: Path, rng: Random) -> str | None:
    if ".csv" not in path.name:
        with METER:
            texts = list(read_texts(str(path)))
        content = _whole(path).decode("utf-8-sig", "replace")
        lines = content.split("\n") if content else []
        lines = lines[:-1] if lines and not lines[-1] else lines
        return None if texts == [line.removesuffix("\r") for line in lines] else "other texts"
    with METER:
        labelled = read_labelled(str(path)) if rng.random() < 0.5 else None
        texts = list(read_texts(str(path))) if labelled is None else labelled.texts
    data = _whole(path)
    if labelled is None:  # bytes that are not UTF-8 are replaced
        data = data.decode("utf-8-sig", "replace").encode()
    names, records = _records(data)
    if texts != [record[names.index("text")] for record in records]:
        return "other texts"
    if labelled is not None and labelled.classes is not None:
        got = [labelled.classes[number] for number in labelled.labels]
        if got != [record[names.index("label")].strip() for record in records]:
            return f"other labels: {got!r:.200}"
    return None


def _text_command(path: Path, rng: Random) -> list[str]:
    folder = path.parent
    what = rng.randrange(3)
    if what == 0:
        return ["embed", str(folder / "bert"), str(path), "--out", str(folder / "out.npy")]
    if what == 1:
        return ["classify", str(folder / "classifier"), str(path)]
    return ["fill-mask", str(folder / "bert"), str(path)]


# --- Models ---------------------------------------------------------------------------------------


def _layer_seeds(folder: Path) -> dict[str, bytes]:
    _prepare_tables(folder)
    fast = fffcpu.FastFeedForward(3, 2, depth=2, rng=0)
    leaf = fffcpu.LeafFeedForward(3, 2, depth=1, leaf_width=2, rng=0)
    layers = {
        "fast": fast,
        "double": fffcpu.FastFeedForward(3, 2, depth=1, trees=2, dtype=np.float64, rng=0),
        "leaf": leaf,
        "dense": fffcpu.DenseFeedForward(3, 2, 4, rng=0),
        "bfloat16": fast.quantize("bfloat16"),
        "int8": fast.quantize("int8"),
        "leaf8": leaf.quantize("int8"),
    }
    for name, layer in layers.items():
        layer.save(folder / name)
    seeds = {name: (folder / name).read_bytes() for name in layers}
    return seeds | {"predictor": (folder / "model").read_bytes()}


WIDTHS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
WIDTHS |= {"I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def _tensors(path: Path) -> dict[str, Array | None]:
    """Return the arrays of a safetensors file as the library reads them; None for bfloat16."""
    try:
        found = safetensors.deserialize(path.read_bytes())
    except Exception as error:  # the library has one class for all errors
        raise AssertionError(f"a file was accepted that safetensors refuses: {error}") from error
    return {
        name: np.frombuffer(bytes(entry["data"]), WIDTHS[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] in WIDTHS
        else None
        for name, entry in found
    }


def _check_layer(path: Path, rng: Random) -> str | None:
    if rng.random() < 0.4:
        with METER:
            file = SafetensorsFile(path)
            arrays = {name: file[name] for name in file}
    else:
        with METER:
            layer, predictor = load_model(path)
        arrays = dict(layer.params)
        x = np.ones((2, layer.config.input_dim))
        with np.errstate(all="ignore"):
            y = layer(x) if predictor is None else predictor.scores(x)
        if y.shape != (2, layer.config.output_dim):
            return f"an output of shape {y.shape}"
    wanted = _tensors(path)
    for name, array in arrays.items():
        expected = wanted.get(name)
        if expected is not None and array.dtype == expected.dtype:
            _same(name, array, expected)
    return None


def _layer_command(path: Path, rng: Random) -> list[str]:
    folder = path.parent
    rows = folder / "rows.npy"
    if not rows.exists():
        np.save(rows, np.ones((2, 3), "f4"))
    return rng.choice(
        (
            ["info", str(path)],
            ["info", str(path), "--json"],
            ["predict", str(path), str(rows), "--out", str(folder / "out.csv")],
            ["inspect", str(path), str(rows)],
            ["quantize", str(path), str(folder / "out"), "--weights", "int8"],
        )
    )


def _published_seeds(folder: Path) -> dict[str, bytes]:
    fast = fffcpu.FastFeedForward(3, 2, depth=2, rng=0)
    plain = fffcpu.FastFeedForward(3, 3, depth=2, bias=False, rng=0)
    leaf = fffcpu.LeafFeedForward(3, 2, depth=1, leaf_width=2, rng=0)
    layers = {"fast": (ultrafastbert, fast), "bmm": (ultrafastbert_bmm, plain)}
    layers["leaf"] = (fastfeedforward, leaf)
    seeds = {}
    for name, (module, layer) in layers.items():
        write_tensors(folder / name, module.to_state_dict(layer.config, layer.params))
        seeds[f"{name}.safetensors"] = (folder / name).read_bytes()
    return seeds


def _check_published(path: Path, rng: Random) -> str | None:
    """Convert a layer; there is no reader of published files but the command."""
    out = path.parent / "converted.safetensors"
    out.unlink(missing_ok=True)
    with METER:
        verdict = judge_command(_published_command(path, rng))
    if verdict.outcome == "fault":
        return verdict.detail
    if verdict.outcome == "refused":
        raise CheckpointError(f"{path.name} {verdict.signature}")
    _, arrays = native.load(out)
    held = sum(array.size for array in SafetensorsFile(path).values())
    taken = sum(array.size for array in arrays.values())
    return f"{taken} parameters of {held} in the file" if taken > held else None


def _published_command(path: Path, rng: Random) -> list[str]:
    depth = ("--depth", "2") if "fast" in path.name else ()
    return ["convert", str(path), str(path.parent / "converted.safetensors"), *depth]


def _weights_seeds(folder: Path) -> dict[str, bytes]:
    _config_seeds(folder)
    (folder / "config.json").write_bytes((folder / "classifier" / "config.json").read_bytes())
    return {"model.safetensors": (folder / "model.safetensors").read_bytes()}


def _index_seeds(folder: Path) -> dict[str, bytes]:
    _weights_seeds(folder)
    whole = SafetensorsFile(folder / "model.safetensors")
    names = sorted(whole)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        write_tensors(folder / shard, {name: whole[name] for name in held})
    (folder / "model.safetensors").unlink()
    table = {name: shard for shard, held in shards.items() for name in held}
    return {"model.safetensors.index.json": json.dumps({"weight_map": table}).encode()}


def _check_index(path: Path, rng: Random) -> str | None:
    with METER:
        model = FastBertForSequenceClassification.from_pretrained(path.parent)
    with np.errstate(all="ignore"):
        y = model(np.array([[0, 1, 2]]))
    return None if y.shape == (1, 2) else f"an output of shape {y.shape}"


def _config_seeds(folder: Path) -> dict[str, bytes]:
    place = _prepare_bert(folder)
    for source in ((folder / "classifier"), place):
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        seed = (folder / "config.json").read_bytes()
        if source.name == "classifier":
            classifier = seed
    for file in (folder / "classifier").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return {"config.json": classifier}


def _check_config(path: Path, rng: Random) -> str | None:
    kind: Any = FastBertForMaskedLM if rng.random() < 0.1 else FastBertForSequenceClassification
    with METER:
        model = kind.from_pretrained(path.parent)
    ids = np.array([[0, 1, 2], [3, 2, 1]])[:, : model.config.positions]
    ids = np.minimum(ids, model.config.vocabulary - 1)
    with np.errstate(all="ignore"):
        y = model(ids)
    last = model.config.classes if kind is FastBertForSequenceClassification else None
    if last is not None and y.shape != (2, last):
        return f"an output of shape {y.shape}"
    weights = SafetensorsFile(path.parent / "model.safetensors")
    held = sum(array.size for array in weights.values())
    taken = sum(array.size for array in model.params.values())
    return f"{taken} parameters of {held} in the file" if taken > held else None


def _tokenizer_seeds(folder: Path) -> dict[str, bytes]:
    place = _prepare_bert(folder)
    for file in place.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return {"tokenizer.json": (place / "tokenizer.json").read_bytes()}


def _check_tokenizer(path: Path, rng: Random) -> str | None:
    with METER:
        tokenizer = Tokenizer.load(path)
    try:
        rows = tokenizer.encode([*TEXTS, "\U00013000", "a" * 200], special=rng.random() < 0.5)
    except CheckpointError:
        return None  # some damage shows with some texts only
    numbers = sorted(set(itertools.chain(*rows)))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < tokenizer.vocabulary:
        return f"tokens from {numbers[0]} to {numbers[-1]} of {tokenizer.vocabulary}"
    for number in numbers[:5]:
        tokenizer.token(number)
    tokenizer.decode(rows[0])
    return None


def _model_command(path: Path, rng: Random) -> list[str]:
    """Use the model in the folder of a damaged file."""
    folder = path.parent
    texts = folder / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    what = rng.choice(("embed", "classify", "fill-mask"))
    out = ("--out", str(folder / "out.npy")) if what == "embed" else ()
    return [what, str(folder), str(texts), *out]


def _corpus_seeds(folder: Path) -> dict[str, bytes]:
    bert = _prepare_bert(folder)
    text = folder / "text.txt"
    text.write_text("a rose is a rose\n" * 20, encoding="utf-8")
    build_corpus([text], Tokenizer.load(bert), folder, validation=0.0)
    return {"corpus.json": (folder / "corpus.json").read_bytes()}


def _check_corpus(path: Path, rng: Random) -> str | None:
    with METER:
        corpus = Corpus.open(path.parent)
    sequences = corpus.sequences("training", 4)
    tokens = np.fromfile(path.parent / "training.bin", corpus.training.dtype)
    _same("tokens", corpus.training, tokens[: len(corpus.training)])
    return None if sequences.shape[1] == 4 else "sequences of another length"


def _corpus_command(path: Path, rng: Random) -> list[str]:
    options = ("--steps", "1", "--length", "4", "--width", "8", "--layers", "1", "--heads", "1")
    out = ("--out", str(path.parent / "out"))
    return ["pretrain", str(path.parent), *out, *options, "--batch-size", "1", "--threads", "1"]


# --- Runs -----------------------------------------------------------------------------------------


COPIED = "fitted-"
"""Start of the name of a checkpoint that is read under the rest of its name."""

RUN = FitSettings(depth=1, trees=1, epochs=1)


class _Line:
    """An objective of two numbers."""

    def __init__(self) -> None:
        self.params = {"w": np.zeros((2, 3)), "b": np.zeros(2)}

    def step(self, moment: Moment) -> StepResult:
        grads = {name: np.ones_like(array) for name, array in self.params.items()}
        return StepResult(1.0, grads, 1, {"w": np.ones(2)})

    def evaluate(self) -> dict[str, float]:
        return {"loss": float(np.sum(self.params["w"]))}


def _trainer(folder: Path) -> Trainer:
    settings = TrainerSettings(
        steps=4, lr=0.1, evaluate_every=2, checkpoint_seconds=1e9, keep_best=True, patience=9
    )
    line = _Line()
    return Trainer(
        line, AdamW(line.params, 0.1), settings, folder=folder, identity={"a": 1}, progress=False
    )


def _run_seeds(folder: Path) -> dict[str, bytes]:
    (folder / "run").mkdir()
    run = _trainer(folder / "run")
    run.run()
    table = Table(np.random.default_rng(0).standard_normal((12, 3)), np.arange(12) % 3)
    table = dataclasses.replace(table, classes=(0, 1, 2))
    np.savez(folder / "table.npz", x=table.x, y=table.y)
    fit(
        read_table(folder / "table.npz"),
        RUN,
        folder=folder / "out.training",
        progress=False,
    )
    (fitted,) = RunFolder(folder / "out.training").checkpoints()
    (own,) = RunFolder(folder / "run").checkpoints()
    return {own.name: own.read_bytes(), f"{COPIED}{fitted.name}": fitted.read_bytes()}


def _check_run(path: Path, rng: Random) -> str | None:
    if path.name.startswith(COPIED):
        return _check_fit(path)
    place = path.parent / "resumed"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    copy = place / path.name.removeprefix(COPIED)
    copy.write_bytes(path.read_bytes())
    trainer = _trainer(place)
    with METER:
        resumed = trainer.resume()
    if not resumed:
        return "a checkpoint was passed over"
    wanted = _tensors(copy)
    for name, array in trainer.objective.params.items():
        stored = wanted[f"param.{name}"]
        if stored is not None:
            _same(name, array, stored.astype(array.dtype))
    if rng.random() < 0.1:
        try:
            trainer.run()
        except FloatingPointError:
            return None
    return None


def _check_fit(path: Path) -> str | None:
    """Continue a run of a table from a checkpoint, to its end."""
    place = path.parent / "refitted"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    (place / path.name.removeprefix(COPIED)).write_bytes(path.read_bytes())
    table = read_table(path.parent / "table.npz")
    with METER, contextlib.suppress(FloatingPointError), np.errstate(all="ignore"):
        fitted = fit(table, RUN, folder=place, resume=True, progress=False)
        if fitted.predictor.predict(table.x).shape != (12,):
            return "predictions of another shape"
    return None


def _run_command(path: Path, rng: Random) -> list[str]:
    folder = path.parent / "out.training"
    for old in folder.glob("checkpoint-*"):
        old.unlink()
    (folder / path.name.removeprefix(COPIED)).write_bytes(path.read_bytes())
    (path.parent / "out").unlink(missing_ok=True)
    options = ("--out", str(path.parent / "out"), "--resume", "--epochs", "1", "--depth", "1")
    return ["train", str(path.parent / "table.npz"), *options, "--trees", "1"]


def _history_seeds(folder: Path) -> dict[str, bytes]:
    run = _trainer(folder)
    run.run()
    for checkpoint in RunFolder(folder).checkpoints():
        checkpoint.unlink()
    return {"history.jsonl": (folder / "history.jsonl").read_bytes()}


def _check_history(path: Path, rng: Random) -> str | None:
    run = RunFolder(path.parent)
    if rng.random() < 0.5:
        before = path.read_bytes()
        kept = run.cut_history(2)
        if any(not isinstance(line, dict) or not line["step"] <= 2 for line in kept):
            return "lines of later steps were kept"
        path.write_bytes(before)
        return None
    with METER:
        found = run.read_history()
    return None if all(isinstance(line, dict) for line in found) else "lines that are no objects"


def _history_command(path: Path, rng: Random) -> list[str]:
    return ["info", str(path)]


READERS: dict[str, FileReader] = {
    "csv": FileReader(
        _csv_seeds, mutations.maybe_gzipped(mutations.csv_text), _check_csv, _table_command
    ),
    "texts": FileReader(
        _text_seeds, mutations.maybe_gzipped(mutations.csv_text), _check_texts, _text_command
    ),
    "jsonl": FileReader(
        _json_seeds,
        mutations.maybe_gzipped(mutations.json_lines),
        _check_json_lines,
        _text_command,
    ),
    "idx": FileReader(
        _idx_seeds, mutations.maybe_gzipped(mutations.idx, 0.3), _check_idx, _table_command
    ),
    "npy": FileReader(_npy_seeds, mutations.npy, _check_npy, _table_command),
    "npz": FileReader(_npz_seeds, mutations.npz, _check_npz, _table_command),
    "safetensors": FileReader(_layer_seeds, mutations.safetensors, _check_layer, _layer_command),
    "published": FileReader(
        _published_seeds, mutations.safetensors, _check_published, _published_command
    ),
    "weights": FileReader(
        _weights_seeds, mutations.safetensors, _check_index, _model_command, True
    ),
    "index": FileReader(_index_seeds, mutations.json_text, _check_index, _model_command, True),
    "config": FileReader(_config_seeds, mutations.json_text, _check_config, _model_command, True),
    "tokenizer": FileReader(
        _tokenizer_seeds, mutations.json_text, _check_tokenizer, _model_command, True
    ),
    "corpus": FileReader(_corpus_seeds, mutations.json_text, _check_corpus, _corpus_command, True),
    "checkpoint": FileReader(_run_seeds, mutations.safetensors, _check_run, _run_command),
    "history": FileReader(_history_seeds, mutations.json_lines, _check_history, _history_command),
}
"""The readers by name."""
