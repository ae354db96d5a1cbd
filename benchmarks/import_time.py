"""What an import costs, beside a bare interpreter and `import asyncio`: processor time of fresh interpreters, in turns.

Prints one JSON object, medians in milliseconds. `koubou_panel` is held to 60 ms more than `bare`; `Workshop` is the
same with the name that a notebook uses first.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

ROUNDS = 15
MOST_MS = 60.0
PROGRAMS = {
    "bare": "pass",
    "koubou_panel": "import koubou_panel",
    "Workshop": "from koubou_panel import Workshop",
    "asyncio": "import asyncio",
    "ProcessPoolExecutor": "from concurrent.futures import ProcessPoolExecutor",
}


def cpu_ms(program: str) -> float:
    """Processor time of an interpreter that runs `program`."""
    process = subprocess.Popen([sys.executable, "-c", program])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{program!r} failed")
    return 1000 * (usage.ru_utime + usage.ru_stime)


def main() -> None:
    """Measure and print."""
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            taken[name].append(cpu_ms(program))
    middle = {name: statistics.median(times) for name, times in taken.items()}
    more = {name: round(value - middle["bare"], 1) for name, value in middle.items() if name != "bare"}
    print(
        json.dumps(
            {
                "bare_ms": round(middle["bare"], 1),
                "more_ms": more,
                "at_most_ms": MOST_MS,
                "ratio_to_asyncio": round(more["koubou_panel"] / more["asyncio"], 2),
            },
            indent=1,
        )
    )
    if more["koubou_panel"] > MOST_MS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
