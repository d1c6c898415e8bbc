"""The command line: `mmpy boot`, `mmpy replay`, `mmpy compare`.

Needs the extra `cli` (click and rich); without it `main` says so and how to get it. Everything that a command prints as a table it
also prints as one JSON document with --json; progress and complaints go to stderr.

Exit status: 0 done (and, for compare, no exact figure differs), 1 a difference or a failure of the run, 2 bad usage or unreadable
input, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

NEEDS = ("click", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with `argv` (default: the process's own); returns the exit status."""
    try:
        from mmpy.cli.app import cli

        cli.main(args=None if argv is None else list(argv), prog_name="mmpy")
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] not in NEEDS:
            raise
        print(f"mmpy: the command line needs {e.name}, which is not installed: pip install 'linux-mm-sim[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # So early that no command ran yet.
        return 130
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0
