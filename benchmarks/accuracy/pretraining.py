"""What FastBERT learns beside dense encoders: one text, equal tokens, one command.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.accuracy.pretraining TEXTS RUNS

pretrains, on ``gcide.jsonl``, ``anarchism.jsonl`` and ``brown.jsonl``, three encoders that differ
in nothing but the feedforward::

    fff          4 trees of depth 5: holds 252 neurons, of which a token uses 24
    dense-252    as many neurons as fff holds ("training width")
    dense-24     as many as a token of fff uses ("inference cost")

and prints a table. Everything is resumable: the same command goes on where it was stopped. Each run
leaves a model folder, ``RUNS/NAME-SEED``, and the log of its training beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fffcpu.recipes.pretraining import PretrainSettings, pretrain
from fffcpu.system.terminal import format_table
from fffcpu.text import Corpus, Tokenizer, build_corpus, find_files, read_documents

FEEDFORWARDS: dict[str, dict[str, Any]] = {
    "fff": {"feedforward": "fff", "feedforward_size": 4, "depth": 5},
    "dense-252": {"feedforward": "ff", "feedforward_size": 252},
    "dense-24": {"feedforward": "ff", "feedforward_size": 24},
}

TEXTS = ("gcide.jsonl", "anarchism.jsonl", "brown.jsonl")

VOCABULARY = 8192

LENGTH = 32
"""Tokens of a sequence. With the recipe's 128, models of this size still guess by the frequency of
tokens alone (loss 5.6) after 12 million tokens; with 32, they do not after 0.6 million."""


def corpus_of(texts: Path, runs: Path) -> Corpus:
    """Return the corpus, tokenised at the first call."""
    files = find_files([texts / name for name in TEXTS])
    path = runs / "tokenizer.json"
    if not path.exists():
        pieces = (piece.text for piece in read_documents(files))
        Tokenizer.train(pieces, VOCABULARY).save(path)
    return build_corpus(files, Tokenizer.load(path), runs / "corpus")


def run(name: str, seed: int, corpus: Corpus, runs: Path, tokens: int) -> dict[str, Any]:
    """Pretrain a model, or return what came of it before."""
    folder = runs / f"{name}-{seed}"
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text(encoding="utf-8"))
    settings = PretrainSettings(
        length=LENGTH, epochs=tokens / len(corpus.training), seed=seed, **FEEDFORWARDS[name]
    )
    done = pretrain(corpus, settings, folder=Path(f"{folder}.training"), resume=True)
    done.model.save_pretrained(folder)
    corpus.tokenizer.save(folder)
    figures = {
        "name": name,
        "seed": seed,
        "tokens": done.outcome.rows,
        "steps": done.outcome.steps,
        "seconds": done.outcome.seconds,
        "parameters": done.model.params.count,
        **done.outcome.figures,
    }
    result.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path, help="what texts.py wrote")
    parser.add_argument("runs", type=Path, help="the folder for models and logs")
    parser.add_argument("--tokens", type=int, default=4_000_000, help="of each run")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--models", nargs="+", choices=FEEDFORWARDS, default=list(FEEDFORWARDS))
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(options.texts, options.runs)
    rows = []
    for seed in range(options.seeds):
        for name in options.models:
            figures = run(name, seed, corpus, options.runs, options.tokens)
            if options.json:
                print(json.dumps(figures), flush=True)
            rows.append(
                (
                    name,
                    str(seed),
                    f"{figures['parameters']:,}",
                    f"{figures['tokens']:,}",
                    f"{figures['validation_loss']:.4f}",
                    f"{figures['validation_accuracy']:.4f}",
                    f"{figures['tokens'] / figures['seconds']:,.0f}",
                )
            )
    head = ("model", "seed", "parameters", "tokens", "loss", "top-1", "tokens/s")
    if not options.json:
        print(format_table(head, rows))


if __name__ == "__main__":
    main()
