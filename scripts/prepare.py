"""Makes token files: python scripts/prepare.py --dataset markov --out_dir data/markov.

Then train on them with --config.data.source=tokens:data/markov. nanoGPT's own folders of train.bin
and val.bin need no preparation, or, those of characters, one file: --from_nanogpt FOLDER.
"""

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--dataset", default="", help="markov: tokens of exactly known entropy")
    flags.add_argument("--out_dir", default="", help="a new or an empty folder")
    flags.add_argument("--n_tokens", type=int, default=100_000_000, help="default: 100 million")
    flags.add_argument("--seed", type=int, default=1337, help="default: 1337")
    flags.add_argument("--val_fraction", type=float, default=0.001, help="default: 0.001")
    flags.add_argument("--n_val", type=int, default=0, help="val's tokens, in place of a fraction")
    flags.add_argument("--from_nanogpt", default="", metavar="DIR", help="make its meta.json")
    settings = vars(flags.parse_all(argv))
    folder, dataset = settings.pop("from_nanogpt"), settings.pop("dataset")
    if not folder and not (dataset and settings["out_dir"]):
        flags.error("--dataset and --out_dir, or --from_nanogpt, are missing")
    from gptjax.prepare import describe_nanogpt, prepare

    if folder:
        describe_nanogpt(folder)
    else:
        prepare(dataset, **settings)


if __name__ == "__main__":
    command.run(main)
