"""Mutations of files: blind ones of bytes, and others that know the format.

Each takes a generator of random numbers, the bytes of a file and those of other files of the same
reader, and returns new bytes. The same generator gives the same bytes.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

__all__ = ["Mutation", "bytes_of", "csv_text", "idx", "json_lines", "json_text", "npy", "npz"]
__all__ += ["maybe_gzipped", "plain_text", "safetensors"]

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]

LARGE = 1 << 18
"""Bytes to which some files are blown up."""

INTEGERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31)
INTEGERS += (2**32 - 1, 2**32, 2**40, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""Integers at which something may overflow."""

NUMBER_TEXTS = (
    *("0", "-0", "1", "-1", "0.0", "1e0", "1E5", ".5", "5.", "+3", "1e308", "1e309", "-1e309"),
    *("1e39", "3.4028236e38", "1e-400", "4.9e-324", "nan", "NaN", "-nan", "inf", "Infinity"),
    *(
        "1_000",
        "0x10",
        "0b1",
        "1,5",
        "1.5.2",
        "--1",
        "1e",
        "e5",
        "٣",
        "\uff11",
        "1\u00a0",
        "\u22121",
    ),
    *("True", "False", "None", "null", "NA", "N/A", "", " ", "  7 ", "\t7", "02116", "1" * 400),
    *("9" * 30, "0." + "3" * 300, "2020-01-02", "2020-01-02T03:04:05", "12:30", "1/2", "5%"),
)
"""Texts where a number may be expected."""

STRANGE = (
    *(b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90"),
    *(b"\r", b"\n", b"\r\n", b"\n\n", b"\x0b", b"\x0c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(
        b'"',
        b'""',
        b"'",
        b",",
        b";",
        b"\t",
        b"\\",
        b"\xc2\xa0",
        b"\x1a",
        b"\x1f\x8b",
        b"PK\x03\x04",
    ),
)
"""Bytes that mean something to some reader."""


# --- Bytes ----------------------------------------------------------------------------------------


def bytes_of(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change bytes without a look at their meaning."""
    return rng.choice(_BLIND)(rng, data, others)


def _flip(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\0")
    changed[rng.randrange(len(changed))] = rng.choice((0, 1, 9, 10, 13, 32, 34, 44, 127, 128, 255))
    return bytes(changed)


def _truncate(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _extend(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    more = rng.choice((b"\0", b"\n", b" ", b"\xff", rng.randbytes(rng.randrange(1, 64))))
    return data + more * rng.choice((1, 2, 64))


def _cut(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 8, 100)) :]


def _repeat(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 2, 8, 100))]
    return data[:start] + piece * rng.choice((2, 3, 16)) + data[start + len(piece) :]


def _splice(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:start] + rng.choice(STRANGE) + data[start:]


def _integer(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Overwrite 1, 2, 4 or 8 bytes with an integer at which something may overflow."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(INTEGERS) % (1 << 8 * size)
    start = rng.choice((0, 4, 8, rng.randrange(len(data) + 1)))
    return (
        data[:start] + number.to_bytes(size, rng.choice(("little", "big"))) + data[start + size :]
    )


def _swap(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _blow_up(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Repeat a piece until the file is large."""
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 3, 30))] or b"1"
    return data[:start] + piece * (rng.randrange(1, LARGE) // len(piece)) + data[start:]


_BLIND = (_flip, _set, _truncate, _extend, _cut, _repeat, _splice, _insert, _integer, _swap) * 6
_BLIND += (_blow_up,)


# --- gzip -----------------------------------------------------------------------------------------


def maybe_gzipped(inner: Mutation, share: float = 0.15) -> Mutation:
    """Return a mutation that sometimes packs the file: well, twice, damaged, with more behind."""

    def mutate(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        if data.startswith(b"\x1f\x8b"):
            data = _unpacked(data)
        data = inner(rng, data, others)
        if rng.random() >= share:
            return data
        packed = gzip.compress(data, rng.choice((0, 1, 9)), mtime=0)
        kind = rng.randrange(7)
        if kind == 0:
            return gzip.compress(packed, mtime=0)
        if kind == 1:
            return bytes_of(rng, packed, others)
        if kind == 2:
            return packed[: rng.randrange(len(packed))]
        if kind == 3:
            return packed + rng.choice((b"\0" * 9, b"garbage", packed, b"\x1f\x8b"))
        if kind == 4:  # another checksum or length at the end
            return packed[:-8] + rng.randbytes(8)
        return packed

    return mutate


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data


# --- Text -----------------------------------------------------------------------------------------


def plain_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change lines of text."""
    if rng.random() < 0.5:
        return bytes_of(rng, data, others)
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        lines.insert(at, rng.choice((b"", b"\r", b" ", lines[rng.randrange(len(lines))])))
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at] += rng.choice(STRANGE)
    elif kind == 3:
        lines[at] = rng.choice(STRANGE) * rng.choice((1, 3, 1000)) + lines[at]
    else:
        return rng.choice((b"\r", b"\r\n", b"\n\r", b"\x0c\n")).join(lines)
    return b"\n".join(lines)


def csv_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change fields, names, separators and quotes of a table of text."""
    if rng.random() < 0.3:
        return plain_text(rng, data, others)
    lines = [line.split(b",") for line in data.split(b"\n")]
    row = lines[rng.randrange(len(lines))]
    at = rng.randrange(len(row))
    kind = rng.randrange(10)
    if kind <= 3:
        row[at] = rng.choice(NUMBER_TEXTS).encode()
    elif kind == 4:
        row[at] = rng.choice((b'"%s"', b'"%s', b'%s"', b' "%s"', b'"%s" ', b'"a""%s"')) % row[at]
    elif kind == 5:
        row.insert(at, rng.choice((b"", b"x", row[at])))
    elif kind == 6:
        del row[at]
    elif kind == 7:
        lines[0][rng.randrange(len(lines[0]))] = rng.choice(
            (b"", b" ", b"y", b"a", b" a", b"A", b"0", b"1.5", b'"a\nb"', "é".encode(), b"a" * 5000)
        )
    elif kind == 8:
        for line in lines:
            line.insert(min(at, len(line)), rng.choice((b"1", b"z", b"")))
    else:
        separator = rng.choice((b";", b"\t", b", ", b",,", b"|", b" "))
        return b"\n".join(separator.join(line) for line in lines)
    return b"\n".join(b",".join(line) for line in lines)


# --- JSON -----------------------------------------------------------------------------------------


class _Raw(str):
    """JSON text that is written as it is."""


MOST_VALUES = 20_000
"""Number of values in a mutated JSON text."""

VALUES = (
    *(None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1.0, 2**31, 2**63, 2**64, -(2**63), 10**30),
    *("", "a", "0", "1", "float32", "float64", "FastFeedForward", "\ud800", "x" * 5000, "\0"),
    *([], {}, [0], [[]], [1, 2, 3], {"a": 1}, [None], ["a", "b"], {"": {}}),
)
RAWS = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "1.", "01", "+1", "0x1", "'a'"),
    *("[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 3000 + "1" + "}" * 3000, "9" * 5000, '"\\u0'),
    *('"\\ud83d"', '"\\x"', "tru", "// a\n1", "1,", '{"a":1,"a":2}', "nul", '"a\tb"', "[1,]"),
)


def json_text(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Drop, double, rename and retag values of a JSON text."""
    if rng.random() < 0.25:
        return bytes_of(rng, data, others)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return bytes_of(rng, data, others)
    for _ in range(rng.choice((1, 1, 1, 2))):
        document = _changed(rng, document)
    return _dump(document).encode("utf-8", "surrogatepass")


def _changed(rng: Random, document: Any) -> Any:
    """Return a JSON value with one change somewhere."""
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places or rng.random() < 0.02:
        return _other_value(rng, document)
    container, key = rng.choice(places[-30:] if rng.random() < 0.2 else places)
    kind = rng.randrange(8)
    if kind <= 3:
        container[key] = _other_value(rng, container[key])
    elif kind == 4:
        del container[key]
    elif kind == 5 and isinstance(container, dict):
        new = rng.choice((str(key).upper(), str(key) + " ", "", "__metadata__", "x", str(key)[:-1]))
        container[new] = container.pop(key)
    elif kind == 6 and isinstance(container, dict):
        # A key twice: a text that no dict holds.
        value = _dump(rng.choice((container[key], rng.choice(VALUES))))
        container[key] = _Raw(f"{_dump(container[key])}, {json.dumps(key)}: {value}")
    else:
        other, place = rng.choice(places)
        try:
            container[key] = other[place]
        except (KeyError, IndexError):
            return document
    return document


def _collect(value: Any, places: list[tuple[Any, Any]], depth: int = 0) -> None:
    """List the containers and keys of all values, not too deep and not too many."""
    if depth > 20 or len(places) > 3000:
        return
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            _collect(value[key], places, depth + 1)


def _other_value(rng: Random, value: Any) -> Any:
    if isinstance(value, int) and rng.random() < 0.4:
        return rng.choice(
            (value + 1, value - 1, -value, value * 2, float(value % 2**53), str(value))
        )
    if isinstance(value, str) and rng.random() < 0.3:
        return rng.choice((value.upper(), value + " ", value[:-1], [value], value * 2))
    if isinstance(value, list) and rng.random() < 0.5:
        return rng.choice((value * 2, value[1:], value[::-1], [value], value * 1000))
    if rng.random() < 0.3:
        return _Raw(rng.choice(RAWS))
    return rng.choice((*VALUES, *INTEGERS))


def _dump(value: Any) -> str:
    """Return JSON text of at most some thousands of values; `_Raw` values are as they are."""
    return "".join(_pieces(value, [MOST_VALUES]))


def _pieces(value: Any, left: list[int], depth: int = 0) -> Iterator[str]:
    """Yield the pieces of a JSON text. A value may be within itself, and then never end."""
    left[0] -= 1
    if isinstance(value, _Raw):
        yield str(value)
    elif left[0] < 0 or depth > 200:
        yield "0"
    elif isinstance(value, dict):
        for i, (name, item) in enumerate(value.items()):
            yield f"{', ' if i else '{'}{json.dumps(str(name))}: "
            yield from _pieces(item, left, depth + 1)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if left[0] < 0:
                break
            yield ", " if i else "["
            yield from _pieces(item, left, depth + 1)
        yield "]" if value else "[]"
    else:
        yield json.dumps(value)


def json_lines(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change a line of JSON lines, or the lines."""
    if rng.random() < 0.3:
        return plain_text(rng, data, others)
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = json_text(rng, lines[at], lines)
    return b"\n".join(lines)


# --- Arrays in files ------------------------------------------------------------------------------


def idx(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the header of an IDX file."""
    if rng.random() < 0.4 or len(data) < 8:
        return bytes_of(rng, data, others)
    changed = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        changed[2] = rng.choice((0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E, 0x0A, 0, 255))
    elif kind == 1:
        changed[3] = rng.choice((0, 1, 2, 3, 4, 32, 33, 64, 65, 255))
    else:
        at = 4 + 4 * rng.randrange(max(1, min(data[3], (len(data) - 4) // 4)))
        struct.pack_into(">I", changed, at, rng.choice(INTEGERS) % 2**32)
        if kind == 3:  # zeros elsewhere: any product is 0
            struct.pack_into(">I", changed, 4, 0)
    return bytes(changed)


DESCRIPTIONS = (
    *("<f4", "<f8", ">f4", "<f2", "<f16", "<i4", ">i8", "|u1", "|b1", "<c8", "|O", "O", "|V8"),
    *("<U3", "<U0", "<U1000000000", "|S4", "<M8[s]", "<m8", "float32", "f4,f4", "", "5<f4", "x"),
    [("a", "<f4")],
    [("a", "<f4", (2, 2)), ("b", "|O")],
    [],
    None,
    4,
)
SHAPES: tuple[Any, ...] = (
    *((), (0,), (1,), (-1,), (-2, -3), (3,), (6, 4), (4, 6), (24,), (2, 3, 4), (0, 10**18)),
    *((2**62, 2**62), (2**63,), (10**30,), (1,) * 33, (1,) * 65, (6.0, 4), (True, 24), "x", None),
    *([6, 4], ((6,), 4), (6, None), (2**31, 0, 2**33)),
)


def npy(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the header of a .npy file: a Python literal of dtype, order and shape."""
    if rng.random() < 0.35 or len(data) < 12:
        return bytes_of(rng, data, others)
    size = int.from_bytes(data[8:10], "little")
    try:
        header = ast.literal_eval(data[10 : 10 + size].decode("latin1"))
        assert isinstance(header, dict)
    except (ValueError, SyntaxError, AssertionError, MemoryError, RecursionError):
        return bytes_of(rng, data, others)
    kind = rng.randrange(9)
    if kind <= 1:
        header["descr"] = rng.choice(DESCRIPTIONS)
    elif kind <= 3:
        header["shape"] = rng.choice(SHAPES)
    elif kind == 4:
        header["fortran_order"] = rng.choice((True, False, 1, 0, None, "x"))
    elif kind == 5 and header:
        header.pop(rng.choice(sorted(header)))
    elif kind == 6:
        header["more"] = 1
    text = repr(header)
    if kind == 7:
        text = rng.choice(("", "{", "{}", "1", "[" * 5000, "{'descr': 9" + "9" * 5000, text + "#"))
        text = rng.choice((text, "(" * 300 + ")" * 300, "__import__('os')", "'a' 'b'", "-" * 9000))
    if kind == 8:
        text = text.replace("}", " " * rng.choice((1, 20_000, 70_000)) + "}")
    version = rng.choice(((1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (0, 0)))
    encoded = text.encode("latin1", "replace") + b"\n"
    length = struct.pack("<H" if version[0] == 1 else "<I", len(encoded) % 2**16)
    return b"\x93NUMPY" + bytes(version) + length + encoded + data[10 + size :]


def npz(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change members, names and packing of an archive of arrays."""
    if rng.random() < 0.4:
        return bytes_of(rng, data, others)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()[:8]}
    except Exception:  # noqa: BLE001  # a damaged archive raises anything
        return bytes_of(rng, data, others)
    if not members:
        return bytes_of(rng, data, others)
    name = rng.choice(sorted(members))
    kind = rng.randrange(6)
    if kind <= 2:
        members[name] = npy(rng, members[name], list(members.values()))
    elif kind == 3:
        names = ("x", "x.npy", "y.npy", "../x.npy", "/x.npy", ".npy", "a\n.npy", "x.npy/", "X.npy")
        members[rng.choice(names)] = members.pop(name)
    elif kind == 4:
        del members[name]
    else:
        members[rng.choice(("z.npy", "readme.txt", "x.pkl"))] = rng.choice((b"", members[name]))
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", packing) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content, packing)
    return target.getvalue()


def safetensors(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the JSON of a header, its length, or the JSON texts in its metadata."""
    if rng.random() < 0.25 or len(data) < 8:
        return bytes_of(rng, data, others)
    size = int.from_bytes(data[:8], "little")
    text, numbers = data[8 : 8 + size], data[8 + size :]
    length = None
    kind = rng.randrange(7)
    if kind <= 2:
        text = json_text(rng, text, ())
    elif kind <= 4:
        text = _note_changed(rng, text)
    elif kind == 5:
        length = rng.choice((*INTEGERS, len(text) + 1, len(text) - 1, len(text) + len(numbers)))
    else:
        text = rng.choice((text + b" " * 9, b" " + text, text + b"\0", b"", text + b"{}", b"\n{}"))
    if rng.random() < 0.1:
        numbers = bytes_of(rng, numbers, others)
    return (len(text) if length is None else length % 2**64).to_bytes(8, "little") + text + numbers


def _note_changed(rng: Random, text: bytes) -> bytes:
    """Change the JSON text of a value in the metadata."""
    try:
        header = json.loads(text)
        metadata = header["__metadata__"]
        name = rng.choice(sorted(metadata))
        changed = json_text(rng, metadata[name].encode(), ())
        metadata[name] = changed.decode("utf-8", "replace")
        return json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return bytes_of(rng, text, ())
