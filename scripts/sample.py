"""Writes text with a trained model: python scripts/sample.py --out_dir out/shakespeare_char."""

from gptjax.config.nanogpt_flags import hint
from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__, hint=hint)
    flags.add_argument(
        "--out_dir",
        required=True,
        action="append",
        help="the run directory; given more than once: the runs side by side, each called by its "
        "folder's name, with what each text costs every model",
    )
    flags.add_argument("--step", default="best", help="best, latest or a step (default: best)")
    flags.add_argument("--prompt", default="", help="text to continue (default: a newline)")
    flags.add_argument("--prompt_file", default="", help="a UTF-8 file to continue; -: stdin")
    flags.add_argument("--num_samples", type=int, default=10, help="default: 10")
    flags.add_argument("--max_new_tokens", type=int, default=500, help="each; default: 500")
    flags.add_argument("--temperature", type=float, default=0.8, help="0: greedy; default: 0.8")
    flags.add_argument("--top_k", type=int, default=200, help="0: all; default: 200")
    flags.add_argument("--seed", type=int, default=1337, help="default: 1337")
    flags.add_argument(
        "--stride",
        type=int,
        default=1,
        help="tokens by which a full window moves on at once; more is quicker (default: 1)",
    )
    arguments = flags.parse_all(argv)
    with output.waiting():
        from gptjax.sample import sample  # JAX is imported only once the flags are good

    settings = vars(arguments)
    sample(*settings.pop("out_dir"), **settings)


if __name__ == "__main__":
    command.run(main)
