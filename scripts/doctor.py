"""Looks this machine over: python scripts/doctor.py [--config FILE] [--json FILE]."""

import time
from pathlib import Path

from gptjax.config import config_file
from gptjax.config.config import validate_together
from gptjax.system import command, files, output

LAPTOP = Path(__file__).parents[1] / "configs" / "shakespeare_char.py"


def main(argv: list[str]) -> None:
    start = time.perf_counter()
    flags = command.Flags(description=__doc__, epilog="--config.NAME=VALUE changes a knob of it.")
    flags.add_argument(
        "--config", metavar="FILE", help="what to time; default: the README's recipe"
    )
    flags.add_argument("--json", metavar="FILE", help="write what is found there as well")
    overrides, others = config_file.split_overrides(argv)
    arguments = flags.parse_all(others)
    config = config_file.load_config(arguments.config or str(LAPTOP), overrides)
    validate_together(config)
    files.check_folder_of("--json", arguments.json)
    print("looking this machine over, about half a minute", flush=True)
    with output.waiting():
        from gptjax.doctor import doctor  # JAX is imported only once the flags are good

    doctor(
        config,
        path=arguments.config or "configs/shakespeare_char.py",
        json=arguments.json,
        start=start,
    )


if __name__ == "__main__":
    command.run(main)
