"""The devices that a plan is for."""

import pytest
import tiny

from gptjax.device import place as place_module
from gptjax.device.place import check_mesh, place
from gptjax.system.errors import UserError


def test_a_card_that_is_not_here():
    config = tiny.config(model__dtype="bfloat16", mesh__data=3)
    found = place(config, card="H100", n_devices=0)
    assert (found.n_devices, found.platform, found.is_here) == (3, "gpu", False)
    assert found.flops_per_s == pytest.approx(3 * 989.4e12)
    assert found.memory_bytes == 60 * 2**30  # mesh.gpu_memory of 80
    assert place(config, card="H100", n_devices=8).n_devices == 8


def test_a_card_whose_name_does_not_tell_its_memory():
    found = place(tiny.config(), card="A100", n_devices=1)
    assert found.memory_bytes == 0 and "does not tell" in found.memory_source
    assert place(tiny.config(), card="A100 80GB", n_devices=1).memory_bytes == 60 * 2**30


def test_an_unknown_card_is_refused():
    with pytest.raises(UserError, match="--device: H10; .* known cards are .*did you mean 'H100'"):
        place(tiny.config(), card="H10", n_devices=1)


def test_what_is_here(monkeypatch):
    monkeypatch.setattr(place_module.cache, "folder", lambda: None)
    found = place(tiny.config(mesh__data=2), card="", n_devices=0)
    assert found.is_here and found.n_devices == 2 and found.memory_bytes > 2**30
    more = place(tiny.config(mesh__data=2), card="", n_devices=512)
    assert not more.is_here and more.n_devices == 512
    assert more.peak_source.startswith("512 times what one here could do")


def test_a_batch_that_does_not_split_is_told():
    assert check_mesh(tiny.config(mesh__data=3), 3) == 3
    with pytest.raises(UserError, match="does not split over 4 devices"):
        check_mesh(tiny.config(mesh__data=4), 4)
