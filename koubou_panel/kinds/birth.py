"""When a process was born, so that its number alone, which another has after it, proves nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

STARTED_AT = 19  # of the fields of /proc/PID/stat behind the name
DEAD = (b"Z", b"X")


def birth_of(pid: int) -> str:
    """The boot and the moment in it at which process `pid` began; empty: there is none that has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _told_otherwise(pid)
    # The name, in brackets, may hold anything; what follows the last bracket is numbers.
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] in DEAD else f"{boot} {fields[STARTED_AT].decode()}"


def _told_otherwise(pid: int) -> str:
    """The same where the system has no /proc: its clock's time."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return f"{process.create_time():.2f}"
    return ""
