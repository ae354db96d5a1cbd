"""Which environment variables a task is given, beside its own: one allow-list for every way that it is started.

Who called may have secrets in any variable, so that what is not named here does not pass. Not here on purpose:
`PYTHONPATH` and `LD_LIBRARY_PATH` (they change which code runs), `XDG_*` (the caller's session).
"""

from __future__ import annotations

from collections.abc import Mapping

NAMES = frozenset(
    {
        *{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "TERM", "VIRTUAL_ENV"},
        *{
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
        },  # where a machine has its certificates, nothing secure connects without
    }
)
PREFIXES = ("LC_", "CONDA_")


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """What of `environ` a task may have."""
    return {name: text for name, text in environ.items() if name in NAMES or name.startswith(PREFIXES)}


def names_a_python(name: str) -> bool:
    """Whether the variable tells of an activated environment, and so belongs to the `PATH` beside it."""
    return name == "VIRTUAL_ENV" or name.startswith("CONDA_")
