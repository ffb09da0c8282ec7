"""The run directory's lock, its files and its log, against accidents and against links."""

import json
import math
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.run import directory, runlog
from gptjax.system import files
from gptjax.system.errors import UserError


def test_a_lock_that_is_a_link_is_refused_and_leads_nowhere(tmp_path):
    run_dir, other = tmp_path / "run", tmp_path / "other"
    run_dir.mkdir()
    other.write_text("mine")
    (run_dir / ".lock").symlink_to(other)
    with pytest.raises(UserError, match="cannot be opened"):
        with directory.locked(run_dir):
            pass
    assert other.read_text() == "mine"


def test_a_run_may_not_lie_among_another_s_checkpoints(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    for place in ("checkpoints", "checkpoints/40", "checkpoints/40/run"):
        with pytest.raises(UserError, match="lies among the checkpoints of"):
            directory.check_place(tmp_path / place / "run")
    directory.check_place(tmp_path / "checkpoints")  # Its own, or no run's.
    directory.check_place(tmp_path / "other" / "checkpoints" / "run")


def test_a_path_too_long_for_what_a_run_writes_is_refused(tmp_path):
    most = os.pathconf("/", "PC_PATH_MAX") - 256
    name = "é" * 100  # 200 bytes
    longest = tmp_path
    while len(os.fsencode(longest)) + 201 <= most:
        longest /= name
    directory.check_place(longest)
    with pytest.raises(UserError, match=f"…; has [0-9]+ bytes; must have ≤ {most}"):
        directory.check_place(longest / name)


def test_a_directory_that_may_not_be_read_is_not_taken_for_an_unused_one(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    assert directory.has_checkpoints(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        directory.has_checkpoints(tmp_path)


def test_a_log_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics.jsonl; cannot be read: Is a directory"):
        runlog.read_records(tmp_path / "metrics.jsonl")


def test_a_temporary_file_that_is_a_link_leads_nowhere(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".config.json.tmp").symlink_to(other)
    files.write_atomically(tmp_path / "config.json", "{}")
    assert other.read_text() == "mine" and (tmp_path / "config.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "other"]


def test_a_directory_that_is_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for out_dir in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(UserError, match="is a link to nothing"):
            files.check_writable(out_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_the_lock_of_a_process_that_failed_to_start_is_not_taken_for_ours(tmp_path, monkeypatch):
    """Between our opening the file and locking it, its owner removes it and another makes one."""
    run_dir = tmp_path / "run"
    flock = directory.fcntl.flock

    def slow(descriptor, operation):
        monkeypatch.undo()
        os.unlink(run_dir / ".lock")
        flock(descriptor, operation)

    monkeypatch.setattr(directory.fcntl, "flock", slow)
    with directory.locked(run_dir):
        with pytest.raises(UserError, match="is in use"):
            with directory.locked(run_dir):
                pass
    assert not run_dir.exists()


def test_where_a_run_has_begun_the_lock_stays(tmp_path):
    with directory.locked(tmp_path / "run"):
        files.write_atomically(tmp_path / "run" / "config.json", "{}")
    assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_too_little_space_is_told_with_both_numbers(tmp_path):
    directory.check_space(tmp_path / "new" / "run", 1)
    with pytest.raises(UserError, match=r"need 1,000,000,000,000,000 bytes, and [0-9,]+ are free"):
        directory.check_space(tmp_path / "new" / "run", 10**15)
    assert list(tmp_path.iterdir()) == []


# What a record may hold. U+2028 and U+0085 end a line for Python, but not in JSON; a lone surrogate
# is how Python reads a path that is no UTF-8.
_TEXTS = st.text(max_size=8) | st.sampled_from(["\u2028", "\x85", "\r\n", "\x00\x1b[2J", "\ud800"])
_NUMBERS = st.floats() | st.integers(-(2**63), 2**63) | st.booleans() | st.none()
_NAMES = st.text(min_size=1, max_size=6).filter(lambda name: name not in ("kind", "step"))
_RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["train", "eval", "ledger", "end"]),
        st.dictionaries(_NAMES, _TEXTS | _NUMBERS, max_size=3),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples, each of which writes the log anew."""
    return tmp_path_factory.mktemp("log")


def opened(folder, resumed_step):
    return runlog.RunLog(folder, resumed_step=resumed_step, tensorboard=False)


def written(folder, records):
    """Writes a log: a line for the process, then one a step, from 0; what is to be read of it."""
    expected = [{"kind": "run", "start": 0}]
    with opened(folder, None) as log:
        log.append("run", start=0)
        for step, (kind, values) in enumerate(records):
            log.append(kind, step=step, **values)
            expected.append({"kind": kind, "step": step, **values})
    return [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        for record in expected
    ]


def steps_of(records):
    return [record["step"] for record in records if "step" in record]


@settings(deadline=None, max_examples=60)
@given(_RECORDS, st.integers(0, 10**6), st.integers(0, 7))
@example([("train", {"a": "\u2028\x85"}), ("eval", {"b": math.nan})], 10**6, 0)
def test_p18_a_log_cut_anywhere_holds_whole_records_and_goes_on(folder, records, cut, resumed_step):
    """The cut is what a kill or a full disk leaves; what follows must not be glued to it."""
    expected = written(folder, records)
    path = folder / "metrics.jsonl"
    whole = path.read_bytes()
    assert whole.count(b"\n") == len(expected)
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    found = runlog.read_records(path)
    n_whole = path.read_bytes().count(b"\n")
    assert found == expected[: len(found)] and n_whole <= len(found) <= n_whole + 1
    # The process's own line is of no step: it is kept as if it were of step 0.
    kept = [record for record in found if record.get("step", 0) <= resumed_step]
    with opened(folder, resumed_step) as log:
        assert log.n_damaged == 0
        assert log.evaluated == {r["step"] for r in kept if r["kind"] == "eval"}
        for step in range(resumed_step + 1, 9):
            log.append("train", step=step)
    again = runlog.read_records(path)
    assert again[: len(kept)] == kept
    assert steps_of(again)[len(steps_of(kept)) :] == list(range(resumed_step + 1, 9))
    assert len(set(steps_of(again))) == len(steps_of(again))
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) == len(again)
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)  # NaN is no JSON.


# Whole lines that are no records: no JSON, no object, no kind, a step that is no number.
_GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line),
    st.sampled_from(
        [b"7", b"[]", b"{}", b'{"kind": 1}', b'{"kind": "train"}', b'{"kind": "eval", "step": "1"}']
        + [b'{"kind": "train", "step": 1.5}', b'{"kind": "train", "step": true}', b"[" * 100_000]
    ),
)


@settings(deadline=None, max_examples=60)
@given(_RECORDS, st.lists(st.tuples(_GARBAGE, st.integers(0, 6)), max_size=4))
def test_p18_damaged_lines_are_counted_and_left_out(folder, records, garbage):
    expected = written(folder, records)
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for line, place in garbage:
        lines.insert(place, line + b"\n")
    path.write_bytes(b"".join(lines))
    assert runlog.read_records(path) == expected
    with opened(folder, 99) as log:
        assert log.n_damaged == len(garbage)
    assert runlog.read_records(path) == expected
    with opened(folder, 99) as log:  # They are gone.
        assert log.n_damaged == 0


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
@example(b"\xff\xfe\n\n{")
def test_p18_no_bytes_whatever_stop_a_run_from_going_on(folder, content):
    path = folder / "metrics.jsonl"
    path.write_bytes(content)
    for record in runlog.read_records(path):
        assert isinstance(record["kind"], str)
    with opened(folder, 3) as log:
        log.append("train", step=4)
    assert runlog.read_records(path)[-1] == {"kind": "train", "step": 4}
