"""The caller's half of joblib's calls: as bytes, with the arrays that many of them have in common sent once.

Those above `max_nbytes` are written into a folder of the call and mapped by the workers, read-only: joblib's own way
for its `loky` backend, with its `mmap_mode` and `temp_folder`; it removes the folder, also after a kill of this
process. Those of `LENT_BYTES` and more are in the arguments of the first task that has them, which lends them to the
others; each call is given a copy of its own.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from koubou_panel.kinds.packing import Reducers, cloud_pickler
from koubou_panel.kinds.spill import LARGE_BYTES

LENT_BYTES = 16 << 10
MOST_BROUGHT_BYTES = LARGE_BYTES - (64 << 10)
MOST_KNOWN_BYTES = 32 << 20
_SAMPLE_BYTES = 64


class Parcel(NamedTuple):
    """Calls as bytes.

    `used` are the buffers that were taken out of the pickle `blob`, in order: the name of each, and the task that
    brought it, or nothing where this one does. `brought` are those, in the same order.
    """

    blob: bytes
    used: tuple[tuple[str, str], ...]
    brought: tuple[bytes, ...]

    @property
    def new(self) -> list[tuple[str, bytes]]:
        """What this one brings, by name."""
        return list(zip([name for name, lender in self.used if not lender], self.brought, strict=True))

    @property
    def can_lend(self) -> bool:
        """Whether all of it is in the task itself, which is kept, and not in a file, which goes some day."""
        return bool(self.brought) and len(self.blob) + sum(map(len, self.brought)) < LARGE_BYTES


class Arrays:
    """The arrays of one `Parallel`. One thread at a time.

    Args:
        context: what tells it from others.
        settings: of `Parallel`: `max_nbytes`, `mmap_mode`, `temp_folder`.
    """

    def __init__(self, context: str, settings: dict[str, Any]) -> None:
        """Nothing is written yet, and no folder made."""
        from joblib._memmapping_reducer import get_memmapping_reducers

        self._context = context
        self._root = settings.get("temp_folder")
        self._manager: Any = None
        self._shelf = Shelf()
        most_bytes = settings.get("max_nbytes", 1e6)
        reducers, _ = get_memmapping_reducers(
            temp_folder_resolver=self._folder,
            max_nbytes=most_bytes,
            mmap_mode=settings.get("mmap_mode", "r"),
            unlink_on_gc_collect=False,  # the workers do not share the process that counts who uses a file
        )
        self._reducers: Reducers = _quick(reducers, most_bytes)

    def packed(self, calls: object) -> Parcel:
        """Calls as bytes; raises what pickling them raises."""
        import cloudpickle

        if not cloudpickle.list_registry_pickle_by_value():
            # A name of `__main__` cannot be looked for in the bytes: the interpreter's warning filters, which
            # scikit-learn sends with each call, have that word too.
            with suppress(Exception):  # whatever plain pickle cannot do, cloudpickle tries next
                return self._put_down(calls, PlainPickler)
        return self._put_down(calls, cloud_pickler)

    def _put_down(self, calls: object, make: Callable[..., pickle.Pickler]) -> Parcel:
        picking = Picking(self._shelf)
        buffer = io.BytesIO()
        make(buffer, self._reducers, picking.take).dump(calls)
        return Parcel(buffer.getvalue(), tuple(picking.used), tuple(picking.brought))

    def lend(self, parcel: Parcel, task_id: str) -> None:
        """What the parcel brought is that task's, and need not be sent again."""
        if parcel.can_lend:
            for name, content in parcel.new:
                self._shelf.put(Known(name, content, task_id))

    def _folder(self) -> str:
        if self._manager is None:
            from joblib._memmapping_reducer import TemporaryResourcesManager

            self._manager = TemporaryResourcesManager(self._root, self._context)
        return str(self._manager.resolve_temp_folder_name())

    def close(self) -> None:
        """Remove them; who has one mapped keeps it."""
        if self._manager is not None:
            self._manager._clean_temporary_resources(context_id=self._context, allow_non_empty=True)  # noqa: SLF001


class PlainPickler(pickle.Pickler):
    """The interpreter's own pickler, which stops where it comes to something of `__main__`: no worker has that.

    Args:
        file, reducers, aside: as of `cloud_pickler`.
    """

    def __init__(self, file: Any, reducers: Reducers, aside: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(file, protocol=5, buffer_callback=aside)
        self.dispatch_table = {**copyreg.dispatch_table, **reducers}

    def reducer_override(self, thing: Any) -> Any:
        """Nothing is done otherwise.

        Raises:
            PicklingError: it says that it is of `__main__`: a class and what was made of it, a function, a cached one.
        """
        if getattr(thing, "__module__", None) == "__main__":
            raise pickle.PicklingError("it is of __main__")
        return NotImplemented


class Known(NamedTuple):
    """A buffer that was sent: its name, what is in it, and the task that has it."""

    name: str
    content: bytes
    task_id: str


class Shelf:
    """The buffers that were sent lately."""

    def __init__(self) -> None:
        """It is empty."""
        # A `Parallel` is used again with a shelf anew, while the workers still hold what the one before had sent.
        self._prefix = secrets.token_hex(16)
        self._count = 0
        self._known: OrderedDict[tuple[int, bytes], Known] = OrderedDict()
        self._held_bytes = 0

    def name(self) -> str:
        """A new name, which no other buffer of this machine has."""
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def find(self, view: memoryview) -> Known | None:
        """The one with this very content."""
        known = self._known.get(_key(view))
        return known if known is not None and known.content == view.tobytes() else None

    def put(self, known: Known) -> None:
        """Know this one from now on, and forget the oldest where they are too many."""
        before = self._known.pop(key := _key(memoryview(known.content)), None)
        self._known[key] = known
        self._held_bytes += len(known.content) - (0 if before is None else len(before.content))
        while self._held_bytes > MOST_KNOWN_BYTES:
            self._held_bytes -= len(self._known.popitem(last=False)[1].content)


class Picking:
    """Which buffers are left out of one pickle."""

    def __init__(self, shelf: Shelf) -> None:
        """None yet."""
        self._shelf = shelf
        self._room = MOST_BROUGHT_BYTES
        self.used: list[tuple[str, str]] = []
        self.brought: list[bytes] = []

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Leave a buffer out, if that is worth it; whether it stays in."""
        try:
            view = buffer.raw()
        except BufferError:  # it is not in one piece
            return True
        if view.nbytes < LENT_BYTES:
            return True
        known = self._shelf.find(view)
        if known is None and view.nbytes > self._room:
            return True
        if known is None:
            self._room -= view.nbytes
            self.brought.append(view.tobytes())
        self.used.append((self._shelf.name(), "") if known is None else (known.name, known.task_id))
        return False


def _key(view: memoryview) -> tuple[int, bytes]:
    """What tells most buffers apart."""
    size, middle = view.nbytes, view.nbytes // 2
    ends = (view[:_SAMPLE_BYTES], view[middle : middle + _SAMPLE_BYTES], view[-_SAMPLE_BYTES:])
    return size, b"".join(ends)


def _quick(reducers: Reducers, most_bytes: float | None) -> Reducers:
    """joblib's, but for arrays that are not to be mapped: it pickles them apart, and formats a line for its log."""
    import numpy as np
    from joblib._memmapping_reducer import _get_backing_memmap

    theirs = reducers[np.ndarray]

    def reduce(array: Any) -> Any:
        is_small = most_bytes is None or array.nbytes <= most_bytes
        if is_small and (array.base is None or _get_backing_memmap(array) is None):
            return array.__reduce_ex__(5)
        return theirs(array)

    return {**reducers, np.ndarray: reduce}
