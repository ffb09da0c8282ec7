"""Below nanoGPT's best val, 1.4697 from 10.6 M parameters on an A100, on a laptop's CPU.

2.7 M parameters, 1,500 updates of 16 sequences of 128 characters, trained the modern way.
"""

from gptjax.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/shakespeare_char_best",
        model=dict(
            n_layer=6,
            n_head=6,
            n_embd=192,
            block_size=128,
            norm="rmsnorm",
            position="rotary",
            mlp="relu2",
            qk_norm=True,
            tie_embeddings=False,
            zero_residual=True,
        ),
        optim=dict(
            name="muon",
            learning_rate=4e-3,
            min_lr=2e-4,
            schedule="linear",
            warmup_iters=0,
            beta1=0.8,
            beta2=0.95,
            weight_decay=0.0,
            grad_clip=0.0,
        ),
        train=dict(max_iters=1500, batch_size=16),
        eval=dict(interval=500),
        checkpoint=dict(interval=250),
    )
    return config
