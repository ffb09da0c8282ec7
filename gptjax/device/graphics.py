"""Graphics cards that are there, whether JAX can use them, and what is missing where it cannot."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

# Vendors by their PCI number. Source: the PCI ID repository, pci.ids.
_VENDORS = {0x10DE: "NVIDIA", 0x8086: "Intel", 0x1002: "AMD"}

# A PCI class is base, subclass, interface: base 3 is a display controller, 3D controllers included.
_DISPLAY = 3

# The least driver of each CUDA on Linux. Source: JAX's installation page.
_LEAST_DRIVER = {12: 525, 13: 580}

# In WSL2 no card is on the PCI bus; the driver is Windows' own, its library is here.
_WSL_DRIVER = "usr/lib/wsl/lib/libcuda.so.1"


@dataclasses.dataclass(frozen=True)
class Graphics:
    """The cards of a machine.

    Attributes:
      cards: vendor and PCI number of each, as "NVIDIA 10de:2684".
      driver: the version of NVIDIA's kernel driver, (580, 65) for 580.65.06; None if not loaded.
      is_wsl: whether an NVIDIA card is reached through Windows' driver, whose version is not told.
    """

    cards: tuple[str, ...]
    driver: tuple[int, int] | None
    is_wsl: bool

    @property
    def has_nvidia(self) -> bool:
        """Whether CUDA has something to run on."""
        return self.is_wsl or any(card.startswith("NVIDIA") for card in self.cards)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a device that was promised is broken, and lines for people on every card."""

    is_broken: bool
    lines: tuple[str, ...]


def graphics(root: Path) -> Graphics:
    """The cards that the tree below `root` shows, on the PCI bus or else as displays."""
    folders = sorted((root / "sys/bus/pci/devices").glob("*"))
    found = [folder for folder in folders if _number(folder / "class") >> 16 == _DISPLAY]
    if not found:
        displays = sorted((root / "sys/class/drm").glob("card*/device"))
        # card0-HDMI-A-1 and its like are the sockets of card0.
        found = [path for path in displays if re.fullmatch(r"card\d+", path.parent.name)]
    cards = []
    for folder in found:
        vendor, device = _number(folder / "vendor"), _number(folder / "device")
        name = _VENDORS.get(vendor, "other")
        cards.append(f"{name} {vendor:04x}:{device:04x}")
    return Graphics(
        tuple(dict.fromkeys(cards)),
        _driver(root),
        (root / "dev/dxg").exists() and (root / _WSL_DRIVER).exists(),
    )


def verdict(
    found: Graphics, plugins: Mapping[str, str], platform: str, environment: Mapping[str, str]
) -> Verdict:
    """What to say of the cards.

    Args:
      plugins: versions of JAX's CUDA plugins that are installed, by name.
      platform: the one that JAX computes on, "cpu" or "gpu"; "" if it has no device at all.
      environment: JAX_PLATFORMS and CUDA_VISIBLE_DEVICES are looked at.
    """
    lines = [_words_of_others(card) for card in found.cards if not card.startswith("NVIDIA")]
    if not found.has_nvidia:
        return Verdict(False, tuple(lines or ["none found"]))
    nvidia = [card for card in found.cards if card.startswith("NVIDIA")]
    name = ", ".join(nvidia) or "NVIDIA, through Windows"
    if found.driver:
        name += f", driver {found.driver[0]}.{found.driver[1]:02d}"
    if platform == "gpu":
        return Verdict(False, (f"{name}: JAX uses it", *lines))
    hidden = _hidden_by(environment)
    if hidden:
        return Verdict(False, (f"{name}: left out, since {hidden}", *lines))
    reason = _missing(found, plugins)
    # Whoever installed the plugin was promised a GPU; without it the CPU is what was promised.
    is_broken = bool(plugins)
    return Verdict(is_broken, (f"{name}: not usable: {reason}", *lines))


def _missing(found: Graphics, plugins: Mapping[str, str]) -> str:
    """Why JAX does not see an NVIDIA card, and how to mend it."""
    major = found.driver[0] if found.driver else 0
    if not found.driver and not found.is_wsl:
        return (
            "NVIDIA's driver is not loaded (nouveau does not do). Install driver "
            f"{_LEAST_DRIVER[13]} or newer, then restart"
        )
    if found.driver and major < _LEAST_DRIVER[12]:
        return f"the driver is too old for any CUDA that JAX has; {_LEAST_DRIVER[13]} is needed"
    if not plugins:
        if found.driver and major < _LEAST_DRIVER[13]:
            return (
                f'no CUDA wheel. This driver does for CUDA 12: pip install "jax[cuda12]"; '
                f"CUDA 13 needs {_LEAST_DRIVER[13]}"
            )
        return 'no CUDA wheel. Install it: pip install -e ".[cuda]"'
    cuda = max(version for version in _LEAST_DRIVER if _is_for(version, plugins))
    if found.driver and major < _LEAST_DRIVER[cuda]:
        return (
            f"the driver is too old for the CUDA {cuda} wheel: {_LEAST_DRIVER[cuda]} is needed. "
            'Update it, or: pip install "jax[cuda12]"'
        )
    return "driver and CUDA wheel fit, but JAX finds no device; see what nvidia-smi says"


def _is_for(cuda: int, plugins: Mapping[str, str]) -> bool:
    return any(name.startswith(f"jax-cuda{cuda}-") for name in plugins)


def _hidden_by(environment: Mapping[str, str]) -> str:
    """The variable that leaves NVIDIA's cards out on purpose; "" for none."""
    asked = environment.get("JAX_PLATFORMS", "")
    if asked and not {"cuda", "gpu"} & set(asked.split(",")):
        return f"JAX_PLATFORMS={asked}"
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible}"
    return ""


def _words_of_others(card: str) -> str:
    if card.startswith(("Intel", "AMD")):
        return f"{card}: not used, JAX as gptjax installs it computes on NVIDIA's cards alone"
    return f"{card}: a display, nothing to compute on"


def _driver(root: Path) -> tuple[int, int] | None:
    """NVIDIA's driver by /proc/driver/nvidia/version: "… Kernel Module  580.65.06  Sun …"."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module\b.*?\s(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _number(path: Path) -> int:
    """A hexadecimal number of sysfs, "0x10de"; 0 where there is none."""
    try:
        return int(path.read_text(), 16)
    except (OSError, ValueError):
        return 0
