"""Draws the losses of runs: python scripts/plot.py out/a out/b --png losses.png."""

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    help_of_runs = "a run directory or what nanoGPT printed, in a file or - for stdin; or LABEL=RUN"
    flags.add_argument("runs", nargs="+", metavar="RUN", help=help_of_runs)
    flags.add_argument("--png", required=True, metavar="FILE", help="the picture to write")
    flags.add_argument(
        "--over",
        default="seconds",
        choices=("seconds", "updates", "tokens", "flops"),
        help="what the losses are drawn over (default: seconds)",
    )
    flags.add_argument(
        "--mark", action="append", default=[], metavar="LABEL=LOSS", help="a line to compare with"
    )
    arguments = flags.parse_all(argv)
    from gptjax.plot import plot  # matplotlib is imported only once the flags are good

    plot(arguments.runs, over=arguments.over, mark=arguments.mark, png=arguments.png)


if __name__ == "__main__":
    command.run(main)
