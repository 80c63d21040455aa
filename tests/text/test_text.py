"""Text: tokenizers, documents from files, and the corpus of tokens that is made of them."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fffcpu
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError, DataError
from fffcpu.text import Corpus, Tokenizer, build_corpus, find_files, read_documents, read_texts
from fffcpu.text import corpus as corpus_module
from fffcpu.text import documents as documents_module
from fffcpu.text import tokenizer as tokenizer_module
from fffcpu.text.tokenizer import SPECIAL_TOKENS

WORDS = ["the", "a", "cat", "dog", "rose", "sat", "ran", "on", "under", "mat", "tree"]
TOKENIZER = Tokenizer.train([" ".join(WORDS)] * 2, vocabulary=90)


def tokens(ids, tokenizer=TOKENIZER):
    return [tokenizer.token(number) for number in ids]


def encoded(text, **options):
    return tokens(TOKENIZER.encode([text], **options)[0])


# --- Tokenizer ------------------------------------------------------------------------------------


def test_special_tokens_come_first():
    assert tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    meanings = ("padding", "unknown", "start", "end", "mask")
    assert [getattr(TOKENIZER, f"{meaning}_id") for meaning in meanings] == [0, 1, 2, 3, 4]


def test_training_is_repeatable_and_keeps_to_its_vocabulary():
    texts = [" ".join(WORDS), "the cat sat"]
    first, second = (Tokenizer.train(iter(texts), vocabulary=30) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.vocabulary <= 30
    assert Tokenizer.train(texts, vocabulary=60).fingerprint != first.fingerprint


def test_training_does_not_depend_on_the_order_in_which_it_is_told(tmp_path):
    # Many ties: every word and every letter is as frequent as the others.
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    words = [x + y + z for x in letters for y in letters for z in letters]
    first = Tokenizer.train([" ".join(words)], vocabulary=200)
    second = Tokenizer.train(reversed(words), vocabulary=200)
    assert first.fingerprint == second.fingerprint
    assert first.vocabulary == 200


def test_training_holds_little_text_where_no_spaces_are(monkeypatch):
    rng = np.random.default_rng(0)
    letters = [chr(number) for number in range(0x4E00, 0x4E80)]

    def texts():
        return ("".join(letters[k] for k in rng.integers(0, 128, 1000)) for _ in range(300))

    tracemalloc.start()
    monkeypatch.setattr(tokenizer_module, "HELD_CHARACTERS", 1 << 14)
    tokenizer = Tokenizer.train(texts(), vocabulary=280)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000  # and the text takes 600,000 bytes
    assert tokens(tokenizer.encode([letters[5]], markers=False)[0], tokenizer) == [letters[5]]


def test_words_are_counted_alike_however_much_is_held(monkeypatch):
    texts = [" ".join(RNG.choice(WORDS, n)) + "." for n in range(60)]
    whole = Tokenizer.train(texts, vocabulary=60)
    monkeypatch.setattr(tokenizer_module, "HELD_CHARACTERS", 10)
    assert Tokenizer.train(texts, vocabulary=60).fingerprint == whole.fingerprint


def test_letters_that_have_no_room_are_unknown():
    tokenizer = Tokenizer.train(["aaaa bbbb cccc dddd eeee fffg"], vocabulary=17)
    assert tokenizer.vocabulary == 17
    assert tokens(tokenizer.encode(["f g"], markers=False)[0], tokenizer) == ["f", "[UNK]"]


def test_capitals_and_accents_are_dropped_unless_they_are_wanted():
    assert encoded("The CÁT", markers=False) == ["the", "cat"]
    cased = Tokenizer.train(["The Cat"] * 3, vocabulary=60, lowercase=False)
    assert tokens(cased.encode(["The Cat"], markers=False)[0], cased) == ["The", "Cat"]


HINDI, GERMAN = "\u0928\u092e\u0938\u094d\u0924\u0947", "\u00c4rger"


def words_of(tokenizer, text):
    """The tokens of a text, without markers."""
    return tokens(tokenizer.encode([text], markers=False)[0], tokenizer)


@pytest.mark.parametrize("lowercase", [True, False])
def test_accents_and_vowel_signs_may_be_kept(lowercase, tmp_path):
    text = f"{HINDI} {GERMAN} argert"
    dropped = Tokenizer.train([text] * 3, vocabulary=90)
    assert words_of(dropped, text)[1] == "arger"
    kept = Tokenizer.train([text] * 3, vocabulary=90, keep_accents=True, lowercase=lowercase)
    kept.save(tmp_path)
    for tokenizer in (kept, Tokenizer.load(tmp_path)):
        found = words_of(tokenizer, text)
        assert found[:2] == [HINDI, GERMAN.lower() if lowercase else GERMAN]
        # An accent of its own, as some systems write it, is the same letter.
        assert words_of(tokenizer, "A\u0308rger") == found[1:2]
    # Any program that reads the file finds it in the usual places.
    definition = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    composed, bert = definition["normalizer"]["normalizers"]
    assert composed == {"type": "NFC"}
    assert (bert["type"], bert["strip_accents"], bert["lowercase"]) == (
        "BertNormalizer",
        False,
        lowercase,
    )


def test_the_length_of_the_longest_word_may_be_chosen():
    word = "ab" * 60
    assert words_of(Tokenizer.train([word], vocabulary=40), word) == ["[UNK]"]
    long = Tokenizer.train([word], vocabulary=40, longest_word=120)
    assert long.decode(long.encode([word])[0]) == word
    assert words_of(long, f"{word}a") == ["[UNK]"]
    assert json.loads(long.__reduce__()[1][0])["model"]["max_input_chars_per_word"] == 120


def test_a_new_tokenizer_is_berts_unless_it_shall_not_be():
    definition = json.loads(TOKENIZER.__reduce__()[1][0])
    assert definition["normalizer"] == {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    assert definition["model"]["max_input_chars_per_word"] == 100


@pytest.mark.parametrize(
    "options", [{"longest_word": 0}, {"longest_word": 1.5}, {"keep_accents": 1}, {"lowercase": 1}]
)
def test_rules_of_a_tokenizer_are_checked(options):
    (name,) = options
    with pytest.raises((ArgumentError, ArgumentTypeError), match=f"argument '{name}' must be"):
        Tokenizer.train(["a"], 40, **options)


def test_a_text_stands_between_markers():
    assert encoded("a cat") == ["[CLS]", "a", "cat", "[SEP]"]
    assert encoded("") == ["[CLS]", "[SEP]"]
    assert encoded("", markers=False) == []
    assert TOKENIZER.encode([]) == []


def test_words_are_made_of_pieces_or_unknown():
    assert encoded("cats \u4e2d", markers=False) == ["cat", "##s", "[UNK]"]


@pytest.mark.parametrize("name", [names[0] for names in SPECIAL_TOKENS.values()])
def test_names_of_special_tokens_in_a_text_are_text_unless_they_are_wanted(name):
    plain = encoded(f"a {name} cat", markers=False)
    assert plain[0], plain[-1] == ("a", "cat")
    assert name == "[UNK]" or name not in plain
    assert encoded(f"a {name} cat", special=True) == ["[CLS]", "a", name, "cat", "[SEP]"]


@given(words=st.lists(st.sampled_from(WORDS), max_size=12), length=st.integers(3, 12))
def test_long_texts_are_cut_inside_their_markers(words, length):
    text = " ".join(words)
    whole, cut = encoded(text), encoded(text, length=length)
    assert len(cut) == min(len(whole), length)
    assert cut[:-1] == whole[: len(cut) - 1]
    assert cut[-1] == "[SEP]"
    assert encoded(text, length=length, markers=False) == whole[1:-1][:length]


@given(words=st.lists(st.sampled_from(WORDS), max_size=12))
def test_decoding_leads_back(words):
    text = " ".join(words)
    assert TOKENIZER.decode(TOKENIZER.encode([text])[0]) == text


@given(texts=st.lists(st.text(st.characters(), max_size=20), max_size=5))
def test_any_text_is_encoded(texts):
    rows = TOKENIZER.encode(texts)
    assert len(rows) == len(texts)
    specials = {TOKENIZER.padding_id, TOKENIZER.mask_id, TOKENIZER.start_id, TOKENIZER.end_id}
    for row in rows:
        assert (row[0], row[-1]) == (TOKENIZER.start_id, TOKENIZER.end_id)
        assert not specials & set(row[1:-1])


def test_halves_of_surrogate_pairs_are_no_reason_to_fail():
    assert encoded("a \ud800 cat", markers=False)[::2] == ["a", "cat"]
    Tokenizer.train(["a \ud800 cat"], vocabulary=60)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TOKENIZER.encode("a cat"), ArgumentTypeError, "must hold texts, got one: 'a cat'"),
        (lambda: TOKENIZER.encode([1]), ArgumentTypeError, "must hold texts, got 1"),
        (lambda: TOKENIZER.encode(["a"], 2), ArgumentError, "'length' must be .* at least 3"),
        (lambda: TOKENIZER.token(10**6), ArgumentError, "argument 'number' must be"),
        (lambda: TOKENIZER.token(-1), ArgumentError, "argument 'number' must be"),
        (lambda: Tokenizer.train([]), ArgumentError, "'texts' must hold some text, got none"),
        (lambda: Tokenizer.train(["", " "]), ArgumentError, "'texts' must hold some text, got"),
        (lambda: Tokenizer.train("abc"), ArgumentTypeError, "must hold texts, got one"),
        (lambda: Tokenizer.train(["a"], 15), ArgumentError, "'vocabulary' must be"),
        (lambda: Tokenizer.train(["a"], 10**10), ArgumentError, "'vocabulary' must be"),
    ],
)
def test_wrong_arguments_are_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_saved_tokenizer_is_the_same(tmp_path):
    TOKENIZER.save(tmp_path)
    TOKENIZER.save(tmp_path / "other.json")
    for again in (
        Tokenizer.load(tmp_path),
        Tokenizer.load(str(tmp_path / "tokenizer.json")),
        Tokenizer.load(tmp_path / "other.json"),
        pickle.loads(pickle.dumps(TOKENIZER)),
    ):
        assert again.fingerprint == TOKENIZER.fingerprint
        assert again.encode(["a cat [MASK]"]) == TOKENIZER.encode(["a cat [MASK]"])
    assert sorted(os.listdir(tmp_path)) == ["other.json", "tokenizer.json"]


def changed(**tokens):
    """The definition of a tokenizer with other names for some tokens."""
    text = TOKENIZER._definition
    for old, new in tokens.items():
        text = text.replace(f'"[{old}]"', json.dumps(new))
    return text


def test_other_names_of_special_tokens_are_known():
    tokenizer = Tokenizer(changed(CLS="<s>", SEP="</s>", MASK="<mask>", PAD="<pad>", UNK="<unk>"))
    assert tokens(tokenizer.encode(["a <mask>"], special=True)[0], tokenizer) == [
        *("<s>", "a", "<mask>", "</s>")
    ]


def numbered(number):
    """A tokenizer whose token "cat" has another number."""
    values = json.loads(TOKENIZER._definition)
    values["model"]["vocab"]["cat"] = number
    return Tokenizer(json.dumps(values))


@pytest.mark.parametrize("number", [500, 70_000])
def test_numbers_may_have_gaps(number, tmp_path):
    tokenizer = numbered(number)
    assert tokenizer.vocabulary == number + 1
    assert tokenizer.encode(["cat"], markers=False) == [[number]]
    assert tokenizer.token(number) == "cat"
    for unused in (number - 1, *TOKENIZER.encode(["cat"], markers=False)[0]):
        with pytest.raises(ArgumentError, match=f"must be the number of a token, got {unused}"):
            tokenizer.token(unused)
    (tmp_path / "a.txt").write_text("a cat")
    corpus = build_corpus([tmp_path / "a.txt"], tokenizer, tmp_path / "out", validation=0)
    assert corpus.training.tolist() == tokenizer.encode(["a cat"])[0]


def test_numbers_beyond_any_vocabulary_are_an_error():
    with pytest.raises(CheckpointError, match="must number tokens from 0 to 1048575, got 4000000"):
        numbered(4_000_000)


def test_templates_truncation_and_padding_of_a_definition_are_left_aside():
    values = json.loads(TOKENIZER._definition)
    values["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    values["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    tokenizer = Tokenizer(json.dumps(values))
    assert tokenizer.encode(["the cat sat on a mat"]) == TOKENIZER.encode(["the cat sat on a mat"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must define a tokenizer, but is damaged"),
        (b"[1, 2]", "must define a tokenizer, but is damaged"),
        (TOKENIZER._definition[:-9].encode(), "must define a tokenizer, but is damaged"),
        (b"\xff\xfe\x00", "is damaged: it is not UTF-8"),
        (changed(MASK="nothing").encode(), r"must have a token '\[MASK\]' or '<mask>' for mask"),
    ],
)
def test_damaged_files_are_errors_that_name_them(content, message, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"file '.*tokenizer\.json' {message}"):
        Tokenizer.load(tmp_path)


def defined(part, **fields):
    """The definition of a tokenizer with another part, or with other fields in it."""
    values = json.loads(TOKENIZER._definition)
    values[part] |= fields
    return json.dumps(values)


def precompiled(content):
    """A definition with a map of characters of that content."""
    text = base64.b64encode(content).decode()
    return defined("normalizer", type="Precompiled", precompiled_charsmap=text)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (defined("model", unk_token="nothing"), "Missing .* token from the vocabulary"),
        (precompiled(b""), "Cannot parse precompiled_charsmap"),
        (precompiled(b"\x08\0\0\0" + b"\xff" * 8), "index out of bounds"),
    ],
)
def test_damage_that_shows_late_is_an_error_when_a_file_is_opened(definition, message, tmp_path):
    (tmp_path / "tokenizer.json").write_text(definition)
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json' must define .*: .*{message}"):
        Tokenizer.load(tmp_path)


def test_damage_that_a_text_shows_is_an_error(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "PROBE", "a")
    tokenizer = Tokenizer(defined("model", unk_token="nothing"))
    assert tokenizer.encode(["a cat"]) == TOKENIZER.encode(["a cat"])
    with pytest.raises(CheckpointError, match=r"the tokenizer's definition is damaged: .*Missing"):
        tokenizer.encode(["a \u4e2d"])


def test_an_interruption_is_not_reported():
    with pytest.raises(KeyboardInterrupt), tokenizer_module._reporting(""):
        raise KeyboardInterrupt


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


# --- Documents ------------------------------------------------------------------------------------


def joined(files, **options):
    """The documents of files, whole."""
    found, held = [], ""
    for piece in read_documents([str(file) for file in files], **options):
        held += piece.text
        if piece.ends_document:
            found.append(held)
            held = ""
    assert held == ""
    return found


@pytest.fixture
def write(tmp_path):
    """Write a file, gzipped if its name says so."""

    def run(name, content):
        data = content if isinstance(content, bytes) else content.encode()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return run


LINES = '{"text": "one"}\n\n{"text": "two\\nlines", "title": "x"}\n'


def test_files_are_found_in_folders_and_in_order(write, tmp_path):
    for name in ("b.txt", "a/z.jsonl", "a/y.TXT.gz", "readme.md", "c.txt.bak"):
        write(f"in/{name}", "x")
    one = write("one.jsonl.gz", "")
    found = find_files([one, tmp_path / "in"])
    names = ["one.jsonl.gz", "in/a/y.TXT.gz", "in/a/z.jsonl", "in/b.txt"]
    assert found == [str(tmp_path / name) for name in names]


def test_histories_of_trainings_are_no_text(write, tmp_path):
    for name in ("m.training/history.jsonl", "m.training/a.txt", "history.jsonl"):
        write(f"in/{name}", "x")
    names = ["in/history.jsonl", "in/m.training/a.txt"]
    assert find_files([tmp_path / "in"]) == [str(tmp_path / name) for name in names]
    history = tmp_path / "in" / "m.training" / "history.jsonl"
    assert find_files([history]) == [str(history)], "what is named is taken"


def test_what_is_no_text_is_not_found(write, tmp_path):
    with pytest.raises(DataError, match=r"readme.md': must end with \.txt, \.jsonl"):
        find_files([write("in/readme.md", "x")])
    with pytest.raises(DataError, match=r"folder '.*in' must hold files ending with \.txt"):
        find_files([tmp_path / "in"])
    with pytest.raises(FileNotFoundError, match="absent"):
        find_files([tmp_path / "absent"])


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_text_file_is_a_document_and_a_json_line_is_one(ending, write):
    text = write("a.jsonl.txt" + ending, "one\ntwo\n")
    lines = write("b.JSONL" + ending, LINES)
    empty = write("c.txt" + ending, "")
    assert joined([text, lines, empty]) == ["one\ntwo\n", "one", "two\nlines", ""]


def test_another_field_and_a_mark_of_the_byte_order(write):
    path = write("a.jsonl", b'\xef\xbb\xbf{"body": "one", "text": "no"}')
    assert joined([path], field="body") == ["one"]
    assert joined([write("b.txt", b"\xef\xbb\xbfone")]) == ["one"]


@given(st.lists(st.text("ab\n", max_size=30), max_size=8), st.integers(1, 9))
def test_long_documents_come_in_pieces(tmp_path_factory, parts, size):
    text = "".join(parts)
    path = tmp_path_factory.mktemp("documents") / "a.txt"
    path.write_text(text, newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "PIECE", size)
        pieces = list(read_documents([str(path)]))
        assert "".join(piece.text for piece in pieces) == text
        assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert all(len(piece.text) <= size for piece in pieces)
        assert [piece.number for piece in pieces] == list(range(len(pieces)))
        for start in range(len(pieces) + 1):
            assert list(read_documents([str(path)], start=(0, start))) == pieces[start:]


def test_reading_goes_on_in_another_file(write):
    files = [str(write("a.txt", "one")), str(write("b.jsonl", LINES))]
    pieces = list(read_documents(files))
    assert [(piece.file, piece.number) for piece in pieces] == [(0, 0), (1, 0), (1, 1)]
    assert list(read_documents(files, start=(1, 1))) == pieces[2:]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("read", [joined, lambda files: list(read_texts(str(files[0])))])
def test_what_is_not_utf_8_is_left_out_with_a_warning(name, read, write):
    content = b"caf\xe9 \xe9" if name == "a.txt" else b'{"text": "caf\xe9 \xe9"}'
    with pytest.warns(UserWarning, match=rf"{name}'(, line 1)?: is not entirely UTF-8") as caught:
        assert read([write(name, content)]) == ["caf\ufffd \ufffd"]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert encoded("cat\ufffd", markers=False) == ["cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": ', r"a.jsonl', line 2: must be JSON \("),
        ('{"text": "a"}\n\n{"title": "b"}', r"line 3: must be an object with text in 'text'"),
        ('["text"]', "line 1: must be an object with text in 'text'"),
        ('{"text": 5}', "line 1: must be an object with text in 'text'"),
    ],
)
def test_lines_that_are_no_documents_are_named(content, message, write):
    path = write("a.jsonl", content)
    with pytest.raises(DataError, match=message):
        joined([path])
    with pytest.raises(DataError, match=message):
        list(read_texts(str(path)))


def test_a_damaged_gzip_file_is_an_error(write):
    path = write("a.txt.gz", "one\n" * 999)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"a\.txt\.gz': must be a whole gzip file"):
        joined([path])


# --- Texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "one\r\n\ntwo", ["one", "", "two"]),
        ("a.txt", b"\xef\xbb\xbfone\n", ["one"]),
        ("a.txt", "one\rstill one\ntwo\r\n", ["one\rstill one", "two"]),
        ("a.txt", "", []),
        ("a.JSONL", LINES, ["one", "two\nlines"]),
        ("a.csv", 'id,text\n1,one\n2,"two\nlines"\n3,\n', ["one", "two\nlines", ""]),
    ],
)
def test_texts_are_lines_objects_or_rows(name, content, expected, ending, write):
    assert list(read_texts(str(write(name + ending, content)))) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.md", "x", r"must end with \.txt, \.jsonl or \.csv"),
        ("a.csv", "id,body\n1,x\n", "line 1: must have a column 'text', got 'id', 'body'"),
        ("a.csv", "id,text\n1\n", "line 2: must have 2 fields, as the header has, got 1"),
        ("a.csv", 'id,text\n1,"x\n', r"a.csv', line 2: must be valid CSV \(unexpected end"),
    ],
)
def test_files_that_hold_no_texts_are_errors(name, content, message, write):
    with pytest.raises(DataError, match=message):
        list(read_texts(str(write(name, content))))


# --- Corpus ---------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
DOCUMENTS = [" ".join(RNG.choice(WORDS, n)) for n in RNG.integers(0, 40, 300)]


@pytest.fixture
def source(write):
    """A folder of documents in files of both kinds."""
    write("in/a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS[:-2]))
    write("in/b.txt.gz", DOCUMENTS[-2])
    return write("in/c.txt", DOCUMENTS[-1]).parent


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def small_steps(monkeypatch):
    """Notes after every few documents, and documents in pieces."""
    monkeypatch.setattr(corpus_module, "BATCH_CHARACTERS", 300)
    monkeypatch.setattr(corpus_module, "NOTED_SECONDS", 0)
    monkeypatch.setattr(documents_module, "PIECE", 30)


def test_a_corpus_holds_every_document_once(source, tmp_path):
    corpus = build_corpus([source], TOKENIZER, tmp_path / "out", validation=0.2)
    rows = [row for row in TOKENIZER.encode(DOCUMENTS) if len(row) > 2]
    assert corpus.documents == len(rows)
    assert corpus.training.dtype == np.uint16
    parts = []
    for part in (corpus.training, corpus.validation):
        assert not part.flags.writeable
        ends = np.flatnonzero(part == TOKENIZER.end_id) + 1
        parts.append([row.tolist() for row in np.split(part, ends)[:-1]])
        assert all(row[0] == TOKENIZER.start_id for row in parts[-1])
        order = iter(rows)
        assert all(row in order for row in parts[-1]), "the order of the files"
    assert sorted(parts[0] + parts[1]) == sorted(rows)
    assert 0.1 < len(parts[1]) / len(rows) < 0.3
    assert corpus.tokenizer.fingerprint == TOKENIZER.fingerprint


def test_nothing_is_held_out_if_nothing_shall_be(source, tmp_path):
    corpus = build_corpus([source], TOKENIZER, tmp_path / "out", validation=0)
    assert len(corpus.validation) == 0
    with pytest.raises(
        DataError, match=r"validation split .* at least 4 tokens, one sequence, got 0"
    ):
        corpus.sequences("validation", 4)


def test_the_seed_chooses_what_is_held_out(source, tmp_path):
    built = [
        build_corpus([source], TOKENIZER, tmp_path / f"{i}", validation=0.2, seed=seed)
        for i, seed in enumerate([1, 1, 2])
    ]
    held = [corpus.validation.tolist() for corpus in built]
    assert held[0] == held[1] != held[2]


def test_sequences_are_packed(source, tmp_path):
    corpus = build_corpus([source], TOKENIZER, tmp_path / "out")
    packed = corpus.sequences("training", 16)
    count = len(corpus.training) // 16
    assert packed.shape == (count, 16)
    assert packed.base is not None
    np.testing.assert_array_equal(packed.reshape(-1), corpus.training[: 16 * count])
    with pytest.raises(ArgumentError, match="'split' must be training or validation, got 'test'"):
        corpus.sequences("test", 16)
    with pytest.raises(ArgumentError, match="argument 'length' must be"):
        corpus.sequences("training", 0)


def test_large_vocabularies_get_wider_numbers(source, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "vocabulary", 1 << 17)
    corpus = build_corpus([source], TOKENIZER, tmp_path / "out")
    assert corpus.training.dtype == np.uint32


def test_steps_of_any_size_come_to_the_same_tokens(source, tmp_path, small_steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "BATCH_CHARACTERS", 1 << 20)
        build_corpus([source], TOKENIZER, tmp_path / "one")
    build_corpus([source], TOKENIZER, tmp_path / "many")
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


class StopError(Exception):
    """Raised where a building is broken off."""


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("calls", [1, 2, 3, 7, 20, 40])
def test_a_building_that_is_broken_off_goes_on(
    calls, noted, source, tmp_path, small_steps, monkeypatch
):
    build_corpus([source], TOKENIZER, tmp_path / "whole")
    left = calls

    def progress(done, total):
        nonlocal left
        assert 0 <= done <= total
        left -= 1
        if left == 0:
            raise StopError
        if not noted and left == 1:
            # From here on tokens are written, and not noted.
            monkeypatch.setattr(corpus_module, "NOTED_SECONDS", 1e9)

    place = tmp_path / "broken"
    with pytest.raises(StopError):
        build_corpus([source], TOKENIZER, place, progress=progress)
    with pytest.raises(CheckpointError, match="is not complete; build it again from the same"):
        Corpus.open(place)
    seen = []
    build_corpus([source], TOKENIZER, place, progress=lambda *now: seen.append(now))
    assert contents(place) == contents(tmp_path / "whole")
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in source.iterdir())


KILLED = """
import sys, time
from fffcpu.text import Tokenizer, build_corpus, corpus, documents

corpus.BATCH_CHARACTERS, corpus.NOTED_SECONDS, documents.PIECE = 300, 0, 30
source, folder = sys.argv[1:]
build_corpus([source], Tokenizer.load(source), folder, progress=lambda *_: time.sleep(0.02))
"""


def test_a_building_that_is_killed_goes_on(source, tmp_path, program, small_steps):
    TOKENIZER.save(source)
    build_corpus([source], TOKENIZER, tmp_path / "whole")
    place = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, str(program(KILLED)), str(source), str(place)],
        env={**os.environ, "PYTHONPATH": str(Path(fffcpu.__file__).parent.parent)},
    )
    while process.poll() is None and not (
        (place / "training.bin").exists() and (place / "training.bin").stat().st_size > 2000
    ):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(CheckpointError, match="is not complete"):
        Corpus.open(place)
    build_corpus([source], TOKENIZER, place)
    found = contents(place)
    assert {name: found[name] for name in contents(tmp_path / "whole")} == contents(
        tmp_path / "whole"
    )


def test_a_corpus_that_is_there_is_opened_and_not_built_again(source, tmp_path, monkeypatch):
    first = build_corpus([source], TOKENIZER, tmp_path / "out")
    monkeypatch.setattr(corpus_module, "read_documents", None)
    again = build_corpus([source], TOKENIZER, tmp_path / "out")
    np.testing.assert_array_equal(first.training, again.training)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"validation": 0.5}, "held_out"),
        ({"field": "body"}, "field"),
        ({"seed": 1}, "seed"),
        ({"tokenizer": Tokenizer.train(WORDS, vocabulary=30)}, "tokenizer"),
        ({"paths": "c.txt"}, "files"),
    ],
)
def test_another_corpus_is_not_continued(change, named, whole, source, tmp_path, small_steps):
    place = tmp_path / "out"

    def stop(*_):
        raise StopError

    if whole:
        build_corpus([source], TOKENIZER, place)
    else:
        with pytest.raises(StopError):
            build_corpus([source], TOKENIZER, place, progress=stop)
    before = contents(place)
    options = {"tokenizer": TOKENIZER, **change}
    paths = [source / options.pop("paths", "")]
    with pytest.raises(CheckpointError, match=f"holds another corpus: '{named}' differs"):
        build_corpus(paths, options.pop("tokenizer"), place, **options)
    assert contents(place) == before


def test_a_change_that_keeps_the_size_is_noticed(source, tmp_path):
    build_corpus([source], TOKENIZER, tmp_path / "out")
    path = source / "c.txt"
    before = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    with pytest.raises(CheckpointError, match="holds another corpus: 'files' differs"):
        build_corpus([source], TOKENIZER, tmp_path / "out")


def test_as_many_documents_are_held_out_as_shall_be():
    for seed in range(3):
        chances = np.array([corpus_module._chance(seed, document) for document in range(10_000)])
        assert 0 <= chances.min() < chances.max() < 1
        for share in (0.02, 0.1, 0.5):
            assert abs((chances < share).mean() - share) < 0.015


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"validation": 1}, "'validation' must be below 1, got 1"),
        ({"validation": -0.1}, "'validation' must be a number from 0 to 1"),
        ({"seed": -1}, "argument 'seed' must be"),
    ],
)
def test_wrong_options_are_errors(options, error, source, tmp_path):
    with pytest.raises(ArgumentError, match=error):
        build_corpus([source], TOKENIZER, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_text_is_an_error(write, tmp_path):
    path = write("a.txt", "\n \n")
    with pytest.raises(DataError, match="the files must hold some text, got none"):
        build_corpus([path], TOKENIZER, tmp_path / "out")


def test_damaged_corpora_are_errors(source, tmp_path, small_steps):
    place = tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"must hold a corpus, got no 'corpus\.json'"):
        Corpus.open(tmp_path)
    build_corpus([source], TOKENIZER, place)
    with open(place / "training.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=r"training\.bin' is damaged: must have \d+ bytes"):
        Corpus.open(place)
    notes = json.loads((place / "corpus.json").read_text())
    changes = [{name: None} for name in ("dtype", "training", "validation", "documents", "next")]
    changes += [{"dtype": "uint8"}, {"training": -1}, {"documents": 1.5}, {"next": [0]}]
    damaged = [("{", "is damaged"), ('{"version": 9}', "not a corpus of this version")]
    damaged += [
        (json.dumps(notes | change), "must contain the build's progress") for change in changes
    ]
    for content, message in damaged:
        (place / "corpus.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            Corpus.open(place)
        with pytest.raises(CheckpointError, match=message):
            build_corpus([source], TOKENIZER, place)


def test_a_broken_building_that_lost_tokens_does_not_go_on(source, tmp_path, small_steps):
    place, calls = tmp_path / "out", []

    def stop(*now):
        calls.append(now)
        if len(calls) == 5:
            raise StopError

    with pytest.raises(StopError):
        build_corpus([source], TOKENIZER, place, progress=stop)
    (place / "training.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"training\.bin' is damaged: must have at least"):
        build_corpus([source], TOKENIZER, place)
