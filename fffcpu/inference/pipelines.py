"""FastBERT and BERT on texts: fill masks, classify texts, make a vector of each text.

A pipeline is a model and a tokenizer. One folder contains both: ``config.json``,
``model.safetensors`` and ``tokenizer.json``. Each has ``stream``, which takes texts one after the
other and holds at most `WINDOW` of them, and a method for texts that fit into memory.

The texts of a window are computed in batches of about one length (see `fffcpu.text.padding`), and
threads take the batches in turn. The results have the order of the texts. A text has the same bits
whatever texts come with it, on any number of threads: kernels give the rows of a batch the bits
that they would have alone. Plain NumPy does not, so without compiled kernels a batch is one text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import check_flag, check_integer
from fffcpu.config.bert import POOLINGS
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, describe
from fffcpu.inference.predictor import softmax
from fffcpu.models import (
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertEncoder,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.models.data_parallel import run_shards, shard_threads
from fffcpu.models.folders import CONFIG_FILE, open_config
from fffcpu.models.model import Model
from fffcpu.models.opening import model_class
from fffcpu.text.padding import PADDING, TOKENS, batches_by_length, compute_batches
from fffcpu.text.tokenizer import Tokenizer

__all__ = [
    "POOLINGS",
    "FillMask",
    "Guess",
    "Results",
    "TextClassifier",
    "TextEmbedder",
    "default_model_folder",
    "open_pipeline",
]

Array = NDArray[Any]
ModelT = TypeVar("ModelT", bound=Model[Any])
ResultT = TypeVar("ResultT")

WINDOW = 4096
"""Largest number of texts that are held at a time."""

WINDOW_CHARACTERS = 1 << 22
"""Approximate number of characters of text that are held at a time."""

SHARES = 4
"""Batches per thread, so that threads that take them in turn end at about the same time."""

LEAST_TOKENS = 256
"""Tokens that a batch may have at least; smaller batches take longer per token."""


class Guess(NamedTuple):
    """A token that may stand where a text has its mask."""

    token: str
    """The token."""
    probability: float
    """The model's probability of it, among all tokens."""


class Results(Iterator[ResultT]):
    """The results of a stream of texts, one after the other.

    Attributes
    ----------
    length : int
        The model's longest text in tokens, start and end included.
    cut : int
        Number of texts so far that were longer, and were cut. Texts are read in windows, so some of
        them may be texts whose results are yet to come.
    """

    def __init__(self, length: int, make: Callable[[Results[Any]], Iterator[ResultT]]) -> None:
        self.length, self.cut = length, 0
        self._items = make(self)

    def __next__(self) -> ResultT:
        return next(self._items)


class _Pipeline(Generic[ModelT]):
    """A model and its tokenizer.

    Parameters
    ----------
    model : Model
        The model, which is not changed.
    tokenizer : Tokenizer
        The tokenizer of the model.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument has another type, or the tokenizer has more tokens than the model.
    """

    _kinds: tuple[type[ModelT], ...]
    """Classes of the models."""
    _most_tokens: ClassVar[int] = TOKENS
    """Largest number of tokens per batch, unless a single text has more."""
    _marks: ClassVar[bool] = False
    """Whether names such as ``"[MASK]"`` in a text become the special tokens."""

    def __init__(self, model: ModelT, tokenizer: Tokenizer) -> None:
        if not isinstance(model, self._kinds):
            names = " or a ".join(kind.__name__ for kind in self._kinds)
            raise ArgumentTypeError(f"argument 'model' must be a {names}, got {describe(model)}")
        if not isinstance(tokenizer, Tokenizer):
            raise ArgumentTypeError(
                f"argument 'tokenizer' must be a Tokenizer, got {describe(tokenizer)}"
            )
        if tokenizer.vocabulary > model.config.vocabulary:
            raise ArgumentError(
                f"argument 'tokenizer' must have at most {model.config.vocabulary} tokens, like "
                f"the model, got {tokenizer.vocabulary}"
            )
        self.model, self.tokenizer = model, tokenizer

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.model!r}, {self.tokenizer!r}>"

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Open the model and the tokenizer in a folder.

        Raises
        ------
        CheckpointError
            If the folder contains no such model, or no tokenizer that fits it.
        MissingExtraError
            If the package ``tokenizers`` is missing.
        OSError
            If a file cannot be read.
        """
        place = Path(os.fsdecode(folder))
        config = open_config(place)
        if FastBertForMaskedLM in cls._kinds and config.classes is not None:
            raise CheckpointError(
                f"folder '{place}' holds a classifier, not a masked language model"
            )
        tokenizer = Tokenizer.load(place)  # before the model, because its errors are found quickly
        kinds = [kind for kind in cls._kinds if isinstance(config, kind.config_type)]
        model = (kinds or cls._kinds)[0].from_pretrained(place)
        try:
            return cls(model, tokenizer)
        except ArgumentError as error:
            raise CheckpointError(f"folder '{place}': {error}") from error

    def _refuse(self, text: str, row: Sequence[int]) -> ArgumentError | None:
        """Return the error of a text, given its tokens, if the pipeline cannot take it."""
        return None

    def _stream(
        self,
        texts: Iterable[str],
        compute: Callable[[NDArray[np.intp], NDArray[np.bool_]], Iterable[Any]],
        padding: int = PADDING,
        strict: bool = True,
    ) -> Results[Any]:
        """Return a result for each text; ``compute`` takes tokens (B, S) and the attention mask.

        Unless ``strict``, the error of a text that is refused comes in the place of its result.
        """
        check_flag("strict", strict)
        length = self.model.config.longest

        def make(results: Results[Any]) -> Iterator[Any]:
            for window in _windows(texts):
                whole = self.tokenizer.encode(window, special=self._marks)
                refusals = [self._refuse(*pair) for pair in zip(window, whole, strict=True)]
                first = next(filter(None, refusals), None)
                if strict and first is not None:
                    raise first
                taken = [row for row, no in zip(whole, refusals, strict=True) if no is None]
                results.cut += sum(len(row) > length for row in taken)
                found = iter(self._compute([self.cut(row) for row in taken], compute, padding))
                yield from (next(found) if no is None else no for no in refusals)

        return Results(length, make)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, markers included, however many they are.

        Raises
        ------
        ArgumentError
            If a text has no result: a mask that lies beyond the model's longest text.
        """
        rows = self.tokenizer.encode(texts, special=self._marks)
        for pair in zip(texts, rows, strict=True):
            if error := self._refuse(*pair):
                raise error
        return rows

    def _compute(
        self,
        rows: Sequence[Sequence[int]],
        compute: Callable[[NDArray[np.intp], NDArray[np.bool_]], Iterable[Any]],
        padding: int,
    ) -> list[Any]:
        """Return a result for each row of tokens."""
        results: list[Any] = [None] * len(rows)
        compiled, threads = kernels.selection().compiles, shard_threads()
        share = sum(map(len, rows)) // (SHARES * threads)
        tokens = min(max(share, LEAST_TOKENS), self._most_tokens) if compiled else 1
        batches = list(batches_by_length(list(map(len, rows)), padding, tokens))

        def run(turns: Iterator[list[int]]) -> None:
            compute_batches(results, turns, rows, self.model.config.padding_id, compute)

        turns = iter(batches)
        if compiled and (threads == 1 or len(batches) < 2 * threads):
            run(turns)  # kernels share the rows of each batch
        else:
            run_shards(run, [(turns,)] * max(1, min(threads, len(batches))))
        return results

    def _of_tokens(
        self,
        rows: Sequence[list[int]],
        compute: Callable[[NDArray[np.intp], NDArray[np.bool_]], Iterable[Any]],
        padding: int = PADDING,
    ) -> list[Any]:
        """Return a result for each text, given its tokens, which are cut if they are too many."""
        return self._compute([self.cut(row) for row in rows], compute, padding)

    def cut(self, row: list[int]) -> list[int]:
        """Return the tokens of a text, cut inside its markers if there are too many."""
        length = self.model.config.longest
        return row if len(row) <= length else [*row[: length - 1], self.tokenizer.end_id]


class FillMask(_Pipeline[FastBertForMaskedLM | BertForMaskedLM]):
    """Guesses the tokens at the masks of texts.

    Parameters
    ----------
    model : FastBertForMaskedLM or BertForMaskedLM
        The model.
    tokenizer : Tokenizer
        The tokenizer of the model.

    Examples
    --------
    >>> from fffcpu.models import FastBertConfig, FastBertForMaskedLM
    >>> from fffcpu.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["a rose is a rose"], vocabulary=40)
    >>> config = FastBertConfig(40, 16, 2, 2, feedforward_size=1, depth=3, positions=8)
    >>> fill_mask = FillMask(FastBertForMaskedLM(config, rng=0), tokenizer)
    >>> len(fill_mask.fill(["a [MASK] is a [MASK]"], top=3)[0][1])
    3
    """

    _kinds = (FastBertForMaskedLM, BertForMaskedLM)
    _most_tokens = 256  # since each token may be a mask, with a logit per word of the vocabulary
    _marks = True

    def fill(self, texts: Sequence[str], top: int = 5) -> list[list[list[Guess]]]:
        """Return the likeliest tokens for each mask of each text.

        Parameters
        ----------
        texts : sequence of str
            Texts with ``[MASK]``, or the tokenizer's other name for it, at each token to guess.
        top : int
            Number of tokens per mask, the likeliest first; special tokens are left out.

        Returns
        -------
        list of list of list of Guess
            ``result[text][mask]`` has ``top`` guesses; a text without a mask has an empty list.

        Raises
        ------
        ArgumentTypeError, ArgumentError
            If an element is not text, or a mask lies beyond the model's longest text.
        """
        return list(self.stream(texts, top))

    def stream(
        self, texts: Iterable[str], top: int = 5, *, strict: bool = True
    ) -> Results[list[list[Guess]]]:
        """Return an iterator over what `fill` returns, text by text.

        With ``strict=False`` the ArgumentError of a text comes in the place of its guesses, and
        does not end the others.
        """
        check_integer("top", top, 1, len(self.tokenizer.word_ids))
        return self._stream(texts, lambda ids, real: self._fill(ids, real, top), strict=strict)

    def fill_tokens(self, rows: Sequence[list[int]], top: int = 5) -> list[list[list[Guess]]]:
        """Return what `fill` returns, for texts as `tokenize` returns them."""
        check_integer("top", top, 1, len(self.tokenizer.word_ids))
        return self._of_tokens(rows, lambda ids, real: self._fill(ids, real, top))

    def _refuse(self, text: str, row: Sequence[int]) -> ArgumentError | None:
        room = self.model.config.longest - 1  # the end token has the last position
        if self.tokenizer.mask_id not in row[room:]:
            return None
        return ArgumentError(
            f"argument 'texts' must have every mask among the first {room - 1} tokens of a "
            f"text, got {describe(text)}"
        )

    def _fill(
        self, ids: NDArray[np.intp], real: NDArray[np.bool_], top: int
    ) -> Iterator[list[list[Guess]]]:
        """Yield the guesses for each row of a batch; only masked positions are decoded."""
        masked = ids == self.tokenizer.mask_id
        if not masked.any():
            yield from ([] for _ in ids)
            return
        # The model may have more rows than the tokenizer has tokens: the number is rounded up.
        logits = self.model.logits_at(ids, masked, real)[:, : self.tokenizer.vocabulary]
        chances, words = softmax(logits), self.tokenizer.word_ids
        best = words[np.argsort(-chances[:, words], axis=1, kind="stable")[:, :top]]
        guesses = [
            [Guess(self.tokenizer.token(int(k)), float(row[k])) for k in chosen]
            for row, chosen in zip(chances, best, strict=True)
        ]
        ends = masked.sum(axis=1).cumsum()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            yield guesses[start:end]


class TextClassifier(_Pipeline[FastBertForSequenceClassification | BertForSequenceClassification]):
    """Predicts the class of each text or, for a regression, a number.

    Parameters
    ----------
    model : FastBertForSequenceClassification or BertForSequenceClassification
        The model.
    tokenizer : Tokenizer
        The tokenizer of the model.

    Attributes
    ----------
    labels : tuple of str
        Names of the classes. They are numbers if the model's config has no names, and empty for a
        regression.

    Examples
    --------
    >>> from fffcpu.models import FastBertConfig, FastBertForSequenceClassification
    >>> from fffcpu.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["a rose is a rose"], vocabulary=40)
    >>> config = FastBertConfig(
    ...     40, 16, 2, 2, feedforward_size=1, depth=3, positions=8, classes=2, labels=("no", "yes")
    ... )
    >>> classifier = TextClassifier(FastBertForSequenceClassification(config, rng=0), tokenizer)
    >>> classifier.probabilities(["a rose", "is", ""]).shape
    (3, 2)
    """

    _kinds = (FastBertForSequenceClassification, BertForSequenceClassification)

    def __init__(
        self,
        model: FastBertForSequenceClassification | BertForSequenceClassification,
        tokenizer: Tokenizer,
    ) -> None:
        super().__init__(model, tokenizer)
        classes = int(model.config.classes or 1)
        numbers = tuple(map(str, range(classes))) if classes > 1 else ()
        self.labels = (model.config.labels or numbers) if classes > 1 else ()

    def probabilities(self, texts: Sequence[str]) -> Array:
        """Return each class's probability (texts, C), or for a regression the numbers (texts, 1).

        Raises
        ------
        ArgumentTypeError
            If an element is not text.
        """
        return _stacked(self.stream(texts), int(self.model.config.classes or 1), self.model)

    def stream(self, texts: Iterable[str]) -> Results[Array]:
        """Return an iterator over what `probabilities` returns, text by text: arrays (C,)."""
        return self._stream(texts, self._judge, self._padding)

    def token_probabilities(self, rows: Sequence[list[int]]) -> list[Array]:
        """Return what `stream` yields, for texts as `tokenize` returns them."""
        return self._of_tokens(rows, self._judge, self._padding)

    @property
    def _padding(self) -> int:
        return 0 if self.model.config.pools_padding else PADDING

    def _judge(self, ids: NDArray[np.intp], real: NDArray[np.bool_]) -> Array:
        outputs = self.model(ids, real)
        return softmax(outputs) if self.labels else outputs


class TextEmbedder(_Pipeline[FastBertEncoder | BertEncoder]):
    """Makes a vector of each text.

    Parameters
    ----------
    model : FastBertEncoder or BertEncoder
        The encoder.
    tokenizer : Tokenizer
        The tokenizer of the model.

    Examples
    --------
    >>> from fffcpu.models import FastBertConfig, FastBertEncoder
    >>> from fffcpu.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["a rose is a rose"], vocabulary=40)
    >>> config = FastBertConfig(40, 16, 2, 2, feedforward_size=1, depth=3, positions=8)
    >>> embedder = TextEmbedder(FastBertEncoder(config, rng=0), tokenizer)
    >>> embedder.embed(["a rose", "is", ""]).shape
    (3, 16)
    """

    _kinds = (FastBertEncoder, BertEncoder)

    def embed(
        self,
        texts: Sequence[str],
        pooling: str | None = None,
        *,
        normalize: bool | None = None,
    ) -> Array:
        """Return a vector of each text.

        Parameters
        ----------
        texts : sequence of str
            Texts; tokens beyond the model's longest text are dropped.
        pooling : {"mean", "start"}, optional
            The mean of the hidden states of a text's tokens, start and end included, or the hidden
            state of the start token. The default is in the model's config: the mean, unless the
            model is a BERT with another one.
        normalize : bool, optional
            Whether vectors are scaled to length 1. The default is in the model's config: no,
            unless the model is a BERT with normalized vectors.

        Returns
        -------
        array of shape (texts, D)

        Raises
        ------
        ArgumentTypeError, ArgumentError
            If an element is not text, or an option has an unknown value.
        """
        vectors = self.stream(texts, pooling, normalize=normalize)
        return _stacked(vectors, self.model.config.width, self.model)

    def stream(
        self,
        texts: Iterable[str],
        pooling: str | None = None,
        *,
        normalize: bool | None = None,
    ) -> Results[Array]:
        """Return an iterator over what `embed` returns, text by text: arrays (D,)."""
        return self._stream(texts, self._pooled(pooling, normalize))

    def embed_tokens(
        self,
        rows: Sequence[list[int]],
        pooling: str | None = None,
        *,
        normalize: bool | None = None,
    ) -> list[Array]:
        """Return what `stream` yields, for texts as `tokenize` returns them."""
        return self._of_tokens(rows, self._pooled(pooling, normalize))

    def _pooled(
        self, pooling: str | None, normalize: bool | None
    ) -> Callable[[NDArray[np.intp], NDArray[np.bool_]], Array]:
        """Return the function of a batch of tokens that gives its vectors."""
        config = self.model.config
        pooling = config.pooling if pooling is None else pooling
        scales = config.normalize if normalize is None else check_flag("normalize", normalize)
        if pooling not in POOLINGS:
            raise ArgumentError(
                f"argument 'pooling' must be {' or '.join(POOLINGS)}, got {describe(pooling)}"
            )

        def compute(ids: NDArray[np.intp], real: NDArray[np.bool_]) -> Array:
            hidden = self.model(ids, real)
            vectors = hidden[:, 0].copy() if pooling == "start" else _means(hidden, real)
            return _normalized(vectors) if scales else vectors

        return compute


def open_pipeline(
    folder: str | os.PathLike[str],
) -> FillMask | TextClassifier | TextEmbedder:
    """Open the model and the tokenizer in a folder, as the pipeline of the model's class.

    Raises
    ------
    CheckpointError, MissingExtraError, OSError
        As for the pipelines' ``from_pretrained``.
    """
    kind: type[Any] = model_class(open_config(Path(os.fsdecode(folder))))
    pipelines = (FillMask, TextClassifier, TextEmbedder)
    own: Any = next(one for one in pipelines if kind in one._kinds)
    opened: FillMask | TextClassifier | TextEmbedder = own.from_pretrained(folder)
    return opened


def default_model_folder() -> Path:
    """Return the folder of the small masked language model in the package.

    Raises
    ------
    CheckpointError
        If this installation has no model.
    """
    folder = Path(str(files("fffcpu.data") / "fastbert"))
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"this installation of fffcpu has no model of its own in '{folder}'; "
            "name the folder of another model"
        )
    return folder


def _windows(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts in windows, each as large as is held at a time."""
    if isinstance(texts, str):
        raise ArgumentTypeError(f"argument 'texts' must hold texts, got one: {describe(texts)}")
    window: list[str] = []
    characters = 0
    for text in texts:
        if not isinstance(text, str):
            raise ArgumentTypeError(f"argument 'texts' must hold texts, got {describe(text)}")
        window.append(text)
        characters += len(text)
        if len(window) == WINDOW or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _means(hidden: Array, real: NDArray[np.bool_]) -> Array:
    """Return the mean (B, D) of the hidden states, without those of padding."""
    weights = real / real.sum(axis=1, keepdims=True)
    means: Array = np.einsum("bs,bsd->bd", weights.astype(hidden.dtype), hidden)
    return means


def _normalized(vectors: Array) -> Array:
    """Return vectors (B, D) scaled to length 1; vectors of length 0 do not change."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Array = vectors / np.where(lengths == 0, 1, lengths)
    return scaled


def _stacked(vectors: Iterator[Array], width: int, model: Model[Any]) -> Array:
    """Return vectors as rows; there may be no vectors."""
    rows = list(vectors)
    return np.stack(rows) if rows else np.empty((0, width), model.config.dtype)
