"""Series written by hand."""

import numpy as np

from gptjax.explain.series import Evaluations, Fact, Series, Times, Updates

# nanoGPT's laptop recipe, as far as what is tested asks for it.
LAPTOP = {
    "model.n_layer": 4,
    "model.n_head": 4,
    "model.n_embd": 128,
    "model.block_size": 64,
    "model.dropout": 0.0,
    "model.dtype": "float32",
    "train.batch_size": 12,
    "train.max_iters": 2000,
    "optim.learning_rate": 1e-3,
    "optim.lr_decay_iters": 0,
    "seed": 1337,
    "corpus": "tiny_shakespeare",
    "vocab_size": 65,
    "device": "cpu",
    "parameters": 795_904,
    "tokens_per_update": 768,
    "flops_per_update": 3_969_515_520.0,
}


def series(label="a", val=((0, 4.2), (100, 2.5), (200, 2.0)), *, train=None, sem=0.01, **more):
    """A run with these evaluations, (update, val); more are facts by knob, model__n_layer=2.

    `updates` are (update, loss), `times` a Times, `program` its name; a fact of None is not known.
    """
    update_E, val_E = (np.array(column, np.float64) for column in zip(*val, strict=True))
    train_E = val_E if train is None else np.array(train, np.float64)
    logged = more.pop("updates", ())
    update_U = np.array([update for update, _ in logged], np.float64)
    loss_U = np.array([loss for _, loss in logged], np.float64)
    times, program = more.pop("times", Times()), more.pop("program", "gptjax")
    given = {name.replace("__", "."): value for name, value in more.items()}
    facts = {name: Fact(value, "config") for name, value in {**LAPTOP, **given}.items()}
    unknown_U = np.full(len(update_U), np.nan)
    return Series(
        label=label,
        path=f"out/{label}",
        program=program,
        evaluations=Evaluations(
            update_E=update_E,
            train_E=train_E,
            val_E=val_E,
            train_sem_E=np.full(len(val_E), sem),
            val_sem_E=np.full(len(val_E), sem),
            seconds_E=update_E / 10,
        ),
        updates=Updates(update_U, loss_U, unknown_U, unknown_U, unknown_U, update_U / 10),
        times=times,
        facts={name: fact for name, fact in facts.items() if fact.value is not None},
    )
