"""GPT-2 with 124 M parameters: nanoGPT's recipe, meant for one GPU; not measured yet.

600,000 updates of 491,520 tokens. The folder is nanoGPT's data/openwebtext, copied or linked, with
train.bin cut to what int32 can count: `head -c 4000000000 train.bin`, 2 of its 9 billion tokens.
With all of them nanoGPT reports a val of about 2.85 nats per token; 2 billion are read 147 times,
and nothing is known of what comes of that. Compiled for an H100, an update needs 21 GB with cuDNN's
attention and 49 GB with XLA's; `--config.train.tokens_at_once=16384` halves the micro-batches where
memory is short. Without any download:

    python scripts/prepare.py --dataset markov --out_dir data/markov
    python scripts/train.py --config configs/gpt2_124m.py --config.data.source=tokens:data/markov

Those tokens' exact entropy is 2.3589 nats, and train.py says how far above it val is.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/gpt2_124m",
        data=dict(source="tokens:data/openwebtext", fallback=""),
        model=dict(
            n_layer=12,
            n_head=12,
            n_embd=768,
            block_size=1024,
            dropout=0.0,
            bias=False,
            dtype="bfloat16",
            vocab_multiple=128,  # 50,257 symbols become 50,304
        ),
        optim=dict(
            learning_rate=6e-4,
            min_lr=6e-5,
            warmup_iters=2000,
            beta2=0.95,
            weight_decay=0.1,
            grad_clip=1.0,
        ),
        # nanoGPT's 40 micro-batches of 12 as 15 of 32, whose logits take 6.6 GB.
        train=dict(max_iters=600_000, batch_size=480, grad_accum_steps=15),
        eval=dict(interval=1000, max_tokens=1_000_000),
        checkpoint=dict(interval=1000),
    )
    return config
