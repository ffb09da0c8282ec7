"""As much of torch as reads and writes a ckpt.pt, for tests without it: arrays in place of tensors.

Its files are stored ZIP archives of one pickle, as torch's are of several parts.
"""

import pickle
import sys
import types
import zipfile

import numpy as np


class Tensor:
    """An array that is had only as torch gives it."""

    def __init__(self, array: np.ndarray):
        self._array = array

    def detach(self):
        return self

    def numpy(self):
        return self._array


def from_numpy(array):
    assert type(array) is np.ndarray and array.flags.writeable
    return Tensor(array)


def save(content, file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))


def load(path, *, weights_only, map_location):
    assert weights_only is True and map_location == "cpu"
    with zipfile.ZipFile(path) as archive:
        return pickle.loads(archive.read("archive/data.pkl"))


def install(monkeypatch) -> types.ModuleType:
    """Makes this what `import torch` finds; returns it."""
    module = types.ModuleType("torch")
    vars(module).update(
        __version__="2.13.0+fake", Tensor=Tensor, from_numpy=from_numpy, save=save, load=load
    )
    monkeypatch.setitem(sys.modules, "torch", module)
    return module
