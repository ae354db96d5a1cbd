"""What the shell does next, told as: these facts, then this plan."""

from __future__ import annotations

from math import inf

import pytest

from koubou_panel.core.agenda import LONGEST_RESPAWN_S, PACE_KEPT, Agenda
from koubou_panel.core.commands import CancelTask, DrainPool, ScaleWorkers, WorkerReady
from koubou_panel.core.events import (
    PoolChanged,
    StopRequested,
    TaskCancelled,
    TaskStarted,
    WorkerChanged,
    WorkerStarted,
)
from koubou_panel.core.plan import (
    AHEAD_S,
    MOST_STALE,
    NEWS_EVERY_S,
    RECALL_AFTER_S,
    WINDOW_S,
    WINDOW_TASKS,
    Recall,
    Retire,
    Spawn,
    Start,
    Stop,
)
from koubou_panel.core.records import Pool


def only(kind, instructions):
    """The instructions of one kind."""
    return [one for one in instructions if type(one) is kind]


# -- who gets what --------------------------------------------------------------------------------------------


def test_an_idle_worker_is_given_a_task(make_world):
    """A pending task is claimed, and handed over with all that a worker needs."""
    world = make_world(1)
    task_id = world.submitted(spec={"command": ["true"]}, payload=b"p")
    (start,) = world.plan()
    (job,) = start.jobs
    assert (start.worker_id, job.task_id, job.run, job.claim) == ("worker-1", task_id, 1, 0)
    assert (job.kind, job.spec, job.payload) == ("script", {"command": ["true"]}, b"p")
    task = world.task(task_id)
    assert (task.status, task.worker_id, task.node, task.started_at) == (
        "in_progress",
        "worker-1",
        "here",
        1_000.0,
    )
    worker = world.state.workers["worker-1"]
    assert (worker.status, worker.current_task) == ("busy", task_id)


def test_without_a_worker_tasks_wait(world):
    """Nothing is claimed for nobody."""
    task_id = world.submitted()
    assert only(Start, world.plan()) == []
    assert world.task(task_id).status == "pending"


def test_a_starting_worker_is_given_nothing(world):
    """Work is handed to a worker that has said that it is there."""
    world.given(PoolChanged(1.0, Pool(1, 1)))
    assert world.plan() == [Spawn("worker-1")]
    world.submitted()
    assert world.plan() == []
    world.report(WorkerReady("worker-1", 7))
    assert [type(one) for one in world.plan()] == [Start]


def test_one_task_goes_to_each_idle_worker(make_world):
    """Tasks of unknown length are spread, one to a worker; the rest waits."""
    world = make_world(3)
    ids = [world.submitted() for _ in range(5)]
    handed = world.handed(world.plan())
    assert sorted(handed) == ["worker-1", "worker-2", "worker-3"]
    assert [tasks for _, tasks in sorted(handed.items())] == [[ids[0]], [ids[1]], [ids[2]]]
    assert world.plan() == []


def test_the_next_task_follows_when_one_ends(make_world):
    """A worker that is free again is given the next."""
    world = make_world(1)
    first, second = world.submitted(), world.submitted()
    world.plan()
    world.end(first)
    assert world.handed(world.plan()) == {"worker-1": [second]}


def test_higher_priorities_go_first(make_world):
    """10 before 1, and within one priority the order of submission."""
    world = make_world(1)
    order = [world.submitted(priority=priority) for priority in (1, 5, 10, 5, 10)]
    started = []
    for _ in order:
        ((task_id,),) = world.handed(world.plan()).values()
        started.append(task_id)
        world.end(task_id)
    assert started == [order[2], order[4], order[1], order[3], order[0]]


def test_a_cancelled_task_is_passed_over(make_world):
    """What was cancelled while it waited is not started."""
    world = make_world(1)
    first, second = world.submitted(), world.submitted()
    world.do(CancelTask(first))
    assert world.handed(world.plan()) == {"worker-1": [second]}


def test_a_paused_pool_starts_nothing(make_world):
    """Work waits until the pool goes on."""
    world = make_world(1)
    task_id = world.submitted()
    world.given(PoolChanged(1.0, Pool(1, 1, paused=True)))
    assert world.plan() == []
    world.given(PoolChanged(1.0, Pool(1, 1)))
    assert world.handed(world.plan()) == {"worker-1": [task_id]}


# -- windows --------------------------------------------------------------------------------------------------


def test_short_tasks_share_a_window(make_world):
    """Functions known to be short are claimed together, in order, up to the window."""
    world = make_world(1)
    world.paced("f", 0.00005)
    ids = [world.submitted(kind="function", name="f") for _ in range(WINDOW_TASKS + 10)]
    (start,) = world.plan()
    assert [job.task_id for job in start.jobs] == ids[:WINDOW_TASKS]
    assert [job.claim for job in start.jobs] == list(range(1, WINDOW_TASKS + 1))


def test_a_window_holds_what_takes_no_longer_than_its_time(make_world):
    """With 4.9 ms each, four fill 20 ms."""
    world = make_world(1)
    world.paced("f", 0.0049)
    for _ in range(20):
        world.submitted(kind="function", name="f")
    (start,) = world.plan()
    assert len(start.jobs) == 4


def test_short_tasks_are_shared_out(make_world):
    """No worker takes what another could begin at once."""
    world = make_world(3)
    world.paced("f", 0.00005)
    for _ in range(9):
        world.submitted(kind="function", name="f")
    assert sorted(map(len, world.handed(world.plan()).values())) == [3, 3, 3]


def test_a_window_is_refilled_at_half(make_world):
    """A worker with more than half of a window is not bothered; below it, it is filled again."""
    world = make_world(1)
    world.paced("f", 0.00005)
    ids = [world.submitted(kind="function", name="f") for _ in range(3 * WINDOW_TASKS)]
    world.plan()
    half = WINDOW_TASKS // 2
    for task_id in ids[: half - 1]:
        world.end(task_id)
    assert world.plan() == []
    world.end(ids[half - 1])
    (start,) = world.plan()
    assert [job.task_id for job in start.jobs] == ids[WINDOW_TASKS : WINDOW_TASKS + half]


@pytest.mark.parametrize(
    "alone",
    [
        {"kind": "function", "name": "never seen"},
        {"kind": "function", "name": "slow"},
        {"kind": "function", "name": "f", "timeout_s": 60.0},
        {"kind": "script", "name": "f"},
    ],
)
def test_what_may_be_long_is_claimed_alone(make_world, alone):
    """Unknown, long, timed, or not a function: it waits for an idle worker and shares it with none."""
    world = make_world(1)
    world.paced("f", 0.00005)
    world.paced("slow", 0.5)
    short = [world.submitted(kind="function", name="f") for _ in range(2)]
    long = world.submitted(**alone)
    after = [world.submitted(kind="function", name="f") for _ in range(2)]
    assert world.handed(world.plan()) == {"worker-1": short}
    world.end(short[0])
    assert world.plan() == []
    world.end(short[1])
    assert world.handed(world.plan()) == {"worker-1": [long]}
    world.end(long)
    assert world.handed(world.plan()) == {"worker-1": after}


@pytest.mark.parametrize(
    ("seen", "asked"), [("SVC C=1, fold 1/5", "SVC C=10, fold 2/5"), ("area(3)", "area(4, x=1)")]
)
def test_a_name_of_its_own_is_as_long_as_its_family(make_world, seen, asked):
    """Tasks that are told apart by what follows a space or bracket share windows, though each name is new."""
    world = make_world(1)
    world.paced(seen, 0.001)
    ids = [world.submitted(kind="function", name=asked), world.submitted(kind="function", name=seen)]
    assert world.handed(world.plan()) == {"worker-1": ids}


def test_a_name_that_is_known_counts_more_than_its_family(make_world):
    """One that is long does not share a window with the short ones of its family."""
    world = make_world(1)
    world.paced("fit all", 30.0)
    for _ in range(60):
        world.paced("fit one", 0.0001)
    first = world.submitted(kind="function", name="fit one")
    world.submitted(kind="function", name="fit all")
    assert world.handed(world.plan()) == {"worker-1": [first]}


# -- one ahead ------------------------------------------------------------------------------------------------


def test_workers_hold_one_rather_short_task_ahead(make_world):
    """Where all are busy, each is given the next one while it works, and no more than one."""
    world = make_world(2)
    world.paced("f", AHEAD_S / 2 - 0.001)
    ids = [world.submitted(kind="function", name="f") for _ in range(6)]
    world.plan()
    assert [sorted(lane.claims) for lane in world.agenda.lanes.values()] == [
        [ids[0], ids[2]],
        [ids[1], ids[3]],
    ]
    world.end(ids[0])
    assert world.handed(world.plan()) == {"worker-1": [ids[4]]}


def test_nothing_is_held_ahead_of_a_worker_to_come(make_world):
    """Where the pool may still grow, what waits is what makes it grow."""
    world = make_world(1)
    world.paced("f", AHEAD_S / 4)
    world.given(PoolChanged(world.now, Pool(1, 2)))
    first = world.submitted(kind="function", name="f")
    world.submitted(kind="function", name="f")
    assert world.handed(world.plan()) == {"worker-1": [first]}


def test_what_is_held_ahead_goes_to_a_worker_that_is_idle(make_world):
    """The one before takes longer than thought: another worker has it, without waiting for the end of that."""
    world = make_world(2)
    world.paced("f", AHEAD_S / 4)
    first, second, third = (world.submitted(kind="function", name="f") for _ in range(3))
    world.plan()
    world.end(second)
    world.plan()
    assert [only(Recall, world.pass_time(RECALL_AFTER_S).plan())] == [[Recall("worker-1")]]
    world.give_back("worker-1", third)
    assert world.handed(world.plan()) == {"worker-2": [third]}
    assert world.task(first).status == "in_progress"


# -- lengths --------------------------------------------------------------------------------------------------


def test_one_run_that_was_held_up_makes_no_name_long(make_world):
    """On a busy machine a short run may take a second; its name is still short."""
    world = make_world(1)
    world.paced("f", 0.001)
    world.paced("f", 1.0)
    assert world.agenda.pace_s["f"] == pytest.approx(0.0016)


def test_a_name_whose_runs_become_long_is_long_after_some(make_world):
    """A dozen long runs in a row are believed, and then claimed alone."""
    world = make_world(1)
    world.paced("f", 0.001)
    for _ in range(12):
        world.paced("f", 1.0)
    assert world.agenda.pace_s["f"] > WINDOW_S


def test_a_first_run_that_was_held_up_is_soon_forgotten(make_world):
    """The first run of a worker imports its libraries: a few later ones say how long a name takes."""
    world = make_world(1)
    world.paced("f", 1.0)
    for _ in range(8):
        world.paced("f", 0.002)
    assert world.agenda.pace_s["f"] < 5 * 0.002


def test_paces_are_forgotten_one_by_one(make_world):
    """Of very many names the one that was seen longest ago goes."""
    world = make_world(1)
    for number in range(PACE_KEPT + 2):
        world.paced(f"f{number}", 0.001)
    assert len(world.agenda.pace_s) == PACE_KEPT
    assert "f0" not in world.agenda.pace_s


# -- recall ---------------------------------------------------------------------------------------------------


@pytest.fixture
def stuck(make_world):
    """Worker 1 holds six short tasks, of which the first turns out to be long; worker 2 has ended its own."""
    world = make_world(2)
    world.paced("f", 0.00005)
    ids = [world.submitted(kind="function", name="f") for _ in range(12)]
    handed = world.handed(world.plan())
    for task_id in handed["worker-2"]:
        world.end(task_id)
    assert sorted(ids) == sorted(handed["worker-1"] + handed["worker-2"])
    world.held = handed["worker-1"]
    return world


def test_a_window_behind_a_long_task_is_taken_back(stuck):
    """After a while without a word, while another worker is idle; once."""
    assert stuck.plan() == []
    assert stuck.wake_at == pytest.approx(stuck.now + RECALL_AFTER_S)
    stuck.pass_time(RECALL_AFTER_S)
    assert stuck.plan() == [Recall("worker-1")]
    assert stuck.plan() == []


def test_what_was_taken_back_goes_to_the_idle_worker_in_order(stuck):
    """And not to the one that is stuck, however little it holds now."""
    stuck.pass_time(RECALL_AFTER_S)
    stuck.plan()
    stuck.give_back("worker-1", *stuck.held[1:])
    assert stuck.handed(stuck.plan()) == {"worker-2": stuck.held[1:]}


def test_a_worker_that_moves_on_is_given_work_again(stuck):
    """Once the long task has ended, the worker takes part as before."""
    stuck.pass_time(RECALL_AFTER_S)
    stuck.plan()
    stuck.give_back("worker-1", *stuck.held[1:])
    stuck.plan()
    stuck.end(stuck.held[0])
    more = [stuck.submitted(kind="function", name="f") for _ in range(14)]
    handed = stuck.handed(stuck.plan())
    assert (len(handed["worker-1"]), len(handed["worker-2"])) == (7, 2)
    assert sorted(handed["worker-1"] + handed["worker-2"]) == more[:9]


def test_a_worker_that_gave_everything_back_is_idle(stuck):
    """It had not begun any of it: it may have all of it again."""
    stuck.pass_time(RECALL_AFTER_S)
    stuck.plan()
    stuck.give_back("worker-1", *stuck.held)
    handed = stuck.handed(stuck.plan())
    assert set(handed) == {"worker-1", "worker-2"}


def test_returned_tasks_keep_their_place(make_world):
    """They are older than what waits, and go before it in their old order."""
    world = make_world(1)
    world.paced("f", 0.00005)
    ids = [world.submitted(kind="function", name="f") for _ in range(4)]
    world.plan()
    later = world.submitted(kind="function", name="f")
    world.give_back("worker-1", *reversed(ids[1:]))
    assert list(world.agenda.ready[5]) == [*ids[1:], later]


def test_returned_tasks_keep_their_place_after_a_death(make_world):
    """The same holds when a worker dies with a window that it had not begun."""
    world = make_world(1)
    world.paced("f", 0.00005)
    ids = [world.submitted(kind="function", name="f") for _ in range(4)]
    world.plan()
    world.die(begun=1)
    assert list(world.agenda.ready[5]) == ids


def test_nothing_is_recalled_while_work_waits(stuck):
    """The idle worker has something else to do."""
    stuck.pass_time(RECALL_AFTER_S)
    stuck.submitted()
    assert [type(one) for one in stuck.plan()] == [Start]


# -- stops and time-outs --------------------------------------------------------------------------------------


def test_a_cancel_stops_the_run(make_world):
    """The run is named, so that an engine cannot stop another one."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.do(CancelTask(task_id), by="ann")
    assert world.plan() == [Stop("worker-1", task_id, 1, "user")]
    assert world.plan() == []


def test_a_stop_of_what_has_ended_is_not_told(make_world):
    """The end came first."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.do(CancelTask(task_id))
    world.end(task_id)
    assert only(Stop, world.plan()) == []


def test_a_time_out_stops_the_run_at_its_moment(make_world):
    """Not before; and the plan says when to look again."""
    world = make_world(1)
    task_id = world.submitted(timeout_s=30.0)
    world.plan()
    assert world.wake_at == world.now + 30.0
    world.pass_time(29.9)
    assert world.plan() == []
    world.pass_time(0.2)
    assert world.plan() == [Stop("worker-1", task_id, 1, "timeout")]
    assert world.task(task_id).stopping == "timeout"


@pytest.mark.parametrize("gap_s", [8 * 3600.0, -8 * 3600.0])
def test_a_jump_of_the_clock_leaves_a_run_the_time_that_it_had(make_world, gap_s):
    """Whichever way: a laptop that slept has not run, and a clock that was set back has not undone anything."""
    world = make_world(1)
    task_id = world.submitted(timeout_s=30.0)
    world.plan()
    world.pass_time(10.0 + gap_s)
    world.agenda.shift(gap_s)
    world.pass_time(19.9)
    assert only(Stop, world.plan()) == []
    world.pass_time(0.2)
    assert world.plan() == [Stop("worker-1", task_id, 1, "timeout")]


def test_a_time_out_is_of_one_run(make_world):
    """A deadline of an attempt that has ended does not touch the next one."""
    world = make_world(1)
    task_id = world.submitted(timeout_s=30.0, retries=1)
    world.plan()
    world.pass_time(20.0)
    world.end(task_id, reason="exit")
    world.pass_time(5.0)
    world.plan()
    world.pass_time(10.0)
    assert only(Stop, world.plan()) == []
    world.pass_time(20.0)
    assert only(Stop, world.plan()) == [Stop("worker-1", task_id, 2, "timeout")]


def test_a_time_out_is_of_one_claim(make_world):
    """A claim that was given back does not count: its run has the same number, but began later."""
    world = make_world(1)
    task_id = world.submitted(timeout_s=15.0)
    world.plan()
    world.pass_time(10.0)
    world.give_back("worker-1", task_id)
    world.plan()
    world.pass_time(10.0)
    assert only(Stop, world.plan()) == []
    world.pass_time(5.0)
    assert len(only(Stop, world.plan())) == 1


def test_time_outs_of_what_has_ended_are_forgotten(make_world):
    """However far they lie ahead."""
    world = make_world(1)
    for _ in range(MOST_STALE + 50):
        task_id = world.submitted(timeout_s=86_400.0)
        world.plan()
        world.end(task_id)
    world.plan()
    assert len(world.agenda.deadlines) < 100


def test_a_time_out_does_not_overrule_a_cancel(make_world):
    """A run that is being stopped already is stopped once, for the first reason."""
    world = make_world(1)
    task_id = world.submitted(timeout_s=30.0)
    world.plan()
    world.do(CancelTask(task_id))
    world.plan()
    world.pass_time(60.0)
    assert only(Stop, world.plan()) == []
    assert world.task(task_id).stopping == "user"


def test_a_retry_waits_for_its_moment(make_world):
    """The delayed task does not hold up others; the plan says when to look again."""
    world = make_world(1)
    first = world.submitted(retries=1)
    world.plan()
    world.end(first, reason="exit")
    other = world.submitted()
    assert world.handed(world.plan()) == {"worker-1": [other]}
    world.end(other)
    assert world.plan() == []
    assert world.wake_at == world.task(first).not_before
    world.now = world.wake_at
    assert world.handed(world.plan()) == {"worker-1": [first]}
    assert world.task(first).run == 2


# -- workers --------------------------------------------------------------------------------------------------


def test_the_pool_is_filled(world):
    """As many workers are started as there are to be at least, under the first free names."""
    world.given(PoolChanged(1.0, Pool(2, 3)))
    assert world.plan() == [Spawn("worker-1"), Spawn("worker-2")]
    assert world.plan() == []


def test_a_dead_worker_is_replaced(make_world):
    """Its name is free again."""
    world = make_world(2)
    world.die("worker-1", begun=0)
    assert world.plan() == [Spawn("worker-1")]


def test_a_smaller_pool_lets_idle_workers_go(make_world):
    """As many as are too many; busy ones go when they are idle."""
    world = make_world(3)
    first = world.submitted()
    world.plan()
    world.do(ScaleWorkers(1, 1))
    assert world.plan() == [Retire("worker-2"), Retire("worker-3")]
    assert world.plan() == []
    assert world.state.workers["worker-2"].status == "stopping"
    world.submitted()
    assert world.plan() == []
    world.end(first)
    assert [type(one) for one in world.plan()] == [Start]


def test_a_busy_worker_goes_once_it_is_idle(make_world):
    """Nothing is interrupted by a smaller pool."""
    world = make_world(2)
    ids = [world.submitted(), world.submitted()]
    world.plan()
    world.do(ScaleWorkers(1, 1))
    assert world.plan() == []
    world.end(ids[1])
    assert world.plan() == [Retire("worker-2")]


def test_a_smaller_pool_takes_effect_while_work_waits(make_world):
    """Work that waits goes to those who stay; an idle worker too many leaves at once."""
    world = make_world(2)
    ids = [world.submitted(), world.submitted()]
    world.do(ScaleWorkers(1, 1))
    handed = world.handed(instructions := world.plan())
    assert [task for tasks in handed.values() for task in tasks] == ids[:1]
    assert sum(isinstance(instruction, Retire) for instruction in instructions) == 1


def test_workers_that_never_get_ready_are_started_ever_more_slowly(world):
    """The first are replaced at once; then the wait doubles to its longest; a ready one ends that."""
    world.given(PoolChanged(1.0, Pool(1, 1)))
    waits = []
    for _ in range(60):
        while world.plan() == []:
            waits.append(world.wake_at - world.now)
            world.now = world.wake_at
        world.die(begun=0)
    assert waits[0] < 1.0
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(LONGEST_RESPAWN_S)
    world.pass_time(LONGEST_RESPAWN_S)
    world.plan()
    world.report(WorkerReady("worker-1", 1))
    world.die(begun=0)
    assert world.plan() == [Spawn("worker-1")]


def test_a_draining_pool_starts_nothing_and_nobody(make_world):
    """What runs goes on; dead workers are not replaced."""
    world = make_world(2)
    running = world.submitted()
    world.plan()
    world.submitted()
    world.do(DrainPool())
    world.die("worker-2", begun=0)
    assert world.plan() == []
    assert world.task(running).status == "in_progress"


# -- who is busy ----------------------------------------------------------------------------------------------


def test_a_worker_is_idle_again_after_its_last_task(make_world):
    """Its status and current task follow its claims."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.end(task_id)
    world.plan()
    worker = world.state.workers["worker-1"]
    assert (worker.status, worker.current_task, worker.completed) == ("idle", None, 1)


def test_within_a_window_the_current_task_is_told_now_and_then(make_world):
    """Not at every short task, but the last word about it is never an old one."""
    world = make_world(1)
    world.paced("f", 0.00005)
    ids = [world.submitted(kind="function", name="f") for _ in range(5)]
    world.plan()
    before = len(world.events)
    world.end(ids[0])
    world.plan()
    assert [type(event) for event in world.events[before:] if type(event) is WorkerChanged] == []
    assert world.wake_at == pytest.approx(world.now + NEWS_EVERY_S)
    world.now = world.wake_at
    world.plan()
    assert world.state.workers["worker-1"].current_task == ids[1]


# -- a state that was loaded ----------------------------------------------------------------------------------


def test_an_agenda_of_a_loaded_state_knows_what_the_kept_one_knew(make_world):
    """Who waits in which order, who holds what, what is due when, and what is still to be stopped."""
    world = make_world(2)
    running = world.submitted(timeout_s=50.0)
    stopping = world.submitted()
    world.plan()
    waiting = [world.submitted(priority=priority) for priority in (3, 9, 9)]
    world.given(StopRequested(world.now, stopping, 1, "user", "ann"))
    loaded = Agenda.from_state(world.state, lambda kind: kind == "function")
    assert {name: set(lane.claims) for name, lane in loaded.lanes.items()} == {
        "worker-1": {running},
        "worker-2": {stopping},
    }
    assert [lane.given for lane in loaded.lanes.values()] == [1, 1]
    assert list(loaded.ready[9]) == waiting[1:]
    assert list(loaded.ready[3]) == waiting[:1]
    assert loaded.deadlines == [(world.now + 50.0, running, world.now)]
    world.agenda = loaded
    assert only(Stop, world.plan()) == [Stop("worker-2", stopping, 1, "user")]


def test_a_loaded_window_is_in_the_order_of_its_claims(make_world):
    """The order of submission is another one: a task may have been claimed late."""
    world = make_world(1)
    first, second = world.submitted(), world.submitted()
    world.claimed(second)
    world.claimed(first)
    lane = Agenda.from_state(world.state, lambda kind: True).lanes["worker-1"]
    assert list(lane.claims) == [second, first]
    assert lane.given == 2


def test_a_lane_forgets_its_load_with_its_last_claim(make_world):
    """Sums of fractions leave no rest, and one endless task does not stay for ever."""
    world = make_world(1)
    lane = world.agenda.lanes["worker-1"]
    for number in range(10):
        lane.add(str(number), 0.1)
    lane.add("endless", inf)
    lane.drop("endless")
    assert lane.load_s == pytest.approx(1.0)
    for number in range(10):
        lane.drop(str(number))
    assert lane.load_s == 0.0


def test_an_unknown_claim_is_nobodys(make_world):
    """A fact about a run whose worker is gone changes no lane."""
    world = make_world(1)
    task_id = world.submitted()
    world.given(WorkerStarted(1.0, "worker-9", "here"))
    world.given(TaskStarted(1.0, task_id, 1, "worker-9", "here", 0))
    world.die("worker-9", begun=1)
    world.given(*[TaskCancelled(1.0, world.submitted(), 0, "user", "")])
    assert "worker-9" not in world.agenda.lanes
    assert world.agenda.holder(task_id) is None
