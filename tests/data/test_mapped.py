"""Ids of several arrays, read as one."""

import mmap

import numpy as np
import pytest

from gptjax.data import batches, mapped
from gptjax.data.mapped import MappedIds

IDS = np.arange(1000, 1023, dtype=np.uint16)


@pytest.fixture(params=[(23,), (5, 7, 11), (1, 1, 21), (20, 1, 1, 1)])
def ids(request):
    return MappedIds(np.split(IDS, np.cumsum(request.param)[:-1]))


def test_they_are_one_array(ids):
    assert len(ids) == 23 and ids.nbytes == 46 and ids.dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(ids), IDS)
    for start in range(24):
        for stop in range(start, 25):
            np.testing.assert_array_equal(ids[start:stop], IDS[start:stop])
    assert batches.sha256(ids) == batches.sha256(IDS)


def test_windows_go_on_from_one_array_to_the_next(ids):
    offsets = np.array([0, 3, 18, 4, 11, 4])
    found = ids.windows(offsets, 5)
    np.testing.assert_array_equal(found, IDS[offsets[:, None] + np.arange(5)[None]])


def test_memory_of_mapped_files_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "_WINDOWS_UNTIL_FREED", 3)
    n_bytes = 64 * mmap.PAGESIZE
    (tmp_path / "ids").write_bytes(bytes(n_bytes))
    ids = MappedIds([np.memmap(tmp_path / "ids", "<u2", mode="r")])

    def resident():
        rows = open("/proc/self/smaps").read().split(str(tmp_path / "ids"))[1:]
        return sum(int(row.split("Rss:")[1].split()[0]) for row in rows)

    ids.windows(np.array([0, 2**16]), 2**16)
    assert resident() * 1024 == n_bytes
    ids.windows(np.array([2**13]), 9)
    assert resident() == 0
