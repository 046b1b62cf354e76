"""``pycomm topo``: describe, check, draw, convert and detect networks; bounds and schedules for them."""

from __future__ import annotations

import click

from pycomm.cli.topo import files, planning

__all__ = ["command"]


@click.group("topo", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Describe networks, and say what they can do at best.

    A network is named by a file (TOML, or any format that 'pycomm topo formats' lists) or by a name from
    'pycomm topo list'.
    """


for each in (
    files.list_names,
    files.formats,
    files.show,
    files.check,
    files.draw,
    files.convert,
    files.detect,
    planning.bound,
    planning.synthesize,
    planning.place,
    planning.compare,
):
    command.add_command(each)
