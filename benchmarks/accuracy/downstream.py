"""Classifiers of texts: fine-tuned FastBERT and dense encoders, and a linear one.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.accuracy.pretraining TEXTS RUNS
    python -m benchmarks.accuracy.downstream TEXTS RUNS

fine-tunes the encoders that bench_learning.py left in RUNS to tell the class of a gloss of WordNet
(45 classes) and whether a snippet of a film review is favourable, on 80% of the texts, and tests
them on the rest. Beside them stands a linear support vector machine on TF-IDF features of words,
which scikit-learn trains. The recipe is the same for all encoders; a twentieth of the texts to
train on is held out to watch, and the test texts have no say. Resumable: the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

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
    """Fine-tune an encoder, or return what came of it before."""
    label = f"{task}-{name}-{settings.seed}-{settings.lr:g}-{settings.epochs}-{settings.pooler}"
    result = runs / f"{label}.json"
    if result.exists():
        return json.loads(result.read_text(encoding="utf-8"))
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
    result.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path, help="what texts.py wrote")
    parser.add_argument("runs", type=Path, help="what bench_learning.py wrote")
    parser.add_argument("--models", nargs="+", default=["fff-0", "dense-252-0", "dense-24-0"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pooler", default="avg")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
