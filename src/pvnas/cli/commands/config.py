"""``pvnas config show``: presets as files."""

from argparse import Namespace

from pvnas.cli.command import Argument, command
from pvnas.cli.shared import print_table
from pvnas.presets import PRESETS
from pvnas.settings import dump_config, load_config


@command(
    "config show",
    Argument("preset", f"one of {', '.join(PRESETS)}", None, metavar="PRESET"),
    example="pvnas config show laptop > my.yaml\npvnas run my_videos --config my.yaml",
)
def show(args: Namespace) -> None:
    """Print a preset as a config file with every field explained, or list the presets."""
    if args.preset is None:
        print_table(["preset", "what it is"], [(name, (make.__doc__ or "").strip()) for name, make in PRESETS.items()])
        return
    print(dump_config(load_config(args.preset), comments=True), end="")
