"""``python -m bench``: the same as ``benign bench``, without installing anything."""

import argparse
import sys

from bench import command

parser = argparse.ArgumentParser(
    prog="python -m bench", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
command.add_arguments(parser)
try:
    sys.exit(command.main(parser.parse_args()))
except (ValueError, OSError) as error:
    sys.exit(f"bench: {error}")
except KeyboardInterrupt:
    sys.exit(130)
