"""Safetensors files, looked at, read and written; what is none is refused."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gptjax.run import safetensors_file
from gptjax.system.errors import RunError, UserError

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones(5, np.float16),
}


def write(folder, arrays=ARRAYS, name="model.safetensors"):
    save_file(arrays, folder / name)
    return folder / name


def listed(folder):
    return safetensors_file.tensors(folder, flag="init_from")


def test_names_kinds_and_numbers_are_had(tmp_path):
    write(tmp_path)
    found = listed(tmp_path)
    assert {name: each[1:] for name, each in found.items()} == {
        "a.weight": ("F32", (2, 3)),
        "b": ("F16", (5,)),
    }
    np.testing.assert_array_equal(
        safetensors_file.array("a.weight", found["a.weight"]), ARRAYS["a.weight"]
    )


def test_what_is_written_is_read_by_the_library(tmp_path):
    turned = {"t": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    safetensors_file.write(tmp_path / "x.safetensors", turned)
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["t"], turned["t"])
    assert b'"format":"pt"' in (tmp_path / "x.safetensors").read_bytes()[:100]
    with pytest.raises(RunError, match="could not be written"):
        safetensors_file.write(tmp_path / "none" / "x.safetensors", turned)


def sharded(folder, **places):
    for name, array in ARRAYS.items():
        write(folder, {name: array}, f"model-{name}.safetensors")
    files = {name: f"model-{name}.safetensors" for name in ARRAYS} | places
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))


def test_shards_are_read_by_their_index(tmp_path):
    sharded(tmp_path)
    found = listed(tmp_path)
    assert found.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(safetensors_file.array("b", found["b"]), ARRAYS["b"])


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"c": "model-b.safetensors"}, r"model-b.safetensors; has no c, as model.*index.json says"),
        ({"b": "model-c.safetensors"}, r"model-c.safetensors; no such file"),
        ({"b": "../model-b.safetensors"}, "has no weight_map of names to files beside it"),
        ({"b": 7}, "has no weight_map of names to files beside it"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, places, words):
    sharded(tmp_path, **places)
    with pytest.raises(UserError, match=words):
        listed(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    sharded(tmp_path)
    write(tmp_path, ARRAYS, "model-a.weight.safetensors")
    with pytest.raises(UserError, match="has b, which another file has as well"):
        listed(tmp_path)


@pytest.mark.parametrize("content", [b"[1]", b"{}", b'{"weight_map": []}'])
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(UserError, match="has no weight_map"):
        listed(tmp_path)


def cut(content):
    return content[:-3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut, "is no whole safetensors file"),
        (lambda content: content[:40], "is no whole safetensors file"),
        (lambda content: b"", "is no whole safetensors file"),
        (lambda content: content + b"more", "is no whole safetensors file"),
        (lambda content: b"PK\x03\x04" + content, "is no whole safetensors file"),
        (lambda content: struct.pack("<Q", 2**62) + content[8:], "is no whole safetensors file"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", "is Git LFS's note"),
    ],
)
def test_a_file_that_is_cut_or_another_is_refused(tmp_path, change, words):
    path = write(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=f"init_from: .*model.safetensors; {words}"):
        listed(tmp_path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="model.safetensors; no such file"):
        listed(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="only a pytorch_model.bin, a pickle, .* transformers"):
        listed(tmp_path)
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is not a file"):
        listed(tmp_path)


def test_numbers_that_are_gone_meanwhile_are_told(tmp_path):
    path = write(tmp_path)
    found = listed(tmp_path)
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(RunError, match="b of .* can no longer be read"):
        safetensors_file.array("b", found["b"])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="init_from: .*config.json; is not JSON"):
        safetensors_file.json_file(path, flag="init_from")
    with pytest.raises(UserError, match="no such file"):
        safetensors_file.json_file(tmp_path / "other.json", flag="init_from")


def test_without_the_library_one_line_says_so(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(safetensors_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs safetensors. Install it: pip install safetensors"):
        listed(tmp_path)
