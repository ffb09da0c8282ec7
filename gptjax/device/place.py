"""The devices that a plan is for: those that are here, or others."""

from __future__ import annotations

import dataclasses

import jax
import ml_collections

from gptjax.device import memory
from gptjax.device.cards import known_cards, table_memory, table_peak
from gptjax.device.devices import available_devices, choose_devices
from gptjax.device.peak import PeakProbe
from gptjax.system import cache
from gptjax.system.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is to be.

    Attributes:
      name: of each device.
      platform: "cpu" or "gpu".
      n_devices: how many.
      is_here: whether updates can be made on them now.
      memory_bytes: what a run may have of each one's memory; 0: unknown.
      memory_source: where that is from.
      flops_per_s: what all of them could do.
      peak_source: where that is from.
    """

    name: str
    platform: str
    n_devices: int
    is_here: bool
    memory_bytes: int
    memory_source: str
    flops_per_s: float
    peak_source: str


def place(config: ml_collections.ConfigDict, *, card: str, n_devices: int) -> Place:
    """The devices that a config is planned for: `n_devices` of a card, or of those here.

    Args:
      card: a name of NVIDIA's; "": a device as it is here.
      n_devices: 0: as many as the config's mesh says, else all that are here, or one of the card.

    Raises:
      UserError: if nothing is known of the card.
    """
    data, fsdp = config.mesh.data, config.mesh.fsdp
    if card:
        return _elsewhere(config, card, n_devices or max(1, data) * fsdp)
    found, _ = available_devices(config.mesh.cpu_devices, config.mesh.gpu_memory)
    n_devices = n_devices or data * fsdp or max(len(found), fsdp)
    is_here = n_devices <= len(found)
    is_shared = is_here and found[0].platform == "cpu"
    peak = PeakProbe(
        found[:n_devices],
        config.model.dtype,
        precision=config.model.matmul_precision,
        folder=cache.folder(),
    ).best
    flops_per_s, source = peak.flops_per_s, peak.source
    if not is_here:
        flops_per_s *= n_devices if found[0].platform == "cpu" else n_devices / len(found)
        source = f"{n_devices} times what one here could do: {source}"
    return Place(
        name=found[0].device_kind,
        platform="cpu" if found[0].platform == "cpu" else "gpu",
        n_devices=n_devices,
        is_here=is_here,
        memory_bytes=memory.memory_bytes(found[0]) // (n_devices if is_shared else 1),
        memory_source=_memory_words(found[0], n_devices if is_shared else 1),
        flops_per_s=flops_per_s,
        peak_source=source,
    )


def check_mesh(config: ml_collections.ConfigDict, n_devices: int) -> int:
    """How many of so many devices a config uses.

    Raises:
      UserError: if its mesh is larger, or its batch does not split evenly over them.
    """
    nowhere: list[jax.Device] = [None] * n_devices  # type: ignore[list-item]
    return len(choose_devices(nowhere, config))


def _memory_words(device: jax.Device, n_devices: int) -> str:
    if device.platform != "cpu":
        return "as JAX tells it"
    return "this host's memory" + (f", shared by {n_devices}" if n_devices > 1 else "")


def _elsewhere(config: ml_collections.ConfigDict, card: str, n_devices: int) -> Place:
    dtype, precision = config.model.dtype, config.model.matmul_precision
    peak = table_peak(card, dtype, precision=precision)
    if peak is None:
        names = known_cards()
        rule = f"no peak of it for {dtype} is known; known cards are {', '.join(names)}"
        raise UserError("--device", card, rule, did_you_mean(card, names))
    share = config.mesh.gpu_memory or 1.0
    total = table_memory(card) or 0
    return Place(
        name=card,
        platform="gpu",
        n_devices=n_devices,
        is_here=False,
        memory_bytes=int(share * total),
        memory_source=f"{100 * share:.0f} % (mesh.gpu_memory) of NVIDIA's {total / 2**30:.0f} GB"
        if total
        else "the name does not tell it",
        flops_per_s=peak * n_devices,
        peak_source=f"NVIDIA's figure for {dtype}",
    )
