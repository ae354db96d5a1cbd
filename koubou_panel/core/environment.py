"""Which environment variables a task is given, beside its own: one allow-list for every way that it is started.

Who called may have secrets in any variable, so that what is not named here does not pass. Not here on purpose:
`PYTHONPATH`, `LD_LIBRARY_PATH` and `OMP_TOOL_LIBRARIES` (they change which code runs), `XDG_*` (the caller's session).
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
        *{
            "CUDA_DEVICE_ORDER",
            "CUDA_VISIBLE_DEVICES",
            "GPU_DEVICE_ORDINAL",
            "HIP_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "ROCR_VISIBLE_DEVICES",
            "ZE_AFFINITY_MASK",
        },  # which of a machine's devices the caller leaves to it
        *{
            "OMP_DYNAMIC",
            "OMP_MAX_ACTIVE_LEVELS",
            "OMP_NESTED",
            "OMP_NUM_THREADS",
            "OMP_PLACES",
            "OMP_PROC_BIND",
            "OMP_SCHEDULE",
            "OMP_STACKSIZE",
            "OMP_THREAD_LIMIT",
            "OMP_WAIT_POLICY",
            "VECLIB_MAXIMUM_THREADS",
        },
    }
)
# How numerical libraries use the processor: how many threads, which instructions. Results and speed depend on it.
_NUMERICAL = ("BLIS_", "GOMP_", "KMP_", "MKL_", "NUMBA_", "NUMEXPR_", "OPENBLAS_")
PREFIXES = ("LC_", "CONDA_", *_NUMERICAL)


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """What of `environ` a task may have."""
    return {name: text for name, text in environ.items() if name in NAMES or name.startswith(PREFIXES)}


def names_a_python(name: str) -> bool:
    """Whether the variable tells of an activated environment, and so belongs to the `PATH` beside it."""
    return name == "VIRTUAL_ENV" or name.startswith("CONDA_")
