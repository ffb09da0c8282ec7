"""Character-level Tiny Shakespeare on a laptop: nanoGPT's README recipe for a CPU.

0.80 M parameters, 2,000 updates, a minute or two on two cores. Val about 1.90 nats per character
over the whole validation split (scripts/evaluate.py), 1.89 to 1.92 by seed; nanoGPT has 1.8857 on
a sample of it. While training, a sixth of the split is looked at, always the same windows: a third
more than nanoGPT's random 15,360 characters, and steps can be compared exactly.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/shakespeare_char",
        model=dict(n_layer=4, n_head=4, n_embd=128, block_size=64, dropout=0.0),
        optim=dict(learning_rate=1e-3, min_lr=1e-4, warmup_iters=100, beta2=0.99),
        train=dict(max_iters=2000, batch_size=12),
        eval=dict(interval=250, max_tokens=20_000),
        checkpoint=dict(interval=250),
    )
    return config
