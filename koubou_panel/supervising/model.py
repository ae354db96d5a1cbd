"""Which process is the model service: an Ollama that runs already, `ollama serve`, or the embedded model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from koubou_panel.home import Home
from koubou_panel.servers.ollama import is_ollama, listens
from koubou_panel.settings import EMBEDDED_MODEL, load, ollama_address
from koubou_panel.supervising.process import Program

RUNS_ALREADY = "Ollama, which ran already: it is not ended with the workshop"


@dataclass(frozen=True)
class Elsewhere:
    """A model server that is not ours answers at this port."""

    port: int


async def choose(home: Home, environ: Mapping[str, str]) -> Program | Elsewhere:
    """What is the model service, as things are now."""
    if load(environ, {"home": home.root}).model_url == EMBEDDED_MODEL:
        return embedded(home)
    address = ollama_address(environ)
    if address is not None and await is_ollama(*address):
        return Elsewhere(address[1])
    program = ollama_program(environ)
    if program is None or address is None or await listens(*address):
        return embedded(home)
    argv = [*python("ollama"), "--program", program, "--host", address[0], "--port", str(address[1])]
    return Program(argv, {}, message="Ollama")


def embedded(home: Home) -> Program:
    """The model that is installed with us; it asks for no token, so it listens on loopback alone."""
    argv = [*python("model"), "--home", str(home.root), "--host", "127.0.0.1"]
    return Program(argv, {"model": "--port"}, message="the embedded model")


def ollama_program(environ: Mapping[str, str]) -> str | None:
    """Where `ollama` is installed; None if it is not."""
    return shutil.which("ollama", path=environ.get("PATH", ""))


def python(server: str) -> list[str]:
    """The command that runs one of our servers."""
    # -P: a file of the folder that `koubou up` was typed in must not stand in for a library.
    return [sys.executable, "-P", "-m", f"koubou_panel.servers.{server}"]
