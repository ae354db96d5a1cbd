"""The one table of a task's life, and the diagram in the docs that is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from koubou_panel.core.events import TASK_FACTS, TaskSubmitted
from koubou_panel.core.lifecycle import TRANSITIONS, mermaid, next_status
from koubou_panel.core.records import FINISHED, STATUSES
from koubou_panel.errors import CorruptStream

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"
REGENERATE = "python -c 'from koubou_panel.core.lifecycle import mermaid; print(mermaid())'"


def test_the_table_has_every_status():
    """In the order in which they are listed everywhere."""
    assert tuple(TRANSITIONS) == STATUSES


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("fact", [fact for fact in TASK_FACTS if fact is not TaskSubmitted])
def test_a_step_is_in_the_table_or_corrupt(status, fact):
    """There is no third way."""
    if fact in TRANSITIONS[status]:
        assert next_status(status, fact) in STATUSES
    else:
        with pytest.raises(CorruptStream, match=f"{fact.__name__} cannot follow {status}"):
            next_status(status, fact)


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_nothing_follows_an_end(status):
    """Finished stays finished."""
    assert TRANSITIONS[status] == {}


def test_every_fact_of_a_task_has_a_step():
    """No fact is there that no status takes."""
    taken = {fact for steps in TRANSITIONS.values() for fact in steps}
    assert taken | {TaskSubmitted} == set(TASK_FACTS)


def test_the_diagram_in_the_docs_is_the_table():
    """The page holds exactly what the table gives."""
    fenced = PAGE.read_text(encoding="utf-8").split("```mermaid\n")[1].split("```")[0]
    assert fenced == mermaid(), f"put into {PAGE}, between the fences, what this prints: {REGENERATE}"
