"""Every exception of Koubou Panel, in one tree.

A class's docstring begins with its default message, and what a handler may want to know is an attribute.
Errors cross a process or the wire as a code and a text, never as a pickled object.
"""

from __future__ import annotations


class KoubouError(Exception):
    """Something went wrong in the workshop."""

    def __init__(self, message: str = "") -> None:
        self.message: str = message or _default_message(type(self))
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class _CodedError(KoubouError):
    """Something was asked that cannot be done."""

    def __init__(
        self, code: str, message: str = "", *, field: str | None = None, nearest: str | None = None
    ) -> None:
        super().__init__(message)
        self.code: str = code
        self.field: str | None = field
        self.nearest: str | None = nearest
        self.args = (code, self.message)  # what copy and pickle call the class with


class Refused(_CodedError):
    """The workshop refuses this request.

    The asker wanted the impossible and can mend it, so the message is safe to show to anyone who may ask.

    Args:
        code: a short stable word for programs, such as `not_found` or `invalid`.
        message: one sentence for people.
        field: the field of the request that is at fault, where it is one.
        nearest: the known name closest to an unknown one, where there is one.

    """


class ProtocolFault(_CodedError):
    """The peer does not keep to the protocol.

    Args:
        code: as it goes into an `error` message, such as `bad_json`.
        message: one sentence for the peer's author.
        field: the field of the message that is at fault, where it is one.
        nearest: the known name closest to an unknown one, where there is one.

    """


class CorruptStream(KoubouError):
    """The stream of events contradicts itself.

    Ours is the mistake: whoever reads the stream stops, and does not guess on.

    Args:
        message: what does not fit.
        seq: the place in the stream where it showed.

    """

    def __init__(self, message: str = "", *, seq: int | None = None) -> None:
        super().__init__(message)
        self.seq: int | None = seq


class TaskFailure(KoubouError):
    """The task did not complete.

    The user's own code is at fault, or was stopped. Asking for the result of such a task raises this.

    Args:
        message: the reason in words.
        task_id: which task.
        reason: the task record's word for it, such as `exit`, `exception` or `timeout`.
        exit_code: what the process ended with, where there was one.
        error_type: the name of the exception that the user's code raised.
        traceback: that exception's traceback as text.

    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str = "",
        reason: str | None = None,
        exit_code: int | None = None,
        error_type: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.task_id: str = task_id
        self.reason: str | None = reason
        self.exit_code: int | None = exit_code
        self.error_type: str | None = error_type
        self.traceback: str | None = traceback


class DependencyFailed(TaskFailure):
    """A task that this one was to follow did not succeed.

    The task itself was never started: it was cancelled with the reason `dependency`.

    Args:
        message: which task it was to follow, and what became of that.
        task_id: the task that was not started.
        dependency: the task that it was to follow.

    """

    def __init__(self, message: str = "", *, task_id: str = "", dependency: str = "") -> None:
        super().__init__(message, task_id=task_id, reason="dependency")
        self.dependency: str = dependency


class SettingsError(KoubouError):
    """A setting cannot be used as it stands.

    Args:
        message: what is wrong, and what would be right.
        name: the setting.
        nearest: the known setting closest to an unknown one, where there is one.

    """

    def __init__(self, message: str = "", *, name: str = "", nearest: str | None = None) -> None:
        super().__init__(message)
        self.name: str = name
        self.nearest: str | None = nearest


def _default_message(kind: type[KoubouError]) -> str:
    return (kind.__doc__ or kind.__name__).partition("\n")[0]
