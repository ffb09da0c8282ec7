"""Work beside what is measured: there while it is wanted, and gone afterwards."""

import subprocess

from gptjax.speed import process as processes


def test_it_ends_with_what_is_measured(monkeypatch):
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            started.append(self)

    monkeypatch.setattr(processes.subprocess, "Popen", Watched)
    with processes.busy_cores(2):
        assert len(started) == 2 and all(process.poll() is None for process in started)
    assert all(process.poll() is not None for process in started)
    with processes.busy_cores(0):
        assert len(started) == 2
