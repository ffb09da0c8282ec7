"""Draws runs: python scripts/plot.py out/a out/b --png losses.png --html runs.html."""

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    help_of_runs = "a run directory or what nanoGPT printed, in a file or - for stdin; or LABEL=RUN"
    flags.add_argument("runs", nargs="+", metavar="RUN", help=help_of_runs)
    flags.add_argument("--png", metavar="FILE", help="a picture to write")
    flags.add_argument("--html", metavar="FILE", help="a page to write, one file with all in it")
    flags.add_argument(
        "--over",
        action="append",
        choices=("seconds", "updates", "tokens", "flops"),
        help="what losses are drawn over; may be repeated (default: seconds, in a page all)",
    )
    flags.add_argument(
        "--what",
        action="append",
        choices=("losses", "learning_rate", "gradient_norm", "ledger", "update_times", "all"),
        help="what is drawn; may be repeated (default: losses, in a page all)",
    )
    flags.add_argument(
        "--mark", action="append", metavar="LABEL=LOSS", help="a line to compare with"
    )
    arguments = flags.parse_all(argv)
    from gptjax.plot import plot  # matplotlib is imported only once the flags are good

    given = {name: value for name, value in vars(arguments).items() if value is not None}
    plot(given.pop("runs"), **given)


if __name__ == "__main__":
    command.run(main)
