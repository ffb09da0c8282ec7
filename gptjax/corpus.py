"""Where the text comes from, under its true name, and how it is split into train and val."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from gptjax.errors import UserError, did_you_mean
from gptjax.synthetic import write_play
from gptjax.tokenizer import CharTokenizer

SOURCES = ("tiny_shakespeare", "text:PATH", "tfds:NAME", "synthetic")

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
# TFDS's checksums.tsv for tiny_shakespeare; the size is in bytes.
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_SIZE = 1_115_394

# A download that cannot start is given up after this long; TFDS itself would retry for minutes.
_PROBE_SECONDS = 4.0

# Text and token array are held in memory.
_LARGEST_TEXT = 2**30


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text, under the name of what it really is.

    `log_probs` holds ln P(character | all before it) where that is known (the synthetic corpus),
    else it is None; `fallback_reason` says why this is not the text that was asked for, or is "".
    """

    name: str
    text: str
    sha256: str
    log_probs: np.ndarray | None = None
    fallback_reason: str = ""


class Offline(Exception):
    """The network, or the host, cannot be reached."""


def load(source: str, *, fallback: str) -> Corpus:
    """The text of `source`.

    Raises:
      UserError: if the source is unknown or its text unusable, or if Tiny Shakespeare cannot be
        had and `fallback` is "".
    """
    kind, _, argument = source.partition(":")
    if source == "tiny_shakespeare":
        try:
            return _corpus(source, _tiny_shakespeare())
        except Offline as error:
            if not fallback:
                raise UserError(
                    "data.source",
                    source,
                    f"cannot be downloaded ({error}) and data.fallback is empty",
                    "Put it at $GPTJAX_DATA_DIR/tiny_shakespeare/input.txt.",
                ) from error
            reason = f"{source} cannot be downloaded ({error})"
            return relabel(_synthetic(), reason)
    if source == "synthetic":
        return _synthetic()
    if kind == "text" and argument:
        return _corpus(f"text:{Path(argument).name}", _file_bytes(argument), argument)
    if kind == "tfds" and argument:
        return _corpus(source, _tfds_text(argument))
    known = ["tiny_shakespeare", "synthetic", f"text:{source}", f"tfds:{source}"]
    hint = did_you_mean(source, known[:2]) or f"For TFDS's: {known[3]}; for a file: {known[2]}."
    raise UserError(
        "data.source", source, f"unknown dataset; must be one of {', '.join(SOURCES)}", hint
    )


def relabel(corpus: Corpus, fallback_reason: str) -> Corpus:
    """The corpus, marked as standing in for another."""
    return dataclasses.replace(corpus, fallback_reason=fallback_reason)


def check_unchanged(corpus: Corpus, sha256: str) -> None:
    """Raises UserError when the text is not the one a checkpoint was trained on."""
    if corpus.sha256 != sha256:
        raise UserError(
            f"corpus {corpus.name}",
            f"sha256 {corpus.sha256[:16]}…",
            f"differs from the checkpoint's ({sha256[:16]}…)",
            "Fork the run to go on with other data: --config.init_from=… and another out_dir.",
        )


@dataclasses.dataclass(frozen=True)
class Splits:
    """Token ids of both splits; `floor_nats` is val's exact mean -ln P, or None if unknown."""

    train: np.ndarray
    val: np.ndarray
    floor_nats: float | None


def split(corpus: Corpus, tokenizer: CharTokenizer, data: ml_collections.ConfigDict) -> Splits:
    """The first 1 − val_fraction of the characters for training, the rest for validation.

    Raises:
      UserError: if the text has a character that the tokenizer lacks.
    """
    ids = tokenizer.encode(corpus.text, what=f"corpus {corpus.name}")
    n_train = int(len(ids) * (1 - data.val_fraction))
    floor = None
    if corpus.log_probs is not None:
        floor = float(-corpus.log_probs[n_train:].mean())
    return Splits(ids[:n_train], ids[n_train:], floor)


def check_lengths(splits: Splits, block_size: int) -> None:
    """Raises UserError when a split cannot fill one window of block_size inputs and a target."""
    for name, ids in (("train", splits.train), ("val", splits.val)):
        if len(ids) < block_size + 1:
            raise UserError(
                "model.block_size",
                block_size,
                f"needs {block_size + 1} tokens; {name} has {len(ids)}",
                "Lower block_size or add text.",
            )


def _corpus(name: str, raw: bytes, path: str = "") -> Corpus:
    where = path or name
    if not raw:
        raise UserError("data", where, "is empty (0 bytes)")
    try:
        # Decoded as it stands: a byte order mark or "\r\n" are characters like any other.
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise UserError(
            "data", where, f"is not UTF-8 at byte {error.start} (0x{byte:02x})", "Convert it first."
        ) from error
    return Corpus(name, text, hashlib.sha256(raw).hexdigest())


def _synthetic() -> Corpus:
    play = write_play()
    sha256 = hashlib.sha256(play.text.encode()).hexdigest()
    return Corpus("synthetic", play.text, sha256, log_probs=play.log_probs)


def _file_bytes(path: str) -> bytes:
    try:
        if Path(path).stat().st_size > _LARGEST_TEXT:
            raise UserError("data.source", path, "is larger than 1 GiB, and texts are held whole")
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("data.source", path, f"cannot be read: {reason}") from error


def _tiny_shakespeare() -> bytes:
    """Tiny Shakespeare's bytes, checked: from GPTJAX_DATA_DIR, TFDS's folder or the network."""
    folder = os.environ.get("GPTJAX_DATA_DIR", "")
    path = Path(folder) / "tiny_shakespeare" / "input.txt"
    if folder and path.exists():
        raw = _file_bytes(str(path))
        found = hashlib.sha256(raw).hexdigest()
        if found != SHAKESPEARE_SHA256:
            raise UserError(
                "data", path, f"sha256 mismatch: got {found}, want {SHAKESPEARE_SHA256}"
            )
        return raw
    return shakespeare_builder_text(SHAKESPEARE_URL, SHAKESPEARE_SHA256, SHAKESPEARE_SIZE)


def shakespeare_builder_text(url: str, sha256: str, size: int) -> bytes:
    """The file at `url`, prepared by TFDS in its data folder, downloading it when it is not there.

    TFDS's own tiny_shakespeare needs TensorFlow and splits 90/5/5; this builder needs neither.

    Raises:
      Offline: if it has to be downloaded and the host does not answer.
      UserError: if what was downloaded is not the file the checksum names (nothing is kept), or
        the copy prepared earlier is damaged.
    """
    import tensorflow_datasets as tfds

    # Defined where it is used, so that importing gptjax does not import TFDS; not registered,
    # since TFDS refuses a second class of the same name.
    with tfds.core.registered.skip_registration():

        class GptjaxTinyShakespeare(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            url_infos = {
                url: tfds.core.download.checksums.UrlInfo(
                    size=size, checksum=sha256, filename="input.txt"
                )
            }

            def _info(self) -> Any:
                features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
                return tfds.core.DatasetInfo(builder=self, features=features, homepage=url)

            def _split_generators(self, dl_manager: Any) -> Any:
                return {"full": self._generate_examples(dl_manager.download(url))}

            def _generate_examples(self, path: Any) -> Any:
                yield "text", {"text": path.read_bytes()}

    builder = GptjaxTinyShakespeare(file_format="array_record")
    if not builder.info.splits:
        _prepare(tfds, builder, url)
    try:
        raw = bytes(builder.as_data_source(split="full")[0]["text"])
    except (RuntimeError, TypeError, KeyError):
        raw = b""  # So array_record tells of a file that is missing, damaged or cut short.
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise UserError(
            "data", builder.data_path, "the copy prepared here is damaged", "Delete this folder."
        )
    return raw


def _tfds_text(name: str) -> bytes:
    """The text feature of every example of a TFDS dataset, in order, a blank line between them."""
    if not re.fullmatch(r"[a-z0-9_]+(/[a-zA-Z0-9_.]+)?(:[0-9.]+)?", name):
        raise UserError("data.source", f"tfds:{name}", "a TFDS name is [a-z0-9_]+")
    import tensorflow_datasets as tfds

    try:
        builder = _tfds_builder(tfds, name)
        features = builder.info.features
        texts = [key for key, kind in features.items() if isinstance(kind, tfds.features.Text)]
        if not texts:
            raise UserError("data.source", f"tfds:{name}", "has no text feature")
        if not builder.info.splits:
            _prepare(tfds, builder, "https://storage.googleapis.com")
        if builder.info.dataset_size > _LARGEST_TEXT:
            raise UserError("data.source", f"tfds:{name}", "is larger than 1 GiB of text")
        key = "text" if "text" in texts else texts[0]
        parts: list[bytes] = []
        for split_name in sorted(builder.info.splits):
            for example in builder.as_data_source(split=split_name):
                parts.append(bytes(example[key]))
    except ImportError as error:
        # TFDS raises it anew, without the module's name, on its way up.
        first = error
        while isinstance(first.__cause__, ImportError):
            first = first.__cause__
        raise UserError(
            "data.source",
            f"tfds:{name}",
            f"its TFDS builder needs {first.name or _one_line(first)}",
            'Install it: pip install -e ".[tfds]"',
        ) from error
    except Offline as error:
        raise UserError(
            "data.source", f"tfds:{name}", f"is not prepared here and cannot be had: {error}"
        ) from error
    return b"\n\n".join(parts)


def _tfds_builder(tfds: Any, name: str) -> Any:
    """The builder of a TFDS dataset; raises UserError if there is none of this name."""
    try:
        return tfds.builder(name, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.core.registered.list_imported_builders()
        raise UserError(
            "data.source", f"tfds:{name}", "unknown dataset", did_you_mean(name, known)
        ) from error
    except (ValueError, AssertionError) as error:
        # An unknown config or version, in TFDS's words.
        raise UserError("data.source", f"tfds:{name}", _one_line(error)) from error


def _prepare(tfds: Any, builder: Any, url: str) -> None:
    """Lets TFDS download a dataset and prepare it; what a failed download left is deleted.

    Raises:
      Offline: if the host of `url` does not answer, or a download breaks off.
      UserError: if a download has no checksum, or is not the file that its checksum names.
    """
    _probe(url)
    # TFDS's defaults are the other way: checksums unchecked, a Google bucket asked first.
    config = tfds.download.DownloadConfig(force_checksums_validation=True, try_download_gcs=False)
    download = tfds.core.download
    try:
        builder.download_and_prepare(download_config=config)
    except download.download_manager.NonMatchingChecksumError as error:
        _remove_partial_downloads(builder)
        # The message's second and third line give the size and sha256 expected, and those got.
        found = " ".join(str(error).splitlines()[1:3])
        raise UserError("data", url, f"sha256 mismatch: {found}; nothing was kept") from error
    except ValueError as error:
        raise UserError("data", builder.name, f"cannot be prepared: {_one_line(error)}") from error
    except (OSError, download.util.DownloadError) as error:
        _remove_partial_downloads(builder)
        raise Offline(f"the download broke off: {_one_line(error)}") from error


def _remove_partial_downloads(builder: Any) -> None:
    """Deletes what a failed download of this builder left in TFDS's folder."""
    root = Path(builder.data_path).parent.parent
    for partial in (root / "downloads" / builder.name).glob("*.tmp.*"):
        shutil.rmtree(partial, ignore_errors=True)


def _probe(url: str) -> None:
    """Raises Offline unless a server answers, proxies of the environment included."""
    outcome: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
            outcome.append("")
        except urllib.error.HTTPError as error:
            # It answered: what is wrong, the download itself will say. But for the server's own
            # errors TFDS would retry for minutes.
            outcome.append(f"HTTP {error.code}" if error.code in (500, 502, 503, 504) else "")
        except Exception as error:
            outcome.append(_one_line(error))

    # A name server that does not answer blocks for longer than any timeout given to urlopen.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if not outcome or outcome[0]:
        raise Offline(outcome[0] if outcome else f"no answer within {_PROBE_SECONDS:.0f} s")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
