"""What the feedforwards of an encoder read and give: texts, splits and files."""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np
import pytest

from benchmarks.data import minilm
from benchmarks.data.bert import Bert, gelu, hidden_states
from fffcpu.text import Tokenizer
from tests.benchmarks.data.bert_support import LAYERS, WIDTH, write_bert

ENTRIES = [f"word{k} \\word{k}\\ the meaning of word number {k}." for k in range(60)]
DOCUMENTS = [" ".join(f"Place{k} has line {n} ." for n in range(15)) for k in range(20)]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders of a model, of texts and of results; several chunks of texts."""
    model, texts, out = (tmp_path / name for name in ("model", "texts", "out"))
    for folder in (model, texts):
        folder.mkdir()
    for name, documents in (("gcide.jsonl", ENTRIES), ("brown.jsonl", DOCUMENTS)):
        lines = [json.dumps({"text": document}) + "\n" for document in documents]
        (texts / name).write_text("".join(lines))
    tokenizer = Tokenizer.train([*ENTRIES, *DOCUMENTS], 120)
    tokenizer.save(model)
    write_bert(model, tokenizer.vocabulary)
    monkeypatch.setattr(minilm, "CHUNK", 4)
    return model, texts, out


def test_no_document_is_in_both_splits():
    documents = [[f"{number} {text}" for text in range(3)] for number in range(40)]
    splits = minilm.split_documents(documents, seed=0)
    found = {split: {text.split()[0] for text in texts} for split, texts in splits.items()}
    assert not found["training"] & found["held-out"]
    assert len(found["held-out"]) == 4
    assert sorted(splits["training"] + splits["held-out"]) == sorted(itertools.chain(*documents))


def test_passages_are_a_few_whole_sentences():
    document = "`` Stay ! ! '' he said . Why ? ? '' Because ; ; it is late , Mr. Hill . No ."
    plain = '" Stay ! " he said . Why ? " Because ; it is late , Mr. Hill . No .'
    found = list(minilm.passages(" ".join([document] * 9), np.random.default_rng(0)))
    assert " ".join(found) == " ".join([plain] * 9)
    assert all(text.endswith((" .", '! "', '? "')) for text in found)
    lengths = {sum(text.count(mark) for mark in (" !", " ?", " .")) for text in found}
    assert lengths == {1, 2, 3, 4}


def test_drawn_texts_end_with_the_one_that_reaches_the_number_of_tokens(folders):
    tokenizer = Tokenizer.load(folders[0])
    found = list(minilm.draw(ENTRIES, tokenizer, 100, np.random.default_rng(0)))
    lengths = [len(ids) for ids in found]
    assert sum(lengths) >= 100 > sum(lengths[:-1])
    assert sorted(map(tuple, found)) != sorted(map(tuple, tokenizer.encode(ENTRIES[: len(found)])))
    everything = list(minilm.draw(ENTRIES, tokenizer, 10**6, np.random.default_rng(0)))
    assert sorted(everything) == sorted(tokenizer.encode(ENTRIES))


def test_files_hold_what_the_feedforwards_read_and_give(folders, monkeypatch):
    model_folder, _, out = folders
    arguments = [*map(str, folders), "--tokens", "300", "--held-out", "60"]
    monkeypatch.setattr(sys, "argv", ["minilm", *arguments])
    minilm.main()
    about = minilm.read_about(out)
    model, tokenizer = Bert.load(model_folder), Tokenizer.load(model_folder)
    words = {}
    for split, wanted in (("training", 300), ("held-out", 60)):
        tokens = np.load(out / f"{split}-tokens.npy")
        assert wanted <= len(tokens) == about[split]["tokens"] < wanted + 2 * minilm.LONGEST
        special = (tokens["id"] == tokenizer.start_id) | (tokens["id"] == tokenizer.end_id)
        np.testing.assert_array_equal(tokens["special"], special)
        assert about[split]["special tokens"] == special.sum() == 2 * about[split]["texts"]
        kinds = [about[split][f"tokens of {kind}"] for kind in minilm.KINDS]
        assert kinds == np.bincount(tokens["kind"]).tolist()
        assert min(kinds) >= wanted // 2
        words[split] = tokens
        arrays = [minilm.read_activations(out, layer, split) for layer in range(LAYERS)]
        assert {array.shape for pair in arrays for array in pair} == {(len(tokens), WIDTH)}
        for text in range(about[split]["texts"]):
            own = tokens["text"] == text
            seen = []

            def feedforward(layer, x, seen=seen):
                seen.append((x[0], model.feedforward(layer, x)[0]))
                return seen[-1][1][np.newaxis]

            ids = tokens["id"][own][np.newaxis]
            hidden_states(model, ids, np.ones(ids.shape, bool), feedforward)
            for expected, found in zip(seen, arrays, strict=True):
                for one, other in zip(expected, found, strict=True):
                    np.testing.assert_allclose(other[own], one, atol=1e-4)
    for layer in range(LAYERS):
        x, y = minilm.read_activations(out, layer, "training")
        neurons = minilm.read_neurons(out, layer)
        active = gelu(x @ neurons.weights_in.T + neurons.bias_in)
        bias = model.weights[f"encoder.layer.{layer}.output.dense.bias"]
        np.testing.assert_allclose(active @ neurons.weights_out + bias, y, atol=1e-4)
    # Both kinds are mixed: neither comes first as a whole.
    assert np.diff(words["training"]["kind"].astype(int)).astype(bool).sum() - 1 > 0
