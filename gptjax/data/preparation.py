"""Documents turned into a folder of token shards; whenever it is cut short, it can go on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.data import datasets, documents, encoders, segments, texts
from gptjax.data import tokenizer as tokenizers
from gptjax.data.bpe import BpeTokenizer
from gptjax.data.documents import Block, Place
from gptjax.data.encoders import Encoder, SymbolsOf
from gptjax.data.manifest import MANIFEST, Manifest
from gptjax.data.segments import Segment
from gptjax.data.shard_writer import ShardWriter
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer, TextTokenizer, make_tokenizer
from gptjax.system import files
from gptjax.system.errors import RunError, UserError

# What a folder that is not yet whole says of itself.
STATE = ".prepare.json"

# So many seconds of work at most are lost to whoever is killed.
_COMMIT_SECONDS = 1.0

# Bytes that a BPE is learnt of.
_MOST_LEARNT = 2**26

# What stands between two documents of characters, as data.source=tfds:NAME has it.
_BLANK_LINE = "\n\n"


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be prepared, and how.

    Attributes:
      dataset: text:GLOB, jsonl:GLOB or the name of a TFDS dataset.
      tokenizer, field: as data.tokenizer; what holds the text in a line of JSON.
      val_fraction: share of the bytes, at the end, that is for validation.
    """

    dataset: str
    tokenizer: str
    field: str
    val_fraction: float
    shard_tokens: int


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far it is: bytes or examples of all there are, and tokens written."""

    n_done: int
    n_all: int
    n_tokens: int


class Preparation:
    """What is known of the work before its first token: made, or taken up again."""

    def __init__(self, order: Order, folder: Path, n_processes: int):
        """Reads what was written before, if it was of the same order.

        Raises:
          UserError: if the documents cannot be had, or the folder is another order's.
        """
        self._order, self._folder, self._n_processes = order, folder, n_processes
        self.kind, _, self._pattern = order.dataset.partition(":")
        self._examples: dict[str, Sequence[bytes]] = {}
        if self.kind in documents.KINDS:
            paths = segments.found_files(self.kind, self._pattern)
            self._made_of: list[Any] = segments.stamps(paths)
        else:
            self.kind = "tfds"
            self._examples = datasets.tfds_examples(order.dataset)
            self._made_of = [[name, len(found)] for name, found in self._examples.items()]
        self._state = self._read_state()

    @property
    def unit(self) -> str:
        """What progress is counted in."""
        return "examples" if self.kind == "tfds" else "bytes"

    @property
    def n_done(self) -> int:
        """Bytes or examples that were done by earlier processes."""
        if not self._state:
            return 0
        return _n_done(
            [Segment(**s) for s in self._state["segments"]], Place(**self._state["place"])
        )

    def run(self, tell: Callable[[str], None]) -> Iterator[Progress]:
        """Does the work; `tell` hears what is done before the first token.

        Raises:
          UserError: for what is no document, or leaves no val.
          RunError: if a file cannot be written, or a process was killed.
        """
        self._state = self._state or self._begun(tell)
        state = self._state
        found = [Segment(**segment) for segment in state["segments"]]
        tokenizer = tokenizers.from_json(state["tokenizer"])
        assert not isinstance(tokenizer, IdTokenizer)
        separator = np.array(state["separator"], tokenizer.dtype)
        encoder = Encoder(tokenizer, self._order.field, separator)
        writer = ShardWriter(
            self._folder,
            dtype=state["dtype"],
            shard_tokens=self._order.shard_tokens,
            written=state["written"],
        )
        n_all = sum(segment.end - segment.start for segment in found)
        said, place = time.monotonic(), Place(**state["place"])
        results = encoders.in_order(encoder, self._blocks(found, place), self._n_processes)
        for block, made in results:
            writer.add(block.split, made.ids, made.starts)
            state["n_empty"] += made.n_empty
            place = block.behind
            if time.monotonic() - said >= _COMMIT_SECONDS:
                self._commit(writer, place)
                said = time.monotonic()
            yield Progress(_n_done(found, place), n_all, writer.n_tokens)
        writer.close()
        self._finish(writer, tokenizer)

    @property
    def n_empty(self) -> int:
        """Documents without text, which were left out."""
        return self._state["n_empty"]

    def _blocks(self, found: Sequence[Segment], place: Place) -> Iterator[Block]:
        return documents.blocks(self.kind, found, place, self._examples)

    def _begun(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """The state before the first token."""
        order, paths = self._order, [each[0] for each in self._made_of]
        if self.kind == "tfds":
            sizes = [each[1] for each in self._made_of]
        else:
            sizes = segments.sizes(paths, tell)
        found = segments.segments(self.kind, paths, sizes, order.val_fraction)
        is_one_text = self.kind == "text" and sum(map(bool, sizes)) == 1
        tokenizer = self._tokenizer(found, tell, is_one_text=is_one_text)
        end = tokenizer.end_of_text if isinstance(tokenizer, BpeTokenizer) else None
        separator = [end]
        if end is None:
            separator = [] if is_one_text else tokenizer.encode(_BLANK_LINE).tolist()
        return {
            "order": dataclasses.asdict(order),
            "made_of": self._made_of,
            "segments": [dataclasses.asdict(segment) for segment in found],
            "tokenizer": tokenizer.to_json(),
            "separator": separator,
            "dtype": "uint16" if tokenizer.vocab_size <= 2**16 else "uint32",
            "written": None,
            "place": dataclasses.asdict(Place()),
            "n_empty": sizes.count(0) if self.kind == "text" else 0,
        }

    def _tokenizer(
        self, found: Sequence[Segment], tell: Callable[[str], None], *, is_one_text: bool
    ) -> TextTokenizer:
        """The tokenizer that the order asks for."""
        spec, field = self._order.tokenizer, self._order.field
        if spec != "char":
            tell(f"making the tokenizer {spec}")
            return make_tokenizer(spec, self._some(found))
        tell("looking for the characters there are")
        symbols = texts.Symbols()
        for _, some in encoders.in_order(
            SymbolsOf(field), self._blocks(found, Place()), self._n_processes
        ):
            symbols.add(some)
        if not is_one_text:
            symbols.add(_BLANK_LINE)
        return CharTokenizer(symbols.found)

    def _some(self, found: Sequence[Segment]) -> Iterator[str]:
        """Documents of train, evenly spread over it, that a BPE learns of."""
        trained = [segment for segment in found if segment.split == "train"]
        step = _n_done(trained, Place(len(trained))) / _MOST_LEARNT
        n_read, n_all = 0, 0
        for block in self._blocks(trained, Place()):
            n_bytes = len(block.raw) if isinstance(block.raw, bytes) else sum(map(len, block.raw))
            n_all += n_bytes
            if n_read * step <= n_all:
                n_read += n_bytes
                yield from documents.documents(block, self._order.field)

    def _commit(self, writer: ShardWriter, place: Place) -> None:
        self._state["written"] = writer.commit()
        self._state["place"] = dataclasses.asdict(place)
        files.write_atomically(self._folder / STATE, json.dumps(self._state))

    def _finish(self, writer: ShardWriter, tokenizer: TextTokenizer) -> None:
        """Writes the manifest, with which the folder is whole."""
        for split, shards in writer.shards.items():
            if not shards:
                raise RunError(f"{self._order.dataset}: no document of {split} has any text")
        name = self._folder.absolute().name[:100]
        name = "".join(each if each.isprintable() else "?" for each in name)
        manifest = Manifest(name, self._state["dtype"], tokenizer, writer.shards)
        files.write_atomically(self._folder / MANIFEST, files.pretty_json(manifest.to_json()))
        (self._folder / STATE).unlink(missing_ok=True)

    def _read_state(self) -> dict[str, Any]:
        """What was committed last, {} if nothing was."""
        path = self._folder / STATE
        if not path.exists():
            return {}
        try:
            state = json.loads(path.read_bytes())
            order, made_of = state["order"], state["made_of"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            fix = "Delete the folder, or choose another --out_dir."
            raise UserError("--out_dir", path, "cannot be read", fix) from error
        wanted = dataclasses.asdict(self._order)
        for name, value in wanted.items():
            if order.get(name) != value:
                words = f"was begun with --{name} {order.get(name)}"
                fix = f"Give --{name} {order.get(name)}, or choose another --out_dir."
                raise UserError("--out_dir", self._folder, words, fix)
        if made_of != self._made_of:
            old = {str(each[0]): each for each in made_of}
            changed = [each[0] for each in self._made_of if old.get(each[0]) != each]
            what = next(itertools.chain(changed, old))
            words = f"was begun with other documents: {what} has changed since"
            raise UserError("--out_dir", self._folder, words, "Choose another --out_dir.")
        return state


def _n_done(found: Sequence[Segment], place: Place) -> int:
    """Bytes or examples of segments before a place."""
    n_done = sum(segment.end - segment.start for segment in found[: place.segment])
    if place.segment < len(found):
        n_done += max(0, place.start - found[place.segment].start)
    return n_done
