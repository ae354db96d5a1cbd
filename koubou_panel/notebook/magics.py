"""`%load_ext koubou_panel`: `%koubou`, which is the command line, and `%%koubou`, which runs a cell as a task."""

from __future__ import annotations

import asyncio
import contextlib
import keyword
import re
import shlex
from functools import partial
from typing import Any

from IPython import get_ipython
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.core.magic_arguments import MagicArgumentParser
from IPython.display import display

from koubou_panel.kinds.packing import RemoteTraceback
from koubou_panel.notebook.cell import Missing, names_used, run_cell, taken
from koubou_panel.notebook.current import CURRENT
from koubou_panel.notebook.extension import extension
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.notebook.up import home_asked, run_command, session_home, start_up
from koubou_panel.notebook.workshop import Workshop

WAKE_S = 0.1
_TRANSFORMED = re.compile(r"^get_ipython\(\)\.run_cell_magic\((['\"])koubou\1,")


def load(shell: Any) -> None:
    """Give `shell` the magics, and have cells of them awaited, so that what is shown of them stays live."""
    shell.register_magics(KoubouMagics)
    if awaited not in shell.input_transformers_post:
        shell.input_transformers_post.append(awaited)
    if hasattr(shell, "kernel"):
        extension()


def unload(shell: Any) -> None:
    """Take them away again."""
    with contextlib.suppress(ValueError):
        shell.input_transformers_post.remove(awaited)
    shell.magics_manager.magics["line"].pop("koubou", None)
    shell.magics_manager.magics["cell"].pop("koubou", None)


def awaited(lines: list[str]) -> list[str]:
    """A cell of `%%koubou` with an `await` before it: the kernel's loop goes on while the cell waits."""
    if lines and _TRANSFORMED.match(lines[0]):
        return [f"await {lines[0]}", *lines[1:]]
    return lines


def _parser() -> Any:
    parser: Any = MagicArgumentParser(  # type: ignore[no-untyped-call]
        "%%koubou", description="Run the cell as a task of the workshop."
    )
    add = parser.add_argument
    add("name", nargs="?", help="the variable that is given the value of the cell's last expression")
    add("--detach", action="store_true", help="do not wait: the variable is given the future")
    add(
        "--keep",
        default="",
        metavar="A,B",
        help="names that the cell makes, and that the notebook is to have",
    )
    add("--timeout", type=float, metavar="SECONDS", help="end it after so long")
    add("--retries", type=int, metavar="N", help="try again so often if it fails")
    add("--on-crash", choices=("mark", "retry"), help="what becomes of it if its worker dies")
    add("--priority", type=int, metavar="1-10", help="10 is first")
    add("--memory", metavar="SIZE", help="how much it may have, such as 2G")
    add("--output", metavar="SIZE", help="how much output is kept")
    add("--cpu", type=float, metavar="SECONDS", help="of processor time, at most")
    add("--processes", type=int, metavar="N", help="how many processes it may start")
    add("--after", action="append", default=[], metavar="X", help="a future's variable, or a task's id")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="a label of the task")
    add("--title", metavar="TEXT", help="what the task is called")
    return parser


def _help() -> str:
    """What `%%koubou` takes, without the marks of a docstring that IPython puts around it."""
    text: str = _parser().format_help()
    return "Usage:" + text.removeprefix("::").rstrip().replace("%%%koubou", "%%koubou", 1)


@magics_class
class KoubouMagics(Magics):
    """`%koubou` and `%%koubou`."""

    shell: Any

    @line_cell_magic
    def koubou(self, line: str, cell: str | None = None) -> Any:
        """`%koubou status`, `ps`, `logs ID`, ...: the command line; `%%koubou [name]`: the cell, as a task."""
        if cell is not None:
            work = self.in_turn(line, cell)
            return work if _is_in_loop() else asyncio.run(work)
        home, words = home_asked(_words(line))
        words = words or ["status"]
        if words[0] == "up":
            other, rest = home_asked(words[1:], anywhere=True)
            start_up(rest, other or home or session_home())
        elif words[0] == "help":
            print(_help())  # noqa: T201 - a magic prints
            run_command(["--help"], home)
        else:
            run_command(words, home)
        return None

    async def in_turn(self, line: str, cell: str) -> Any:
        """Run the cell as a task, and wait for it unless told not to; an interrupt cancels it."""
        asked = _asked(line)
        keep = [name.strip() for name in asked.keep.split(",") if name.strip()]
        for name in [*keep, *([asked.name] if asked.name else [])]:
            if keyword.iskeyword(name):
                raise UsageError(f"{name!r} is a word of Python's own and no name of a variable")
            if not name.isidentifier():
                raise UsageError(f"{name!r} is no name of a variable")
        future = self._submitted(asked, cell, keep)
        display(future)  # type: ignore[no-untyped-call]
        if asked.detach:
            return self._given(asked.name, future)
        try:
            await _ended(future)
        except (asyncio.CancelledError, KeyboardInterrupt):
            future.cancel()
            raise KeyboardInterrupt from None  # a kernel tells a cell that awaits by cancelling it
        value = self._value(future, _title(self.shell))
        return self._given_with(asked.name, *value) if keep else self._given(asked.name, value)

    def _submitted(self, asked: Any, cell: str, keep: list[str]) -> TaskFuture:
        source = _python(self.shell, cell)
        title = _title(self.shell)
        names = taken(names_used(source, title), self.shell.user_ns)
        workshop = _workshop()
        options = _options(asked, self.shell.user_ns)
        options["name"] = asked.title or (f"{title} {asked.name}" if asked.name else title)
        future = workshop.submit_with(run_cell, source, title, names, keep, options=options)
        if future.done():
            _explain(future, names)
        return future

    def _given_with(self, name: str | None, value: Any, kept: dict[str, Any]) -> Any:
        """Give the value and what was to be kept, as far as they are there.

        Raises:
            UsageError: names what is not, and why.
        """
        found = {each: thing for each, thing in kept.items() if not isinstance(thing, Missing)}
        self.shell.user_ns.update(found)
        missing = [f"{each}: {thing.why}" for each, thing in kept.items() if each not in found]
        if isinstance(value, Missing):
            missing.insert(0, f"{name or 'its value'}: {value.why}")
        elif not missing:
            return self._given(name, value)
        else:
            found = {name: value, **found} if name else found
            self.shell.displayhook(self._given(name, value))  # an error leaves no value to be shown
        given = f"has given {', '.join(found)}" if found else "has run"
        raise UsageError(f"%%koubou: the cell {given}; not there: {'; '.join(missing)}")

    def _given(self, name: str | None, value: Any) -> Any:
        if not name:
            return value
        self.shell.user_ns[name] = value
        return None

    def _value(self, future: TaskFuture, title: str) -> Any:
        if not hasattr(self.shell, "kernel"):  # there is no card that would show it
            print(future.task.output, end="")  # noqa: T201
        try:
            return future.result(0)
        except Exception as error:  # noqa: BLE001 - the cell's own, from which only the cell's part is shown
            cause = error.__cause__
            if isinstance(cause, RemoteTraceback):
                at = cause.tb.find(f'  File "{title}"')
                cause.tb = f"Traceback (most recent call last):\n{cause.tb[at:]}" if at >= 0 else cause.tb
            with contextlib.suppress(AttributeError):
                error._render_traceback_ = partial(_rendered, error)  # type: ignore[attr-defined]
            raise error.with_traceback(None) from cause


def _rendered(error: BaseException) -> Any:
    """What IPython shows of a cell's own error: how it came through here is nobody's concern."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_frame.f_code.co_filename == __file__:
            last.tb_next = None
            break
        last = last.tb_next
    return get_ipython().InteractiveTB.structured_traceback(type(error), error, error.__traceback__)


async def _ended(future: TaskFuture) -> None:
    """Until it has; its exception is left to who asks for its result."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(event.set)

    future.add_done_callback(tell)
    while not event.is_set():
        # ipykernel 7.4 notes an interrupt from another thread, and does not wake the loop for it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAKE_S):
                await event.wait()


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _title(shell: Any) -> str:
    """What a traceback calls the cell that runs: its number, which is not counted up while others do."""
    running = getattr(shell.displayhook.exec_result, "execution_count", None)
    return f"cell [{running or shell.execution_count}]"


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%koubou {line}: {error}") from None


def _asked(line: str) -> Any:
    parser = _parser()
    return parser.parse_args(_words(line))


def _options(asked: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """The options of the task, without those that were not given."""
    names = ("retries", "priority", "memory", "output", "processes", "on_crash")
    options = {name: getattr(asked, name) for name in names}
    options |= {"timeout_s": asked.timeout, "cpu_s": asked.cpu}
    labels = dict(label.partition("=")[::2] for label in asked.label)
    after = [namespace.get(each, each) for each in asked.after]
    options |= {"labels": labels or None, "after": after or None}
    return {name: value for name, value in options.items() if value is not None}


def _python(shell: Any, cell: str) -> str:
    """The cell's text, a line down, as it stands below `%%koubou`.

    Raises:
        UsageError: it has magics or commands of IPython, which a worker does not know.
        SyntaxError: it is no Python.
    """
    plain: str = shell.transform_cell(cell)
    if plain.count("get_ipython()") > cell.count("get_ipython()"):
        raise UsageError(
            "%%koubou: a task is plain Python, without %magics, !commands and ?help: "
            "leave them out of this cell (subprocess.run runs a command)"
        )
    return "\n" + plain


def _explain(future: TaskFuture, names: dict[str, Any]) -> None:
    """Raise what is wrong with a task that was refused at once: which variable it is that cannot be sent.

    Raises:
        UsageError: names the variable.
    """
    error = future.exception(0)
    if error is None:
        return
    from koubou_panel.kinds.packing import pickled_function

    for name, value in names.items():
        try:
            pickled_function(lambda value=value: value)
        except Exception as why:  # noqa: BLE001 - whatever a person's object raises
            raise UsageError(f"%%koubou: the cell uses {name!r}, which cannot be sent: {why}") from None
    raise error


def _workshop() -> Workshop:
    """The workshop of the session; where it was opened for this, it says so."""
    found = CURRENT.found()
    if found is not None:
        return found
    workshop = CURRENT.workshop()
    where = (
        "attached to the workshop that runs at" if workshop.is_attached else "this kernel holds a workshop at"
    )
    print(f"{where} {workshop.home.root}")  # noqa: T201
    return workshop
