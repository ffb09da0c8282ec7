"""Texts that TensorFlow Datasets downloads and prepares, without TensorFlow."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.system.errors import UserError, did_you_mean

# Text and token array are held in memory, bytes.
LARGEST_TEXT = 2**30

# A download that cannot start is given up after this long; TFDS itself would retry for minutes.
# The rest of the five seconds until training starts is TFDS's import and the synthetic corpus.
_PROBE_SECONDS = 3.0


class Offline(Exception):
    """The network, or the host, cannot be reached."""


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


def prepared_shakespeare() -> Path:
    """The folder in which TFDS keeps the file once it is prepared."""
    data = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"  # TFDS's own default
    return Path(data).expanduser() / "gptjax_tiny_shakespeare" / "1.0.0"


class _Texts(Sequence[bytes]):
    """The text of each example of a split."""

    def __init__(self, examples: Any, key: str):
        self._examples, self._key = examples, key

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        return bytes(self._examples[number][self._key])


def tfds_text(name: str) -> bytes:
    """The text feature of every example of a TFDS dataset, in order, a blank line between them."""
    found = tfds_examples(name, most_bytes=LARGEST_TEXT)
    return b"\n\n".join(example for examples in found.values() for example in examples)


def tfds_examples(name: str, *, most_bytes: int = 0) -> dict[str, Sequence[bytes]]:
    """The texts of a TFDS dataset, split by split: read as they are asked for.

    Raises:
      UserError: if it cannot be had, has no text, or more than `most_bytes` bytes, where given.
    """
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
        if most_bytes and builder.info.dataset_size > most_bytes:
            words = f"is larger than {most_bytes / 2**30:.0f} GiB of text"
            fix = f"Prepare it: python scripts/prepare.py --dataset {name}."
            raise UserError("data.source", f"tfds:{name}", words, fix)
        key = "text" if "text" in texts else texts[0]
        # Training data comes first, so that the text's end, our val, is held-out data if any is.
        order = ["train", "validation", "test"]
        rest = sorted(set(builder.info.splits) - set(order))
        return {
            f"tfds:{name}, {split_name}": _Texts(builder.as_data_source(split=split_name), key)
            for split_name in [name for name in order if name in builder.info.splits] + rest
        }
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
    probe(url)
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


def probe(url: str) -> None:
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
            # What urllib wraps says more than "<urlopen error …>".
            reason = getattr(error, "reason", error)
            outcome.append(_one_line(reason if isinstance(reason, Exception) else error))

    # A name server that does not answer blocks for longer than any timeout given to urlopen.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if not outcome or outcome[0]:
        raise Offline(outcome[0] if outcome else f"no answer within {_PROBE_SECONDS:.0f} s")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
