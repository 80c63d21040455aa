"""Classifiers of texts: fine-tuned FastBERT and dense encoders, and a linear classifier.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.accuracy.pretraining TEXTS RUNS
    python -m benchmarks.accuracy.downstream TEXTS RUNS

The pretrained encoders in RUNS are fine-tuned on 80% of the texts and tested on the rest. The tasks
are the class of a gloss of WordNet (45 classes), and whether a snippet of a film review is
favourable. They are compared with scikit-learn's linear support vector machine on TF-IDF features
of words. The recipe is the same for all encoders. A twentieth of the training texts is held out and
watched; the test texts choose nothing. Repeat the command to continue after an interruption.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy.text_runs import read_result, text_parser, write_result
from fffcpu.models import FastBertForMaskedLM
from fffcpu.recipes.finetuning import FinetuneSettings, evaluate_texts, finetune
from fffcpu.system.terminal import format_table
from fffcpu.text import LabelledTexts, Tokenizer, read_labelled

TASKS = ("glosses", "snippets")


def linear(training: LabelledTexts, test: LabelledTexts) -> float:
    """Return the accuracy of a linear support vector machine on TF-IDF features."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC())
    model.fit(training.texts, training.labels)
    return float(model.score(test.texts, test.labels))


def run(
    task: str, name: str, texts: Path, runs: Path, settings: FinetuneSettings
) -> dict[str, Any]:
    """Fine-tune an encoder and return its figures, or those of an earlier call."""
    label = f"{task}-{name}-{settings.seed}-{settings.lr:g}-{settings.epochs}-{settings.pooler}"
    result = runs / f"{label}.json"
    if result.exists():
        return read_result(result)
    training = read_labelled(str(texts / f"{task}-training.jsonl"))
    test = read_labelled(str(texts / f"{task}-test.jsonl"), classes=training.classes)
    figures: dict[str, Any] = {"task": task, "name": name}
    start = time.perf_counter()
    if name == "linear":
        figures["test"] = linear(training, test)
    else:
        tokenizer = Tokenizer.load(runs / name)
        pretrained = FastBertForMaskedLM.from_pretrained(runs / name)
        done = finetune(
            pretrained, tokenizer, training, settings, folder=runs / f"{label}.training",
            resume=True,
        )  # fmt: skip
        figures["validation"] = done.outcome.figures["validation_accuracy"]
        figures["test"] = evaluate_texts(done.model, tokenizer, test)["accuracy"]
        figures["settings"] = dataclasses.asdict(settings)
    figures["seconds"] = time.perf_counter() - start
    write_result(result, figures)
    return figures


def main() -> None:
    options = parse()
    settings = FinetuneSettings(
        lr=options.lr,
        epochs=options.epochs,
        batch_size=options.batch_size,
        pooler=options.pooler,
        validation=0.05,
    )
    rows = []
    for task in options.tasks:
        for name in ("linear", *options.models):
            figures = run(task, name, options.texts, options.runs, settings)
            if options.json:
                print(json.dumps(figures), flush=True)
            rows.append((task, name, f"{figures['test']:.4f}", f"{figures['seconds']:,.0f}"))
    if not options.json:
        print(format_table(("task", "model", "test accuracy", "seconds"), rows))


def parse() -> argparse.Namespace:
    parser = text_parser(__doc__)
    models = ["fff-8x5-0", "dense-1024-0", "dense-48-0"]
    parser.add_argument(
        "--models",
        nargs="+",
        default=models,
        help=f"folders in RUNS of the encoders to fine-tune ({' '.join(models)})",
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="tasks (all)"
    )
    parser.add_argument("--lr", type=float, default=5e-4, help="peak learning rate (0.0005)")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the texts (5)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per step (32)")
    parser.add_argument("--pooler", default="avg", help="pooler of the classifiers (avg)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
