"""What made-up processors can compute in an instruction."""

import machines
import pytest

from gptjax.device.features import features, meaning


@pytest.mark.parametrize(
    ("tree", "found", "means"),
    [
        (machines.alder_lake(), ["AVX2", "FMA"], "bfloat16 is emulated and slower"),
        (
            machines.xeon(),
            ["AVX2", "FMA", "AVX-512", "AVX-512 bfloat16", "AMX bfloat16"],
            "has units for bfloat16 products",
        ),
        # What the little cores lack, threads on all cores cannot use.
        (machines.big_little(), ["NEON"], "no bfloat16"),
        ({"proc/cpuinfo": machines.cpuinfo("flags", ["sse sse2"])}, [], "an old processor"),
        ({}, None, "nothing is known"),
    ],
)
def test_features(tmp_path, tree, found, means):
    assert features(machines.write(tmp_path, tree)) == found
    assert means in meaning(found)


@pytest.mark.parametrize(
    ("flags", "means"),
    [
        ("asimd sve bf16", "has instructions for bfloat16"),
        ("asimd sve", "float32 is what it is fast at"),
    ],
)
def test_arm(tmp_path, flags, means):
    tree = {"proc/cpuinfo": machines.cpuinfo("Features", [flags] * 2)}
    found = features(machines.write(tmp_path, tree))
    assert found[:2] == ["NEON", "SVE"] and means in meaning(found)


def test_a_processor_without_fma_is_called_old(tmp_path):
    tree = {"proc/cpuinfo": machines.cpuinfo("flags", ["sse2 avx avx2"])}
    assert "an old processor" in meaning(features(machines.write(tmp_path, tree)))
