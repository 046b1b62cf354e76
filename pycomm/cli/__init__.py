"""The command ``pycomm``: one module per command, imported only when it is used.

Exit codes: 0 fine, 1 findings, 2 usage, 3 unavailable, 4 communication failed, 70 internal error.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from pycomm import errors
from pycomm.config import setting
from pycomm.events import configure_logging

__all__ = ["exit_code", "group", "main"]

_COMMANDS: Final = {
    "bench": "Measure collectives: time, algbw, busbw, side by side with other libraries.",
    "conformance": "Check every collective of a backend against the oracle.",
    "doctor": "Say what is installed, which backends work here, and what is wrong.",
    "schedule": "Show, verify, convert and draw schedules.",
    "tune": "Say which algorithm is chosen and why; measure, and make a table that overrides it.",
    "topo": "Describe, check, draw, convert and detect networks; bounds and schedules for them.",
}
"""Name and help of each command; ``pycomm.cli.NAME`` defines it as ``command``."""

_CODES: Final[Sequence[tuple[type[BaseException], int]]] = (
    (errors.ScheduleError, 1),
    (errors.UsageError, 2),
    (errors.TopologyError, 2),
    (errors.PlanningError, 2),
    (errors.BackendUnavailable, 3),
    (errors.Unsupported, 3),
    (errors.ResourceError, 3),
    (errors.CommError, 4),
    (errors.Mismatch, 4),
    (errors.InternalError, 70),
    (OSError, 2),
)


class _LazyGroup(click.Group):
    """Knows its commands by name; imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (the signature is click's)
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's)
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"pycomm.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise errors.InternalError(f"pycomm.cli.{cmd_name}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pycomm-collectives", prog_name="pycomm")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Hardware-agnostic collective communication."""
    # The doctor reports a wrong PYCOMM_LOG among the other findings, so it must not stumble over it here.
    if ctx.invoked_subcommand != "doctor":
        configure_logging(setting("log"))


def exit_code(error: BaseException) -> int:
    """Exit code of the command line for an exception."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 70)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every failure is one clear message on stderr and an exit code."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = group.main(args=arguments, prog_name="pycomm", standalone_mode=False)
        # A command that ended through ctx.exit(code) has its code returned by click.
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("pycomm: interrupted", err=True)
        return 130
    except Exception as error:  # shown, and told by the exit code
        code = exit_code(error)
        if code == 70:
            traceback.print_exc()
        click.secho(f"pycomm: error: {error or type(error).__name__}", err=True, fg="red")
        return code
