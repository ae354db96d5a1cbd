"""What a workshop, a task and a future are under a cell: stills here; what is live is tried in `tests/jupyter`."""

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from koubou_panel import Workshop
from koubou_panel.notebook import display, endings, showroom
from koubou_panel.notebook.display import EXEC
from koubou_panel.notebook.extension import PLAIN, extension, language, missing
from koubou_panel.notebook.showroom import Showroom, Viewer
from koubou_panel.views.ends import KERNEL_ENDED, NO_LABEXTENSION, READY, SWITCHED_OFF
from tests.gate import wait_for

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


class Publisher:
    """As much of ipykernel's as displays need."""

    def __init__(self):
        self.hooks, self.published = [], []
        self.register_hook = self.hooks.append

    def publish(self, data, metadata=None, *, transient=None, update=False):
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        message = {"content": content}
        for hook in self.hooks:
            message = hook(message)
        self.published.append((update, content))


class Kernel:
    """As much of an IPython kernel as displays need."""

    def __init__(self):
        self.targets = {}
        self.sent = []
        self.after_cell = []
        events = SimpleNamespace(register=lambda _name, call: self.after_cell.append(call))
        self.shell = SimpleNamespace(
            display_pub=Publisher(), displayhook=object(), events=events, exit_now=False
        )
        self.comm_manager = SimpleNamespace(register_target=self.targets.__setitem__)
        self.session = SimpleNamespace(send=self._send)
        self.iopub_socket = object()

    def _send(self, _socket, kind, content, **_rest):
        self.sent.append((kind, content))

    def messages(self):
        """What browsers were sent, decoded."""
        return [json.loads(content["data"]["text"]) for _kind, content in self.sent]


class Comm:
    """A comm that a browser opened."""

    comm_id = "c1"
    topic = b"comm-c1"
    is_closed = False

    def on_msg(self, call):
        self.hear = call

    def on_close(self, call):
        self.closed = call

    def close(self):
        self.is_closed = True

    def say(self, **told):
        """What the browser says."""
        self.hear({"content": {"data": {"text": json.dumps(told)}}})


@pytest.fixture
def room(monkeypatch):
    """A showroom of the test's own, in a kernel."""
    found, kernel = Showroom(check_s=0.05), Kernel()
    monkeypatch.setattr(display, "showroom", lambda: found)
    monkeypatch.setattr(display, "_kernel", lambda: kernel)
    found.kernel = kernel
    return found


def _until(condition, limit_s=90.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _open(room, bundle, **about):
    comm = Comm()
    display_id = bundle[1][EXEC]["id"]
    room.kernel.targets["koubou"](comm, {"content": {"data": {"display": display_id} | about}})
    return comm


def _said(room, name):
    return [message[name] for message in room.kernel.messages() if name in message]


def _added(room):
    """How many messages told the task stream of runs that ended."""
    return sum("add" in said for told in _said(room, "say") for _card, said in told)


def test_a_future_outside_of_a_notebook_is_text_and_still(shop):
    """Without a kernel there is a line of text and dated HTML that holds no script."""
    future = shop.submit_with(pow, 2, 10, options={"name": "two to the ten"})
    assert future.result() == 1024
    data, metadata = future._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html"}
    assert metadata == {}
    assert "two to the ten: completed" in data["text/plain"]
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", data["text/html"])
    assert "<script" not in data["text/html"]


def test_what_was_asked_for_is_given(shop):
    """`include` and `exclude` are kept to."""
    future = shop.submit(pow, 2, 10)
    future.result()
    assert set(future._repr_mimebundle_(include=["text/plain"])[0]) == {"text/plain"}
    assert set(future.task._repr_mimebundle_(exclude=["text/plain"])[0]) == {"text/html"}


def test_what_people_wrote_is_escaped(shop):
    """Names, messages and output cannot add an element."""
    code = f"print({EVIL!r}); raise SystemExit({EVIL!r})"
    future = shop.run("python3", "-c", code, name=EVIL)
    assert future.exception() is not None
    for data in (future._repr_mimebundle_()[0], shop._repr_mimebundle_()[0]):
        assert "<img" not in data["text/html"]
        assert "<script" not in data["text/html"]
        assert "&lt;img" in data["text/html"]


def test_a_workshop_is_told_in_one_line(shop):
    """Its text has the counts and the moment."""
    text = shop._repr_mimebundle_()[0]["text/plain"]
    assert re.search(r"\d+ running, \d+ pending, \d+ completed, \d+ failed on 2 workers \(at ", text)


def test_a_workshop_that_was_shut_down_says_so(tmp_path):
    """It is text alone."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        pass
    assert shop._repr_mimebundle_()[0] == {"text/plain": f"Workshop at {tmp_path / 'home'}, shut down"}


def test_a_display_is_followed_while_somebody_looks(shop, room):
    """Its one subscription begins with the first who looks and ends with the last."""
    bundle = shop._repr_mimebundle_()
    assert "<script" in bundle[0]["text/html"]
    assert len(room) == len(shop.hops) == 0
    first, second = _open(room, bundle), _open(room, bundle)
    _until(lambda: len(_said(room, "all")) >= 2)
    assert len(room) == len(shop.hops) == 1
    first.closed({})
    second.say(type="bye")
    _until(lambda: len(room) == len(shop.hops) == 0)
    assert second.is_closed


def test_each_display_has_a_subscription_of_its_own(shop, room):
    """Two displays share the workshop's door to their thread, and have a mirror each."""
    future = shop.submit(time.sleep, 30)
    comms = [_open(room, shop._repr_mimebundle_()), _open(room, future._repr_mimebundle_())]
    _until(lambda: len(room) == 2)
    assert len(shop.hops) == 1
    for comm in comms:
        comm.closed({})
    _until(lambda: len(room) == len(shop.hops) == 0)
    future.cancel()


def test_who_falls_silent_is_let_go(shop, room):
    """A browser's tab that was closed says nothing any more; one that beats stays."""
    room._silent_s = 1.0
    gone, there = _open(room, shop._repr_mimebundle_()), _open(room, shop._repr_mimebundle_())
    _until(lambda: len(room) == 2)

    def is_one():
        there.say(type="beat")
        return len(room) == 1

    _until(is_one)
    there.closed({})
    _until(lambda: len(room) == 0)
    assert not gone.is_closed


def test_a_card_cancels_its_task(shop, room):
    """What the browser sends is heard, and told to have been; what makes no sense changes nothing."""
    future = shop.submit(time.sleep, 600)
    comm = _open(room, future._repr_mimebundle_())
    _until(lambda: _said(room, "all"))
    for nonsense in ({"type": "cancel"}, {"card": "task", "type": 7}, {"card": "no", "type": "cancel"}):
        comm.say(**nonsense)
    comm.hear({"content": {"data": {"text": "no JSON"}}})
    comm.hear({"content": {"data": 3}})
    comm.say(card="task", type="cancel", task_id=future.task_id, n=5)
    assert _said(room, "heard") == [5]
    _until(future.done)
    assert future.cancelled()
    _until(lambda: len(room) == 0)  # nothing more of it will change


def test_a_finished_task_needs_no_script(shop, room):
    """Nothing will move: its card is the still."""
    future = shop.submit(pow, 2, 10)
    future.result()
    data, metadata = future._repr_mimebundle_()
    assert "<script" not in data["text/html"]
    assert metadata == {}


def _shown(room, value):
    """The bundle as it goes out of a cell, and the display id that it got."""
    bundle = value._repr_mimebundle_()
    publisher = room.kernel.shell.display_pub
    publisher.publish(*bundle)
    return bundle, publisher.published[-1][1]["transient"].get("display_id")


def _updates(room):
    """What displays were told anew: (display id, MIME types)."""
    published = room.kernel.shell.display_pub.published
    return [(content["transient"]["display_id"], content["data"]) for update, content in published if update]


def _cell_ends(room):
    for call in room.kernel.after_cell:
        call(None)


def test_a_display_is_told_the_end_of_its_task(shop, room, gate):
    """Once, whatever the kernel does: its output then holds what was printed and returned, and nothing that moves."""

    def work():
        sys.stdout.write("<b>half</b> way\n")
        wait_for(gate)
        return 42

    _bundle, display_id = _shown(room, shop.submit(work))
    gate.touch()
    _until(lambda: _updates(room))
    _cell_ends(room)
    ((told, data),) = _updates(room)
    assert told == display_id
    assert set(data) == {"text/plain", "text/html"}
    assert "&lt;b&gt;half&lt;/b&gt; way" in data["text/html"]
    assert "→</span> 42" in data["text/html"]
    assert "work: completed" in data["text/plain"]
    assert data["text/plain"].endswith("\n<b>half</b> way")


def test_a_task_that_ends_within_the_cell_is_told_before_the_cell_is_done(shop, room, gate, monkeypatch):
    """What runs a notebook without a page hears nothing after that."""
    monkeypatch.setattr(endings, "AFTER_S", 60.0)
    future = shop.submit(wait_for, gate)
    _shown(room, future)
    _cell_ends(room)
    assert _updates(room) == []
    gate.touch()
    future.result()
    _cell_ends(room)
    _cell_ends(room)
    assert len(_updates(room)) == 1


def test_a_failed_task_is_kept_with_its_traceback(shop, room, gate):
    """Under the error itself; also of another handle's task."""
    future = shop.submit_with(int, "x1", options={"after": shop.submit(wait_for, gate)})
    task_id = shop.task(future).task_id  # it is stored by now
    with Workshop(shop.home.root) as attached:
        _shown(room, attached.task(task_id))
        gate.touch()
        _until(lambda: _updates(room))
    text = _updates(room)[0][1]["text/html"]
    assert "Traceback (most recent call last):" in text
    assert "invalid literal" in text[: text.index("Traceback")]


def test_long_output_is_kept_from_its_end_and_says_so(shop, room, gate):
    """With how much came before, and where that is."""
    code = "for n in range(5000): print('line', n)"
    future = shop.submit_with(exec, code, options={"after": shop.submit(wait_for, gate)})
    _shown(room, future)
    gate.touch()
    _until(lambda: _updates(room))
    text = _updates(room)[0][1]["text/plain"]
    assert text.endswith("line 4998\nline 4999")
    assert "line 4801" in text
    assert "line 4800" not in text
    left_out = len("".join(f"line {n}\n" for n in range(4801))) / 1024
    assert f"… {left_out:.1f} KB of earlier output: shop.output('{future.task_id}') has all of it …" in text


def test_nothing_is_told_to_a_kernel_that_stops(shop, room):
    """A task that ends as its kernel does has not ended for the notebook."""
    future = shop.submit(time.sleep, 600)
    _shown(room, future)
    room.kernel.shell.exit_now = True
    future.cancel()
    _until(future.done)
    _cell_ends(room)
    assert _updates(room) == []


def test_a_task_that_was_left_is_not_told_to_have_ended(tmp_path, room):
    """Its future has, with the handle; the task goes on, or waits for the next start."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        future = shop.submit(time.sleep, 600)
        _shown(room, future)
        shop.leave()
    _until(future.done)
    _cell_ends(room)
    assert [data for _id, data in _updates(room) if "Completed" in data["text/html"]] == []


def test_an_end_is_told_though_the_workshop_went_with_it(tmp_path, room, gate):
    """A `with` block that ends in the same cell takes no output away."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        waited = {"after": shop.submit(wait_for, gate)}
        _shown(room, shop.submit_with(print, "the last word", options=waited))
        gate.touch()
    _cell_ends(room)
    assert "the last word" in _updates(room)[0][1]["text/plain"]


def test_a_display_id_of_the_users_own_is_kept_to(shop, room, gate):
    """What they show under it later is not covered by the task's end."""
    publisher = room.kernel.shell.display_pub
    first, second = shop.submit(wait_for, gate), shop.submit(wait_for, gate)
    publisher.publish(*first._repr_mimebundle_(), transient={"display_id": "mine"})
    publisher.publish(*second._repr_mimebundle_(), transient={"display_id": "other"})
    publisher.publish({"text/plain": "something else"}, transient={"display_id": "other"}, update=True)
    gate.touch()
    _until(lambda: first.done() and second.done())
    _cell_ends(room)
    assert [told for told, _data in _updates(room)] == ["other", "mine"]


def test_a_refused_task_says_why(shop):
    """In its display, too: not that it is not known."""
    future = shop.submit(lambda lock: lock, threading.Lock())
    data, metadata = future._repr_mimebundle_()
    assert "was not submitted: " in data["text/plain"]
    assert "cannot be" in data["text/plain"]
    assert "Not submitted" in data["text/html"]
    assert metadata == {}


def test_a_still_speaks_the_language_of_the_page(shop, room):
    """Of the page that was opened last, and before one was, of Jupyter's own settings."""
    future = shop.submit(pow, 2, 10)
    future.result()
    room.language = "ja"
    data, _metadata = future._repr_mimebundle_()
    assert "完了" in data["text/html"]
    assert "完了" in data["text/plain"]


@pytest.mark.parametrize(
    ("setting", "system", "expected"),
    [
        ('{\n    // the language\n    "locale": "zh_TW"\n}', "ja_JP", "zh-Hant"),
        ('{\n    // "locale": "zh_TW"\n    "locale": "default"\n}', "ja_JP", "ja"),
        (None, None, "en"),
    ],
)
def test_the_language_is_jupyters(setting, system, expected, tmp_path, monkeypatch):
    """As it is set, else the system's."""
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path))
    monkeypatch.setattr("locale.getlocale", lambda: (system, "UTF-8"))
    file = tmp_path / "@jupyterlab" / "translation-extension" / "plugin.jupyterlab-settings"
    if setting is not None:
        file.parent.mkdir(parents=True)
        file.write_text(setting)
    assert language() == expected
    assert language("ja") == "ja"


def test_a_display_of_an_earlier_kernel_is_told_so(room):
    """An output that this kernel did not make is not left waiting."""
    room.serve(room.kernel)
    room.kernel.targets["koubou"](Comm(), {"content": {"data": {"display": "koubou-of-another"}}})
    _until(lambda: _said(room, "gone") == [KERNEL_ENDED])


def test_a_workshop_that_ends_is_told_to_who_looks(tmp_path, room):
    """The display says that it was shut down, and is followed no more."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        _open(room, shop._repr_mimebundle_())
        _until(lambda: _said(room, "all"))
    _until(lambda: _said(room, "gone") and len(room) == 0)


def test_the_code_is_sent_to_who_asks(shop, room):
    """One module and two styles."""
    comm = _open(room, shop._repr_mimebundle_())
    comm.say(type="code")
    _until(lambda: _said(room, "css"))
    assert "export const mount" in _said(room, "code")[0]
    assert ":host" in _said(room, "css")[0]["page"]
    comm.closed({})


def test_a_viewer_that_is_hidden_is_sent_nothing(shop, room):
    """While nobody sees the page nothing goes out; then all of it is there again."""
    comm = _open(room, shop._repr_mimebundle_())
    _until(lambda: _said(room, "all"))
    comm.say(type="hidden", hidden=True)
    display = next(iter(room._displays.values()))
    _until(lambda: display.session.is_hidden)
    sent, known = len(room.kernel.sent), display.session.mirror.model.completed
    assert shop.submit(pow, 2, 10).result() == 1024
    _until(lambda: display.session.mirror.model.completed > known)  # looked at, each second
    assert len(room.kernel.sent) == sent
    comm.say(type="hidden", hidden=False)
    _until(lambda: len(room.kernel.sent) > sent)
    comm.closed({})


def test_a_hidden_viewer_is_told_the_end(shop, room, tmp_path):
    """A task that ends while nobody looks is followed no more, and its card has the last word of it."""
    future = shop.run("sh", "-c", f"until [ -e '{tmp_path}/hidden' ]; do sleep 0.02; done")
    comm = _open(room, future._repr_mimebundle_())
    _until(lambda: _said(room, "all"))
    comm.say(type="hidden", hidden=True)
    (tmp_path / "hidden").touch()
    future.result()
    _until(lambda: len(room) == 0)
    assert _said(room, "set")[-1]["task"]["task"]["status"] == "completed"


def test_messages_are_numbered_and_a_gap_is_made_good(shop, room):
    """Who misses one gets everything once more, also after the task's end; a beat's answer is numbered, too."""
    future = shop.submit(time.sleep, 1)
    comm = _open(room, future._repr_mimebundle_())
    future.result()
    _until(lambda: _said(room, "all") and len(room) == 0)
    comm.say(type="beat")
    _until(lambda: _said(room, "beat"))
    assert [content["data"]["n"] for _kind, content in room.kernel.sent] == [
        *range(1, len(room.kernel.sent) + 1)
    ]
    comm.say(type="again")
    _until(lambda: len(_said(room, "all")) == 2)
    assert _said(room, "all")[1]["cards"]["task"]["values"]["task"]["status"] == "completed"
    _until(lambda: len(room) == 0)


def test_who_comes_back_from_silence_is_told_all(shop, room):
    """A laptop that slept was let go; its first word has it followed again."""
    room._silent_s = 0.2
    comm = _open(room, shop._repr_mimebundle_())
    _until(lambda: _said(room, "all") and len(room) == 0)
    room._silent_s = 60.0
    comm.say(type="beat")
    _until(lambda: len(_said(room, "all")) == 2 and len(room) == 1)
    comm.closed({})
    _until(lambda: len(room) == 0)


def test_who_was_let_go_of_twice_comes_back_too(shop, room, monkeypatch):
    """Checks pile up behind a kernel that is busy, and find the same viewer silent."""
    monkeypatch.setattr(showroom, "IDLE_TURN_S", 0.0)
    comm = _open(room, shop._repr_mimebundle_())
    _until(lambda: _said(room, "all"))
    (viewer,) = (viewer for display in room._displays.values() for viewer in display.viewers)
    for _ in range(2):
        room._on_thread(room._drop_later, [viewer], time.monotonic())
    _until(lambda: len(room) == 0)
    comm.say(type="beat")
    _until(lambda: len(_said(room, "all")) == 2 and len(room) == 1)
    comm.closed({})
    _until(lambda: len(room) == 0)


def test_runs_are_told_though_another_viewer_looks_at_the_past(shop, room):
    """The task stream of one that follows the present goes on."""
    comm = _open(room, shop._repr_mimebundle_())
    _until(lambda: _said(room, "all"))
    now = time.time()
    comm.say(card="stream", type="ask", ask="window", id=1, start=now - 900, end=now - 600, live=False)
    _until(lambda: any("answer" in said for told in _said(room, "say") for _card, said in told))
    before = _added(room)
    shop.submit(pow, 2, 10).result()
    _until(lambda: _added(room) > before)
    comm.closed({})


def test_a_display_speaks_the_language_of_its_page(shop, room):
    """Its words and its catalogue are those of the page around it."""
    comm = _open(room, shop._repr_mimebundle_(), lang="ja_JP")
    comm.say(type="code")
    _until(lambda: _said(room, "all") and _said(room, "words"))
    assert _said(room, "words")[0]["Cancel"] == ["キャンセル"]
    assert "実行中" in json.dumps(_said(room, "all")[0]["cards"]["tiles"], ensure_ascii=False)
    comm.closed({})


def test_displays_share_one_thread():
    """However many threads of Jupyter's are the first to say something."""
    made, ready = [], threading.Barrier(8)
    room = Showroom()

    def say():
        ready.wait()
        room._on_thread(lambda: made.append(threading.current_thread()))

    callers = [threading.Thread(target=say) for _ in range(8)]
    for caller in callers:
        caller.start()
    _until(lambda: len(made) == 8)
    assert len(set(made)) == 1
    room._thread.close()


def test_extension_in_a_script_says_what_it_does_not_do(capsys):
    """There is nothing to make ready, twice as once."""
    extension()
    extension()
    assert capsys.readouterr().out == f"{PLAIN}\n{PLAIN}\n"


def test_a_missing_piece_is_named_with_the_line_that_mends_it(tmp_path, monkeypatch):
    """No labextension; one that is switched off; one that is there."""
    monkeypatch.delenv("_PYVIZ_COMMS_INSTALLED", raising=False)
    data = tmp_path / "share" / "jupyter"
    assert missing([str(data)]) == NO_LABEXTENSION
    folder = data / "labextensions" / "@pyviz" / "jupyterlab_pyviz"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    assert missing([str(data)]) == ""
    config = tmp_path / "etc" / "jupyter" / "labconfig"
    config.mkdir(parents=True)
    (config / "page_config.json").write_text('{"disabledExtensions": {"@pyviz/jupyterlab_pyviz": true}}')
    assert missing([str(data)]) == SWITCHED_OFF
    assert "pip install pyviz_comms" in NO_LABEXTENSION
    assert READY not in (NO_LABEXTENSION, SWITCHED_OFF)


def test_a_viewer_tells_in_json():
    """Whatever it is told is one text."""
    sent = []
    Viewer(sent.append, 0.0).tell(gone="x")
    assert sent == [{"text": '{"gone": "x"}', "n": 1}]


OPENED = """
import sys, threading
elsewhere = set()
class Note:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread() and name.partition(".")[0] != "koubou_panel":
            elsewhere.add(name)
sys.meta_path.insert(0, Note())
sys.path.insert(0, sys.argv[1])
import test_display as t
from koubou_panel import Workshop
room, kernel = t.Showroom(), t.Kernel()
room.kernel = kernel
t.display.showroom, t.display._kernel = lambda: room, lambda: kernel
with Workshop(sys.argv[2], workers=1) as shop:
    before = set(elsewhere)
    bundle = shop._repr_mimebundle_()
    comm = t._open(room, bundle)
    t._until(lambda: t._said(room, "all"))
    comm.say(type="code")
    comm.say(type="bokeh")
    t._until(lambda: t._said(room, "bokeh"))
    comm.closed({})
print(sorted({name.partition(".")[0] for name in elsewhere - before} & {"panel", "bokeh", "param", "pandas", "numpy"}))
"""


def test_what_a_display_is_made_of_is_imported_by_the_cell(tmp_path):
    """No thread of ours imports Panel, since a cell that imports it meanwhile would find it half made."""
    here, home = str(Path(__file__).parent), str(tmp_path / "home")
    command = [sys.executable, "-c", OPENED, here, home]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
