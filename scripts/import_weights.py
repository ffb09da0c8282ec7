"""Makes a run of nanoGPT's ckpt.pt: python scripts/import_weights.py --from ckpt.pt --out_dir OUT.

The run can be sampled from, evaluated and gone on with, as nanoGPT would. It needs torch:
pip install -e ".[torch]". What the ids stand for is not in a ckpt.pt: --data says it.
"""

from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--from", required=True, metavar="FILE", help="nanoGPT's ckpt.pt")
    flags.add_argument("--out_dir", required=True, metavar="DIR", help="a new run directory")
    flags.add_argument(
        "--data",
        default="",
        metavar="SOURCE",
        help="what it was trained on: tiny_shakespeare, text:PATH, tokens:DIR, or a folder of "
        "nanoGPT's, data/NAME, with its meta.pkl and input.txt, or with train.bin and val.bin",
    )
    settings = vars(flags.parse_all(argv))
    with output.waiting():
        from gptjax.import_weights import import_weights  # Only once the flags are good: JAX

    import_weights(settings["from"], settings["out_dir"], data=settings["data"])


if __name__ == "__main__":
    command.run(main)
