"""The run that this directory is: a thousand characters of an easy text, in seconds on a CPU."""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir=".",
        data=dict(source="text:text.txt"),
        model=dict(n_layer=1, n_head=2, n_embd=12, block_size=8, dropout=0.0, bias=False),
        optim=dict(learning_rate=2e-2, min_lr=2e-3, warmup_iters=20),
        train=dict(max_iters=400, batch_size=8),
        eval=dict(interval=400),
        checkpoint=dict(interval=400, keep=1),
        log=dict(interval=100),
        mesh=dict(data=1),
    )
    return config
