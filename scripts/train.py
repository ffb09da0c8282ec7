"""Trains a GPT: python scripts/train.py --config configs/shakespeare_char.py [--config.NAME=V]."""

from pathlib import Path

from gptjax.config import config_file
from gptjax.config.config import validate_together
from gptjax.config.nanogpt_flags import hint
from gptjax.system import command, output


def main(argv: list[str]) -> int:
    flags = command.Flags(description=__doc__, epilog=config_file.knob_help(), hint=hint)
    flags.add_argument("--config", metavar="FILE", help="a Python file with get_config()")
    overrides, others = config_file.split_overrides(argv)
    arguments = flags.parse_all(others)
    if not arguments.config:
        flags.error("--config is missing; for example: --config configs/shakespeare_char.py")
    config = config_file.load_config(arguments.config, overrides)
    from gptjax.run import directory

    if not directory.has_checkpoints(Path(config.out_dir)):  # Told before JAX is imported.
        validate_together(config)
    with output.waiting():
        from gptjax.train import train  # JAX is imported only once flags and config are good

    return train(config, overrides)


if __name__ == "__main__":
    command.run(main)
