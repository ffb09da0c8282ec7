"""Divides a gap among its settings: python scripts/ladder.py --from out/a --to configs/b.py."""

from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    what = "a config file, a run directory, or a log that tells its settings"
    flags.add_argument("--from", dest="start", required=True, metavar="A", help=what)
    flags.add_argument("--to", dest="end", required=True, metavar="B", help=what)
    flags.add_argument("--budget", default="10m", help="10m, 90s, 1h30m (default: 10m)")
    flags.add_argument(
        "--orders", type=int, default=0, help="random orders besides the stated and its reverse"
    )
    flags.add_argument("--seeds", type=int, default=0, help="default: 3, or as the budget allows")
    flags.add_argument("--out_dir", default="out/ladder", help="results; default: out/ladder")
    flags.add_argument("--json", metavar="FILE", help="write all numbers there as well")
    arguments = vars(flags.parse_all(argv))
    with output.waiting():
        from gptjax.ladder import ladder  # JAX is imported only once the flags are good

    ladder(arguments.pop("start"), arguments.pop("end"), **arguments)


if __name__ == "__main__":
    command.run(main)
