"""A vocabulary in files: the vocab.json and merges.txt of a folder, or GPT-2's own."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gptjax.config.knob import MOST_IDS
from gptjax.data import hub
from gptjax.data.bpe import BpeTokenizer
from gptjax.system.errors import UserError, did_you_mean

VOCABULARY, MERGES = "vocab.json", "merges.txt"

# GPT-2's files as OpenAI released them and the hub keeps them.
GPT2_REPOSITORY = "openai-community/gpt2"
GPT2_SHA256 = {
    VOCABULARY: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}

# GPT-2's are 1 MB and half of one.
_LARGEST_FILE = 16 * 2**20  # bytes

_KNOB = "data.tokenizer"


def read_folder(folder: str) -> BpeTokenizer:
    """The tokenizer of a folder that holds a vocab.json and a merges.txt, as GPT-2's are written.

    Raises:
      UserError: if a file is missing or is not what it should be.
    """
    if not os.path.isdir(folder):
        rule = "is neither char, bpe:N, gpt2 nor a folder"
        raise UserError(_KNOB, folder, rule, did_you_mean(folder, ["char", "gpt2", "bpe:N"]))
    raw = {name: _read(Path(folder) / name) for name in (VOCABULARY, MERGES)}
    return _of_files(folder, raw)


def gpt2() -> BpeTokenizer:
    """GPT-2's tokenizer: from GPTJAX_DATA_DIR's folder gpt2, the hub's cache here or the hub.

    Raises:
      UserError: if it cannot be had, or is not GPT-2's.
    """
    data = os.environ.get("GPTJAX_DATA_DIR", "")
    folder = Path(data) / "gpt2"
    if not (data and os.path.lexists(folder)):
        fix = f"Put {VOCABULARY} and {MERGES} into $GPTJAX_DATA_DIR/gpt2, or name their folder."
        names = list(GPT2_SHA256)
        folder = hub.folder_of(GPT2_REPOSITORY, names, flag=_KNOB, value="gpt2", otherwise=fix)
    paths = {name: folder / name for name in GPT2_SHA256}
    raw = {name: _read(path) for name, path in paths.items()}
    for name, content in raw.items():
        if (found := hashlib.sha256(content).hexdigest()) != GPT2_SHA256[name]:
            rule = f"is not GPT-2's: sha256 {found}, want {GPT2_SHA256[name]}"
            raise UserError(_KNOB, paths[name], rule)
    return _of_files("gpt2", raw)


def _read(path: Path) -> bytes:
    try:
        # A pipe would be waited for.
        if path.exists() and (not path.is_file() or path.stat().st_size > _LARGEST_FILE):
            raise UserError(_KNOB, path, "is not a file of at most 16 MiB")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(_KNOB, path, f"cannot be read: {reason}") from error


def _of_files(where: str, raw: dict[str, bytes]) -> BpeTokenizer:
    tokens = _tokens(f"{where}: {VOCABULARY}", raw[VOCABULARY])
    try:
        lines = raw[MERGES].decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(_KNOB, f"{where}: {MERGES}", "is not UTF-8") from error
    merges = lines[1:] if lines[0].startswith("#version") else lines
    if merges and not merges[-1]:
        merges.pop()
    try:
        return BpeTokenizer.of("\n".join(tokens), "\n".join(merges))
    except ValueError as error:
        fix = f"{VOCABULARY} and {MERGES} must belong together, and be whole."
        raise UserError(_KNOB, where, str(error), fix) from error


def _tokens(where: str, raw: bytes) -> list[str]:
    """The tokens of a vocab.json in the order of their ids."""
    try:
        ids: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(_KNOB, where, "is not JSON, or is cut short") from error
    if not isinstance(ids, dict) or not all(type(each) is int for each in ids.values()):
        raise UserError(_KNOB, where, "must be a JSON object: the id of each token")
    if len(ids) > MOST_IDS or sorted(ids.values()) != list(range(len(ids))):
        rule = f"must have the ids from 0 on, each once, {MOST_IDS:,} at most"
        raise UserError(_KNOB, where, rule)
    if any("\n" in token for token in ids):
        raise UserError(_KNOB, where, "has a token with a newline, which stands for no byte")
    return sorted(ids, key=ids.__getitem__)
