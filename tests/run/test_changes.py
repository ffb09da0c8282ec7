"""What a run that goes on does otherwise than before."""

import tiny

from gptjax.run.changes import learning_rate_jump


def test_a_jump_of_the_learning_rate_is_told():
    before = tiny.config(optim__schedule="constant", optim__warmup_iters=0)
    near = tiny.config(
        optim__schedule="constant", optim__warmup_iters=0, optim__learning_rate=1.005e-3
    )
    far = tiny.config(optim__schedule="constant", optim__warmup_iters=0, optim__learning_rate=2e-3)
    assert learning_rate_jump(before, near, 9) == []
    (notice,) = learning_rate_jump(before, far, 9)
    assert notice.text == "the learning rate of update 9 jumps from 0.001 to 0.002"
