"""Part 1 of ``fffcpu demo``: masked sentences, filled by the model in the package."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fffcpu.inference.pipelines import default_model_folder
from fffcpu.inference.predictor import softmax
from fffcpu.models import FastBertForMaskedLM
from fffcpu.text.tokenizer import TOKENIZER_FILE

__all__ = ["GUESSES", "MASK", "SENTENCES_FILE", "fill_sentences"]

MASK = "[MASK]"

SENTENCES_FILE = "sentences.json"
"""File next to the model, with sentences and their tokens, so that the demo needs no tokenizer."""

GUESSES = 3
"""Number of guesses that are shown for a masked sentence."""


def fill_sentences() -> str:
    """Return sentences with the model's guesses for their masks."""
    folder = default_model_folder()
    model = FastBertForMaskedLM.from_pretrained(folder)
    sentences = json.loads((folder / SENTENCES_FILE).read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    special = [token["id"] for token in tokenizer["added_tokens"]]
    names = {number: name for name, number in vocabulary.items()}
    feedforward: Any = model.config.modules()["encoder.layers.0.feedforward"]
    used, held = feedforward.active_neurons, feedforward.neurons
    lines = [f"Masked sentences: a FastBERT trained on WordNet's glosses, {used} of {held} neurons"]
    width = max(len(sentence["text"]) for sentence in sentences)
    for sentence in sentences:
        ids = np.array([sentence["ids"]])
        chances = softmax(model.logits_at(ids, ids == vocabulary[MASK])[0])
        chances[special] = -1
        best = chances.argsort()[::-1][:GUESSES]
        guesses = ", ".join(f"{names[int(token)]} {chances[token]:.0%}" for token in best)
        lines.append(f"  {sentence['text']:<{width}}  {guesses}")
    return "\n".join(lines)
