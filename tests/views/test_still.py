"""What a notebook keeps: plain HTML, alike to the card that it stands for."""

import pytest

from koubou_panel.core.ports import OutputPage
from koubou_panel.core.records import Request, Task
from koubou_panel.reactive.models import TaskModel
from koubou_panel.views.joined import JS
from koubou_panel.views.still import PATHS, log_words, task_html, task_words

KB = 1024


def _page(text, *, before=0, lost=0):
    size = before + len(text.encode())
    return OutputPage(text, before, size, size, lost)


def test_the_signs_are_those_of_the_cards():
    """Drawn by the same lines."""
    source = (JS / "dom.js").read_text(encoding="utf-8")
    assert [name for name, path in PATHS.items() if f'{name}: "{path}"' not in source] == []


def test_output_is_what_a_terminal_would_show():
    """A bar that was drawn again and again is one line; colours are kept as far as they are used."""
    task = TaskModel(task_id="t1", label="work", status="completed")
    log = _page("10 %\r50 %\r100 %\n\x1b[32mgreen\x1b[0m <b>\n")
    text = task_html(task, log, 1.0)
    assert '>100 %\n<span class="f2">green</span> &lt;b&gt;<' in text
    assert ".koubou-output .f2{color:" in text
    assert ".f3{" not in text
    assert log_words(log, "t1") == "100 %\ngreen <b>"


@pytest.mark.parametrize(
    ("before", "lost", "words"),
    [
        (2 * KB, 0, "… 2.0 KB of earlier output: shop.output('t1') has all of it …"),
        (2 * KB, 2 * KB, "… 2.0 KB of earlier output were not kept …"),
        (
            9 * KB,
            2 * KB,
            "… 9.0 KB of earlier output, of which 2.0 KB were not kept: shop.output('t1') has the rest …",
        ),
    ],
)
def test_what_is_left_out_is_told(before, lost, words):
    """How much it is, and where it can be had."""
    assert log_words(_page("cut off\nwhole\n", before=before, lost=lost), "t1") == f"{words}\nwhole"


def test_nothing_printed_is_nothing_shown():
    """No empty box."""
    assert log_words(_page(""), "t1") == ""
    assert "<pre" not in task_html(TaskModel(task_id="t1", status="cancelled"), _page(""), 1.0)


def test_a_task_that_was_tried_again_says_which_attempt_it_was():
    """One that needed no other does not."""
    texts = [
        task_html(TaskModel(task_id="t1", status="completed", run=run), _page(""), 1.0) for run in (3, 1)
    ]
    assert ["· attempt 3 · t1<" in text for text in texts] == [True, False]
    assert "attempt" not in texts[1]
    request = Request(task_id="t1", kind="function", created_at=0.0, name="work")
    assert (
        task_words(Task(request=request, order=1, status="completed", run=3)) == "work: completed, attempt 3"
    )
