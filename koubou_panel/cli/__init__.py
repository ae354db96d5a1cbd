"""`koubou`: what a person types. The commands are imported when they are called, so that help comes at once."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from koubou_panel import __version__

# command -> where it is, and its line in the overview
COMMANDS = {
    "up": ("koubou_panel.cli.service:up", "Start the workshop and its dashboard; Ctrl-C ends them."),
    "down": ("koubou_panel.cli.service:down", "End the workshop that `koubou up` started."),
    "restart": ("koubou_panel.cli.service:restart", "Restart everything, one service, or one worker."),
    "status": ("koubou_panel.cli.status:status", "Every service, and a fresh link to the dashboard."),
    "doctor": ("koubou_panel.cli.doctor:doctor", "What is missing on this machine, and what mends it."),
    "demo": ("koubou_panel.cli.demo:demo", "A busy workshop to look at, in a throw-away home."),
    "run": ("koubou_panel.cli.run:run", "Run a command as a task and follow its output."),
    "prompt": ("koubou_panel.cli.prompt:prompt", "Ask a language model, and print its answer as it comes."),
    "models": ("koubou_panel.cli.models:models", "The models that there are, and which one prompts go to."),
    "ps": ("koubou_panel.cli.tasks:ps", "List tasks, newest first."),
    "show": ("koubou_panel.cli.tasks:show", "One task, in full."),
    "logs": ("koubou_panel.cli.run:logs", "What a task printed."),
    "cancel": ("koubou_panel.cli.tasks:cancel", "End tasks."),
    "retry": ("koubou_panel.cli.tasks:retry", "Run a finished task again, as a new one."),
    "script": ("koubou_panel.cli.script:script", "Keep scripts by name, and run them on a schedule."),
    "workers": ("koubou_panel.cli.workers:workers", "List the workers."),
    "scale": ("koubou_panel.cli.pool:scale", "Set how many workers there are."),
    "pause": ("koubou_panel.cli.pool:pause", "Start no new work."),
    "drain": ("koubou_panel.cli.pool:drain", "Take and start no new work, and wait until nothing runs."),
    "resume": ("koubou_panel.cli.pool:resume", "Take and start work again."),
    "watch": ("koubou_panel.cli.watch:watch", "Print every message of the WebSocket."),
    "load": ("koubou_panel.cli.load:load", "Test with many small tasks, and print the figures."),
    "export": ("koubou_panel.cli.export:export", "Write metrics and tasks to a file."),
    "config": ("koubou_panel.cli.config:config", "Show the settings, and change them."),
    "token": ("koubou_panel.cli.token:token", "Print the token that opens the ports."),
}

EPILOG = (
    "KOUBOU_HOME names the home, KOUBOU_TOKEN the token. Tasks may be named by the beginning or the end of their "
    'id. Completion: eval "$(_KOUBOU_COMPLETE=bash_source koubou)" (or zsh_source, fish_source).'
)


class LazyGroup(click.Group):
    """Commands by table; each is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` names.

        Raises:
            click.UsageError: there is none, with the nearest name.
        """
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from koubou_panel.core.suggest import unknown

            raise click.UsageError(unknown("command", args[0], COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="koubou %(version)s")
@click.option("--home", metavar="DIR", help="The workshop's home, instead of KOUBOU_HOME.")
@click.pass_context
def koubou(ctx: click.Context, home: str | None) -> None:
    """Koubou Panel 工房: run long work on your own machine and see it live."""
    ctx.obj = {"home": home}


def main() -> int:
    """Run what was typed; gives the exit code. stdout is for data, every word for people goes to stderr."""
    if sys.stdout is None:  # started with `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - it lives as long as the process
    try:
        try:
            code = koubou.main(prog_name="koubou", standalone_mode=False)
            sys.stdout.flush()
        except SystemExit as ended:
            if "PacifyFlush" in type(sys.stdout).__name__:  # how click ends a command whose reader is gone
                raise BrokenPipeError from None
            return ended.code if isinstance(ended.code, int) else 0  # shell completion
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge: every end has its exit code
            from koubou_panel.cli.ending import explain

            code = explain(error)
            _flush_rest()
    except BrokenPipeError:  # whoever reads has seen enough
        _drop_rest()
        return 141
    return code if isinstance(code, int) else 0


def _flush_rest() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:  # this is what has just been explained
        _drop_rest()


def _drop_rest() -> None:
    """Let nothing complain when the interpreter flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
