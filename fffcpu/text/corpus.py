"""Corpus: documents as numbers of tokens, in files that are mapped into memory.

`build_corpus` tokenizes once. A folder holds the tokens of the documents to train on and of those
held out, one after the other, each document between its start and end token::

    corpus.json       the contents, and the progress of the build
    tokenizer.json    the tokenizer
    training.bin      [CLS] a rose is a rose [SEP] [CLS] the second document ...
    validation.bin    the same for the documents held out

Training packs them: it cuts the tokens into sequences of S. Documents may begin and end within a
sequence, so nothing is padded.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.checks import check_integer, check_number
from fffcpu.errors import ArgumentError, CheckpointError, DataError, describe
from fffcpu.system.files import read_json, write_text
from fffcpu.text.documents import Piece, find_files, read_documents
from fffcpu.text.tokenizer import TOKENIZER_FILE, Tokenizer

__all__ = ["Corpus", "build_corpus"]

CORPUS_FILE = "corpus.json"
CORPUS_VERSION = 2
SPLITS = ("training", "validation")

BATCH_CHARACTERS = 1 << 20
"""Approximate number of characters that are tokenized together."""

NOTED_SECONDS = 2.0
"""Seconds between two notes on the progress of a build."""


class Corpus(NamedTuple):
    """Tokens of documents, memory-mapped.

    Examples
    --------
    >>> from fffcpu.text import Corpus
    >>> corpus = Corpus.open("corpus")                      # doctest: +SKIP
    >>> corpus.sequences("training", 128).shape             # doctest: +SKIP
    (31250, 128)
    """

    training: NDArray[Any]
    """The tokens to train on, a one-dimensional array of uint16 or uint32."""
    validation: NDArray[Any]
    """The tokens of documents held out."""
    tokenizer: Tokenizer
    """The tokenizer that made them."""
    documents: int
    """The total number of documents."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Corpus:
        """Open the folder that `build_corpus` made.

        Raises
        ------
        CheckpointError
            If the folder is not a corpus, or its build is not complete.
        OSError
            If a file cannot be read.
        """
        place = Path(os.fsdecode(folder))
        notes = _read_notes(place)
        if not notes.get("complete"):
            raise CheckpointError(
                f"corpus '{place}' is not complete; build it again from the same files to continue "
                "where it stopped"
            )
        dtype = np.dtype(notes["dtype"])
        splits = [_mapped(place / f"{split}.bin", dtype, notes[split]) for split in SPLITS]
        return cls(splits[0], splits[1], Tokenizer.load(place), notes["documents"])

    def sequences(self, split: str, length: int) -> NDArray[Any]:
        """Return a split as packed sequences (N, S); tokens after the last whole one are dropped.

        Parameters
        ----------
        split : {"training", "validation"}
            The documents to train on, or those held out.
        length : int
            Number of tokens S per sequence.

        Raises
        ------
        ArgumentError
            If there is no such split.
        DataError
            If there are not enough tokens for one sequence.
        """
        if split not in SPLITS:
            raise ArgumentError(
                f"argument 'split' must be {' or '.join(SPLITS)}, got {describe(split)}"
            )
        tokens: NDArray[Any] = getattr(self, split)
        count = len(tokens) // check_integer("length", length, 1)
        if count == 0:
            raise DataError(
                f"the {split} split of the corpus must have at least {length} tokens, one "
                f"sequence, got {len(tokens)}"
            )
        return tokens[: count * length].reshape(count, length)


def build_corpus(
    paths: Sequence[str | os.PathLike[str]],
    tokenizer: Tokenizer,
    folder: str | os.PathLike[str],
    *,
    validation: float = 0.02,
    field: str = "text",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Tokenize documents into a folder, or continue an interrupted build.

    Parameters
    ----------
    paths : sequence of path
        Files and folders, see `fffcpu.text.find_files`.
    tokenizer : Tokenizer
        The tokenizer to use.
    folder : path
        The folder to write, created if missing. If it already holds the same corpus, of files with
        the same names, sizes and modification times, that corpus is opened.
    validation : float
        Share of the documents to hold out, at random, from 0 to below 1.
    field : str
        The field of JSON lines that holds the text.
    seed : int
        Random seed of that choice.
    progress : callable, optional
        Function called with the number of bytes read, and that of all files.

    Returns
    -------
    Corpus

    Raises
    ------
    ArgumentError
        If an option is out of range.
    CheckpointError
        If the folder holds another corpus, or a damaged one.
    DataError
        If a file has an error, or there is no text.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    Memory is bounded: a few megabytes of text are held at a time. The state is saved every few
    seconds; after ``kill -9`` the same call continues from there and writes the same bytes.
    """
    place = Path(os.fsdecode(folder))
    check_validation(validation)
    check_integer("seed", seed, 0)
    files = find_files(paths)
    found = [(file, os.stat(file)) for file in files]
    identity = {
        "version": CORPUS_VERSION,
        "files": [[file, status.st_size, status.st_mtime_ns] for file, status in found],
        "tokenizer": tokenizer.fingerprint,
        "held_out": validation,
        "field": field,
        "seed": seed,
    }
    place.mkdir(parents=True, exist_ok=True)
    notes = _start(place, identity, tokenizer)
    if not notes["complete"]:
        sizes = [status.st_size for _, status in found]
        with _Writer(place, notes) as writer:
            pieces = read_documents(files, field, start=tuple(notes["next"]))
            for batch in _batches(pieces):
                writer.write(batch, tokenizer, validation, seed)
                if progress:
                    progress(sum(sizes[: batch[-1].file]), sum(sizes))
            writer.finish()
        if progress:
            progress(sum(sizes), sum(sizes))
    return Corpus.open(place)


def check_validation(validation: float) -> None:
    """Raise unless the share to hold out is valid."""
    if check_number("validation", validation, 0.0, 1.0) == 1:
        raise ArgumentError("argument 'validation' must be below 1, got 1")


def _start(place: Path, identity: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the notes of a build, either a new or an interrupted one."""
    if (place / CORPUS_FILE).exists():
        notes = _read_notes(place)
        for name, value in identity.items():
            if notes.get(name) != value:
                raise CheckpointError(
                    f"folder '{place}' holds another corpus: '{name}' differs; use another folder"
                )
        return notes
    dtype = "uint16" if tokenizer.vocabulary <= 1 << 16 else "uint32"
    notes = {**identity, "dtype": dtype, "next": [0, 0], "documents": 0, "complete": False}
    notes |= dict.fromkeys(SPLITS, 0)
    tokenizer.save(place / TOKENIZER_FILE)
    _write_notes(place, notes)
    return notes


class _Writer:
    """Appends documents to the files of a corpus, and notes the progress."""

    def __init__(self, place: Path, notes: dict[str, Any]) -> None:
        self._place, self._notes = place, notes
        self._dtype = np.dtype(notes["dtype"])
        self._inside = bool(notes.get("inside", False))  # a document is written in part
        self._noted_at = time.monotonic()
        self._files: dict[str, IO[bytes]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Writer:
        sizes = {split: self._notes[split] * self._dtype.itemsize for split in SPLITS}
        paths = {split: self._place / f"{split}.bin" for split in SPLITS}
        for split, path in paths.items():
            length = path.stat().st_size if path.exists() else 0
            if length < sizes[split]:
                raise CheckpointError(
                    f"file '{path}' is damaged: must have at least {sizes[split]} bytes, "
                    f"got {length}"
                )
        for split, path in paths.items():
            file = self._stack.enter_context(open(path, "ab"))
            file.truncate(sizes[split])  # drops the bytes written after the notes
            self._files[split] = file
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(
        self, batch: Sequence[Piece], tokenizer: Tokenizer, validation: float, seed: int
    ) -> None:
        """Write pieces of documents."""
        rows = tokenizer.encode([piece.text for piece in batch], markers=False)
        tokens: dict[str, list[int]] = {split: [] for split in SPLITS}
        for piece, row in zip(batch, rows, strict=True):
            held_out = _chance(seed, self._notes["documents"]) < validation
            into = tokens[SPLITS[held_out]]
            if row and not self._inside:
                into.append(tokenizer.start_id)
                self._inside = True
            into.extend(row)
            if piece.ends_document and self._inside:
                into.append(tokenizer.end_id)
                self._inside = False
                self._notes["documents"] += 1
        for split, numbers in tokens.items():
            self._files[split].write(np.array(numbers, self._dtype).tobytes())
            self._notes[split] += len(numbers)
        self._notes["next"] = [batch[-1].file, batch[-1].number + 1]
        self._notes["inside"] = self._inside
        if time.monotonic() - self._noted_at > NOTED_SECONDS:
            self._note()

    def finish(self) -> None:
        """Note that the build is complete."""
        if not self._notes["documents"]:
            raise DataError("the files must hold some text, got none")
        self._notes["complete"] = True
        self._note()

    def _note(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        _write_notes(self._place, self._notes)
        self._noted_at = time.monotonic()


def _chance(seed: int, document: int) -> float:
    """Return a pseudorandom number from 0 to below 1, always the same for a document."""
    return zlib.crc32(f"{seed} {document}".encode()) / (1 << 32)


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in blocks of about a megabyte."""
    batch: list[Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text) + 64  # so that empty ones count too
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Return a file's tokens, mapped into memory."""
    size = path.stat().st_size
    if size != count * dtype.itemsize:
        raise CheckpointError(
            f"file '{path}' is damaged: must have {count * dtype.itemsize} bytes, got {size}"
        )
    if count == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype, "r", shape=(count,))


def _read_notes(place: Path) -> dict[str, Any]:
    path = place / CORPUS_FILE
    if not path.exists():
        raise CheckpointError(f"folder '{place}' must hold a corpus, got no '{CORPUS_FILE}'")
    notes = read_json(path)
    if not isinstance(notes, dict) or notes.get("version") != CORPUS_VERSION:
        raise CheckpointError(f"file '{path}' is not a corpus of this version of fffcpu")
    if not _are_whole(notes):
        raise CheckpointError(f"file '{path}' is damaged: it must contain the build's progress")
    return notes


def _are_whole(notes: dict[str, Any]) -> bool:
    """Whether notes have all values, of the right types, to continue a build."""
    following = notes.get("next")
    if notes.get("dtype") not in ("uint16", "uint32") or not isinstance(following, list):
        return False
    counts = [notes.get(name) for name in (*SPLITS, "documents")]
    return len(following) == 2 and all(type(n) is int and n >= 0 for n in counts + following)


def _write_notes(place: Path, notes: dict[str, Any]) -> None:
    write_text(place / CORPUS_FILE, json.dumps(notes, indent=1) + "\n")
