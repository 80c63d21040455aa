"""Corpus: documents as numbers of tokens, in files that are mapped into memory.

`build_corpus` tokenises once. A folder holds the tokens of the documents to train on and of those
held out, one after the other, each document between its start and end token::

    corpus.json       what is in here, and how far a building has come
    tokenizer.json    the tokenizer
    training.bin      [CLS] a rose is a rose [SEP] [CLS] the second document ...
    validation.bin    the same of the documents held out

Training packs them: sequences of S tokens are cut off one after the other, whatever begins or ends
within them, so nothing is padded.
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
"""About how many characters are tokenised together."""

NOTED_SECONDS = 2.0
"""Seconds between two notes of how far a building has come."""


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
    """The tokens to train on, uint16 or uint32 of one axis."""
    validation: NDArray[Any]
    """The tokens of documents held out."""
    tokenizer: Tokenizer
    """What made them."""
    documents: int
    """How many documents there are in all."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Corpus:
        """Open the folder that `build_corpus` made.

        Raises
        ------
        CheckpointError
            If it is no such folder, or its building has not come to an end.
        OSError
            If a file cannot be read.
        """
        place = Path(os.fsdecode(folder))
        notes = _read_notes(place)
        if not notes.get("complete"):
            raise CheckpointError(
                f"corpus '{place}' is not complete; building it again from the same files goes on "
                "where it stopped"
            )
        dtype = np.dtype(notes["dtype"])
        splits = [_mapped(place / f"{split}.bin", dtype, notes[split]) for split in SPLITS]
        return cls(splits[0], splits[1], Tokenizer.load(place), notes["documents"])

    def sequences(self, split: str, length: int) -> NDArray[Any]:
        """Return a split as packed sequences (N, S); tokens beyond the last whole one are dropped.

        Parameters
        ----------
        split : {"training", "validation"}
            Which documents.
        length : int
            Tokens of a sequence S.

        Raises
        ------
        ArgumentError
            If there is no such split.
        DataError
            If there are not enough tokens for one.
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
    """Tokenise documents into a folder, or go on with that where it was broken off.

    Parameters
    ----------
    paths : sequence of path
        Files and folders, see `fffcpu.text.find_files`.
    tokenizer : Tokenizer
        What to do it with.
    folder : path
        Made if missing. If it holds the same corpus already, of files with the same names, sizes
        and times of change, that is opened.
    validation : float
        Which share of the documents is held out, from 0 to below 1, chosen at random.
    field : str
        The field of JSON lines that holds the text.
    seed : int
        Of that choice.
    progress : callable, optional
        Called with the bytes of the files that are done, and of all files.

    Returns
    -------
    Corpus

    Raises
    ------
    ArgumentError
        If an option is none of its values.
    CheckpointError
        If the folder holds another corpus, or a damaged one.
    DataError
        If a file is not as it should be, or there is no text at all.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    Memory is bounded: a few megabytes of text are held at a time. The state is written down every
    few seconds; after ``kill -9`` the same call goes on from there and comes to the same bytes.
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
    """Raise unless a share of documents may be held out."""
    if check_number("validation", validation, 0.0, 1.0) == 1:
        raise ArgumentError("argument 'validation' must be below 1, got 1")


def _start(place: Path, identity: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the notes of a building, begun or broken off."""
    if (place / CORPUS_FILE).exists():
        notes = _read_notes(place)
        for name, value in identity.items():
            if notes.get(name) != value:
                raise CheckpointError(
                    f"folder '{place}' holds another corpus: '{name}' differs; take another folder"
                )
        return notes
    dtype = "uint16" if tokenizer.vocabulary <= 1 << 16 else "uint32"
    notes = {**identity, "dtype": dtype, "next": [0, 0], "documents": 0, "complete": False}
    notes |= dict.fromkeys(SPLITS, 0)
    tokenizer.save(place / TOKENIZER_FILE)
    _write_notes(place, notes)
    return notes


class _Writer:
    """Appends documents to the files of a corpus, and notes how far it has come."""

    def __init__(self, place: Path, notes: dict[str, Any]) -> None:
        self._place, self._notes = place, notes
        self._dtype = np.dtype(notes["dtype"])
        self._inside = bool(notes.get("inside", False))  # a document of which a piece is written
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
            file.truncate(sizes[split])  # what was written since the notes
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
        """Note that all is done."""
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
    """Return a number from 0 to below 1, as good as random and always the same of a document."""
    return zlib.crc32(f"{seed} {document}".encode()) / (1 << 32)


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces, some megabyte of them together."""
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
        raise CheckpointError(f"file '{path}' is no corpus of this version of fffcpu")
    if not _are_whole(notes):
        raise CheckpointError(f"file '{path}' is damaged: it must say how far the corpus has come")
    return notes


def _are_whole(notes: dict[str, Any]) -> bool:
    """Whether notes have what tells where a building goes on, of the kinds it should be."""
    following = notes.get("next")
    if notes.get("dtype") not in ("uint16", "uint32") or not isinstance(following, list):
        return False
    counts = [notes.get(name) for name in (*SPLITS, "documents")]
    return len(following) == 2 and all(type(n) is int and n >= 0 for n in counts + following)


def _write_notes(place: Path, notes: dict[str, Any]) -> None:
    write_text(place / CORPUS_FILE, json.dumps(notes, indent=1) + "\n")
