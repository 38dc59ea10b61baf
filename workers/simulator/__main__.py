"""`python -m midwatch.workers.simulator`: the model server without the rest of Midwatch's command line."""

from __future__ import annotations

import argparse
import sys

from midwatch.workers.simulator.serve import Options, serve


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and serve; 2 when it is wrong."""
    parser = argparse.ArgumentParser("python -m midwatch.workers.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 is a free one")
    parser.add_argument("--script", help="JSON or TOML file: replies in order")
    parser.add_argument("--transcript", help="JSON Lines file of recorded conversations (.gz or not)")
    parser.add_argument("--rules", help="module:attr of a rule set")
    parser.add_argument("--chaos", default="", help="rate_limited=0.05,overloaded=0.02,reset@3,hang@turn2")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--latency-ms", default="0", help="300, or a range: 200-800")
    parser.add_argument("--journal", help="append one JSON line per model call to this file")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when stdin closes")
    try:
        serve(Options(**vars(parser.parse_args(arguments))))
    except (ValueError, OSError) as error:  # ConfigError is a ValueError
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
