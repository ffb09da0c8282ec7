"""Files of torch.save: read without running them, written whole; with torch, and with as little."""

import os
import sys
import zipfile

import fake_torch
import numpy as np
import pytest

from gptjax.run import torch_file
from gptjax.system.errors import UserError

CONTENT = {
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "number": np.array(3.5, np.float32),
    "list": [1, 2.5, "three", None, True, (4, 5)],
    7: {"nested": np.zeros(5, np.float32)},
}


@pytest.fixture
def torch(monkeypatch):
    return fake_torch.install(monkeypatch)


def test_what_was_written_is_read(torch, tmp_path):
    torch_file.write(tmp_path / "a.pt", CONTENT, flag="--to")
    found = torch_file.read(tmp_path / "a.pt", flag="--from")
    assert found.keys() == CONTENT.keys() and found["list"] == [1, 2.5, "three", None, True, [4, 5]]
    for wanted, array in (
        (CONTENT["array"], found["array"]),
        (CONTENT["number"], found["number"]),
        (CONTENT[7]["nested"], found[7]["nested"]),
    ):
        assert array.dtype == wanted.dtype and array.shape == wanted.shape
        assert array.tobytes() == wanted.tobytes()
    assert os.listdir(tmp_path) == ["a.pt"]


def test_an_array_that_stands_twice_is_one_tensor(torch, tmp_path):
    shared = np.ones(3, np.float32)
    torch_file.write(tmp_path / "a.pt", {"wte": shared, "head": shared}, flag="--to")
    found = torch_file.read(tmp_path / "a.pt", flag="--from")
    assert found["wte"] is found["head"]


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path, torch):
    torch_file.write(tmp_path / "a.pt", CONTENT, flag="--to")
    monkeypatch.setitem(sys.modules, "torch", None)
    words = r'needs torch \(PyTorch\)\. Install it: pip install -e "\.\[torch\]"'
    with pytest.raises(UserError, match="--from: .*" + words):
        torch_file.read(tmp_path / "a.pt", flag="--from")
    with pytest.raises(UserError, match="--to: .*" + words):
        torch_file.write(tmp_path / "b.pt", CONTENT, flag="--to")
    with pytest.raises(UserError, match="--to: .*" + words):
        torch_file.check_torch(tmp_path / "b.pt", flag="--to")
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cu117", "2.0.0a0+git1"])
def test_a_torch_that_could_be_made_to_run_code_is_refused(torch, tmp_path, version):
    torch_file.write(tmp_path / "a.pt", CONTENT, flag="--to")
    torch.__version__ = version
    with pytest.raises(UserError, match=f"needs torch 2.6 or newer, .* found {version[:5]}"):
        torch_file.read(tmp_path / "a.pt", flag="--from")


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path):
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)


def packed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**6)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "is no ckpt.pt that torch.save wrote, or is cut short"),
        (flipped, "is damaged: the checksum of archive/data.pkl differs"),
        (packed, "its parts are packed"),
        (fifo, "is not a file"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "or is cut short"),
        (lambda path: path.write_bytes(b"\x80\x04."), "or is cut short"),
    ],
)
def test_damage_is_told_before_torch_is_asked(monkeypatch, tmp_path, torch, damage, words):
    path = tmp_path / "a.pt"
    torch_file.write(path, CONTENT, flag="--to")
    damage(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=words):
        torch_file.read(path, flag="--from")


def test_what_is_no_plain_data_is_refused(torch, tmp_path):
    path, endless, shared = tmp_path / "a.pt", {}, "leaf"
    endless["itself"] = endless
    for _ in range(60):  # Written out, 2**60 strings.
        shared = [shared, shared]
    for content, words in (
        ({"a": {1, 2}}, "it holds a set"),
        ({"a": {(1, 2): 3}}, "a key is no plain data"),
        (endless, "it contains itself"),
    ):
        with open(path, "wb") as file:
            torch.save(content, file)
        with pytest.raises(UserError, match=f"is not tensors and plain data alone: {words}"):
            torch_file.read(path, flag="--from")
    with open(path, "wb") as file:
        torch.save(shared, file)
    assert len(torch_file.read(path, flag="--from")) == 2


class Hostile:
    """Unpickled as any pickle is, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_p23_with_torch_itself_a_hostile_file_runs_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": Hostile(str(tmp_path / "made"))}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"alone: it names posix\.mkdir\.") as caught:
        torch_file.read(tmp_path / "a.pt", flag="--from")
    assert "weights_only" not in str(caught.value)
    assert os.listdir(tmp_path) == ["a.pt"]


def test_with_torch_itself_what_was_written_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch_file.write(tmp_path / "a.pt", CONTENT, flag="--to")
    theirs = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(theirs["array"], torch.arange(6.0).reshape(2, 3))
    found = torch_file.read(tmp_path / "a.pt", flag="--from")
    assert found["array"].tobytes() == CONTENT["array"].tobytes()
    torch.save({"half": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "b.pt")
    with pytest.raises(UserError, match="BFloat16"):
        torch_file.read(tmp_path / "b.pt", flag="--from")
