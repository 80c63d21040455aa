"""FastBERT and dense encoders, pretrained on the same text with the same number of tokens.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.accuracy.pretraining TEXTS RUNS

The texts are gcide.jsonl, anarchism.jsonl and brown.jsonl. The encoders have 4 layers of width 128,
with which 20 million tokens take 20 to 45 minutes of one core, and differ only in their
feedforwards:

    fff-TxD        T two-sided trees of depth D, whose routes are trained as well
    one-sided-TxD  the same trees with the nodes and the training of the paper
    dense-W        W neurons, all of them used; 512, four times the width, is usual

The table has the loss and the share of hidden tokens that are predicted correctly, on documents
held out, and the number of tokens per second that inference computes, in batches of 64 sequences of
32 tokens. All encoders are timed in one alternation, in the end, on an otherwise idle machine.

Repeat the command to continue after an interruption. Each run leaves a model folder RUNS/NAME-SEED,
and the folder of its training next to it. With --no-timing nothing is timed.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.text_runs import read_result, text_parser, write_result
from fffcpu.benchmarking.timing import Contender, alternate
from fffcpu.models import FastBertForMaskedLM
from fffcpu.recipes.pretraining import PretrainSettings, pretrain
from fffcpu.system.terminal import format_table
from fffcpu.text import Corpus, Tokenizer, build_corpus, find_files, read_documents

MODELS = (
    *("fff-8x5", "fff-8x7", "one-sided-8x7"),
    *("dense-48", "dense-64", "dense-128", "dense-256", "dense-512"),
)

WIDTH = 128

TEXTS = ("gcide.jsonl", "anarchism.jsonl", "brown.jsonl")

VOCABULARY = 8192

LENGTH = 32
"""Tokens per sequence. With the recipe's 128, models of this size still guess by the frequency of
tokens alone (loss 5.6) after 12 million tokens. With 32, they no longer do after 0.6 million."""

TIMED_SEQUENCES = 64


def feedforward_of(name: str) -> dict[str, Any]:
    """Return the fields of `PretrainSettings` that describe the feedforwards of an encoder."""
    if width := re.fullmatch(r"dense-(\d+)", name):
        return {"feedforward": "ff", "feedforward_size": int(width[1])}
    trees = re.fullmatch(r"(fff|one-sided)-(\d+)x(\d+)", name)
    if trees is None:
        raise argparse.ArgumentTypeError(f"no encoder is called {name}: see the names above")
    ours = trees[1] == "fff"
    sizes = {"feedforward_size": int(trees[2]), "depth": int(trees[3])}
    return {"feedforward": "fff", **sizes, "two_sided": ours, "straight_through": ours}


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
        width=WIDTH,
        length=LENGTH,
        epochs=tokens / len(corpus.training),
        seed=seed,
        **feedforward_of(name),
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


def inference_rates(names: list[str], corpus: Corpus, runs: Path) -> dict[str, float]:
    """Return the tokens per second of each encoder's hidden states; models of seed 0."""
    ids = np.array(corpus.sequences("validation", LENGTH)[:TIMED_SEQUENCES])
    models = [FastBertForMaskedLM.from_pretrained(runs / f"{name}-0") for name in names]
    contenders = [
        Contender(name, functools.partial(model.encoder, ids), ids.size)
        for name, model in zip(names, models, strict=True)
    ]
    return {timing.name: 1e6 / timing.microseconds for timing in alternate(contenders)}


def main() -> None:
    options = parse()
    options.runs.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(options.texts, options.runs)
    results = [
        run(name, seed, corpus, options.runs, options.tokens)
        for seed in range(options.seeds)
        for name in options.models
    ]
    rates = inference_rates(options.models, corpus, options.runs) if options.timing else {}
    for figures in results:
        figures["inference"] = rates.get(figures["name"])
    if options.json:
        for figures in results:
            print(json.dumps(figures))
        return
    rows = [
        (
            figures["name"],
            str(figures["seed"]),
            f"{figures['parameters']:,}",
            f"{figures['tokens']:,}",
            f"{figures['validation_loss']:.4f}",
            f"{figures['validation_accuracy']:.4f}",
            f"{figures['tokens'] / figures['seconds']:,.0f}",
            f"{figures['inference']:,.0f}" if rates else "-",
        )
        for figures in results
    ]
    head = ("model", "seed", "parameters", "tokens", "loss", "top-1", "tokens/s", "inference")
    print(format_table(head, rows))


def encoder_name(text: str) -> str:
    """Return the name of an encoder, or raise if there is none."""
    feedforward_of(text)
    return text


def parse() -> argparse.Namespace:
    parser = text_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=20_000_000, help="tokens per run (20000000)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    parser.add_argument(
        "--models",
        nargs="+",
        type=encoder_name,
        default=list(MODELS),
        metavar="MODEL",
        help=f"encoders to pretrain ({' '.join(MODELS)})",
    )
    parser.add_argument(
        "--timing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure inference in the end; on by default",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
