"""``fffcpu pretrain``: pretrain a FastBERT on text."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import fffcpu
import fffcpu.dask
from fffcpu.checks import check_integer
from fffcpu.cli.support.outputs import check_folder
from fffcpu.cli.support.runs import (
    add_budget,
    add_dask,
    add_number,
    add_start,
    add_straight_through,
    add_validation,
    check_start,
    cluster,
    reading,
    run_folder,
    running,
    timed_settings,
)
from fffcpu.errors import ArgumentError, require_extra
from fffcpu.recipes.pretraining import PretrainSettings, pretrain
from fffcpu.system.terminal import format_number, format_table, print_status

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DEFAULTS = PretrainSettings()

DESCRIPTION = """\
Pretrain a FastBERT on text. It is a transformer encoder whose feedforwards are trees of neurons;
each token uses a few of them. It learns to guess masked tokens, by the recipe of "Cramming"
(arXiv 2212.14034).

examples:
  fffcpu pretrain books/ --out bert                       one pass over a folder of .txt files
  fffcpu pretrain wiki.jsonl.gz --out bert --hours 12     as much as fits into twelve hours
  fffcpu pretrain books/ --out dense --feedforward ff --feedforward-size 252
                                                          the same with dense feedforwards
  fffcpu pretrain books/ --out bert --dask local:4 --shards 4
                                                          on four processes
  fffcpu pretrain books/ --out bert --plot losses.svg     also draw the losses

text:
  .txt     one document per file
  .jsonl   one document per line: an object with its text in --field
  Both may be gzipped (.gz). A folder means all such files in it. Documents are tokenized once, into
  MODEL.training/corpus, and packed into sequences of --length tokens. A tokenizer is trained on
  them unless --tokenizer names one. Like BERT's, it makes letters lowercase, drops accents, and
  treats words of more than 100 letters as unknown; --keep-accents and --longest-word change that.
  Some documents are held out for validation (--validation).

output:
  MODEL is a folder in the layout of Hugging Face: config.json, model.safetensors, tokenizer.json.
  'fffcpu fill-mask', 'finetune' and 'embed' read it.

while it trains:
  Every minute, and on Ctrl-C, the state is saved in the folder MODEL.training. The same command
  with --resume continues the run, also after a crash or kill -9, and with --epochs or --steps the
  result has the same bits. The folder's history.jsonl records losses, norms of gradients and
  learning rates. It is kept.

on a cluster:
  --dask and --shards as for 'fffcpu train'. Each shard computes its share of every small batch.

memory:
  Parameters, gradients and moments take four times the size of the parameters. A step takes about
  --small-batch-size x --length x layers x (8 width + heads x length) x 4 bytes, and a quarter of
  its tokens x vocabulary x 4 bytes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("text", nargs="+", metavar="TEXT", help="files and folders of texts")
    parser.add_argument("--out", required=True, metavar="MODEL", help="folder to write")
    add_start(parser)
    add_dask(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw the history (.png, .svg, .pdf)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    text = parser.add_argument_group("text")
    text.add_argument(
        "--tokenizer", metavar="FILE", help="a tokenizer.json (default: train a new one)"
    )
    text.add_argument(
        "--vocabulary",
        type=int,
        default=8192,
        metavar="N",
        help="number of tokens of a new tokenizer (8192)",
    )
    text.add_argument(
        "--keep-accents",
        action="store_true",
        help="a new tokenizer keeps accents and vowel signs: for German, Hindi and many others",
    )
    text.add_argument(
        "--longest-word",
        type=int,
        metavar="N",
        help="maximum letters of a word; a new tokenizer treats longer words as unknown (100)",
    )
    text.add_argument(
        "--field",
        default="text",
        metavar="F",
        help="field of JSON lines that contains the text (text)",
    )
    add_validation(text, "documents")
    add_number(text, DEFAULTS, "length", int, "tokens per sequence")
    model = parser.add_argument_group("model")
    add_number(model, DEFAULTS, "width", int, "width of the encoder")
    add_number(model, DEFAULTS, "layers", int, "number of layers")
    add_number(model, DEFAULTS, "heads", int, "heads of the attention")
    model.add_argument(
        "--feedforward",
        choices=("fff", "ff"),
        default="fff",
        help="feedforwards: trees of neurons (fff) or dense (ff)",
    )
    add_number(model, DEFAULTS, "feedforward-size", int, "trees, or neurons of a dense feedforward")
    add_number(model, DEFAULTS, "depth", int, "depth of the trees")
    model.add_argument(
        "--two-sided",
        action=argparse.BooleanOptionalAction,
        default=DEFAULTS.two_sided,
        help="trees: output weights for each side of a node",
    )
    add_straight_through(model, DEFAULTS)
    model.add_argument(
        "--initial-std",
        type=float,
        metavar="X",
        help="standard deviation of initial weights (0.02 at width 768)",
    )
    _add_training(parser.add_argument_group("training"))


def _add_training(group: Any) -> None:
    add_budget(group, 1, steps=True)
    add_number(group, DEFAULTS, "batch-size", int, "sequences per step")
    add_number(group, DEFAULTS, "small-batch-size", int, "sequences computed together")
    add_number(group, DEFAULTS, "lr", float, "peak learning rate")
    add_number(group, DEFAULTS, "weight-decay", float, "weight decay; biases and norms have none")
    add_number(group, DEFAULTS, "max-norm", float, "largest norm of the gradients")
    add_number(group, DEFAULTS, "mask-share", float, "share of the tokens to mask")
    add_number(
        group,
        DEFAULTS,
        "ramp",
        float,
        "fraction of the budget after which batches are full",
    )
    group.add_argument(
        "--evaluate-every", type=int, metavar="N", help="steps between evaluations (a tenth)"
    )
    add_number(
        group, DEFAULTS, "validation-sequences", int, "maximum number of sequences to evaluate on"
    )
    add_number(group, DEFAULTS, "seed", int, "random seed")
    add_number(group, DEFAULTS, "shards", int, "parts of the data, one core each")
    add_number(group, DEFAULTS, "checkpoint-seconds", float, "seconds between checkpoints")
    add_number(group, DEFAULTS, "keep", int, "number of checkpoints to keep")


def run(options: argparse.Namespace) -> None:
    """Pretrain."""
    require_extra("tokenizers", "text")
    from fffcpu.plots import check_plot_path, plot_history
    from fffcpu.text import build_corpus
    from fffcpu.text.corpus import CORPUS_FILE, check_validation
    from fffcpu.text.tokenizer import TOKENIZER_FILE

    settings = timed_settings(PretrainSettings, options)
    _check_tokenizer(options)
    settings.config(options.vocabulary, 0)  # a wrong setting is an error before any work
    settings.check_memory(1)  # a text may have fewer tokens than the vocabulary allows
    check_validation(options.validation)
    if options.threads is not None:
        fffcpu.set_num_threads(options.threads)
    if options.plot is not None:
        check_plot_path(options.plot)
    out, folder = check_folder(options.out), run_folder(options.out)
    check_start(folder, options.out, resume=options.resume, overwrite=options.overwrite)
    folder.path.mkdir(exist_ok=True)
    place = folder.path / "corpus"
    if not options.resume and (place / CORPUS_FILE).exists():
        shutil.rmtree(place)  # of a run that stopped before training, perhaps on other text
    tokenizer = _tokenizer(options, folder.path)
    with reading("tokenizing") as progress:
        corpus = build_corpus(
            options.text,
            tokenizer,
            place,
            validation=options.validation,
            field=options.field,
            progress=progress,
        )
    print_status(
        f"{corpus.documents:,} documents, {len(corpus.training):,} tokens to train on, "
        f"{len(corpus.validation):,} held out"
    )
    how: Any = {"folder": folder.path, "resume": options.resume}
    with running(folder, options.resume), cluster(options.dask) as client:
        if client is None:
            done = pretrain(corpus, settings, **how)
        else:
            done = fffcpu.dask.pretrain(client, corpus, settings, **how)
    done.model.save_pretrained(out, files={TOKENIZER_FILE: tokenizer.to_json()})
    folder.remove_checkpoints()
    shutil.rmtree(place)
    if options.plot is not None:
        plot_history(folder.read_history(), options.plot, f"Pretraining of {out.name}")
    outcome = done.outcome
    report = {
        "model": str(out),
        "history": str(folder.history_path),
        "parameters": done.model.params.count,
        "steps": outcome.steps,
        "tokens": outcome.rows,
        "seconds": outcome.seconds,
        **outcome.figures,
    }
    print(json.dumps(report, indent=2) if options.json else f"{done.model!r}\n{_format(report)}")


def _check_tokenizer(options: argparse.Namespace) -> None:
    """Raise if an option of a new tokenizer is wrong, or comes with a tokenizer."""
    if options.longest_word is not None:
        check_integer("longest_word", options.longest_word, 1)
    for name in ("keep_accents", "longest_word"):
        if options.tokenizer is not None and getattr(options, name) not in (None, False):
            raise ArgumentError(
                f"argument '--{name.replace('_', '-')}' must be left out with --tokenizer, which "
                "has its own rules"
            )


def _tokenizer(options: argparse.Namespace, folder: Path) -> Any:
    """Return the tokenizer: the named one, that of an interrupted run, or a new one."""
    from fffcpu.text import Tokenizer, find_files, read_documents
    from fffcpu.text.tokenizer import LONGEST_WORD, TOKENIZER_FILE

    if options.tokenizer is not None:
        return Tokenizer.load(options.tokenizer)
    path = folder / TOKENIZER_FILE
    if not (options.resume and path.exists()):
        files = find_files(options.text)
        print_status("training a tokenizer")
        pieces = (piece.text for piece in read_documents(files, options.field))
        Tokenizer.train(
            pieces,
            options.vocabulary,
            keep_accents=options.keep_accents,
            longest_word=LONGEST_WORD if options.longest_word is None else options.longest_word,
        ).save(path)
    return Tokenizer.load(path)


def _format(report: dict[str, Any]) -> str:
    """Return the report for people."""
    head = ("tokens", "steps", "seconds", "tokens/s", "validation loss", "top-1")
    rate = report["tokens"] / max(1e-9, report["seconds"])
    figures = [report.get(f"validation_{name}") for name in ("loss", "accuracy")]
    row = (
        *(f"{report[name]:,}" for name in ("tokens", "steps")),
        *(format_number(number) for number in (report["seconds"], rate)),
        *("-" if figure is None else f"{figure:.4f}" for figure in figures),
    )
    return format_table(head, [row])
