"""The loss of a checkpoint over its whole validation split."""

from __future__ import annotations

from gptjax.run.reader import run_and_step
from gptjax.run.whole_split import Evaluation, loss_of
from gptjax.system.command import run_script
from gptjax.system.output import printable, waiting


def evaluate(out_dir: str, *, step: str, context: int) -> None:
    """Prints the loss of a checkpoint over the whole validation split.

    The split is the one the run was validated on, kept in its directory. `context` cuts it into
    shorter windows than the model was trained with (0: the same), whose loss is another quantity:
    each token is predicted from fewer before it.

    Raises:
      UserError: if there is no such checkpoint, or the context is longer than the model's.
    """
    out_dir, step = run_and_step(out_dir, step)
    with waiting("evaluating"):
        found = loss_of(out_dir, step=step, context=context)
    print_evaluation(out_dir, found)


def print_evaluation(out_dir: str, found: Evaluation) -> None:
    """Prints a loss with all that says what it is a loss of."""
    name, loss = printable(found.corpus["name"]), found.loss
    print(f"{out_dir} step {found.step} on {name}, {found.n_tokens} tokens of val")
    print(f"val {loss} nats/{found.unit} at context {found.context}")
    if found.bits_per_byte is not None:
        is_other = found.nats_per_char is not None and found.unit != "char"
        per_char = f"{found.nats_per_char:.4f} nats/char, " if is_other else ""
        print(f"    {per_char}{found.bits_per_byte:.4f} bits/byte")
    floor = found.corpus.get("floor_nats")
    if floor is not None:
        print(f"    floor {floor:.4f}: val is {loss.mean - floor:.4f} above what can be reached")


if __name__ == "__main__":
    run_script(__file__)
