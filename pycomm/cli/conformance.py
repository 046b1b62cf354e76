"""``pycomm conformance``: the suite of :mod:`pycomm.testing.conformance`, which reads its own arguments."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("conformance", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Check every collective of a backend against the oracle; --help lists the options."""
    from pycomm.testing.conformance import main

    ctx.exit(main(list(arguments)))
