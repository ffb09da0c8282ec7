"""Character-level Tiny Shakespeare on a GPU: nanoGPT's train_shakespeare_char.

10.6 M parameters, 5,000 updates: minutes on a GPU, hours on a laptop (configs/shakespeare_char.py
is the laptop's). Best val about 1.47 nats per character near update 2,000; after that it overfits.
bfloat16 products, as nanoGPT has them on a GPU; on a CPU give --config.model.dtype=float32.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/shakespeare_char_gpu",
        model=dict(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2, dtype="bfloat16"),
        optim=dict(learning_rate=1e-3, min_lr=1e-4, warmup_iters=100, beta2=0.99),
        train=dict(max_iters=5000, batch_size=64),
        eval=dict(interval=250),
        checkpoint=dict(interval=250),
    )
    return config
