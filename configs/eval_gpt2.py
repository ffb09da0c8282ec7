r"""nanoGPT's eval_gpt2: the loss of GPT-2's own weights on OpenWebText, no update; not measured.

The smallest, 124 M; nanoGPT's README reports a val of 3.12 for it. Its eval_gpt2_medium, _large
and _xl (2.84, 2.67 and 2.54) are this config with other weights:

    python scripts/train.py --config configs/eval_gpt2.py
    python scripts/train.py --config configs/eval_gpt2.py \
        --config.init_from=gpt2:openai-community/gpt2-xl

The folder is nanoGPT's data/openwebtext, copied or linked. The whole val split is swept, about as
many tokens as nanoGPT's 500 batches of 8, and as many of train. nanoGPT computes GPT-2 with the
exact GELU where GPT-2 has a tanh; `--config.model.mlp=gelu` does so, too. The run in out_dir can be
sampled from and exported.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/eval_gpt2",
        init_from="gpt2:openai-community/gpt2",
        data=dict(source="tokens:data/openwebtext", fallback=""),
        model=dict(
            n_layer=12,
            n_head=12,
            n_embd=768,
            block_size=1024,
            dropout=0.0,
            bias=True,
            mlp="gelu_tanh",
            dtype="bfloat16",
        ),
        train=dict(max_iters=0, batch_size=8),
    )
    return config
