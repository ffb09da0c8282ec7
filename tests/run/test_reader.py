"""What a run directory given on a command line may look like."""

import pytest

from gptjax.run.reader import run_and_step
from gptjax.system.errors import UserError


@pytest.mark.parametrize(
    ("out_dir", "found"),
    [
        ("out/run", ("out/run", "best")),
        ("out/run/checkpoints/40", ("out/run", "40")),
        ("out/run/checkpoints/40/", ("out/run", "40")),
        ("/a/checkpoints/0", ("/a", "0")),
        ("out/checkpoints/run", ("out/checkpoints/run", "best")),
        ("checkpoints", ("checkpoints", "best")),
    ],
)
def test_a_checkpoints_folder_names_run_and_step(out_dir, found):
    assert run_and_step(out_dir, "best") == found


def test_two_steps_are_refused():
    assert run_and_step("run/checkpoints/40", "40") == ("run", "40")
    with pytest.raises(UserError, match="--step: 20; --out_dir run/checkpoints/40 is that of"):
        run_and_step("run/checkpoints/40", "20")
