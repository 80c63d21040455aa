"""Text for FastBERT: tokenizers, and files of text as memory-mapped tokens (extra: text)."""

from __future__ import annotations

from fffcpu.text.corpus import Corpus, build_corpus
from fffcpu.text.documents import find_files, read_documents, read_texts
from fffcpu.text.labelled import LabelledTexts, read_labelled
from fffcpu.text.tokenizer import Tokenizer

__all__ = [
    "Corpus",
    "LabelledTexts",
    "Tokenizer",
    "build_corpus",
    "find_files",
    "read_documents",
    "read_labelled",
    "read_texts",
]
