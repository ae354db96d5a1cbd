"""`/api/logs` over a real workshop: sizes and times, last lines, one run, searching, removing."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.core.records import TaskId
from koubou_panel.servers.api.logs import last_lines, with_text
from koubou_panel.testing import ended, until
from tests.servers.api.rest import READ, open_everything, script_file

COUNT = 'i=0; while [ $i -lt "$1" ]; do i=$((i+1)); echo "line $i of $1"; done\n'


@pytest.fixture
async def rest(tmp_path):
    """A client of a dashboard over a real workshop that has a script which prints lines."""
    async with open_everything(tmp_path / "home") as client:
        client.path = script_file(tmp_path, COUNT)
        body = {"name": "count", "path": client.path, "max_log_lines": 3, "parameters": [{"name": "n"}]}
        assert (await client.post("/api/scripts", body)).status == 201
        yield client


async def ran(rest, n: int) -> TaskId:
    """A run that printed `n` lines and has ended."""
    told = await rest.post("/api/scripts/count/run", {"parameters": {"n": str(n)}})
    task_id = TaskId(told.body["task_id"])
    await ended(rest.shop, task_id)
    return task_id


async def test_the_last_lines_of_the_newest_run_are_shown(rest):
    """As many as the script says, or as are asked for; an earlier run by its id."""
    first, second = await ran(rest, 5), await ran(rest, 2)
    newest = (await rest.get("/api/logs/count")).body
    assert (newest["run"], newest["lines"]) == (second, ["line 1 of 2", "line 2 of 2"])
    assert (newest["is_cut"], newest["status"], newest["exit_code"]) == (False, "completed", 0)
    earlier = (await rest.get(f"/api/logs/count?run={first}")).body
    assert (earlier["lines"], earlier["is_cut"]) == (["line 3 of 5", "line 4 of 5", "line 5 of 5"], True)
    two = (await rest.get(f"/api/logs/count?run={first}&lines=2", token=READ)).body
    assert two["lines"] == ["line 4 of 5", "line 5 of 5"]
    found = (await rest.get(f"/api/logs/count?run={first}&search=LINE%204")).body
    assert found["lines"] == ["line 4 of 5"]


async def test_a_long_log_is_read_from_its_end(rest):
    """A log of many pieces gives whole lines, as many as were asked for."""
    await ran(rest, 60_000)
    log = (await rest.get("/api/logs/count?lines=40000")).body
    assert (len(log["lines"]), log["is_cut"]) == (40_000, True)
    assert (log["lines"][0], log["lines"][-1]) == ("line 20001 of 60000", "line 60000 of 60000")
    whole = (await rest.get("/api/logs/count?lines=1000000")).body
    assert (len(whole["lines"]), whole["is_cut"]) == (60_000, False)


async def test_a_script_that_never_ran_has_no_lines(rest):
    """It is no error to have printed nothing yet."""
    log = (await rest.get("/api/logs/count")).body
    assert log == {"name": "count", "run": None, "lines": [], "is_cut": False}


async def test_logs_are_listed_with_sizes_and_times(rest):
    """For each script its last runs, newest first, and what they printed together."""
    await ran(rest, 1)
    second = await ran(rest, 2)
    listed = (await rest.get("/api/logs")).body
    (log,) = listed["logs"]
    assert (listed["total"], log["name"], log["runs"]) == (1, "count", 2)
    assert [output["size_bytes"] for output in log["outputs"]] == [24, 12]
    assert (log["size_bytes"], log["outputs"][0]["run"]) == (36, second)
    assert log["outputs"][0]["finished_at"].endswith("Z")
    one = (await rest.get("/api/logs?runs=1")).body["logs"][0]
    assert (len(one["outputs"]), one["runs"]) == (1, 2)


async def test_every_run_is_searched(rest):
    """A search names run, line and place, newest first, and says if there may be more."""
    first, second = await ran(rest, 3), await ran(rest, 12)
    found = (await rest.get("/api/logs/count?search=Line%202")).body
    assert [(match["run"], match["line"]) for match in found["matches"]] == [(second, 2), (first, 2)]
    assert found["is_cut"] is False
    few = (await rest.get("/api/logs/count?search=line&limit=5")).body
    assert (len(few["matches"]), few["is_cut"]) == (5, True)
    assert (await rest.get("/api/logs/count?search=nothing")).body["matches"] == []


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("lines=0", 400, "lines"),
        ("lines=x", 400, "lines"),
        ("lines=-1", 400, "lines"),
        ("search=", 400, "search"),
        ("run=nothing", 404, "run"),
        ("serach=x", 400, "serach"),
        ("search=x&limit=5000", 400, "limit"),
    ],
)
async def test_what_cannot_be_shown_is_refused(rest, query, status, field):
    """Numbers out of range, runs of nobody, fields that are none."""
    await ran(rest, 1)
    refused = await rest.get(f"/api/logs/count?{query}")
    assert (refused.status, refused.error["field"]) == (status, field)


async def test_no_list_is_too_long(rest):
    """Many runs of few scripts, or few of many."""
    assert (await rest.get("/api/logs?limit=10&runs=1000")).status == 200
    refused = await rest.get("/api/logs?limit=1000&runs=1000")
    assert (refused.status, refused.error["field"]) == (400, "runs")


async def test_a_run_of_another_script_is_not_shown(rest):
    """A task's id does not open the log of what is no run of this script."""
    await rest.post("/api/scripts", {"name": "other", "path": rest.path})
    task_id = await ran(rest, 1)
    assert (await rest.get(f"/api/logs/other?run={task_id}")).status == 404


async def test_the_log_of_a_removed_script_stays(rest):
    """As long as its runs are there."""
    task_id = await ran(rest, 1)
    await rest.delete("/api/scripts/count")
    log = (await rest.get("/api/logs/count")).body
    assert (log["run"], log["lines"]) == (task_id, ["line 1 of 1"])


async def test_output_is_removed_but_of_what_runs(rest, tmp_path):
    """What ended runs printed goes, what a run prints goes on; the runs themselves are still listed."""
    await ran(rest, 5)
    path = script_file(tmp_path, "echo begun; sleep 60\n", "long.sh")
    await rest.post("/api/scripts", {"name": "long", "path": path})
    told = await rest.post("/api/scripts/long/run")
    task_id = TaskId(told.body["task_id"])

    async def has_begun() -> bool:
        return (await rest.shop.read_output(task_id, 0, 100)).text == "begun\n"

    await until(has_begun)
    assert (await rest.delete("/api/logs/count")).body == {"name": "count", "runs": 1, "size_bytes": 60}
    assert (await rest.delete("/api/logs/count")).body["size_bytes"] == 0
    assert (await rest.delete("/api/logs/long")).body["runs"] == 0
    assert (await rest.get("/api/logs/long")).body["lines"] == ["begun"]
    log = next(log for log in (await rest.get("/api/logs")).body["logs"] if log["name"] == "count")
    assert (log["runs"], log["size_bytes"]) == (1, 0)
    assert "was removed" in (await rest.get("/api/logs/count")).body["lines"][0]
    assert (await rest.delete("/api/logs/conut")).error["nearest"] == "count"
    await rest.shop.do(CancelTask(task_id), Caller("test"))
    await ended(rest.shop, task_id)


def test_lines_of_pieces_are_put_together():
    """The pieces come last first; where the log goes on before them, the first line is not whole."""
    assert last_lines(["c\nd\n", "a\nb"], is_cut=False, count=9) == (["a", "bc", "d"], False)
    assert last_lines(["c\nd\n", "a\nb"], is_cut=True, count=9) == (["bc", "d"], True)
    assert last_lines(["c\nd\n", "a\nb"], is_cut=False, count=1) == (["d"], True)
    assert with_text(["One", "two", "ONE more"], "one", 1) == ["ONE more"]
