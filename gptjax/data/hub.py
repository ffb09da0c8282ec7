"""Files of the Hugging Face hub, fetched by huggingface_hub into its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.data.datasets import Offline, probe
from gptjax.system.errors import UserError


def folder_of(
    repository: str, patterns: Sequence[str], *, flag: str, value: str, otherwise: str
) -> Path:
    """A folder with the files of a repository whose names match; fetched if they are not here.

    `flag` and `value` are what errors name, `otherwise` what they advise. Where the hub does not
    answer within seconds, what is in the cache has to do.

    Raises:
      UserError: if there is no such repository, or it cannot be had.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        advice = f'Install it: pip install -e ".[hub]". {otherwise}'
        raise UserError(flag, value, "the hub is reached by huggingface_hub", advice) from error
    offline = _offline_reason(constants)
    try:
        folder = huggingface_hub.snapshot_download(
            repository, allow_patterns=list(patterns), local_files_only=bool(offline)
        )
    except errors.LocalEntryNotFoundError as error:
        rule = f"the Hugging Face hub cannot be reached ({offline or _one_line(error)})"
        advice = f"Nothing of it was fetched before. {otherwise}"
        raise UserError(flag, value, rule, advice) from error
    except (errors.HFValidationError, errors.RepositoryNotFoundError) as error:
        rule = "is neither a folder here nor a repository of the Hugging Face hub"
        raise UserError(flag, value, rule, "GPT-2's are openai-community/gpt2 and -xl.") from error
    except Exception as error:  # Those of its HTTP library, which has changed before; a full disk.
        rule = f"cannot be fetched from the Hugging Face hub: {_one_line(error)}"
        raise UserError(flag, value, rule) from error
    return Path(folder)


def _offline_reason(constants: Any) -> str:
    """Why the hub is not to be asked; "" if it answers."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        probe(constants.ENDPOINT)
    except Offline as error:
        return str(error)
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
