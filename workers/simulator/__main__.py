"""`python -m midwatch.workers.simulator`: starts the model server without Midwatch's command line."""

from __future__ import annotations

import argparse
import sys

from midwatch.workers.simulator.server_process import Options, serve


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve. Return 2 if the command line is wrong."""
    parser = argparse.ArgumentParser("python -m midwatch.workers.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--script", help="JSON or TOML file with the replies in order")
    parser.add_argument("--transcript", help="JSON Lines file of recorded conversations, .gz allowed")
    parser.add_argument("--rules", help="module:attr of a rule set")
    parser.add_argument("--chaos", default="", help="rate_limited=0.05,overloaded=0.02,reset@3,hang@turn2")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--latency-ms", default="0", help="300, or a range: 200-800")
    parser.add_argument("--journal", help="append one JSON line per model call to this file")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when stdin closes")
    try:
        serve(Options(**vars(parser.parse_args(arguments))))
    except (ValueError, OSError) as error:  # ConfigError is a ValueError
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
