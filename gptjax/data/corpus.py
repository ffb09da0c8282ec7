"""Where text or tokens come from, under their true name."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.data import shards, texts, token_files
from gptjax.data.datasets import Offline, shakespeare_builder_text, tfds_text
from gptjax.data.synthetic import write_play
from gptjax.data.texts import Text
from gptjax.data.token_files import TokenFiles
from gptjax.system.errors import UserError, did_you_mean

SOURCES = ("tiny_shakespeare", "text:PATH", "tfds:NAME", "tokens:DIR", "synthetic")

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
# TFDS's checksums.tsv for tiny_shakespeare; the size is in bytes.
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_SIZE = 1_115_394


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text, under the name of what it really is.

    `log_probs` holds ln P(character | all before it) where that is known (the synthetic corpus),
    else it is None; `fallback_reason` says why this is not the text that was asked for, or is "".
    """

    name: str
    text: Text
    log_probs: np.ndarray | None = None
    fallback_reason: str = ""

    @property
    def sha256(self) -> str:
        """The text's."""
        return self.text.sha256

    @property
    def size(self) -> str:
        """How much there is, in words."""
        return f"{self.text.n_characters:,} characters"


AnyCorpus = Corpus | TokenFiles


def load(source: str, *, fallback: str) -> AnyCorpus:
    """The text or the tokens of `source`.

    Raises:
      UserError: if the source is unknown or what it has unusable, or if Tiny Shakespeare cannot be
        had and `fallback` is "".
    """
    check_source(source)
    kind, _, argument = source.partition(":")
    if source == "tiny_shakespeare":
        try:
            return Corpus(source, texts.in_memory(source, _tiny_shakespeare()))
        except Offline as error:
            if not fallback:
                raise UserError(
                    "data.source",
                    source,
                    f"cannot be downloaded ({error}), and data.fallback is empty",
                    "Put it at $GPTJAX_DATA_DIR/tiny_shakespeare/input.txt.",
                ) from error
            reason = f"{source} cannot be downloaded ({error})"
            return relabel(_synthetic(), reason)
    if source == "synthetic":
        return _synthetic()
    if kind == "text":
        return Corpus(f"text:{Path(argument).name}", texts.in_file(argument))
    if kind == "tfds":
        return Corpus(source, texts.in_memory(source, tfds_text(argument)))
    return shards.read(argument) if shards.is_there(argument) else token_files.read(argument)


def check_source(source: str) -> None:
    """Raises UserError for a source of no known kind."""
    kind, _, argument = source.partition(":")
    if source in ("tiny_shakespeare", "synthetic"):
        return
    if kind in ("text", "tfds", "tokens") and argument:
        return
    if kind.lower() in ("text", "tfds", "tokens"):
        hint = f"Write {kind.lower()}: and then what it is."
    else:
        hint = did_you_mean(source, ["tiny_shakespeare", "synthetic"])
        hint = hint or f"For TFDS's: tfds:{source}; for a file: text:{source}."
    raise UserError(
        "data.source", source, f"unknown dataset; must be one of {', '.join(SOURCES)}", hint
    )


def may_be_the_same(was: str, source: str) -> bool:
    """Whether two sources may hold the same: files by two paths; their sha256 tells."""
    kinds = {was.partition(":")[0], source.partition(":")[0]}
    return kinds in ({"text"}, {"tokens"})


def load_again(source: str, was: Mapping[str, Any]) -> AnyCorpus:
    """The text that a run began with, fallback or not; `was` is what its checkpoint says of it.

    Raises:
      UserError: if that text cannot be had, or has changed since.
    """
    reason = was["fallback_reason"]
    if reason and source == was["requested"]:
        found = relabel(load(was["name"], fallback=""), reason)
    else:
        found = load(source, fallback="")
    check_unchanged(found, was["sha256"])
    return found


def relabel(corpus: AnyCorpus, fallback_reason: str) -> AnyCorpus:
    """The corpus, marked as standing in for another."""
    return dataclasses.replace(corpus, fallback_reason=fallback_reason)


def check_unchanged(corpus: AnyCorpus, sha256: str) -> None:
    """Raises UserError when the corpus is not the one a checkpoint was trained on."""
    if corpus.sha256 != sha256:
        raise UserError(
            f"corpus {corpus.name}",
            f"sha256 {corpus.sha256[:16]}…",
            f"differs from the checkpoint's ({sha256[:16]}…)",
            "Put that text back, or fork the run to train on this one: --config.init_from=….",
        )


def _synthetic() -> Corpus:
    play = write_play()
    return Corpus("synthetic", texts.in_memory("synthetic", play.text.encode()), play.log_probs)


def _is_missing(path: Path) -> bool:
    """Whether there is no such file; one that may not be looked at is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _tiny_shakespeare() -> bytes:
    """Tiny Shakespeare's bytes, checked: from GPTJAX_DATA_DIR, TFDS's folder or the network."""
    folder = os.environ.get("GPTJAX_DATA_DIR", "")
    path = Path(folder) / "tiny_shakespeare" / "input.txt"
    if folder and not _is_missing(path):
        raw = texts.file_bytes(str(path))
        found = hashlib.sha256(raw).hexdigest()
        if found != SHAKESPEARE_SHA256:
            rule, fix = f"sha256 mismatch: got {found}, want {SHAKESPEARE_SHA256}", ""
            as_it_was = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
            if hashlib.sha256(as_it_was).hexdigest() == SHAKESPEARE_SHA256:
                rule = "its line ends were changed: it is Tiny Shakespeare as Windows writes it"
                fix = "Copy the file as it was."
            raise UserError("data", path, rule, fix)
        return raw
    return shakespeare_builder_text(SHAKESPEARE_URL, SHAKESPEARE_SHA256, SHAKESPEARE_SIZE)
