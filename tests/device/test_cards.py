"""NVIDIA's figures by name."""

import pytest

from gptjax.device import cards


@pytest.mark.parametrize(
    ("kind", "dtype", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100-SXM4-80GB", "float32", 156),
        ("NVIDIA A10", "bfloat16", 125),
        ("NVIDIA H200", "bfloat16", 989.4),
        ("NVIDIA H200 NVL", "bfloat16", 836),
        ("NVIDIA GH200 480GB", "bfloat16", 990),
        ("NVIDIA GB200", "bfloat16", 2500),
        ("NVIDIA B200", "bfloat16", 2250),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA GeForce RTX 4070 Ti", "float32", 40.1),
        ("Tesla V100-SXM2-16GB", "float32", 15.7),
        ("Tesla T4", "float32", 8.1),
    ],
)
def test_table_names_the_right_card(kind, dtype, tflops):
    assert cards.table_peak(kind, dtype) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    "kind",
    [
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA L40",
        "NVIDIA A10G",
        "NVIDIA T400",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4080 SUPER",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    ],
)
def test_a_card_of_a_like_name_is_not_taken_for_another(kind):
    assert cards.table_peak(kind, "float32") is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_unknown_card_has_no_table_peak(dtype):
    assert cards.table_peak("NVIDIA GeForce RTX 9999", dtype) is None
    assert cards.table_peak("cpu", dtype) is None
    assert cards.table_peak("Tesla V100-SXM2-16GB", "bfloat16") is None


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [("NVIDIA A100-SXM4-80GB", 19.5), ("NVIDIA H100 80GB HBM3", 66.9), ("Tesla T4", 8.1)],
)
def test_full_precision_has_a_peak_of_its_own(kind, tflops):
    assert cards.table_peak(kind, "float32", precision="highest") == pytest.approx(tflops * 1e12)
    usual = cards.table_peak(kind, "bfloat16")
    assert cards.table_peak(kind, "bfloat16", precision="highest") == usual


@pytest.mark.parametrize(
    ("kind", "gb_per_s"),
    [
        ("NVIDIA A100-SXM4-40GB", 1555),
        ("NVIDIA A100-PCIE-40GB", 1555),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("NVIDIA A100 80GB PCIe", 1935),
        ("NVIDIA A10", 600),
        ("NVIDIA L40S", 864),
        ("NVIDIA H100 80GB HBM3", 3350),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H200 NVL", 4800),
        ("NVIDIA GeForce RTX 4090", 1008),
        ("Tesla V100-SXM2-16GB", 900),
    ],
)
def test_table_has_the_memory_of_the_right_card(kind, gb_per_s):
    assert cards.table_bandwidth(kind) == pytest.approx(gb_per_s * 1e9)


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA L40", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-PG509-200"]
)
def test_an_unknown_memory_is_in_no_table(kind):
    assert cards.table_bandwidth(kind) is None


@pytest.mark.parametrize(
    ("kind", "gibibytes"),
    [("NVIDIA H100 80GB HBM3", 80), ("NVIDIA A100-SXM4-40GB", 40), ("NVIDIA B200", 180)],
)
def test_memory_by_name(kind, gibibytes):
    assert cards.table_memory(kind) == gibibytes * 2**30


def test_a_name_that_several_sizes_share_tells_no_memory():
    assert cards.table_memory("A100") is None and cards.table_memory("cpu") is None


def test_every_name_that_is_offered_is_known():
    assert all(cards.table_peak(name, "float32") for name in cards.known_cards())
