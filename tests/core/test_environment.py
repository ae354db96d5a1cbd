"""The allow-list of a task's environment."""

from __future__ import annotations

from koubou_panel.core.environment import allowed, names_a_python

OPEN = {
    *{"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ"},
    *{"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR"},
    *{"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"},
}
CLOSED = {
    *{"KOUBOU_TOKEN", "KOUBOU_HOME", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD"},
    *{"XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "HTTPS_PROXY", "path", "PATHS", "XPATH", "LC", "SSL_CERT", ""},
    *{"OMP_TOOL_LIBRARIES", "CUDA_INJECTION64_PATH"},
}


def test_a_task_is_given_what_is_named_and_nothing_else() -> None:
    """The list is closed: what it does not name does not pass."""
    assert allowed(dict.fromkeys(OPEN | CLOSED, "x")) == dict.fromkeys(OPEN, "x")


def test_an_activated_environment_is_told_by_its_names() -> None:
    """What goes with a PATH is the virtual environment's and conda's, and nothing else."""
    assert {name for name in OPEN if names_a_python(name)} == {
        *{"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"},
    }
