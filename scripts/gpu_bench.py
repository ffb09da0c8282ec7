"""Measures all there is to measure of a GPU: python scripts/gpu_bench.py --out_dir out/card."""

import sys

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--out_dir", required=True, metavar="DIR", help="for table.md and figures")
    flags.add_argument("--minutes", type=float, default=9.5, help="most it may take; default: 9.5")
    flags.add_argument("--only", default="", metavar="NAME,…", help="these parts; default: all")
    flags.add_argument("--nanogpt", metavar="PATH", help="a nanoGPT checkout to compare with")
    flags.add_argument("--nanogpt_python", default=sys.executable, help="a Python that has torch")
    flags.add_argument(
        "--smoke_test", action="store_true", help="with small models on the CPU: does it all run?"
    )
    arguments = flags.parse_all(argv)
    from gptjax.gpu_bench import measure  # Only once the flags are good.
    from gptjax.speed.gpu_parts import PARTS

    settings = vars(arguments)
    measure(settings.pop("out_dir"), PARTS, **settings)


if __name__ == "__main__":
    command.run(main)
