"""The model that the package carries: whole, small, and better than a guess."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from fffcpu.cli.demo import sentences
from fffcpu.cli.demo.sentences import MASK, SENTENCES_FILE, fill_sentences
from fffcpu.inference.pipelines import FillMask, default_model_folder
from fffcpu.models import FastBertForMaskedLM
from fffcpu.text import Tokenizer

FOLDER = default_model_folder()
SENTENCES = json.loads((FOLDER / SENTENCES_FILE).read_text(encoding="utf-8"))


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8e6


def test_the_licence_of_its_text_lies_beside_it():
    assert "WordNet 3.0 Copyright 2006" in (FOLDER / "WORDNET-LICENSE.txt").read_text()


def test_the_tokens_of_the_sentences_are_those_of_its_tokenizer():
    tokenizer = Tokenizer.load(FOLDER)
    assert tokenizer.token(tokenizer.mask_id) == MASK
    for sentence in SENTENCES:
        assert tokenizer.encode([sentence["text"]], special=True) == [sentence["ids"]]


@pytest.mark.slow
def test_the_demo_says_what_the_pipeline_says():
    pipeline = FillMask.from_pretrained(FOLDER)
    lines = fill_sentences().splitlines()
    for sentence in SENTENCES:
        (guesses,) = pipeline.fill([sentence["text"]], top=1)[0]
        (line,) = (line for line in lines if sentence["text"] in line)
        assert f"{guesses[0].token} {guesses[0].probability:.0%}" in line


def test_the_demo_shows_no_special_tokens(tmp_path, monkeypatch):
    model = FastBertForMaskedLM.from_pretrained(FOLDER)
    words = model.params["encoder.embedding.words"]
    model.params["encoder.final_norm.bias"][...] = 2 * words[:5].sum(axis=0)
    model.save_pretrained(tmp_path)
    for name in (SENTENCES_FILE, "tokenizer.json"):
        shutil.copy(FOLDER / name, tmp_path)
    monkeypatch.setattr(sentences, "default_model_folder", lambda: tmp_path)
    pipeline = FillMask.from_pretrained(tmp_path)
    for sentence, line in zip(SENTENCES, fill_sentences().splitlines()[1:], strict=False):
        logits = model.logits_at([sentence["ids"]], np.array([sentence["ids"]]) == 4)
        assert logits.argmax() < 5
        (guesses,) = pipeline.fill([sentence["text"]], top=sentences.GUESSES)[0]
        shown = line.removeprefix(f"  {sentence['text']}").split(", ")
        assert [guess.split()[0] for guess in shown] == [guess.token for guess in guesses]
        assert "[PAD]" not in line


def test_it_learned_what_definitions_look_like():
    model, tokenizer = FastBertForMaskedLM.from_pretrained(FOLDER), Tokenizer.load(FOLDER)
    rows = tokenizer.encode(["a person who is the owner of a house", "the act of moving"])
    right = count = 0
    for row in rows:
        for place in range(1, len(row) - 1):
            ids = np.array([row])
            ids[0, place] = tokenizer.mask_id
            logits = model.logits_at(ids, ids == tokenizer.mask_id)[0]
            right += row[place] in logits.argsort()[-5:]
            count += 1
    assert right / count > 0.5
