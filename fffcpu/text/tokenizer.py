"""Tokenizer: Hugging Face's ``tokenizers`` with the special tokens that FastBERT needs.

Templates, truncation and padding in a ``tokenizer.json`` are ignored, so that all tokenizers are
used in the same way::

    encode(["a rose"])                  [CLS] a rose [SEP]
    encode(["a rose"], markers=False)   a rose
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fffcpu.checks import check_flag, check_integer
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, describe, require_extra
from fffcpu.system.files import write_text

__all__ = ["LONGEST_WORD", "TOKENIZER_FILE", "Tokenizer"]

TOKENIZER_FILE = "tokenizer.json"
"""The tokenizer's file in the folder of a model."""

LONGEST_WORD = 100
"""Number of letters up to which BERT's tokenizer splits a word; longer ones are unknown tokens."""

MOST_TOKENS = 1 << 20
"""The largest vocabulary; memory for all of it is allocated at once."""

PROBE = "\U00013000"
"""A hieroglyph, a letter that is unknown to most tokenizers."""

HELD_CHARACTERS = 1 << 22
"""Approximate number of characters of distinct pieces that are held before they become words."""

REPEATED = 4096
"""Number of words that are passed to the training together."""

SPECIAL_TOKENS = MappingProxyType(
    {
        "padding": ("[PAD]", "<pad>"),
        "unknown": ("[UNK]", "<unk>"),
        "start": ("[CLS]", "<cls>", "<s>"),
        "end": ("[SEP]", "<sep>", "</s>"),
        "mask": ("[MASK]", "<mask>"),
    }
)
"""The special tokens and their names in vocabularies; a new vocabulary uses the first name."""


class Tokenizer:
    """Converts text to numbers of tokens and back.

    Parameters
    ----------
    definition : str
        The content of a ``tokenizer.json``.

    Attributes
    ----------
    padding_id, unknown_id, start_id, end_id, mask_id : int
        Numbers of the special tokens.
    word_ids : int array of shape (W,)
        Numbers of all tokens except the special ones, in rising order.
    fingerprint : str
        Checksum that differs between tokenizers.

    Raises
    ------
    CheckpointError
        If the text does not define a tokenizer, or a special token is missing.
    MissingExtraError
        If the package ``tokenizers`` is missing.

    Examples
    --------
    >>> from fffcpu.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["a rose is a rose"] * 2, vocabulary=40)
    >>> ids = tokenizer.encode(["A rose"])[0]
    >>> [tokenizer.token(number) for number in ids]
    ['[CLS]', 'a', 'rose', '[SEP]']
    >>> tokenizer.decode(ids)
    'a rose'
    """

    padding_id: int
    unknown_id: int
    start_id: int
    end_id: int
    mask_id: int

    def __init__(self, definition: str) -> None:
        backend = require_extra("tokenizers", "text").Tokenizer
        with _reporting("must define a tokenizer, but is damaged"):
            self._backend, self._plain = (backend.from_str(definition) for _ in range(2))
            for backend in (self._backend, self._plain):
                backend.no_truncation()
                backend.no_padding()
            # Some damage shows only when a text is encoded, or when a letter is unknown.
            self._backend.encode_batch_fast([PROBE])
        # Text that contains "[MASK]" by chance must not become the special token.
        self._plain.encode_special_tokens = True
        for meaning, names in SPECIAL_TOKENS.items():
            found = [self._backend.token_to_id(name) for name in names]
            numbers = [number for number in found if number is not None]
            if not numbers:
                wanted = " or ".join(repr(name) for name in names)
                raise CheckpointError(f"must have a token {wanted} for {meaning}, got none")
            setattr(self, f"{meaning}_id", numbers[0])
        taken = set(self._backend.get_vocab().values())
        added = self._backend.get_added_tokens_decoder()
        special = {number for number, token in added.items() if token.special}
        special |= {getattr(self, f"{meaning}_id") for meaning in SPECIAL_TOKENS}
        self.word_ids = np.array(sorted(taken - special), np.intp)
        self._vocabulary = 1 + int(max(taken))
        if self._vocabulary > MOST_TOKENS:
            raise CheckpointError(
                f"must number tokens from 0 to {MOST_TOKENS - 1}, got {self._vocabulary - 1}"
            )
        self._definition = definition
        self.fingerprint = hashlib.sha256(definition.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<Tokenizer: {self.vocabulary:,} tokens, {self.fingerprint}>"

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str]]:
        return type(self), (self._definition,)

    @property
    def vocabulary(self) -> int:
        """The largest number of a token plus 1; some numbers below it may have no token."""
        return self._vocabulary

    # --- Making, loading, saving -----------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary: int = 32768,
        *,
        lowercase: bool = True,
        keep_accents: bool = False,
        longest_word: int = LONGEST_WORD,
        progress: bool = False,
    ) -> Tokenizer:
        """Train a WordPiece tokenizer, as for BERT.

        Parameters
        ----------
        texts : iterable of str
            Texts to train on, read once. Only the counts of the words are kept. The same words
            give the same tokenizer.
        vocabulary : int
            Largest number of tokens, special ones included.
        lowercase : bool
            Whether letters become lowercase and, as for BERT, lose their accents.
        keep_accents : bool
            Whether they keep them: é stays é, and words of Hindi keep their vowel signs. An accent
            that is a character of its own is joined to its letter.
        longest_word : int
            Number of letters up to which a word is split. All longer words are the unknown token.
        progress : bool
            Whether to show the progress of the training.

        Raises
        ------
        ArgumentError
            If there is no text, or the vocabulary is too small for special tokens and letters.

        References
        ----------
        "Japanese and Korean voice search", Schuster and Nakajima, 2012.
        """
        library: Any = require_extra("tokenizers", "text")
        check_integer("vocabulary", vocabulary, 16, MOST_TOKENS)
        check_flag("lowercase", lowercase)
        check_flag("keep_accents", keep_accents)
        check_integer("longest_word", longest_word, 1, MOST_TOKENS)
        specials = [names[0] for names in SPECIAL_TOKENS.values()]
        model = library.models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=longest_word)
        backend = library.Tokenizer(model)
        backend.normalizer = _normalizer(library.normalizers, lowercase, keep_accents)
        backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        backend.decoder = library.decoders.WordPiece()
        words = _count_words(backend, texts)
        if not words:
            raise ArgumentError("argument 'texts' must hold some text, got none")
        # A letter may need two tokens: one at the start of a word, one inside of words.
        alphabet = _alphabet(words, (vocabulary - len(specials)) // 2)
        inner = {letter for word in words for letter in word[1:]}.intersection(alphabet)
        # The package numbers letters inside words as it meets them, in an order that changes from
        # run to run, and decides ties by those numbers. As special tokens they keep this order.
        trainer = library.trainers.WordPieceTrainer(
            vocab_size=vocabulary,
            special_tokens=[*specials, *(f"##{letter}" for letter in sorted(inner))],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=progress,
        )
        backend.train_from_iterator(_repeated(words), trainer)
        definition = json.loads(backend.to_str())
        added = definition["added_tokens"]
        definition["added_tokens"] = [token for token in added if token["content"] in specials]
        return cls(json.dumps(definition, ensure_ascii=False, indent=2))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Load a ``tokenizer.json``, or the one in a folder.

        Raises
        ------
        CheckpointError
            If the file does not define a tokenizer.
        OSError
            If it cannot be read.
        """
        place = Path(os.fsdecode(path))
        place = place / TOKENIZER_FILE if place.is_dir() else place
        try:
            return cls(place.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise CheckpointError(f"file '{place}' is damaged: it is not UTF-8") from error
        except CheckpointError as error:
            raise CheckpointError(f"file '{place}' {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a file, or as ``tokenizer.json`` to a folder.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        place = Path(os.fsdecode(path))
        place = place / TOKENIZER_FILE if place.is_dir() else place
        write_text(place, self._definition)

    def to_json(self) -> str:
        """Return the text that `save` writes."""
        return self._definition

    # --- Using -----------------------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        length: int | None = None,
        *,
        markers: bool = True,
        special: bool = False,
    ) -> list[list[int]]:
        """Convert texts to numbers of tokens.

        Parameters
        ----------
        texts : sequence of str
        length : int, optional
            Largest number of tokens per text, markers included; further tokens are dropped.
        markers : bool
            Whether to put a start and an end token around each text.
        special : bool
            Whether names such as ``"[MASK]"`` in the texts become the special tokens.

        Returns
        -------
        list of list of int

        Raises
        ------
        ArgumentTypeError, ArgumentError
            If an element is not text, or the length leaves no room for a token.
        CheckpointError
            If the definition is damaged.
        """
        around = 2 if markers else 0
        room = None if length is None else check_integer("length", length, around + 1) - around
        backend = self._backend if special else self._plain
        strings = list(_strings(texts))
        # The batch call returns more than the numbers, which takes most of its time.
        with _reporting("the tokenizer's definition is damaged"):
            found = backend.encode_batch_fast(strings, add_special_tokens=False)
        rows = [encoding.ids[:room] for encoding in found]
        return [[self.start_id, *row, self.end_id] for row in rows] if markers else rows

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without the special ones."""
        return str(self._backend.decode([int(number) for number in ids]))

    def token(self, number: int) -> str:
        """Return a token's name.

        Raises
        ------
        ArgumentError
            If no token has this number.
        """
        check_integer("number", number, 0, self.vocabulary - 1)
        name: str | None = self._backend.id_to_token(int(number))
        if name is None:
            raise ArgumentError(f"argument 'number' must be the number of a token, got {number}")
        return name


@contextlib.contextmanager
def _reporting(message: str) -> Iterator[None]:
    """Convert the exceptions of the package, which have no common class, to a CheckpointError."""
    try:
        yield
    except BaseException as error:
        # A panic of its Rust code is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{message}: {error}") from error


def _normalizer(library: Any, lowercase: bool, keep_accents: bool) -> Any:
    """Return BERT's normalizer, or one that keeps accents, whichever way they are written."""
    if not keep_accents:
        return library.BertNormalizer(lowercase=lowercase)
    keeping = library.BertNormalizer(lowercase=lowercase, strip_accents=False)
    return library.Sequence([library.NFC(), keeping])


def _count_words(backend: Any, texts: Iterable[str]) -> Counter[str]:
    """Count the words of texts, as the tokenizer splits texts.

    Pieces between spaces are counted first, so that the tokenizer splits most of them only once.
    """
    words: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    held = 0
    for text in _strings(texts):
        found = text.split()
        held += sum(len(piece) for piece in set(found) if piece not in pieces)
        pieces.update(found)
        if held > HELD_CHARACTERS:  # soon the case in scripts without spaces between words
            _add_words(words, backend, pieces)
            pieces.clear()
            held = 0
    _add_words(words, backend, pieces)
    return words


def _add_words(words: Counter[str], backend: Any, pieces: Mapping[str, int]) -> None:
    """Add the words of pieces of texts, with the counts of the pieces."""
    for piece, count in pieces.items():
        normal = backend.normalizer.normalize_str(piece)
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal):
            words[word] += count


def _alphabet(words: Mapping[str, int], most: int) -> list[str]:
    """Return the most frequent letters of words."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    return sorted(counts, key=lambda letter: (-counts[letter], letter))[:most]


def _repeated(words: Mapping[str, int]) -> Iterator[str]:
    """Yield each word as often as it occurs, in blocks of some thousands."""
    held: list[str] = []
    for word, count in words.items():
        for start in range(0, count, REPEATED):
            held += [word] * min(REPEATED, count - start)
            if len(held) >= REPEATED:
                yield " ".join(held)
                held = []
    yield " ".join(held)


def _strings(texts: Iterable[Any]) -> Iterator[str]:
    """Check and yield texts.

    Halves of surrogate pairs, which JSON may contain although they are no characters, become "?".
    """
    if isinstance(texts, str):
        raise ArgumentTypeError(f"argument 'texts' must hold texts, got one: {describe(texts)}")
    for text in texts:
        if not isinstance(text, str):
            raise ArgumentTypeError(f"argument 'texts' must hold texts, got {describe(text)}")
        yield text if text.isascii() else text.encode("utf-8", "replace").decode()
