"""The private link's two halves, back to back, without a socket."""

from __future__ import annotations

import msgspec
import pytest

from koubou_panel.core.commands import (
    Caller,
    CancelTask,
    CloseShop,
    DrainPool,
    PausePool,
    RestartWorker,
    ResumePool,
    ScaleWorkers,
    SendInput,
    SubmitTask,
)
from koubou_panel.core.events import OutputGrew, TaskSubmitted
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.records import Limits, Request, Task, TaskId, WorkerId
from koubou_panel.core.state import State
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.wire import link, questions

ID = TaskId("0123456789abcd")


def _a_request(**more):
    return Request(task_id=ID, kind="script", created_at=0.0, spec={"command": ["true"]}, **more)


def _a_hello(*, python="3.11", version=link.VERSION):
    return link.encode(link.Hello(version, python, "test", replica=True))


CLIENT_MESSAGES = [
    link.Do(
        1, Caller("cli"), [SubmitTask(_a_request(payload=b"x")), CancelTask(ID), ScaleWorkers(1, 2)], True
    ),
    link.Do(
        2,
        Caller("cli"),
        [
            SubmitTask(_a_request(after=(ID,), limits=Limits(memory_bytes=2**31, cpu_s=0.5))),
            PausePool(),
            ResumePool(),
            DrainPool(),
            CloseShop(),
            RestartWorker(WorkerId("worker-1"), at_once=True),
            SendInput(ID, b"\xff\n", is_last=True),
        ],
    ),
    link.Ask(2, questions.Find(TaskQuery(status="failed", limit=3))),
    link.Ask(3, questions.Get(ID)),
    link.Ask(4, questions.Read(ID, -10, 10)),
    link.Ask(5, questions.ReadBytes(ID, 0, 10)),
    link.Ask(6, questions.Values([ID])),
    link.Ask(7, questions.MetricsSince(1.5)),
    link.Ask(15, questions.MetricsBinned(1.5, 60.0)),
    link.Ask(8, questions.GetCurve(ID)),
    link.Ask(14, questions.Spans(1.0, 2.5, 20)),
    link.Ask(9, questions.ReadScript("工", None)),
    link.Ask(10, questions.ListVersions("s")),
    link.Ask(11, questions.SaveText("s", "ä\r\n", "", Caller("cli"))),
    link.Ask(12, questions.RestoreText("s", "abcd", "ef", Caller("cli"))),
    link.Ask(13, questions.SearchOutput("s", "x", 5)),
    link.Follow(ID),
    link.Unfollow(ID),
]
SERVER_MESSAGES = [
    link.Reset(State("e").snapshot(), more=True),
    link.More([Task(request=_a_request(), order=1)], more=False),
    link.Facts([TaskSubmitted(1.0, _a_request(), 1)], [1]),
    link.Samples([OutputGrew(1.0, ID, 1, 5)]),
    link.Beat("e"),
    link.Replies(1, [ID, None, link.Refusal("invalid", "no", "kind", "script")]),
    link.Failed(2, link.Refusal("not_found", "no")),
    link.Now(ID, Task(request=_a_request(), order=1)),
    link.Now(ID, None),
]


def test_client_messages_arrive_as_they_were_sent() -> None:
    """Every client message crosses unchanged."""
    half = link.ServerHalf("3.11")
    data = _a_hello() + b"".join(map(link.encode, CLIENT_MESSAGES))
    assert list(half.receive(data))[1:] == CLIENT_MESSAGES


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_server_messages_arrive_however_the_stream_is_cut(size: int) -> None:
    """Every server message crosses unchanged, whatever pieces the socket makes of it."""
    half = link.ClientHalf()
    data = link.encode(link.Welcome(1, "e", 7, "3.11")) + b"".join(map(link.encode, SERVER_MESSAGES))
    got = [m for at in range(0, len(data), size) for m in half.receive(data[at : at + size])]
    assert got[1:] == SERVER_MESSAGES
    assert half.welcome == link.Welcome(1, "e", 7, "3.11")


def test_answer_has_the_type_its_question_names() -> None:
    """An answer is decoded by its question."""
    question = questions.Find(TaskQuery())
    half = link.ClientHalf()
    page = TaskPage([Task(request=_a_request(), order=1)], "c", 1)
    frames = link.encode(link.Welcome(1, "e", 7, "3.11")) + link.answer(5, page)
    message = list(half.receive(frames))[-1]
    assert isinstance(message, link.Answer)
    assert link.answered(question, message.value) == page
    with pytest.raises(ProtocolFault):
        link.answered(questions.Values([ID]), message.value)


def test_first_frame_must_introduce() -> None:
    """Whoever does not begin with Hello, or with Welcome, is no peer."""
    with pytest.raises(ProtocolFault, match="Hello"):
        list(link.ServerHalf("3.11").receive(link.encode(CLIENT_MESSAGES[0])))
    with pytest.raises(ProtocolFault, match="Welcome"):
        list(link.ClientHalf().receive(link.encode(SERVER_MESSAGES[4])))


def test_second_hello_is_a_fault() -> None:
    """A connection introduces itself once."""
    half = link.ServerHalf("3.11")
    with pytest.raises(ProtocolFault, match="twice"):
        list(half.receive(_a_hello() + _a_hello()))


def test_other_version_is_told_what_to_do() -> None:
    """Another version of the link is refused with a line that mends it."""
    with pytest.raises(ProtocolFault, match="koubou down") as caught:
        list(link.ServerHalf("3.11").receive(_a_hello(version=link.VERSION + 1)))
    assert caught.value.code == "version"


def test_goodbye_becomes_the_refusal_it_carries() -> None:
    """The reason for which a server hangs up reaches the caller whole."""
    half = link.ClientHalf()
    with pytest.raises(Refused) as caught:
        list(half.receive(link.encode(link.Goodbye(link.Refusal("version", "old", None, None)))))
    assert (caught.value.code, caught.value.message) == ("version", "old")


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x01", msgspec.msgpack.encode(["Hello", "x"]), b"\xa2\xff\xff"]
)
def test_nonsense_is_a_fault(body: bytes) -> None:
    """A frame that is no message is a ProtocolFault, never another exception."""
    with pytest.raises(ProtocolFault) as caught:
        list(link.ServerHalf("3.11").receive(len(body).to_bytes(4, "big") + body))
    assert caught.value.code == "bad_frame"


@pytest.mark.parametrize(
    "message",
    [
        link.Ask(7, questions.Read(ID, 0, "a")),
        link.Ask(7, ["Unheard", 1]),
        link.Do(7, Caller("cli"), [SubmitTask(_a_request()), ScaleWorkers("x", 1.5)]),
    ],
)
def test_request_of_a_wrong_type_fails_alone(message) -> None:
    """What cannot be read of a well-framed request is that call's error; what comes after it is read."""
    half = link.ServerHalf("3.11")
    _, unreadable, after = half.receive(_a_hello() + link.encode(message) + link.encode(CLIENT_MESSAGES[-1]))
    assert isinstance(unreadable, link.Unreadable)
    assert (unreadable.call, unreadable.refusal.code) == (7, "invalid")
    assert after == CLIENT_MESSAGES[-1]


def test_too_long_frame_is_refused_by_its_length() -> None:
    """A frame over the limit is refused before it is taken in, and none is made."""
    with pytest.raises(ProtocolFault, match="256 MB"):
        list(link.ServerHalf("3.11").receive(b"\xff\xff\xff\xff"))


def test_too_large_message_is_not_encoded(monkeypatch) -> None:
    """A message over the limit is refused on the sender's side."""
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 1000)
    with pytest.raises(ProtocolFault) as caught:
        link.encode(link.Do(1, Caller("cli"), [SubmitTask(_a_request(payload=b"x" * 2000))]))
    assert caught.value.code == "too_large"


def test_functions_of_another_python_are_refused_and_nothing_else_is() -> None:
    """A caller of another minor version may do everything but hand over a function."""
    half = link.ServerHalf("3.11")
    list(half.receive(_a_hello(python="3.12")))
    refusal = half.refuses(SubmitTask(_a_request(payload=b"pickle")))
    assert refusal is not None
    assert refusal.code == "invalid"
    assert "runs Python 3.11, the caller 3.12" in refusal.message
    assert half.refuses(SubmitTask(_a_request())) is None
    assert half.refuses(CancelTask(ID)) is None


def test_refused_survives_the_crossing() -> None:
    """Code, message, field and nearest name of a refusal come out as they went in."""
    before = Refused("invalid", "no such kind", field="kind", nearest="script")
    after = link.refused(link.refusal(before))
    assert (after.code, after.message, after.field, after.nearest) == (
        "invalid",
        "no such kind",
        "kind",
        "script",
    )
