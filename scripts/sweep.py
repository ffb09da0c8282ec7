"""Small runs that tell what to train: python scripts/sweep.py --text my.txt --budget 10m."""

from gptjax.config import config_file
from gptjax.system import command, output


def main(argv: list[str]) -> int:
    flags = command.Flags(description=__doc__, epilog=config_file.knob_help())
    what = "a Python file with get_config() and get_sweep(); see configs/sweeps/shakespeare.py"
    flags.add_argument("file", nargs="?", metavar="SWEEP", help=what)
    flags.add_argument("--text", metavar="FILE", help="instead: a text to try a laptop's sizes on")
    flags.add_argument("--budget", default="10m", help="10m, 90s, 1h30m (default: 10m)")
    flags.add_argument(
        "--run_time", default="1m", help="updates of the run it is for take so long (default: 1m)"
    )
    flags.add_argument(
        "--at_once", type=int, default=0, help="runs per dispatch; 0: one on a CPU, on a GPU all"
    )
    flags.add_argument("--out_dir", help="default: out/sweep_NAME, by the sweep's or the text's")
    flags.add_argument("--plot", metavar="FILE", help="a picture to write: .png, .pdf or .svg")
    flags.add_argument("--json", metavar="FILE", help="write all numbers there as well")
    overrides, others = config_file.split_overrides(argv)
    arguments = vars(flags.parse_all(others))
    if (arguments["file"] is None) == (arguments["text"] is None):
        flags.error("give a sweep file, or --text FILE")
    if arguments["text"] is not None and overrides:
        flags.error("--config.NAME changes the config of a sweep file; there is none")
    with output.waiting():
        from gptjax.sweep import sweep  # JAX is imported only once the flags are good

    return sweep(arguments.pop("file"), overrides, **arguments)


if __name__ == "__main__":
    command.run(main)
