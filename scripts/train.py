"""Trains a GPT: python scripts/train.py --config configs/shakespeare_char.py [--config.NAME=V]."""

from pathlib import Path

from gptjax.config import config_file
from gptjax.config.config import validate_together
from gptjax.config.nanogpt_flags import hint
from gptjax.system import command, output, rollcall


def main(argv: list[str]) -> int:
    flags = command.Flags(description=__doc__, epilog=config_file.knob_help(), hint=hint)
    flags.add_argument("--config", metavar="FILE", help="a Python file with get_config()")
    one_of = "one of several processes, as on several hosts: "
    flags.add_argument("--coordinator", metavar="HOST:PORT", help=one_of + "where process 0 is")
    flags.add_argument("--num_processes", type=int, metavar="N", help=one_of + "how many there are")
    flags.add_argument("--process_id", type=int, metavar="I", help=one_of + "which it is, from 0")
    waits = one_of + "how long it waits for the others (%(default)g)"
    flags.add_argument("--wait", type=float, default=300.0, metavar="SECONDS", help=waits)
    overrides, others = config_file.split_overrides(argv)
    arguments = flags.parse_all(others)
    if not arguments.config:
        flags.error("--config is missing; for example: --config configs/shakespeare_char.py")
    place = rollcall.asked(arguments)
    config = config_file.load_config(arguments.config, overrides)
    from gptjax.run import directory

    if not directory.has_checkpoints(Path(config.out_dir)):  # Told before JAX is imported.
        validate_together(config)
    with output.waiting():
        from gptjax.train import train  # JAX is imported only once flags and config are good

    return train(config, overrides, place)


if __name__ == "__main__":
    command.run(main)
