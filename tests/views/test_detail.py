"""What is told of one task, as plain data."""

import pytest
from msgspec.structs import replace

from koubou_panel.core.records import Fault, Limits, Progress, Request, Task, TaskId, Usage, Use
from koubou_panel.reactive import ShopModel, TaskModel
from koubou_panel.reactive.models import task_values
from koubou_panel.views.detail import LongTexts, detail
from koubou_panel.views.language import speaking

MB = 1024**2


def told(task: Task, **shop: object) -> dict[str, object]:
    """The detail of a task's record."""
    model = TaskModel(**task_values(task, {}, told_at=1_000.0))
    return detail(model, ShopModel(**shop), task.request)


def a_task(**fields: object) -> Task:
    """A running task with any field of its record or its request."""
    own = {name: fields.pop(name) for name in tuple(fields) if name in Task.__struct_fields__}
    request = Request(
        task_id="t1", kind="script", created_at=1.0, name="train", summary="python train.py", **fields
    )
    running = {"status": "in_progress", "run": 1, "worker_id": "worker-2", "started_at": 5.0}
    return Task(request=request, order=1, **(running | own))


def test_a_running_task() -> None:
    """Status in words, progress, what it uses, its peaks and its limits."""
    row = told(
        a_task(
            limits=Limits(memory_bytes=2_048 * MB, cpu_s=90, processes=8, output_bytes=256 * MB),
            timeout_s=300,
            retries=2,
            progress=Progress(0.5, 40, 80, "img", 12.0, "epoch 3", 2.5),
            use=Use(97.0, 210 * MB, 5.0, 0, 4 * MB, 6, 3, 40.0, 900 * MB),
            usage=Usage(
                cpu_s=5.0, peak_rss_bytes=260 * MB, read_bytes=0, written_bytes=4 * MB, output_bytes=3 * MB
            ),
        )
    )
    assert (row["words"], row["meta"], row["note"]) == (
        "running on worker-2",
        "50 % · 40/80 · 2.5/s",
        "epoch 3",
    )
    assert row["eta_at"] == 1_012.0
    assert dict(row["facts"]) == {
        "CPU": "97 % · 5.0 s in all · limit 1:30",
        "Memory": "210 MB · peak 260 MB · limit 2.0 GB",
        "Storage": "read 0 B · written 4.0 MB",
        "Processes": "3 with 6 threads · limit 8",
        "GPU": "40 % · 900 MB",
        "Output": "3.0 MB · limit 256 MB",
        "Time-out": "5:00",
        "Run": "1 of 3",
    }


def test_a_prompt() -> None:
    """What a prompt took in tokens, how fast, and how soon."""
    usage = Usage(prompt_tokens=36, completion_tokens=1_200, tokens_per_s=41.25, first_token_s=0.4)
    row = told(a_task(status="completed", usage=usage))
    assert ("Tokens", "36 read · 1,200 written · 41.2/s · first after 0.4 s") in row["facts"]


def test_a_failed_task() -> None:
    """Why it failed is said, its traceback shown, and nothing that moves is left."""
    row = told(
        a_task(
            status="failed",
            message="killed: reached its 2.0 GB limit",
            finished_at=10.0,
            error=Fault("MemoryError", "", "Traceback\n  line 3"),
            usage=Usage(duration_s=5.0, peak_processes=2, peak_threads=4),
        )
    )
    assert row["words"] == "failed after 5.0 s on worker-2: killed: reached its 2.0 GB limit"
    assert (row["started_at"], row["eta_at"], row["mark"]) == (None, None, "fail")
    assert row["fault"]["error"] == "Traceback\n  line 3"
    assert dict(row["facts"]) == {"Processes": "at most 2 with 4 threads"}


def test_a_pending_task() -> None:
    """It says what it waits for, by name and with a way there."""
    first = replace(a_task(), request=Request(task_id="t0", kind="script", created_at=1.0, name="prepare"))
    task = a_task(status="pending", started_at=None, worker_id=None, waits_for=("t0",))
    model = TaskModel(**task_values(task, {"t0": first}, told_at=0.0))
    row = detail(model, ShopModel())
    assert row["words"] == "waits for prepare"
    assert row["waits_for"] == [{"id": "t0", "label": "prepare"}]
    assert told(a_task(status="pending", worker_id=None), paused=True)["words"] == "paused"


def test_words_of_strangers_are_made_fit() -> None:
    """Names, messages and tracebacks of control characters become plain text of bounded length."""
    row = told(
        a_task(
            status="failed", message="\x1b[31m" + "y" * 9_000, error=Fault("E", "", "\x1b]0;x\x07" * 9_000)
        )
    )
    assert "\x1b" not in row["words"] + str(row["fault"])
    assert len(row["words"]) < 500
    assert len(row["fault"]["error"]) <= 2_000


def test_the_whole_prompt_and_the_model_are_told() -> None:
    """A long prompt is whole, with its lines; the model is named, and where its answer was cut off."""
    prompt = "First line.\n" + "word " * 500
    task = a_task(progress=Progress(None, 9, None, "tokens", None, "smollm2, cut off at its length"))
    spec = {"prompt": prompt, "max_tokens": 9}
    row = told(replace(task, request=replace(task.request, kind="prompt", spec=spec)))
    assert {"label": "Prompt", "text": prompt, "form": "text"} in row["given"]
    assert dict(row["facts"])["Model"] == "smollm2, cut off at 9 tokens"


def test_long_texts_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given again only in another language, the fault only where it is another one."""
    made: list[object] = []
    monkeypatch.setattr("koubou_panel.views.detail.given", lambda request: made.append(request) or [])
    monkeypatch.setattr("koubou_panel.views.detail.fault", lambda text: made.append(text) or {"error": text})
    texts = LongTexts()
    one, other = [Request(task_id=TaskId("t"), kind="prompt", created_at=0.0) for _ in range(2)]
    for _ in range(3):
        texts.given(one)
        assert texts.fault("boom") == {"error": "boom"}
    assert made == [one, "boom"]
    with speaking("ja"):
        texts.given(one)
    texts.given(other)
    assert texts.fault("bang") == {"error": "bang"}
    assert made[2:] == [one, other, "bang"]
