"""Makes token files: python scripts/prepare.py --dataset "jsonl:books/*.gz" --out_dir data/books.

Then train on them with --config.data.source=tokens:data/books. Cut short, the same command goes on.
nanoGPT's own folders of train.bin and val.bin need no preparation, or, those of characters, one
file: --from_nanogpt FOLDER.
"""

from gptjax.system import command


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    what = "text:GLOB or jsonl:GLOB (.gz and .zst too), a TFDS dataset, or markov"
    flags.add_argument("--dataset", default="", help=what)
    flags.add_argument("--out_dir", default="", help="a new or an empty folder")
    flags.add_argument("--val_fraction", type=float, default=0.001, help="default: 0.001")
    flags.add_argument("--tokenizer", default="char", help="default: char, or of data.tokenizer")
    flags.add_argument("--field", default="text", help="of a line of JSON; default: text")
    flags.add_argument("--shard_tokens", type=int, default=2**27, help="a file's; default: 2**27")
    flags.add_argument("--processes", type=int, default=0, help="default: as many as cores")
    flags.add_argument("--n_tokens", type=int, default=10**8, help="markov; default: 100 million")
    flags.add_argument("--seed", type=int, default=1337, help="markov; default: 1337")
    flags.add_argument("--n_val", type=int, default=0, help="markov: val's, for a fraction")
    flags.add_argument("--from_nanogpt", default="", metavar="DIR", help="make its meta.json")
    flags.add_argument("--check", default="", metavar="DIR", help="read all of its shards")
    given = flags.parse_all(argv)
    from gptjax import prepare

    prepare.choose(**vars(given))


if __name__ == "__main__":
    command.run(main)
