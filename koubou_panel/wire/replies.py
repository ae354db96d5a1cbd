"""What each command of the protocol does: one function a command, in the order of PROTOCOL's table."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import asdict

from koubou_panel.core import commands as core_commands
from koubou_panel.core.commands import (
    CancelTask,
    Command,
    DrainPool,
    PausePool,
    RestartWorker,
    ResumePool,
    RetryTask,
    ScaleWorkers,
    SendInput,
    SubmitTask,
)
from koubou_panel.core.curve import Curve
from koubou_panel.core.decide import role_refusal
from koubou_panel.core.ports import OutputPage, TaskPage, TaskQuery
from koubou_panel.core.records import (
    FACT_CHANNELS,
    NO_LIMITS,
    Channel,
    Limits,
    Request,
    Role,
    Task,
    TaskId,
    WorkerId,
)
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.wire.commands import (
    WRITES,
    Auth,
    Cancel,
    ClientCommand,
    ClientFrame,
    DrainWorkers,
    GetOutput,
    GetStats,
    GetTask,
    GetUsage,
    ListTasks,
    PauseWorkers,
    Ping,
    RestartOneWorker,
    Resume,
    ResumeWorkers,
    Retry,
    RunScript,
    Scale,
    SendText,
    Submit,
    Subscribe,
    Unsubscribe,
)
from koubou_panel.wire.desk import Desk
from koubou_panel.wire.effects import (
    Answer,
    Call,
    Close,
    Do,
    Effect,
    Find,
    Follow,
    Get,
    GetCurve,
    Read,
    Rewind,
    Send,
    Unfollow,
)
from koubou_panel.wire.messages import message, stats_data
from koubou_panel.wire.records import curve_record, task_record

CLOSE_UNAUTHORIZED = 4401
MAX_FOLLOWED = 64
LATEST_BYTES = 65_536


def handle(desk: Desk, frame: ClientFrame) -> list[Call]:
    """Begin to carry out a frame of a client that has shown who it is."""
    command = frame.command
    if isinstance(command, ProtocolFault):
        return desk.refuse(frame, command)
    if isinstance(command, WRITES) and (refusal := refused_role(command, desk.role)) is not None:
        return desk.refuse(frame, refusal)
    return _HANDLERS[type(command)](desk, frame, command)


def refused_role(command: ClientCommand, role: Role | None) -> Refused | None:
    """Why a client of this role may not change what `command` changes; None if it may."""
    if role == "full" or (role == "run" and isinstance(command, RunScript)):
        return None
    return role_refusal(role or "read", "run" if isinstance(command, RunScript) else "full")


def authenticate(desk: Desk, frame: ClientFrame) -> list[Effect]:
    """The answer to any frame of a client that has not, and to `auth` at any time."""
    command = frame.command
    role = desk.verify(command.token) if isinstance(command, Auth) else None
    if role is None:
        words = "this token is not the workshop's" if isinstance(command, Auth) else "send auth first"
        told = desk.fault(frame, Refused("unauthorized", f"{words}; `koubou token` prints the present one"))
        return [told, Close(CLOSE_UNAUTHORIZED, "unauthorized")]
    was_open, desk.role = desk.role is not None, role
    told = desk.say("authenticated", frame, data={"role": role})
    return [told] if was_open else [told, Send(desk.view.initial_state())]


def _auth(desk: Desk, frame: ClientFrame, command: Auth) -> list[Call]:  # noqa: ARG001 - one signature for all
    return desk.later(lambda: authenticate(desk, frame))


# -- channels -------------------------------------------------------------------------------------------------


def _subscribe(desk: Desk, frame: ClientFrame, command: Subscribe) -> list[Call]:
    if command.channel == "output":
        return _follow(desk, frame, command)
    channel, since = command.channel, command.since

    def subscribed(seq: int) -> bytes:
        at = desk.view.utc()
        return message("subscribed", at, id=frame.id, channel=channel, seq=seq)

    def reply() -> list[Effect]:
        view = desk.view
        desk.channels |= {channel}
        if since is None:
            return [Send(subscribed(view.head[channel]))]
        if not view.holds(view.state.epoch, {channel: since}):
            return [Send(view.initial_state()), Send(subscribed(view.head[channel]))]
        return [Rewind({channel: since}, lambda place: subscribed(place[channel]))]

    return desk.later(reply)


def _follow(desk: Desk, frame: ClientFrame, command: Subscribe) -> list[Call]:
    task_id = command.task_id
    if task_id is None:
        words = "task_id is missing: output is followed task by task"
        return desk.refuse(frame, Refused("invalid", words, field="task_id"))

    def reply(answer: Answer) -> list[Effect]:
        if not isinstance(answer, Task):
            return [desk.fault(frame, Refused("not_found", f"no task {task_id}"))]
        if len(desk.followed) >= MAX_FOLLOWED and answer.task_id not in desk.followed:
            words = f"one connection follows the output of at most {MAX_FOLLOWED} tasks; unsubscribe one"
            return [desk.fault(frame, Refused("limit", words))]
        desk.followed.add(answer.task_id)
        told = desk.say("subscribed", frame, channel="output", seq=0, task_id=answer.task_id)
        return [
            told,
            Follow(answer.task_id, -LATEST_BYTES if command.since is None else command.since),
        ]

    return desk.ask(frame, Get(TaskId(task_id)), reply)


def _unsubscribe(desk: Desk, frame: ClientFrame, command: Unsubscribe) -> list[Call]:
    def reply() -> list[Effect]:
        told = desk.say("unsubscribed", frame, channel=command.channel)
        if command.channel != "output":
            desk.channels -= {command.channel}
            return [told]
        ended = set(desk.followed) if command.task_id is None else {TaskId(command.task_id)} & desk.followed
        desk.followed -= ended
        return [*[Unfollow(task_id) for task_id in sorted(ended)], told]

    return desk.later(reply)


def _resume(desk: Desk, frame: ClientFrame, command: Resume) -> list[Call]:
    if "output" in command.since:
        words = "output is resumed by subscribe, with task_id and the byte offset as since"
        return desk.refuse(frame, Refused("invalid", words, field="since"))
    since = {channel: command.since[channel] for channel in FACT_CHANNELS if channel in command.since}

    def resumed(place: dict[Channel, int]) -> bytes:
        return message("resumed", desk.view.utc(), id=frame.id, data={"seq": place})

    def reply() -> list[Effect]:
        view = desk.view
        desk.channels |= set(since)
        if not view.holds(command.epoch, since):
            return [Send(view.initial_state(frame.id))]
        return [Rewind(since, lambda place: resumed({channel: place[channel] for channel in since}))]

    return desk.later(reply)


# -- questions ------------------------------------------------------------------------------------------------


def _get_stats(desk: Desk, frame: ClientFrame, command: GetStats) -> list[Call]:  # noqa: ARG001
    view = desk.view
    return desk.later(lambda: [desk.say("stats", frame, data=stats_data(view.state, view.connections()))])


def _ping(desk: Desk, frame: ClientFrame, command: Ping) -> list[Call]:  # noqa: ARG001
    return desk.later(lambda: [desk.say("pong", frame)])


def _get_task(desk: Desk, frame: ClientFrame, command: GetTask) -> list[Call]:
    def reply(answer: Answer) -> list[Effect]:
        if not isinstance(answer, Task):
            return [desk.fault(frame, Refused("not_found", f"no task {command.task_id}"))]
        return [desk.say("task", frame, data=task_record(answer))]

    return desk.ask(frame, Get(TaskId(command.task_id)), reply)


def _list_tasks(desk: Desk, frame: ClientFrame, command: ListTasks) -> list[Call]:
    def reply(answer: Answer) -> list[Effect]:
        page = answer if isinstance(answer, TaskPage) else TaskPage([], None, 0)
        tasks = [task_record(task) for task in page.tasks]
        return [desk.say("tasks", frame, data={"tasks": tasks, "cursor": page.cursor, "total": page.total})]

    query = TaskQuery(
        status=command.status,
        kind=command.kind,
        text=command.text,
        limit=100 if command.limit is None else command.limit,
        cursor=command.cursor,
    )
    return desk.ask(frame, Find(query), reply)


def _get_output(desk: Desk, frame: ClientFrame, command: GetOutput) -> list[Call]:
    def reply(answer: Answer) -> list[Effect]:
        if not isinstance(answer, OutputPage):
            return [desk.fault(frame, Refused("not_found", f"no task {command.task_id}"))]
        return [desk.say("output", frame, task_id=command.task_id, data=answer)]

    return desk.ask(frame, Read(TaskId(command.task_id), command.offset, command.limit), reply)


def _get_usage(desk: Desk, frame: ClientFrame, command: GetUsage) -> list[Call]:
    def reply(answer: Answer) -> list[Effect]:
        if not isinstance(answer, Curve):
            return [desk.fault(frame, Refused("not_found", f"no task {command.task_id}"))]
        return [desk.say("usage", frame, task_id=command.task_id, data=curve_record(answer))]

    return desk.ask(frame, GetCurve(TaskId(command.task_id)), reply)


# -- what changes something -----------------------------------------------------------------------------------


def _submit(desk: Desk, frame: ClientFrame, command: Submit) -> list[Call]:
    if command.kind == "function":
        words = "a function is never taken from the network; use the Python face on this machine"
        return desk.refuse(frame, Refused("invalid", words, field="kind"))
    view = desk.view
    given = {
        "name": command.name,
        "priority": command.priority,
        "timeout_s": command.timeout_s,
        "retries": command.retries,
        "on_crash": command.on_crash,
        "labels": command.labels,
        "idempotency_key": command.idempotency_key,
        "after": None if command.after is None else tuple(map(TaskId, command.after)),
    }
    limits = NO_LIMITS if command.limits is None else Limits(**asdict(command.limits))
    request = Request(
        task_id=view.next_id(),
        kind=command.kind,
        created_at=view.utc(),
        spec=command.spec,
        limits=limits,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    return desk.ask(frame, Do(SubmitTask(request)), _submitted(desk, frame))


def _retry(desk: Desk, frame: ClientFrame, command: Retry) -> list[Call]:
    retry = RetryTask(TaskId(command.task_id), desk.view.next_id(), command.spec)
    return desk.ask(frame, Do(retry), _submitted(desk, frame))


def _submitted(desk: Desk, frame: ClientFrame) -> Callable[[Answer], list[Effect]]:
    def reply(answer: Answer) -> list[Effect]:
        if not isinstance(answer, Task):
            return [desk.fault(frame, Refused("internal", "the task was taken in, but cannot be shown"))]
        return [desk.say("submitted", frame, task_id=answer.task_id, data=task_record(answer))]

    return reply


def _cancel(desk: Desk, frame: ClientFrame, command: Cancel) -> list[Call]:
    return _accept(desk, frame, CancelTask(TaskId(command.task_id)), task_id=command.task_id)


def _send_input(desk: Desk, frame: ClientFrame, command: SendText) -> list[Call]:
    if not command.text and not command.is_last:
        return desk.refuse(frame, Refused("invalid", "text is missing, or is_last to end it", field="text"))
    sent = SendInput(TaskId(command.task_id), command.text.encode(), command.is_last)
    return _accept(desk, frame, sent, task_id=command.task_id)


def _scale(desk: Desk, frame: ClientFrame, command: Scale) -> list[Call]:
    pool = desk.view.state.pool
    least, most = command.min_workers, command.max_workers
    if command.workers is not None:
        if least is not None or most is not None:
            words = "give workers, or min_workers and max_workers, not both"
            return desk.refuse(frame, Refused("invalid", words, field="workers"))
        least = most = command.workers
    elif least is None and most is None:
        words = "workers is missing (or min_workers and max_workers)"
        return desk.refuse(frame, Refused("invalid", words, field="workers"))
    least = min(pool.min_workers, most or pool.min_workers) if least is None else least
    most = max(pool.max_workers, least) if most is None else most
    bounds = {"min_workers": least, "max_workers": most}
    return _accept(desk, frame, ScaleWorkers(least, most), data=bounds)


def _accept(desk: Desk, frame: ClientFrame, command: Command, **fields: object) -> list[Call]:
    """Carry out `command`; the reply is `accepted` with `fields`."""
    return desk.ask(frame, Do(command), lambda _: [desk.say("accepted", frame, **fields)])


def _pause(desk: Desk, frame: ClientFrame, command: PauseWorkers) -> list[Call]:  # noqa: ARG001 - one signature for all
    return _accept(desk, frame, PausePool())


def _resume_workers(desk: Desk, frame: ClientFrame, command: ResumeWorkers) -> list[Call]:  # noqa: ARG001 - one signature for all
    return _accept(desk, frame, ResumePool())


def _drain(desk: Desk, frame: ClientFrame, command: DrainWorkers) -> list[Call]:  # noqa: ARG001 - one signature for all
    return _accept(desk, frame, DrainPool())


def _restart(desk: Desk, frame: ClientFrame, command: RestartOneWorker) -> list[Call]:
    restart = RestartWorker(WorkerId(command.worker_id), command.at_once)
    return _accept(desk, frame, restart, worker_id=command.worker_id)


def _run_script(desk: Desk, frame: ClientFrame, command: RunScript) -> list[Call]:
    run = core_commands.RunScript(
        command.script_name,
        desk.view.next_id(),
        command.parameters or {},
        priority=command.priority,
        timeout_s=command.timeout_s,
        retries=command.retries,
        on_crash=command.on_crash,
        labels=command.labels or {},
        idempotency_key=command.idempotency_key,
        after=tuple(map(TaskId, command.after or ())),
    )
    return desk.ask(frame, Do(run), _submitted(desk, frame))


_HANDLERS: dict[type[ClientCommand], Callable[..., list[Call]]] = {
    Auth: _auth,
    Subscribe: _subscribe,
    Unsubscribe: _unsubscribe,
    GetStats: _get_stats,
    Ping: _ping,
    Resume: _resume,
    Submit: _submit,
    Cancel: _cancel,
    SendText: _send_input,
    Retry: _retry,
    GetTask: _get_task,
    ListTasks: _list_tasks,
    GetOutput: _get_output,
    GetUsage: _get_usage,
    Scale: _scale,
    PauseWorkers: _pause,
    ResumeWorkers: _resume_workers,
    DrainWorkers: _drain,
    RestartOneWorker: _restart,
    RunScript: _run_script,
}
