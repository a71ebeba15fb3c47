"""The entry point: finds the sub-command and decides how the process ends."""

import importlib
import pkgutil
import sys
from typing import NoReturn

import click

from shmpipe_tools import commands
from shmpipe_tools.failure import standard_output
from shmpipe_tools.sigpipe import die_of_sigpipe

EXIT_INTERRUPTED = 130


class CommandDirectory(click.Group):
    """A group whose sub-commands are the modules of `shmpipe_tools.commands`.

    Only the module of the command that runs is imported: `shmpipe cat` in a shell
    pipeline does not pay for the benchmark.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of the modules, which are those of the commands."""
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command that the module of this name defines."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{commands.__name__}.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Runs the sub-command; ends the process if it was interrupted or nobody reads it."""
        try:
            result = super().invoke(ctx)
            with standard_output():
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # A command that writes to a pipe of ours has turned its own EPIPE into a
            # Failure: this one is standard output's.
            die_of_sigpipe()
        return result


@click.command(cls=CommandDirectory, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shmpipe")
def shmpipe() -> None:
    """Pipes in shared memory: look at them, connect them to the shell, measure them.

    \b
    Exit codes: 0 done, 1 it could not be done (one line on stderr says why),
    2 the command line is wrong, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line (sys.argv unless told otherwise) and leaves with its exit code."""
    try:
        code = shmpipe.main(arguments, prog_name="shmpipe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    sys.exit(code)
