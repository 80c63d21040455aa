"""The texts that encoders are compared on, and the tasks of linear probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.data.minilm import HELD_OUT_DOCUMENTS, passages
from fffcpu.errors import DataError
from fffcpu.system.terminal import print_status
from fffcpu.text import read_labelled, read_texts
from fffcpu.training.batches import split_rows

__all__ = ["Sizes", "Task", "kinds_of_text", "tasks"]

Texts = list[str]


class Sizes(NamedTuple):
    """Largest numbers of texts."""

    compared: int = 2000
    """Of each kind that vectors are compared on."""
    training: int = 20_000
    """That a probe learns from."""
    test: int = 5000
    """That a probe is tested on."""


QUICK = Sizes(60, 80, 40)


class Task(NamedTuple):
    """A task of a linear probe."""

    name: str
    training: Texts
    labels: Texts
    test: Texts
    test_labels: Texts


class Passages(NamedTuple):
    """Passages of the documents of the Brown corpus, and the document of each."""

    texts: Texts
    documents: np.ndarray

    def of(self, documents: np.ndarray) -> np.ndarray:
        """Return the numbers of the passages of some documents."""
        return np.flatnonzero(np.isin(self.documents, documents))


def draw(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of the numbers from 0 to below ``count``, at random, in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def chosen(items: Sequence[str], numbers: np.ndarray) -> Texts:
    """Return the items of these numbers."""
    return [items[number] for number in numbers]


def read_passages(path: Path) -> Passages:
    """Return the passages of all documents of the Brown corpus."""
    rng = np.random.default_rng(0)
    found = [list(passages(document, rng)) for document in read_texts(str(path))]
    documents = np.repeat(np.arange(len(found)), list(map(len, found)))
    return Passages([text for own in found for text in own], documents)


def split_of(path: Path) -> tuple[Passages, np.ndarray, np.ndarray]:
    """Return all passages, and the numbers of those to learn from and of those held out."""
    found = read_passages(path)
    parts = split_rows(int(found.documents[-1]) + 1, HELD_OUT_DOCUMENTS, 0)
    training, held_out = (found.of(documents) for documents in parts)
    return found, training, held_out


def kinds_of_text(folder: Path, sizes: Sizes) -> dict[str, Texts]:
    """Return texts that no student learned from, by kind."""
    kinds = {}
    if path := present(folder, "glosses-test.jsonl"):
        texts = list(read_texts(str(path)))
        kinds["glosses"] = chosen(texts, draw(len(texts), sizes.compared))
    if path := present(folder, "brown.jsonl"):
        found, _, held_out = split_of(path)
        kinds["sentences"] = chosen(found.texts, held_out[draw(len(held_out), sizes.compared)])
    return kinds


def tasks(folder: Path, sizes: Sizes) -> Iterator[Task]:
    """Yield the tasks whose files are there."""
    for name in ("glosses", "snippets"):
        paths = [present(folder, f"{name}-{part}.jsonl") for part in ("training", "test")]
        if all(paths):
            yield labelled_task(name, *map(str, paths), sizes=sizes)
    if path := present(folder, "brown.jsonl"):
        try:
            yield genres(path, sizes)
        except DataError as error:
            print_status(f"genres left out: {error}; benchmarks.data.texts writes labels")


def labelled_task(name: str, training: str, test: str, *, sizes: Sizes) -> Task:
    """Return a task whose texts are split already."""
    parts: list[Texts] = []
    for path, most in ((training, sizes.training), (test, sizes.test)):
        found = read_labelled(path)
        numbers = draw(len(found.texts), most)
        names = [str(found.classes[label]) for label in found.labels[numbers]]
        parts += [chosen(found.texts, numbers), names]
    return Task(name, *parts)


def genres(path: Path, sizes: Sizes) -> Task:
    """Return the task of the genres of the Brown corpus; no document is in both parts."""
    labels = read_labelled(str(path))
    found, *parts = split_of(path)
    result: list[Texts] = []
    for numbers, most in zip(parts, (sizes.training, sizes.test), strict=True):
        some = numbers[draw(len(numbers), most)]
        documents = labels.labels[found.documents[some]]
        result += [chosen(found.texts, some), [str(labels.classes[k]) for k in documents]]
    return Task("genres", *result)


def present(folder: Path, name: str) -> Path | None:
    """Return a file of a folder, or None, and print that it is left out."""
    path = folder / name
    if path.exists():
        return path
    print_status(f"no {name} in {folder}: left out")
    return None
