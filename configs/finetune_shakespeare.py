"""nanoGPT's finetune_shakespeare: GPT-2 XL's weights, 20 updates on Tiny Shakespeare; not measured.

32,768 tokens an update, of the 301,966 that Tiny Shakespeare has: two passes in all. The weights
are fetched from the Hugging Face hub (`pip install -e ".[bpe,hub]"`; 6 GB), or are a folder of
config.json and model.safetensors:

    python scripts/train.py --config configs/finetune_shakespeare.py
    python scripts/train.py --config configs/finetune_shakespeare.py --config.init_from=gpt2:FOLDER

Whatever size the weights are, theirs is the model's: --config.init_from=gpt2:openai-community/gpt2
starts with the smallest, and --config.model.block_size=256 cuts its positions. Held in float32 with
AdamW's moments, XL takes 25 GB and what an update takes on top. Evaluated after every 5 updates, as
nanoGPT does, on the whole val split, 36,059 tokens, where nanoGPT draws 40 windows of it.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/finetune_shakespeare",
        init_from="gpt2:openai-community/gpt2-xl",
        data=dict(source="tiny_shakespeare", tokenizer="gpt2", fallback=""),
        model=dict(
            n_layer=48,
            n_head=25,
            n_embd=1600,
            block_size=1024,
            dropout=0.0,
            bias=True,
            mlp="gelu_tanh",
            dtype="bfloat16",
        ),
        optim=dict(
            learning_rate=3e-5,
            min_lr=3e-5,
            schedule="constant",
            warmup_iters=0,
            beta2=0.95,
            weight_decay=0.1,
            grad_clip=1.0,
        ),
        train=dict(max_iters=20, batch_size=32, grad_accum_steps=32),
        eval=dict(interval=5),
        # Only the best and the newest are kept; one takes 19 GB.
        checkpoint=dict(interval=20, keep=1),
        log=dict(interval=1),
    )
    return config
