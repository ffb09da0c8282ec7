"""Prints a checkpoint's loss over the whole validation split, with its standard error."""

from gptjax.config.nanogpt_flags import hint
from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__, hint=hint)
    flags.add_argument("--out_dir", required=True, help="the run directory")
    flags.add_argument("--step", default="best", help="best, latest or a step (default: best)")
    flags.add_argument("--context", type=int, default=0, help="tokens of context (default: all)")
    arguments = flags.parse_all(argv)
    with output.waiting():
        from gptjax.evaluate import evaluate  # JAX is imported only once the flags are good

    evaluate(arguments.out_dir, step=arguments.step, context=arguments.context)


if __name__ == "__main__":
    command.run(main)
