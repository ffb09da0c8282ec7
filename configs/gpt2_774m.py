"""GPT-2 large's shape, 774 M parameters, trained by nanoGPT's recipe for GPT-2; not measured yet.

As gpt2_124m.py, but for the shape, the learning rate and the micro-batches. nanoGPT has no recipe
of its own for this size: the rate is GPT-3's for the nearest (Brown et al. 2020, table 2.1:
2.5e-4 at 760 M), as nanoGPT's for 124 M is. The tokens are gpt2_124m.py's:

    python scripts/train.py --config configs/gpt2_774m.py --config.data.source=tokens:data/markov

To start with the published weights instead, see finetune_shakespeare.py.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/gpt2_774m",
        data=dict(source="tokens:data/openwebtext", fallback=""),
        model=dict(
            n_layer=36,
            n_head=20,
            n_embd=1280,
            block_size=1024,
            dropout=0.0,
            bias=False,
            dtype="bfloat16",
            vocab_multiple=128,  # 50,257 symbols become 50,304
        ),
        optim=dict(
            learning_rate=2.5e-4,
            min_lr=2.5e-5,
            warmup_iters=2000,
            beta2=0.95,
            weight_decay=0.1,
            grad_clip=1.0,
        ),
        train=dict(max_iters=600_000, batch_size=480, grad_accum_steps=60),
        eval=dict(interval=1000, max_tokens=1_000_000),
        checkpoint=dict(interval=1000),
    )
    return config
