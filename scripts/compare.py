"""Why runs differ: python scripts/compare.py out/a out/b. Reads nanoGPT's printed logs as well."""

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory or a nanoGPT log; or LABEL=PATH"
    )
    flags.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="LABEL=NAME",
        help='hardware that a log does not name: --device gpu="RTX 4070 Ti"',
    )
    flags.add_argument(
        "--peak",
        action="append",
        default=[],
        metavar="LABEL=TFLOPS",
        help="what that hardware could do, where no table has it",
    )
    flags.add_argument("--json", metavar="FILE", help="write all numbers there as well")
    flags.add_argument("--html", metavar="FILE", help="write a page there: one file, no network")
    flags.add_argument("--png", metavar="FILE", help="draw the losses there")
    arguments = flags.parse_all(argv)
    from gptjax.compare import compare  # Only once the flags are good.

    settings = vars(arguments)
    compare(settings.pop("runs"), **settings)


if __name__ == "__main__":
    command.run(main)
