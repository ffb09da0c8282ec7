"""Measures speed: python scripts/bench.py --config configs/shakespeare_char.py [--nanogpt PATH]."""

import sys

from gptjax.config import config_file
from gptjax.config.config import validate_together
from gptjax.system import command, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__)
    flags.add_argument("--config", required=True, metavar="FILE", help="as for train.py")
    kinds = ("step", "profile", "run", "sample", "start", "growth", "scaling")
    words = "updates (default), where their time goes, runs, sampling, start-up, growth, devices"
    flags.add_argument("--what", default="step", choices=kinds, help=words)
    flags.add_argument("--pairs", type=int, default=5, help="measurements of a side; default: 5")
    flags.add_argument("--busy", type=int, default=0, metavar="N", help="also beside N busy cores")
    flags.add_argument("--nanogpt", metavar="PATH", help="a nanoGPT checkout to compare with")
    flags.add_argument("--nanogpt_python", default=sys.executable, help="a Python that has torch")
    flags.add_argument("--nanogpt_compile", action="store_true", help="with torch.compile")
    flags.add_argument("--peer_config", metavar="FILE", help="nanoGPT's recipe, if not --config's")
    flags.add_argument("--target", type=float, default=0.0, help="of a run: seconds to this val")
    flags.add_argument("--json", metavar="FILE", help="write the figures there as well")
    flags.add_argument("--plot", metavar="FILE", help="of growth or scaling: draw it there")
    overrides, others = config_file.split_overrides(argv)
    settings = vars(flags.parse_all(others))
    path, peer = settings.pop("config"), settings.pop("peer_config")
    config = config_file.load_config(path, overrides)
    peer_config = config_file.load_config(peer, {}) if peer else config
    for each in (config, peer_config):
        validate_together(each)
    given = ["--config", path, *(f"--config.{name}={text}" for name, text in overrides.items())]
    with output.waiting():
        from gptjax.bench import bench  # JAX is imported only once flags and config are good
    bench(config, peer_config, given, **settings)


if __name__ == "__main__":
    command.run(main)
