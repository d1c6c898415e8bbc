"""The click group behind `mmpy`, and how its commands fail.

Models: nothing of the kernel. Whatever a user can get wrong ends as one line on stderr and status 2; Ctrl-C as status 130.
"""

from __future__ import annotations

from typing import Any

import click

from mmcore import __version__
from mmpy.cli.boot import boot
from mmpy.cli.compare import compare
from mmpy.cli.replay import replay
from mmpy.cli.run import run

INTERRUPTED = 130


class Mmpy(click.Group):
    """A group whose commands, when interrupted, end as programs do that a signal ended."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("mmpy: interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Mmpy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mmpy")
def cli() -> None:
    """A simulated Linux memory manager: boot a machine, run accesses or a recorded trace on it, compare it with real kernels."""


cli.add_command(boot)
cli.add_command(replay)
cli.add_command(run)
cli.add_command(compare)
