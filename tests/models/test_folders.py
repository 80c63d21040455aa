"""Folders in the published form: one file of weights or several, pickles, and damaged ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fffcpu.checkpoints.safetensors import SafetensorsFile, write_tensors
from fffcpu.errors import CheckpointError
from fffcpu.models import BertEncoder, FastBertConfig, FastBertForMaskedLM
from fffcpu.models.folders import INDEX_FILE, open_config, open_weights, write_folder
from fffcpu.models.opening import open_model
from tests.support.golden_models import GOLDEN


@pytest.fixture
def folder(tmp_path):
    """A copy of a published folder, to be spoilt."""
    return shutil.copytree(GOLDEN / "crammed_fff_mlm", tmp_path / "model")


def split(folder):
    """Share the weights of a folder out to two files and an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    table = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(state)}
    for file in set(table.values()):
        save_file({name: state[name] for name in state if table[name] == file}, folder / file)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": table}))
    return state


def test_a_folder_is_written_and_opened(tmp_path):
    config = FastBertConfig(9, 4, 1, 2, feedforward_size=1, depth=2)
    state = {"b": np.arange(3.0, dtype=np.float32), "a": np.ones((2, 2), np.float32)}
    write_folder(tmp_path / "new" / "model", config, state)
    assert open_config(tmp_path / "new" / "model") == config
    found = open_weights(tmp_path / "new" / "model")
    assert set(found) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)


def test_weights_in_several_files_are_one_mapping(folder):
    state = split(folder)
    found = open_weights(folder)
    assert set(found) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", ["bert_tiny", "bert_tiny_cls"])
def test_a_bert_may_be_in_several_files(name, tmp_path):
    folder = shutil.copytree(GOLDEN / name, tmp_path / "model")
    split(folder)
    expected, found = open_model(GOLDEN / name), open_model(folder)
    assert type(found) is type(expected)
    for key, array in expected.params.items():
        np.testing.assert_array_equal(found.params[key], array)
    encoder = BertEncoder.from_pretrained(folder)  # the pooler may be in either file
    assert ("pooler.weights" in encoder.params) == (name == "bert_tiny_cls")


@pytest.mark.parametrize(
    "content",
    [
        *('{"weight_map": {}}', "[]", '{"weight_map": {"a": "../a"}}', '{"weight_map": {"a": 1}}'),
        *('{"weight_map": {"a": "a\\u0000"}}', '{"weight_map": {"a": "\\ud83d"}}'),
    ],
)
def test_an_index_names_files_beside_it(content, folder):
    split(folder)
    (folder / INDEX_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=r"index.json' must name files in its own folder"):
        open_weights(folder)


def test_arrays_that_overlap_in_one_of_several_files_are_errors(folder):
    split(folder)
    path = folder / "part-1.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    last = max(header, key=lambda name: header[name]["data_offsets"])
    header[last]["data_offsets"] = [offset - 4 for offset in header[last]["data_offsets"]]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(CheckpointError, match=r"part-1.safetensors' is not a whole safetensors"):
        open_weights(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_with_the_way_to_convert_them(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(
        CheckpointError,
        match=f"has no 'model.safetensors', but '{name}', which is a Python pickle.* never opened "
        "here; convert it to safetensors first, as 'fffcpu convert --help' shows",
    ):
        FastBertForMaskedLM.from_pretrained(folder)


def test_a_pickle_beside_the_weights_does_not_matter(folder):
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    FastBertForMaskedLM.from_pretrained(folder)


def test_damaged_folders_are_errors(folder):
    with pytest.raises(CheckpointError, match=r"must be a folder with 'config.json' and 'model\."):
        FastBertForMaskedLM.from_pretrained(folder / "config.json")
    path = folder / "config.json"
    for content, message in (
        (b"{", "config.json' is damaged: it is not valid JSON"),
        (b"\xff\xfe", "config.json' is damaged: it is not UTF-8"),
        (b"{}", "config.json' must have a table 'arch'"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            FastBertForMaskedLM.from_pretrained(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        FastBertForMaskedLM.from_pretrained(folder)


def test_a_folder_without_weights_is_an_error(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        FastBertForMaskedLM.from_pretrained(folder)


def test_an_array_in_two_files_is_an_error(folder):
    split(folder)
    name = next(iter(SafetensorsFile(folder / "part-1.safetensors")))
    first, second = ({**SafetensorsFile(folder / f"part-{k}.safetensors")} for k in (1, 0))
    write_tensors(folder / "part-0.safetensors", {**second, name: np.array(first[name]) + 1})
    with pytest.raises(CheckpointError, match=f"must have array '{name}' in one file, got it in"):
        FastBertForMaskedLM.from_pretrained(folder)


# --- Folders of sentence-transformers -------------------------------------------------------------


def sentence_folder(folder, modules, pooling=None, length=None):
    """Write the files of sentence-transformers beside a BERT."""
    shutil.copytree(GOLDEN / "bert_tiny", folder)
    prefix = "sentence_transformers.models"
    kinds = [{"path": path, "type": f"{prefix}.{kind}"} for path, kind in modules]
    (folder / "modules.json").write_text(json.dumps(kinds))
    if pooling:
        (folder / "1_Pooling").mkdir()
        values = {"word_embedding_dimension": 24, "pooling_mode_max_tokens": False, pooling: True}
        (folder / "1_Pooling/config.json").write_text(json.dumps(values))
    if length:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    return folder


ENCODER, POOLING, NORMALIZE = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2", "Normalize")


@pytest.mark.parametrize(
    ("modules", "pooling", "length", "expected"),
    [
        ([ENCODER], None, None, ("mean", False, 12)),
        ([ENCODER, POOLING], "pooling_mode_cls_token", 8, ("start", False, 8)),
        ([ENCODER, POOLING, NORMALIZE], "pooling_mode_mean_tokens", 7, ("mean", True, 7)),
    ],
)
def test_what_follows_an_encoder_is_read(modules, pooling, length, expected, tmp_path):
    config = open_config(sentence_folder(tmp_path / "model", modules, pooling, length))
    assert (config.pooling, config.normalize, config.longest) == expected


@pytest.mark.parametrize(
    ("modules", "pooling", "length", "message"),
    [
        ([ENCODER, ("2", "Dense")], None, None, "got 'Dense'"),
        ([ENCODER, POOLING], "pooling_mode_lasttoken", None, "pooling_mode_mean_tokens"),
        ([ENCODER, ("../1_Pooling", "Pooling")], None, None, "must name folders in its own"),
        ([ENCODER], None, 1000, "'cut'"),
    ],
)
def test_what_cannot_follow_is_named(modules, pooling, length, message, tmp_path):
    folder = sentence_folder(tmp_path / "model", modules, pooling, length)
    with pytest.raises(CheckpointError, match=message):
        open_config(folder)
