"""How the loss of very small GPTs falls with their size and their text: minutes on two cores.

The modern recipe of shakespeare_char_fast.py in four sizes, at three lengths and two learning
rates; 24 runs. A config file as well: train.py trains its base.
"""

from gptjax.config.config import default_config


def get_config():
    config = default_config()
    config.update(
        out_dir="out/sweep_base",
        model=dict(
            n_layer=4,
            n_head=4,
            n_embd=128,
            block_size=64,
            norm="rmsnorm",
            position="rotary",
            mlp="relu2",
            qk_norm=True,
            tie_embeddings=False,
            token_shift=True,
            zero_residual=True,
        ),
        optim=dict(
            name="muon",
            learning_rate=5e-3,
            min_lr=2.5e-4,
            schedule="linear",
            warmup_iters=0,
            beta1=0.8,
            beta2=0.95,
            weight_decay=0.0,
            grad_clip=0.0,
        ),
        train=dict(max_iters=1800, batch_size=12),
        eval=dict(interval=100_000, max_tokens=50_000),
        checkpoint=dict(interval=1000, keep=1),
    )
    return config


def get_sweep():
    return {
        # Knobs that change together; heads stay 16 wide.
        "size": [
            {"model.n_embd": 16 * heads, "model.n_head": heads, "model.n_layer": 2}
            for heads in (1, 2, 4, 6)
        ],
        "learning rate": [
            {
                "optim.learning_rate": rate,
                "optim.min_lr": rate / 20,
                "optim.muon_learning_rate": 4 * rate,
            }
            for rate in (5e-3, 1e-2)
        ],
        "train.max_iters": [150, 400, 1000],
    }
