"""What a run will take: python scripts/plan.py --config FILE [--device H100 --devices 8]."""

from gptjax.config import config_file
from gptjax.config.config import validate_together
from gptjax.system import command, files, output


def main(argv: list[str]) -> None:
    flags = command.Flags(description=__doc__, epilog="--config.NAME=VALUE changes a knob of it.")
    flags.add_argument("--config", metavar="FILE", required=True, help="what is to be run")
    flags.add_argument("--device", default="", metavar="CARD", help="another: H100, A100 80GB, …")
    flags.add_argument("--devices", type=int, default=0, metavar="N", help="default: by the mesh")
    flags.add_argument(
        "--dollars_per_hour", type=float, default=0.0, metavar="X", help="price of each device"
    )
    flags.add_argument("--json", metavar="FILE", help="write all numbers there as well")
    overrides, others = config_file.split_overrides(argv)
    arguments = flags.parse_all(others)
    config = config_file.load_config(arguments.config, overrides)
    validate_together(config)
    files.check_folder_of("--json", arguments.json)
    with output.waiting():
        from gptjax.plan import plan  # JAX is imported only once the flags are good

    plan(
        config,
        card=arguments.device,
        n_devices=arguments.devices,
        dollars_per_hour=arguments.dollars_per_hour,
        json=arguments.json,
    )


if __name__ == "__main__":
    command.run(main)
