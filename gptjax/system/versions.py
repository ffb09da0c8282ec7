"""Which versions of JAX and its companions work together: checked before any is imported."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from importlib import metadata

from gptjax.system.errors import UserError

# As in pyproject.toml: from the first on, below the second.
SUPPORTED = {
    "jax": ("0.10.2", "0.12"),
    "jaxlib": ("0.10.2", "0.12"),
    "flax": ("0.12.8", "0.13"),
    "optax": ("0.2.8", "0.3"),
    "orbax-checkpoint": ("0.12.8", "0.13"),
    "ml-collections": ("1.1", "2"),
}

# Classes of jax.experimental.hijax that are gone since JAX 0.11.1, and from which flax up to 0.12.9
# derives some of its own as it is imported.
_GONE = ("HiPrimitive", "MutableHiType")
_GONE_SINCE = "0.11.1"
_FLAX_THAT_KNOWS = "0.12.10"


def check_platform() -> None:
    """Raises UserError on a system that lacks what locks a run directory: Windows."""
    if importlib.util.find_spec("fcntl") is None:
        raise UserError(
            "platform", sys.platform, "gptjax needs Linux or macOS", "On Windows run it in WSL2."
        )


def check() -> None:
    """Raises UserError naming the first library that is missing or not of a version that fits.

    GPTJAX_ANY_VERSION=1 lets any version in.
    """
    is_strict = os.environ.get("GPTJAX_ANY_VERSION") != "1"
    for name, (first, below) in SUPPORTED.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UserError(
                name, "not installed", f"gptjax needs {name}>={first},<{below}", _INSTALL
            ) from None
        if is_strict and not _numbers(first) <= _numbers(found) < _numbers(below):
            raise UserError(name, found, f"must be ≥ {first} and < {below}", _INSTALL)
    jaxlib = metadata.version("jaxlib")
    for plugin, found in cuda_plugins().items():
        if is_strict and _numbers(found)[:3] != _numbers(jaxlib)[:3]:
            rule = f"does not belong to jaxlib {jaxlib}"
            raise UserError(plugin, found, rule, f"pip install {plugin}=={jaxlib}")


_INSTALL = "pip install -e . brings what fits; GPTJAX_ANY_VERSION=1 tries what is there."


def cuda_plugins() -> dict[str, str]:
    """The versions of JAX's CUDA plugins that are installed, by name."""
    found = {}
    for cuda in (12, 13):
        for part in ("pjrt", "plugin"):
            name = f"jax-cuda{cuda}-{part}"
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return found


def bridge_flax() -> None:
    """From here on a flax that is older than the installed JAX can be imported."""
    sys.meta_path.insert(0, _BeforeFlax())


class _BeforeFlax(importlib.abc.MetaPathFinder):
    """Asked for flax before Python looks for it: then JAX is given what that flax expects.

    Those of its own make Flax variables of JAX's `hijax` kind, which is switched off by default and
    not used here: an empty base class serves.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Finds nothing: flax is where it always is."""
        if fullname != "flax":
            return
        jax, flax = metadata.version("jax"), metadata.version("flax")
        is_old = _numbers(flax) < _numbers(_FLAX_THAT_KNOWS)
        if is_old and _numbers(jax) >= _numbers(_GONE_SINCE):
            from jax.experimental import hijax

            for name in _GONE:
                vars(hijax).setdefault(name, _Unused)


class _Unused:
    """Stands for what is gone: constructed with a name, never called."""

    def __init__(self, name: str):
        self.name = name


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version: (0, 11, 2) of "0.11.2.dev3"."""
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
