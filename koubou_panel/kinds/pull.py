"""Kind `pull`: have Ollama fetch a model, with its progress in bytes.

spec: `{"model": NAME, "url": …}`. The output is what Ollama says, each thing once; its counts are the progress.
Stopped, it hangs up, and Ollama ends the download; what came is kept there and the next pull goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from koubou_panel.core.ports import Prepared, RunContext
from koubou_panel.core.records import Job, Outcome
from koubou_panel.core.suggest import unknown
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.kinds.model import OK, Place, client, get_json, read_guide, root_url
from koubou_panel.kinds.prompt import checked_url, error_words
from koubou_panel.kinds.sse import NotAStream, lines, parsed
from koubou_panel.kinds.stopping import Stopped, stoppable

FIELDS = ("model", "url")
MOST_NAME = 200
MOST_ERROR_BYTES = 64 << 10


class PullFailed(KoubouError):
    """The model was not fetched."""


class PullKind:
    """A model that Ollama fetches."""

    name = "pull"
    from_network = True
    batches = False
    shares_worker = True

    def prepare(self, spec: Mapping[str, object], payload: bytes) -> Prepared:
        """Check a spec; the summary is the model's name."""
        if payload:
            raise Refused("invalid", "a pull takes no payload", field="payload")
        for field in spec:
            if field not in FIELDS:
                raise Refused("invalid", unknown("field", f"spec.{field}", FIELDS), field=f"spec.{field}")
        model = spec.get("model")
        if (
            not isinstance(model, str)
            or not model.strip()
            or not model.isprintable()
            or len(model) > MOST_NAME
        ):
            words = "spec.model must be the name of a model, such as smollm2 or llama3.2:1b"
            raise Refused("invalid", words, field="spec.model")
        checked: dict[str, object] = {"model": model.strip()}
        if spec.get("url") not in (None, ""):
            checked["url"] = checked_url(spec["url"])
        return Prepared(checked, "pull", f"pull {model.strip()}"[:100])

    def run(self, job: Job, context: RunContext) -> Outcome:
        """Have it fetched."""
        last = ""
        try:
            with stoppable():
                for last in _pull(job.spec, context):
                    context.output.write(f"{last}\n".encode("utf-8", "replace"))
        except Stopped:
            return Outcome(job.task_id, job.run, "killed", "stopped")
        except PullFailed as error:
            return Outcome(job.task_id, job.run, "exception", error.message[:2000])
        return Outcome(job.task_id, job.run, result=last[:200] or None)


def _pull(spec: Mapping[str, object], context: RunContext) -> Iterator[str]:
    """What Ollama says, each thing once.

    Raises:
        PullFailed: why not.
    """
    import httpx2  # only a worker that is given a pull needs it

    url = root_url(str(spec.get("url") or read_guide(context.home).ollama))
    require_ollama(url)
    last, layers = "", Layers()
    body = {"model": spec["model"], "name": spec["model"], "stream": True}
    try:
        with client(url, None) as asking, asking.stream("POST", f"{url}/api/pull", json=body) as answer:
            if answer.status_code != OK:
                raise PullFailed(_refusal(answer.status_code, answer.read()[:MOST_ERROR_BYTES]))
            for line in lines(answer.iter_bytes()):
                if not line.strip():
                    continue
                found = parsed(line)
                if "error" in found:
                    raise PullFailed(f"Ollama says: {error_words(found)}")
                status = " ".join(str(found.get("status") or "").split())[:200]
                layers.take(found)
                layers.tell(context, status)
                if status and status != last:
                    last = status
                    yield status
    except (httpx2.HTTPError, NotAStream) as error:
        raise PullFailed(f"Ollama broke off: {str(error) or type(error).__name__}") from None
    if last != "success":
        raise PullFailed(f"Ollama ended before the model was there; the last it said: {last or 'nothing'}")


def require_ollama(url: str) -> str:
    """The version of the Ollama at `url`; nothing else is asked to fetch anything.

    Raises:
        PullFailed: it is none.
    """
    if not url:
        raise PullFailed("OLLAMA_HOST names another machine: give its address as url")
    try:
        status, found = get_json(Place("Ollama", url), "/api/version")
    except OSError as error:
        words = f"no Ollama at {url}: {error}. Start it (`ollama serve`), or install it: https://ollama.com/download"
        raise PullFailed(words) from None
    version = found.get("version")
    if status != OK or not isinstance(version, str):
        raise PullFailed(f"{url} is no Ollama: models are pulled by Ollama alone")
    return version


def _refusal(status: int, body: bytes) -> str:
    try:
        words = error_words(parsed(body))
    except NotAStream:
        words = body[:200].decode("utf-8", "replace").strip()
    return f"Ollama answered HTTP {status}: {words or 'no reason given'}"


class Layers:
    """How much of a model has come: the sum over its parts, by what Ollama says of each."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._parts: dict[str, tuple[int, int]] = {}

    def take(self, said: Mapping[str, object]) -> None:
        """Take in one line."""
        digest, total, done = said.get("digest"), said.get("total"), said.get("completed", 0)
        if isinstance(digest, str) and isinstance(total, int) and isinstance(done, int):
            self._parts[digest] = (done, total)

    def tell(self, context: RunContext, status: str) -> None:
        """Tell it as progress."""
        if self._parts:
            done, total = (sum(part[place] for part in self._parts.values()) for place in (0, 1))
            context.progress(done, total, "B", status)
        else:
            context.progress(None, None, "", status)
