"""FastBERT and dense encoders, pretrained on the same text with the same number of tokens.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.accuracy.pretraining TEXTS RUNS

The texts are gcide.jsonl, anarchism.jsonl and brown.jsonl. Three encoders differ only in their
feedforwards:

    fff          4 trees of depth 5, which hold 252 neurons; a token uses 24 of them
    dense-252    as many neurons as fff holds ("training width")
    dense-24     as many neurons as a token of fff uses ("inference cost")

Repeat the command to continue after an interruption. Each run leaves a model folder RUNS/NAME-SEED,
and the folder of its training next to it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.accuracy.text_runs import read_result, text_parser, write_result
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
"""Tokens per sequence. With the recipe's 128, models of this size still guess by the frequency of
tokens alone (loss 5.6) after 12 million tokens. With 32, they no longer do after 0.6 million."""


def corpus_of(texts: Path, runs: Path) -> Corpus:
    """Return the corpus. The first call tokenizes it."""
    files = find_files([texts / name for name in TEXTS])
    path = runs / "tokenizer.json"
    if not path.exists():
        pieces = (piece.text for piece in read_documents(files))
        Tokenizer.train(pieces, VOCABULARY).save(path)
    return build_corpus(files, Tokenizer.load(path), runs / "corpus")


def run(name: str, seed: int, corpus: Corpus, runs: Path, tokens: int) -> dict[str, Any]:
    """Pretrain a model and return its figures, or those of an earlier call."""
    folder = runs / f"{name}-{seed}"
    result = folder / "result.json"
    if result.exists():
        return read_result(result)
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
    write_result(result, figures)
    return figures


def main() -> None:
    options = parse()
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


def parse() -> argparse.Namespace:
    parser = text_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=4_000_000, help="tokens per run (4000000)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=FEEDFORWARDS,
        default=list(FEEDFORWARDS),
        help="encoders to pretrain (all)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
