"""Says which device is used and why, and how fast it is: python scripts/doctor.py [--json FILE]."""

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--json", metavar="FILE", help="write what is found there as well")
    arguments = flags.parse_all(argv)
    from gptjax.doctor import doctor  # JAX is imported only once the flags are good

    doctor(json=arguments.json)


if __name__ == "__main__":
    command.run(main)
