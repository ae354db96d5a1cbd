"""Every operation of REST for agents, in one table: what is served, checked and documented is made from it."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from koubou_panel.servers.access import Role
from koubou_panel.servers.agents import schema
from koubou_panel.servers.agents.schema import NoQuery

TEXT = "text/plain"
MADE = ("invalid", "bad_json")


class Answer(NamedTuple):
    """What an operation gives: words for it, and its record (None: it is told by `media`)."""

    words: str
    record: type[Struct] | None = None
    media: str = "application/json"


class Operation(NamedTuple):
    """One operation: a verb and a path, who may ask for it, what it takes and gives, and how it can fail."""

    method: str
    path: str
    name: str
    summary: str
    answer: Answer
    role: Role = Role.READ
    body: type[Struct] | None = None
    query: type[Struct] = NoQuery
    failures: tuple[int, ...] = ()
    words: str = ""


FAILURES: dict[int, str] = {
    400: "The request is wrong; `field` names where.",
    401: "Credentials are missing or wrong.",
    403: "The token may not do this, or the request's Host or Origin is not the workshop's.",
    404: "There is none.",
    405: "The path has no such method; `Allow` says which it has.",
    408: "The body did not come in time.",
    409: "It cannot be done as things stand: the task has ended already, or the key stands for another.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not said to be `application/json`.",
    429: "The agent has as many unfinished tasks as it may have; `Retry-After` says when to try again.",
    500: "The workshop failed; its log says why.",
    503: "The workshop takes no new work just now, or cannot store it; `Retry-After` says when to try again.",
}
ALWAYS = (400, 401, 403, 405, 500)
_BODY = (404, 408, 409, 413, 415, 429, 503)

_LIST = Answer("The tasks, newest first.", schema.Tasks)
_STATUS = Answer("How the task stands.", schema.TaskStatus)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/health", "health", "Is the workshop there?", Answer("It is.", schema.Health)),
    Operation(
        "POST",
        "/task/delegate",
        "delegate",
        "Delegate a task",
        Answer("Without `sync` a `Delegated`, with it an `Ended`.", None),
        role=Role.RUN,
        body=schema.Delegate,
        failures=_BODY,
        words="Without `sync` it is answered as soon as the task is stored; it then runs whether or not anybody waits. "
        "With `sync` it is answered when the task has ended, or when `options.wait` is over. A token with the scope "
        "`run` may delegate scripts of the catalogue alone.",
    ),
    Operation("GET", "/task/{task_id}/status", "task_status", "How a task stands", _STATUS, failures=(404,)),
    Operation(
        "GET",
        "/task/status/{task_id}",
        "status_of_task",
        "How a task stands, by its other address",
        _STATUS,
        failures=(404,),
    ),
    Operation(
        "DELETE",
        "/task/{task_id}",
        "cancel",
        "End a task",
        Answer("It is being ended.", schema.Cancelled),
        role=Role.FULL,
        failures=(404, 409, 503),
        words="A pending task is cancelled at once; of a running one the whole process tree is ended.",
    ),
    Operation("GET", "/tasks", "tasks", "List tasks", _LIST, query=schema.TasksQuery),
    Operation(
        "GET", "/tasks/pending", "pending", "List tasks that wait to be run", _LIST, query=schema.PageQuery
    ),
    Operation("GET", "/tasks/active", "active", "List tasks that are running", _LIST, query=schema.PageQuery),
    Operation(
        "GET", "/tasks/completed", "completed", "List tasks that succeeded", _LIST, query=schema.PageQuery
    ),
    Operation("GET", "/workers/status", "workers", "List the workers", Answer("The pool.", schema.Workers)),
    Operation(
        "GET",
        "/system/info",
        "system",
        "The workshop and its machine",
        Answer("What there is to know.", schema.SystemInfo),
    ),
    Operation(
        "GET",
        "/metrics",
        "metrics",
        "Metrics for Prometheus",
        Answer("Metrics in the text format of Prometheus.", None, TEXT),
    ),
    Operation("GET", "/openapi.json", "openapi", "This document", Answer("An OpenAPI 3.1 document.", None)),
)
