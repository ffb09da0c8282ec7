"""Makes a run's updates on two devices or precisions and tells how far they drift apart."""

from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--out_dir", required=True, help="the run directory")
    flags.add_argument(
        "--devices",
        required=True,
        metavar="A,B,…",
        help="two or more of cpu and cuda, as they are or with :float32, :tf32 or :bfloat16; "
        "the others are compared with the first",
    )
    flags.add_argument("--step", default="latest", help="latest, best or a step (default: latest)")
    flags.add_argument("--updates", type=int, default=50, help="updates to make (default: 50)")
    flags.add_argument("--json", metavar="FILE", help="write all numbers there as well")
    arguments = flags.parse_all(argv)
    with output.waiting():
        from gptjax.replay import replay  # JAX is imported only once the flags are good

    replay(**vars(arguments))


if __name__ == "__main__":
    command.run(main)
