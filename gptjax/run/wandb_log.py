"""What metrics.jsonl says, to Weights & Biases as well; whatever becomes of that, training goes on.

wandb prints nothing and asks nothing here: what there is to know of it is told as a notice.
"""

from __future__ import annotations

import importlib
import importlib.util
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from gptjax.data.datasets import Offline, probe
from gptjax.run.progress import Notice
from gptjax.system.errors import UserError
from gptjax.system.files import write_atomically

# In the run directory: the name by which wandb knows the run.
_ID_FILE = "wandb_id"

# To begin, a server that answers has this long; at the end, what is still to be sent.
_START_SECONDS = 20.0
_FINISH_SECONDS = 30.0

_OFFLINE = ("offline", "dryrun", "disabled")


def check() -> None:
    """Raises UserError when wandb is not installed."""
    found = importlib.util.find_spec("wandb")
    # A mere folder of that name, as wandb leaves one wherever it is used, has no origin.
    if found is None or found.origin is None:
        raise UserError("log.wandb", True, "needs wandb", 'pip install -e ".[wandb]"')


class WandbLog:
    """A run of wandb, which stands for one run directory however often that is gone on with."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        *,
        is_resumed: bool,
        tell: Callable[[Notice], None],
    ):
        """Goes on with the directory's wandb run, or starts one; tells where it is to be seen.

        Without a network, or without a key, it is written to the disk, to be sent later.
        """
        self._tell = tell
        self._run: Any = None
        try:
            self._run = _started(config, is_resumed=is_resumed, tell=tell)
            # What wandb has already it does not take again, and has no way to forget.
            self._first_step = self._run.step
        except Exception as error:  # Of whatever kind: wandb has many.
            self._give_up(error)

    def add(self, kind: str, values: Mapping[str, Any]) -> None:
        """Sends a record: with a step as kind/name, without one as part of the run's config."""
        if self._run is None:
            return
        try:
            if "step" not in values:
                self._run.config.update({kind: dict(values)}, allow_val_change=True)
            elif values["step"] >= self._first_step:
                told = {
                    f"{kind}/{name}": value
                    for name, value in values.items()
                    if name != "step" and value is not None
                }
                self._run.log(told, step=values["step"])
        except Exception as error:
            self._give_up(error)

    def close(self, *, exit_code: int) -> None:
        """Sends what is left."""
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        words = f"wandb: {_one_line(error)}; nothing more goes there, metrics.jsonl has all"
        self._tell(Notice(words, "warning"))


def _run_id(run_dir: Path, *, is_resumed: bool) -> str:
    """The id of the directory's wandb run: kept where the run goes on, new for any other."""
    path = run_dir / _ID_FILE
    if is_resumed and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    made = uuid.uuid4().hex[:8]
    write_atomically(path, made + "\n")
    return made


def _started(
    config: ml_collections.ConfigDict, *, is_resumed: bool, tell: Callable[[Notice], None]
) -> Any:
    """A wandb run that is under way, online if that is possible and asked for."""
    wandb: Any = importlib.import_module("wandb")  # Its types differ from version to version.
    run_dir = Path(config.out_dir)
    run_id = _run_id(run_dir, is_resumed=is_resumed)

    def start(mode: str) -> Any:
        limits = {"init_timeout": _START_SECONDS, "finish_timeout": _FINISH_SECONDS}
        known = wandb.Settings.model_fields  # Older versions wait for ever at the end.
        return wandb.init(
            project=config.log.wandb_project,
            name=config.log.wandb_run_name or run_dir.absolute().name,
            id=run_id,
            resume="allow",
            dir=str(run_dir),
            config=config.to_dict(),
            allow_val_change=True,
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                **{name: value for name, value in limits.items() if name in known},
            ),
        )

    asked = wandb.setup(settings=wandb.Settings(silent=True)).settings
    if asked.mode in _OFFLINE:
        run, why = start(asked.mode), f"as WANDB_MODE={asked.mode} or wandb's settings have it"
    else:
        run, why = _online_or_not(wandb, start, asked.base_url)
    if asked.mode == "disabled":
        tell(Notice(f"wandb: {why}, nothing goes there"))
    elif why:
        tell(Notice(f"wandb: offline, {why}; later: wandb sync {Path(run.dir).parent}"))
    else:
        tell(Notice(f"wandb: {run.url}"))
    return run


def _online_or_not(wandb: Any, start: Callable[[str], Any], url: str) -> tuple[Any, str]:
    """A run, and why it is offline; "" if it is not."""
    try:
        # wandb itself would try for minutes, and could not be stopped.
        probe(url)
        return start("online"), ""
    except Offline as error:
        reason = f"{url} does not answer ({error})"
    except Exception as error:
        reason = _one_line(error)
        wandb.teardown(exit_code=1)  # Or the id would be in use.
    return start("offline"), reason


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
