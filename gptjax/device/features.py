"""What a processor can compute in one instruction, and what that means for training."""

from __future__ import annotations

from pathlib import Path

# Names that people know, with the flags of /proc/cpuinfo that must all be there; x86's, then Arm's.
# Source: Linux, arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst.
_X86: dict[str, tuple[str, ...]] = {
    "AVX2": ("avx2",),
    "FMA": ("fma",),
    "AVX-512": ("avx512f", "avx512bw", "avx512vl"),
    "AVX-512 bfloat16": ("avx512_bf16",),
    "AMX bfloat16": ("amx_tile", "amx_bf16"),
}
_ARM: dict[str, tuple[str, ...]] = {
    "NEON": ("asimd",),
    "SVE": ("sve",),
    "SVE2": ("sve2",),
    "bfloat16": ("bf16",),
}


def features(root: Path) -> list[str] | None:
    """The names of what every core can do; None where /proc/cpuinfo below `root` does not tell."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    known, flags = _X86, None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            known = _ARM if name.strip() == "Features" else _X86
            flags = set(value.split()) if flags is None else flags & set(value.split())
    if flags is None:
        return None
    return [name for name, needed in known.items() if flags >= set(needed)]


def meaning(found: list[str] | None) -> str:
    """What the `features` found mean for gptjax, in a line."""
    if found is None:
        return "nothing is known of its instructions"
    if "AMX bfloat16" in found:
        return "has units for bfloat16 products; above, dtype says whether they pay"
    if any("bfloat16" in name for name in found):
        return "has instructions for bfloat16 products; above, dtype says whether they pay"
    if "AVX-512" in found:
        return "float32 is what it is fast at; bfloat16 is emulated"
    if "AVX2" in found and "FMA" in found:
        return "float32 products 8 at a time; bfloat16 is emulated and slower"
    if "NEON" in found:
        return "float32 is what it is fast at; no bfloat16"
    return "an old processor: neither AVX2 with FMA nor AVX-512, so products are slow"
