"""Tasks that follow others: they start when those have succeeded, and never when one of them has not."""

from __future__ import annotations

import pytest

from koubou_panel.core.agenda import Agenda
from koubou_panel.core.commands import CancelTask, RetryTask
from koubou_panel.core.conclude import lose
from koubou_panel.core.decide import MAX_AFTER
from koubou_panel.core.events import TaskCancelled, TaskReleased
from koubou_panel.core.plan import plan
from koubou_panel.errors import Refused


def submit(world, *after, **fields):
    """A task that follows others; its id."""
    return world.do(world.submission(after=after, **fields))[0].request.task_id


def test_a_follower_starts_when_all_have_succeeded(make_world):
    """Not at the first, and not before it was said that it may."""
    world = make_world(3)
    first, second = submit(world), submit(world)
    follower = submit(world, first, second)
    world.plan()
    assert world.task(follower).waits_for == (first, second)
    world.end(first)
    world.plan()
    assert world.task(follower).status == "pending"
    world.end(second)
    world.plan()
    assert world.task(follower).status == "in_progress"
    assert world.task(follower).waits_for == ()
    assert [event.task_id for event in world.events if type(event) is TaskReleased] == [follower]


def test_a_follower_of_what_has_succeeded_starts_at_once(make_world):
    """There is nothing to wait for; nor for one that the archive alone knows."""
    world = make_world(2)
    first = submit(world)
    world.plan()
    world.end(first)
    follower = world.do(world.submission(after=(first, "old")), ended={"old": "completed"})[0].request.task_id
    assert world.task(follower).waits_for == ()
    assert world.handed(world.plan()) == {"worker-1": [follower]} or world.task(follower).run == 1


def test_a_follower_of_what_failed_is_cancelled_with_the_reason(make_world):
    """In words: which task, and what became of it; and so is whoever follows that one."""
    world = make_world(1)
    first = submit(world, name="train")
    follower = submit(world, first, name="report")
    last = submit(world, follower)
    world.plan()
    world.end(first, reason="exit", message="exited with code 3")
    world.plan()
    task = world.task(follower)
    assert (task.status, task.reason) == ("cancelled", "dependency")
    assert task.message == f"not started: it was to follow train ({first}), which failed: exited with code 3"
    assert world.task(last).message == task.message


def test_a_follower_of_what_is_cancelled_is_cancelled(make_world):
    """Cancelling the head of a chain ends the chain."""
    world = make_world(1)
    world.submitted()
    first = submit(world)
    follower = submit(world, first)
    world.do(CancelTask(first))
    world.plan()
    assert (world.task(follower).status, world.task(follower).reason) == ("cancelled", "dependency")


def test_a_long_chain_is_cancelled_in_one_go(make_world):
    """Not one round of the plan a link; and all say what became of the first."""
    world = make_world(1)
    chain = [submit(world, name="boom")]
    for _ in range(200):
        chain.append(submit(world, chain[-1]))
    world.do(CancelTask(chain[0]))
    planned = plan(world.state, world.agenda, world.now)
    assert sum(type(event) is TaskCancelled for event in planned.events) == 200
    world.plan()
    assert {world.task(task_id).message for task_id in chain[1:]} == {world.task(chain[1]).message}


def test_a_crowd_of_followers_is_told_bit_by_bit(make_world):
    """So that nobody waits for the loop meanwhile; the plan wants to be asked again at once."""
    world = make_world(1)
    first = submit(world)
    crowd = [submit(world, first) for _ in range(50)]
    world.plan()
    world.end(first, reason="exit")
    planned = plan(world.state, world.agenda, world.now, follow=20)
    assert sum(type(event) is TaskCancelled for event in planned.events) == 20
    assert planned.wake_at == world.now
    world.given(*planned.events)
    assert plan(world.state, world.agenda, world.now, follow=0).wake_at == world.now
    world.plan()
    assert {world.task(task_id).status for task_id in crowd} == {"cancelled"}


def test_a_cancelled_follower_leaves_nothing_behind(make_world):
    """Neither what it waited for knows of it any more."""
    world = make_world(1)
    first = submit(world)
    world.do(CancelTask(submit(world, first)))
    assert world.agenda.followers == {}
    assert world.agenda.unmet == {}


def test_what_an_agenda_is_told_of_the_ended_counts(make_world):
    """Of one that has left the state, the archive knows how it ended."""
    world = make_world(1)
    first = submit(world)
    followers = [submit(world, first), submit(world, first)]
    del world.state.tasks[first]
    world.state.counts["pending"] -= 1
    loaded = Agenda.from_state(world.state, lambda kind: kind == "function", ended={first: "cancelled"})
    assert sorted(loaded.doomed) == sorted((follower, first) for follower in followers)
    assert not loaded.released


def test_a_task_that_is_tried_again_is_waited_for(make_world):
    """An attempt that failed is not the end of a task."""
    world = make_world(1)
    first = submit(world, retries=1)
    follower = submit(world, first)
    world.plan()
    world.end(first, reason="exit")
    world.plan()
    assert world.task(follower).status == "pending"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_follows_an_old_failure_is_taken_in_and_cancelled(world, status):
    """The answer is the same whether the other has just failed or long ago."""
    submitted, cancelled = world.do(world.submission(after=("old",)), ended={"old": status})
    assert cancelled.task_id == submitted.request.task_id
    assert cancelled.reason == "dependency"
    assert status in cancelled.message


def test_an_unknown_task_cannot_be_followed(world):
    """A name that was mistyped is no task that never ends."""
    with pytest.raises(Refused, match="no task 'nobody' to wait for") as refusal:
        submit(world, "nobody")
    assert (refusal.value.code, refusal.value.field) == ("not_found", "after")


def test_a_task_cannot_follow_itself(world):
    """It is not there yet when it is submitted."""
    with pytest.raises(Refused, match="no task"):
        world.do(world.submission(after=("task-1",)))


def test_there_is_a_most_of_what_one_task_waits_for(world):
    """A list without end is refused."""
    with pytest.raises(Refused, match="at most 1000") as refusal:
        submit(world, *[f"t{n}" for n in range(MAX_AFTER + 1)])
    assert refusal.value.field == "after"


def test_a_retry_by_name_waits_for_nothing(make_world):
    """Who asks for a task that was not started wants it now."""
    world = make_world(1)
    first = submit(world)
    follower = submit(world, first)
    world.do(CancelTask(first))
    world.plan()
    world.do(RetryTask(follower, "again"))
    assert world.task("again").request.after == ()
    assert world.handed(world.plan()) == {"worker-1": ["again"]}


def test_a_loaded_agenda_waits_on(make_world):
    """What the state says is enough: the rest of what it waited for is still waited for."""
    world = make_world(2)
    first, second = submit(world), submit(world)
    follower = submit(world, first, second)
    world.plan()
    world.end(first)
    world.agenda = Agenda.from_state(world.state, lambda kind: kind == "function")
    world.plan()
    assert world.task(follower).status == "pending"
    world.end(second)
    world.plan()
    assert world.task(follower).status == "in_progress"


def test_a_loaded_agenda_cancels_what_follows_a_lost_run(make_world):
    """A crash that lost a run has lost what was to follow it."""
    world = make_world(1)
    first = submit(world)
    follower = submit(world, first)
    world.plan()
    world.given(lose(world.task(first), world.now))
    world.agenda = Agenda.from_state(world.state, lambda kind: kind == "function")
    world.plan()
    assert (world.task(follower).status, world.task(follower).reason) == ("cancelled", "dependency")
