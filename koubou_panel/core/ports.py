"""The doors between the core and its shells: what a shop, an archive, an engine, a kind and a sampler must be.

Everything here is a Protocol or a record; who implements it imports this module and nothing beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from koubou_panel.core.commands import Caller, Command
from koubou_panel.core.curve import Curve
from koubou_panel.core.events import Sample
from koubou_panel.core.records import Job, Metrics, Outcome, Status, Task, TaskId, WorkerId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused

MOST_BINS = 2_000
LinkStatus = Literal["live", "reconnecting", "stale", "closed"]


class Link(Struct, frozen=True):
    """How fresh a shop's state is: seconds since the last word from the workshop (0 for the workshop itself)."""

    status: LinkStatus = "live"
    lag_s: float = 0.0


class TaskQuery(Struct, frozen=True, kw_only=True):
    """Which tasks, newest first. `cursor` is a page's `cursor`; `text` matches name and summary.

    `script`: the runs of that script of the catalogue. `offset` passes over as many; a cursor does it faster.
    `words` must each be in name or summary, `name` in the name; `labels` are (key, value or None: any). `since` and
    `until` (UTC seconds, the second exclusive) bound when a task ended, or was submitted where it has not ended.
    `count_s`: counting ends after so many seconds, and then the total is the least that it can be.
    """

    status: str | None = None
    kind: str | None = None
    text: str | None = None
    limit: int = 100
    cursor: str | None = None
    script: str | None = None
    offset: int = 0
    name: str | None = None
    words: tuple[str, ...] = ()
    reason: str | None = None
    worker: str | None = None
    labels: tuple[tuple[str, str | None], ...] = ()
    since: float | None = None
    until: float | None = None
    count_s: float | None = None


class TaskPage(Struct, frozen=True):
    """A page of tasks, newest first; `cursor` asks for the next (None: the last page); `total` matches in all.

    `is_counted`: `total` is exact, and not the least that it can be.
    """

    tasks: list[Task]
    cursor: str | None
    total: int
    is_counted: bool = True


class OutputPage(Struct, frozen=True):
    """A piece of a task's output: bytes `offset` to `end` of a log of `size` bytes, held from `start` on.

    `text` is cut at a character; invalid bytes are U+FFFD.
    """

    text: str
    offset: int
    end: int
    size: int
    start: int = 0


class OutputBytes(Struct, frozen=True):
    """A piece of a task's output as it was printed; the positions are those of `OutputPage`."""

    data: bytes
    offset: int
    end: int
    size: int
    start: int = 0


class RunSpan(Struct, frozen=True, array_like=True, gc=False):
    """A run that ended, where it stood on its worker: from `start` to `end`, UTC seconds.

    Or several short ones of the same status together, without a `task_id`: `count` of them between the two, at work
    for `busy_s` seconds in all.
    """

    worker_id: WorkerId
    start: float
    end: float
    status: Status
    task_id: TaskId
    label: str
    count: int
    busy_s: float


class RunSpans(Struct, frozen=True):
    """Runs between two moments. `bin_s`: those shorter than so many seconds were added up (0: none were)."""

    spans: list[RunSpan]
    bin_s: float = 0.0


MOST_SPANS = 20_000


class ScriptText(Struct, frozen=True, kw_only=True):
    """A script's text. `version` is its digest; `saved_at` when it was, UTC seconds; `path` its file.

    `is_current`: it is what the file holds now, and so what an edit may begin from.
    """

    name: str
    version: str
    text: str
    path: str
    saved_at: float
    is_current: bool = True


class ScriptVersion(Struct, frozen=True, kw_only=True):
    """A text that a script had, or (`is_refused`) that was not taken because it was made on a stale copy.

    `by` is who saved it, empty where that was done outside of the workshop.
    """

    version: str
    saved_at: float
    size_bytes: int
    by: str = ""
    is_current: bool = False
    is_refused: bool = False


class OutputMatch(Struct, frozen=True, kw_only=True):
    """A line of a run's output that has what was searched for: its number from 1, and the byte that it begins at."""

    task_id: TaskId
    line: int
    offset: int
    text: str


class OutputMatches(Struct, frozen=True, kw_only=True):
    """What a search found, newest run first, in `runs` of them; `is_cut`: there may be more, the search ended early."""

    matches: list[OutputMatch]
    runs: int
    is_cut: bool = False


class OutputSearch(Struct, frozen=True, kw_only=True):
    """Which lines, of which tasks: `text` as a person sees it, in upper or lower case; `tasks` newest first.

    At most `limit` lines in all and `per_task` of one, each with `context` lines on both sides. A newer search of the
    same `by` ends this one early; empty: none does.
    """

    text: str
    tasks: TaskQuery = TaskQuery()
    limit: int = 200
    per_task: int = 20
    context: int = 2
    by: str = ""


class OutputHit(Struct, frozen=True, kw_only=True):
    """A line that was found: its number from 1, the byte that it begins at, and the lines around it."""

    line: int
    offset: int
    text: str
    before: list[str] = []
    after: list[str] = []


class TaskHits(Struct, frozen=True, kw_only=True):
    """The lines that were found of one task; `is_cut`: it has more."""

    task: Task
    hits: list[OutputHit]
    is_cut: bool = False


class OutputHits(Struct, frozen=True, kw_only=True):
    """What a search found, newest task first, in `tasks` of them; `is_cut`: there may be more, it ended early."""

    found: list[TaskHits]
    tasks: int
    is_cut: bool = False


class OutputRemoved(Struct, frozen=True, kw_only=True):
    """What was removed of the output of a script's runs: of how many of them, and how much."""

    runs: int
    size_bytes: int


class Subscriber(Protocol):
    """Who follows a shop. Every call is on the shop's loop and must return quickly."""

    def on_reset(self, state: State) -> None:
        """The state was replaced as a whole (at once on subscribing, and after every new epoch or gap)."""

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """These facts were made durable, in this order; the state already contains them."""

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """These samples came; any may be missing."""


class Shop(Protocol):
    """A workshop, local or remote. Loop thread only."""

    @property
    def state(self) -> State:
        """The state, to read; never to change."""

    @property
    def link(self) -> Link:
        """How fresh the state is."""

    async def do(self, command: Command, caller: Caller) -> TaskId | None:
        """Carry out `command`; returns once it is durable: the task's id where it is about one.

        Raises:
            Refused: with `code` and a message that is safe to show.
        """

    async def do_many(self, commands: Sequence[Command], caller: Caller) -> list[TaskId | Refused | None]:
        """Carry out many commands in order, in few commits; for each what `do` would return or raise."""

    def next_id(self) -> TaskId:
        """A new id for a task that is about to be submitted."""

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Follow the shop from `on_reset` on; calling the result ends it."""

    async def find(self, query: TaskQuery) -> TaskPage:
        """Tasks by query, from the archive."""

    async def get(self, task_id: TaskId) -> Task | None:
        """One task, finished long ago or not."""

    async def values(self, task_ids: Sequence[TaskId]) -> list[bytes]:
        """The opaque results of finished tasks, in that order; empty bytes where there is none."""

    async def read_output(self, task_id: TaskId, offset: int, limit: int) -> OutputPage:
        """Output from byte `offset` (negative: that many bytes before the end), at most `limit` bytes."""

    async def read_bytes(self, task_id: TaskId, offset: int, limit: int) -> OutputBytes:
        """As `read_output`, byte for byte."""

    async def curve(self, task_id: TaskId) -> Curve | None:
        """What a task's last run uses, or used, over time; None where it was too short to be looked at."""

    async def metrics_binned(self, at: float, step_s: float) -> list[Metrics]:
        """The host since the UTC second `at` in spans of `step_s` seconds, as `core.bins.binned` has them.

        Raises:
            Refused: `invalid`: that would be more than `MOST_BINS` spans.
        """

    async def metrics_since(self, at: float) -> list[Metrics]:
        """Samples of the host since the UTC second `at`, oldest first."""

    async def spans(self, start: float, end: float, most: int = MOST_SPANS) -> RunSpans:
        """The runs that ended after the UTC second `start` and began before `end`: the last run of each task.

        Where there are more than `most` (1 to MOST_SPANS), the short ones are added up by worker, time and status.

        Raises:
            Refused: `invalid`, naming the field.
        """

    async def read_script(self, name: str, version: str | None = None) -> ScriptText:
        """A script's text: what its file holds now, or an earlier version.

        Args:
            name: the script.
            version: a version, or a beginning of one that no other has (4 characters or more).

        Raises:
            Refused: `not_found`: no such script, file or version; `invalid`: the file holds no text.
        """

    async def script_versions(self, name: str) -> list[ScriptVersion]:
        """The texts that are kept of a script, newest first; what its file holds now is marked.

        Raises:
            Refused: `not_found`: no such script.
        """

    async def save_script_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        """Save a script's text; its version once it is durable. What there was before is kept as a version.

        Saved twice, it is one version. Its parameters and what else was read from the text are read anew.

        Args:
            name: the script.
            text: at most `core.script.MAX_TEXT_BYTES` as UTF-8.
            base: the version that the edit began from; empty where there was no file.
            caller: who saves.

        Raises:
            Refused: `conflict`: the file holds another text than `base` by now; both are kept as versions.
        """

    async def restore_script(self, name: str, version: str, base: str, caller: Caller) -> str:
        """Save a kept version as the present text, as `save_script_text` does; its whole version."""

    async def search_output(self, script: str, text: str, limit: int = 100) -> OutputMatches:
        """Lines with `text`, in upper or lower case, in the output of a script's runs; at most `limit` of them."""

    async def search_logs(self, search: OutputSearch) -> OutputHits:
        """Lines in the output of all tasks that are asked for; bounded in time, and it says when it ended early.

        Raises:
            Refused: `invalid`; `unavailable`: as many searches are under way as may be.
        """

    async def held_output(self, task_ids: Sequence[TaskId]) -> list[int]:
        """How many bytes of output are held of each of these tasks, in that order."""

    async def remove_output(self, script: str, caller: Caller) -> OutputRemoved:
        """Remove what the runs of a script that have ended printed; the records of the runs stay.

        Raises:
            Refused: `forbidden`; `not_found`: there is no such script, and no run of one.
        """


class OutputSink(Protocol):
    """Where a run's output goes: bytes, in order."""

    def write(self, data: bytes) -> None:
        """Append `data` to the task's log."""

    @property
    def size(self) -> int:
        """Bytes written so far."""


class InputSource(Protocol):
    """What is sent to a run's input, piece by piece: at most 64 kB each, in order."""

    def fileno(self) -> int:
        """A descriptor to wait on: readable while a piece may wait."""

    def peek(self) -> tuple[bytes, bool] | None:
        """The oldest piece that was not taken yet, and whether it is the last; None: none waits."""

    def taken(self) -> None:
        """The oldest piece was handed on: its sender may send the next."""

    def close(self, why: str) -> None:
        """Take nothing any more; who sends is told why. Closing it again changes nothing."""


class RunContext(Protocol):
    """What a kind may use while it runs, inside the worker process. `home` is the workshop's folder."""

    output: OutputSink
    home: str

    def progress(self, done: float | None, total: float | None, unit: str = "", message: str = "") -> None:
        """Tell how far the run is."""

    def open_input(self) -> InputSource:
        """What is sent to the run. A kind that takes input calls it once."""

    def value_of(self, task_id: TaskId) -> bytes:
        """The opaque result of a task that succeeded before this run was started; raises for one that did not."""

    def payload_of(self, task_id: TaskId) -> bytes:
        """What was submitted with a task before this one; raises where there is no such task."""


class Prepared(Struct, frozen=True):
    """A spec that was checked: what to store, and the words for it."""

    spec: dict[str, object]
    name: str
    summary: str


class TaskKind(Protocol):
    """What a task can be. `prepare` is called in the workshop, `run` in a worker process.

    `batches`: many may share a worker's window. `shares_worker`: a run is part of its worker's own process, which ends
    with one that is stopped; else it is what the worker started, and that alone is ended.
    """

    name: str
    from_network: bool
    batches: bool
    shares_worker: bool

    def prepare(self, spec: Mapping[str, object], payload: bytes) -> Prepared:
        """Check and complete a spec.

        Raises:
            Refused: code `invalid`, naming the field.
        """

    def run(self, job: Job, context: RunContext) -> Outcome:
        """Do the work, to its end. It never raises for what the user's code does."""


class Sampler(Protocol):
    """What is measured. Called off the loop."""

    name: str
    every_s: float

    def sample(self) -> dict[str, object]:
        """Values by metric name, the unit in the name; numbers or lists of numbers."""
