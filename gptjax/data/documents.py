"""The documents of files, in blocks small enough that any process encodes one at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence

from gptjax.data import compressed, texts
from gptjax.data.segments import Segment
from gptjax.data.texts import Reader
from gptjax.system.errors import UserError

KINDS = ("text", "jsonl")

# Examples of a dataset that are encoded together, if they are so short.
_EXAMPLES = 4096


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a block begins: in which segment, at which byte or example, on which line (from 1)."""

    segment: int = 0
    start: int = 0
    line: int = 1


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of a text, or some lines of JSON, or some examples, as bytes.

    Attributes:
      behind: where the next block begins.
      begins, ends: whether a document begins or ends with a piece of a text.
    """

    kind: str
    path: str
    place: Place
    behind: Place
    split: str
    raw: bytes | tuple[bytes, ...]
    begins: bool = False
    ends: bool = False


def blocks(
    kind: str, found: Sequence[Segment], place: Place, examples: Mapping[str, Sequence[bytes]]
) -> Iterator[Block]:
    """The blocks of segments from a place on: from any block on, the others are the same.

    `examples` are those of a dataset, by its segments' paths.

    Raises:
      UserError: if a file has fewer bytes than it had.
    """
    while place.segment < len(found):
        segment, before = found[place.segment], place
        start = max(place.start, segment.start)
        here = dataclasses.replace(place, start=start)
        if kind == "tfds":
            for block in _example_blocks(examples[segment.path], found, here):
                yield block
                place = block.behind
            continue
        with compressed.opened(segment.path, start) as file:
            part = _Part(file, segment.end - start)
            cut = _text_blocks if kind == "text" else _line_blocks
            for block in cut(part, found, here):
                yield block
                place = block.behind
        if place.segment == before.segment:
            raise UserError("--dataset", segment.path, "has become shorter while it was read")


def _text_blocks(part: Reader, found: Sequence[Segment], here: Place) -> Iterator[Block]:
    segment = found[here.segment]
    for start, raw in texts.byte_pieces(part, here.start - segment.start):
        first, end = segment.start + start, segment.start + start + len(raw)
        yield Block(
            "text",
            segment.path,
            Place(here.segment, first),
            _behind(found, here.segment, end, 1),
            segment.split,
            raw,
            begins=segment.begins and first == segment.start,
            ends=segment.ends and end == segment.end,
        )


def _line_blocks(part: Reader, found: Sequence[Segment], here: Place) -> Iterator[Block]:
    segment, rest, chunk = found[here.segment], b"", part.read(texts.PIECE)
    while chunk or rest:
        end = chunk.rfind(b"\n") + 1
        if chunk and not end:
            rest, chunk = rest + chunk, part.read(texts.PIECE)
            continue
        raw, rest = rest + chunk[:end], chunk[end:]
        chunk = part.read(texts.PIECE)
        line = here.line + raw.count(b"\n")
        behind = _behind(found, here.segment, here.start + len(raw), line)
        yield Block("jsonl", segment.path, here, behind, segment.split, raw)
        here = Place(here.segment, here.start + len(raw), line)


def _example_blocks(
    examples: Sequence[bytes], found: Sequence[Segment], here: Place
) -> Iterator[Block]:
    segment = found[here.segment]
    some: list[bytes] = []
    for number in range(here.start, segment.end):
        some.append(examples[number])
        if sum(map(len, some)) < texts.PIECE and len(some) < _EXAMPLES and number + 1 < segment.end:
            continue
        behind = _behind(found, here.segment, number + 1, 1)
        yield Block("tfds", segment.path, here, behind, segment.split, tuple(some))
        here, some = Place(here.segment, number + 1), []


def _behind(found: Sequence[Segment], number: int, end: int, line: int) -> Place:
    """Where what follows byte or example `end` of a segment begins, on which line."""
    if end < found[number].end:
        return Place(number, end, line)
    following = found[number + 1 : number + 2]
    is_same_file = bool(following) and following[0].path == found[number].path
    return Place(number + 1, 0, line if is_same_file else 1)


def documents(block: Block, field: str) -> Iterator[str]:
    """The texts in a block: a piece of one, or the `field` of each line of JSON.

    Raises:
      UserError: naming the file and the line that is not what it should be.
    """
    if isinstance(block.raw, tuple):
        for number, raw in enumerate(block.raw, block.place.start):
            yield texts.decoded(raw, 0, f"{block.path}, example {number}")
    elif block.kind == "text":
        yield texts.decoded(block.raw, block.place.start, block.path)
    else:
        for number, line in enumerate(block.raw.split(b"\n"), block.place.line):
            if line.strip():
                yield _document(line, f"{block.path}, line {number}", field)


def _document(line: bytes, where: str, field: str) -> str:
    try:
        stored = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError("--dataset", where, "is not JSON") from error
    text = stored.get(field) if isinstance(stored, dict) else None
    if not isinstance(text, str):
        rule = f"must be an object with a text called {field!r}"
        raise UserError("--dataset", where, rule, "Name it: --field.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            "--dataset", where, "has half of a surrogate pair, which is no text"
        ) from error
    return text


class _Part:
    """The next `n_bytes` bytes of a file."""

    def __init__(self, file: Reader, n_bytes: int):
        self._file, self._left = file, n_bytes

    def read(self, size: int) -> bytes:
        """At most `size` of them, fewer only at the end."""
        raw = self._file.read(min(size, self._left))
        self._left -= len(raw)
        return raw
