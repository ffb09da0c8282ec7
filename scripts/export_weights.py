"""Writes a run for another program: python scripts/export_weights.py --out_dir RUN --to hf.

hf is a folder that transformers loads as a GPT-2. A file, --to ckpt.pt, is nanoGPT's: its sample.py
and train.py --init_from=resume take it. That needs torch: pip install -e ".[torch]".
"""

from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--out_dir", required=True, help="the run directory")
    flags.add_argument("--step", default="best", help="best, latest or a step (default: best)")
    flags.add_argument(
        "--to",
        required=True,
        metavar="WHAT",
        help="hf (RUN/hf), hf:FOLDER or a file for nanoGPT, ckpt.pt; new",
    )
    flags.add_argument(
        "--dataset",
        default="",
        metavar="NAME",
        help="the folder data/NAME of nanoGPT that holds the same text (default: as the run tells)",
    )
    settings = vars(flags.parse_all(argv))
    with output.waiting():
        from gptjax.export_weights import export_weights  # Only once the flags are good: JAX

    export_weights(settings.pop("out_dir"), **settings)


if __name__ == "__main__":
    command.run(main)
