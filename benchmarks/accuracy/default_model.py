"""The model that the package carries, compared with a model that counts.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.accuracy.default_model TEXTS/glosses.jsonl

The glosses are those that were held out when the model was pretrained, since the choice depends
only on seed and order. A quarter of their tokens is hidden, and both models predict them. The count
model knows how often each token stood between its two neighbours in the training glosses. For two
neighbours that it never saw together, it combines the tokens after the one and before the other,
P(t | left) P(t | right) / P(t). It ignores a neighbour that is itself hidden.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import new_parser
from fffcpu.inference.pipelines import default_model_folder
from fffcpu.models import FastBertForMaskedLM
from fffcpu.recipes.masking import mask_tokens
from fffcpu.text import Tokenizer, build_corpus

HELD_OUT = 0.05
"""Fraction of the glosses that was held out."""

Array = NDArray[Any]


class CountModel:
    """A model that predicts a token from counts of its two neighbours."""

    def __init__(self, tokens: Array, vocabulary: int, mask_id: int, smoothing: float = 0.01):
        numbers = tokens.astype(np.int64)
        self.vocabulary, self.mask_id = vocabulary, mask_id
        self.single = np.bincount(numbers, minlength=vocabulary) + smoothing
        pairs = np.bincount(numbers[:-1] * vocabulary + numbers[1:], minlength=vocabulary**2)
        pairs = pairs.reshape(vocabulary, vocabulary).astype(np.float32)
        share = smoothing * self.single / self.single.sum()
        self.after = np.log(pairs + share[np.newaxis, :].astype(np.float32))
        self.before = np.log(pairs.T + share[np.newaxis, :].astype(np.float32))
        keys = (numbers[:-2] * vocabulary + numbers[2:]) * vocabulary + numbers[1:-1]
        found, counts = np.unique(keys, return_counts=True)
        order = np.lexsort((counts, found // vocabulary))
        last = np.flatnonzero(np.diff(found[order] // vocabulary, append=-1))
        self.known = found[order][last] // vocabulary
        self.best = found[order][last] % vocabulary

    def guess(self, left: Array, right: Array) -> Array:
        """Return the most likely tokens (M,) between neighbours (M,)."""
        log_single = np.log(self.single)
        scores = np.tile(log_single, (len(left), 1))
        has_left, has_right = left != self.mask_id, right != self.mask_id
        scores[has_left] += self.after[left[has_left]] - log_single
        scores[has_right] += self.before[right[has_right]] - log_single
        guesses = scores.argmax(axis=1)
        keys = left.astype(np.int64) * self.vocabulary + right
        places = np.searchsorted(self.known, keys).clip(max=len(self.known) - 1)
        seen = (self.known[places] == keys) & has_left & has_right
        guesses[seen] = self.best[places[seen]]
        return guesses


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("texts", help="file of the glosses that benchmarks.data.texts wrote")
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="folder of another model (the package's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    folder = options.model or default_model_folder()
    model, tokenizer = FastBertForMaskedLM.from_pretrained(folder), Tokenizer.load(folder)
    with tempfile.TemporaryDirectory() as place:
        corpus = build_corpus([options.texts], tokenizer, place, validation=HELD_OUT)
        counting = CountModel(np.array(corpus.training), tokenizer.vocabulary, tokenizer.mask_id)
        sequences = np.array(corpus.sequences("validation", model.config.positions))
    ids, labels = mask_tokens(
        sequences,
        np.random.default_rng(0),
        mask_id=tokenizer.mask_id,
        vocabulary=tokenizer.vocabulary,
    )
    # Only hidden tokens are predicted. At the ends of a sequence a neighbour is missing.
    wanted = (labels >= 0) & (ids == tokenizer.mask_id)
    wanted[:, [0, -1]] = False
    right: dict[str, float] = {"FastBERT": 0, "count model": 0}
    for start in range(0, len(ids), 16):
        block, chosen = ids[start : start + 16], wanted[start : start + 16]
        truth = labels[start : start + 16][chosen]
        rows, columns = np.nonzero(chosen)
        counted = counting.guess(block[rows, columns - 1], block[rows, columns + 1])
        right["FastBERT"] += float((model.logits_at(block, chosen).argmax(axis=1) == truth).sum())
        right["count model"] += float((counted == truth).sum())
    report = {"tokens": int(wanted.sum())} | {
        name: count / int(wanted.sum()) for name, count in right.items()
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{report.pop('tokens'):,} hidden tokens of held-out glosses; share predicted correctly:")
    for name, share in report.items():
        print(f"  {name:<12} {share:.4f}")


if __name__ == "__main__":
    main()
