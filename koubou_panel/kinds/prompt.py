"""Kind `prompt`: a question to a language model on this machine, answered token by token as output.

spec: `{"prompt": TEXT | "messages": [{"role", "content"}…], "system", "model", "schema", "max_tokens", "temperature",
"seed", "url"}`. The answer is the output, byte for byte. Any server that speaks `/v1/chat/completions` will do; that it
tells of its usage or can answer by a schema is not counted on.
"""

from __future__ import annotations

import json
import pickle
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from koubou_panel.core.ports import Prepared, RunContext
from koubou_panel.core.records import Job, Outcome, Reason, Usage
from koubou_panel.core.suggest import nearest
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.kinds.model import EMBEDDED, OK, Choice, NoModel, Place, client, headers_of
from koubou_panel.kinds.schema import NotASchema, NotFitting, check_answer, check_schema, is_small
from koubou_panel.kinds.sse import NotAStream, documents, parsed
from koubou_panel.kinds.stopping import Stopped, stoppable
from koubou_panel.kinds.waiting import NoModelInTime, find_model

FIELDS = ("prompt", "messages", "system", "model", "schema", "max_tokens", "temperature", "seed", "url")
ROLES = ("system", "user", "assistant")
MOST_PROMPT_BYTES = 1 << 20
MOST_VALUE_BYTES = 8 << 20
MOST_TOKENS = 1_000_000
HOTTEST = 2.0
MOST_SEED = 1 << 53
MOST_ERROR_BYTES = 64 << 10
MOST_WORDS = 1_000
CUT_OFF = "length"
TOO_MANY, SERVERS_FAULT = 429, 500

_TOO_LONG = re.compile(r"context (?:size|length|window)|maximum context|prompt is too long", re.IGNORECASE)


class PromptFailed(KoubouError):
    """The prompt was not answered.

    Args:
        message: why, and what to do.
        reason: `start` where the same prompt would fail again, else `exception`.
    """

    def __init__(self, message: str = "", *, reason: Reason = "exception") -> None:
        super().__init__(message)
        self.reason: Reason = reason


class PromptKind:
    """A prompt to a language model."""

    name = "prompt"
    from_network = True
    batches = False
    shares_worker = True

    def prepare(self, spec: Mapping[str, object], payload: bytes) -> Prepared:
        """Check a spec; the summary is what is asked."""
        if payload:
            raise Refused("invalid", "a prompt takes no payload", field="payload")
        for field in spec:
            if field not in FIELDS:
                near = nearest(field, FIELDS)
                hint = f"; did you mean {near!r}?" if near else f"; known: {', '.join(FIELDS)}"
                raise Refused("invalid", f"unknown field spec.{field}{hint}", field=f"spec.{field}")
        checked: dict[str, object] = _question(spec)
        for name in ("system", "model"):
            if spec.get(name) not in (None, ""):
                checked[name] = _text(spec[name], f"spec.{name}")
        if spec.get("url") not in (None, ""):
            checked["url"] = checked_url(spec["url"])
        if spec.get("schema") is not None:
            if not isinstance(spec["schema"], dict):
                raise Refused("invalid", "spec.schema must be a JSON schema, an object", field="spec.schema")
            if is_small(spec["schema"]):  # a large one is checked by the run: here others wait
                _checked_schema(spec["schema"])
            checked["schema"] = spec["schema"]
        checked |= _numbers(spec)
        return Prepared(checked, "prompt", " ".join(_asked(checked).split())[:100])

    def run(self, job: Job, context: RunContext) -> Outcome:
        """Ask a model; its answer is the output."""
        answer = Answer(context)
        try:
            with stoppable():
                if "schema" in job.spec:
                    _checked_schema(cast("Mapping[str, object]", job.spec["schema"]))
                url, wanted = str(job.spec.get("url", "")), str(job.spec.get("model", ""))
                choice = find_model(context, url=url, wanted=wanted, timeout_s=job.timeout_s)
                answer.model = choice.model
                _ask(choice, job.spec, answer)
                _check(answer, job.spec)
        except Stopped:
            return answer.outcome(job, "killed", "stopped")
        except Refused as error:
            return answer.outcome(job, "start", error.message)
        except NoModelInTime as error:
            words = (
                f"reached its time-out of {job.timeout_s:g} s while it waited for a model: {error.message}"
            )
            return answer.outcome(job, "timeout", words)
        except NoModel as error:
            return answer.outcome(job, "start", error.message)
        except PromptFailed as error:
            return answer.outcome(job, error.reason, error.message)
        return answer.outcome(job)


# -- what was asked -----------------------------------------------------------------------------------------------


def _question(spec: Mapping[str, object]) -> dict[str, object]:
    """The prompt or the messages, whichever there is."""
    prompt, messages = spec.get("prompt"), spec.get("messages")
    if (prompt is None) == (messages is None):
        words = "spec needs either prompt, a text, or messages, a list of {role, content}"
        raise Refused("invalid", words, field="spec.prompt")
    if messages is None:
        text = _text(prompt, "spec.prompt")
        if not text.strip():
            raise Refused("invalid", "spec.prompt is empty", field="spec.prompt")
        return {"prompt": text}
    if not isinstance(messages, list) or not messages:
        raise Refused("invalid", "spec.messages must be a list of {role, content}", field="spec.messages")
    checked = [_message(message, f"spec.messages[{place}]") for place, message in enumerate(messages)]
    _short_enough("".join(message["content"] for message in checked), "spec.messages")
    return {"messages": checked}


def _message(message: object, field: str) -> dict[str, str]:
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise Refused("invalid", f"{field} must have role and content, and nothing else", field=field)
    if message["role"] not in ROLES:
        raise Refused("invalid", f"{field}.role must be one of {', '.join(ROLES)}", field=f"{field}.role")
    return {"role": message["role"], "content": _text(message["content"], f"{field}.content")}


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise Refused("invalid", f"{field} must be a string", field=field)
    try:
        return _short_enough(value, field)
    except UnicodeEncodeError:
        raise Refused("invalid", f"{field} must be valid UTF-8", field=field) from None


def _short_enough(text: str, field: str) -> str:
    if len(text.encode()) > MOST_PROMPT_BYTES:
        raise Refused("invalid", f"{field} is longer than {MOST_PROMPT_BYTES >> 20} MB", field=field)
    return text


def checked_url(value: object) -> str:
    """The address of a model server, as a spec has it."""
    text = _text(value, "spec.url").strip().rstrip("/")
    if text != EMBEDDED and not re.fullmatch(r"https?://[^\s/@?#]+(?:/[^\s?#]*)?", text):
        words = "spec.url must be the address of a model server, such as http://127.0.0.1:11434, or embedded"
        raise Refused("invalid", words, field="spec.url")
    return text


def _checked_schema(schema: Mapping[str, object]) -> None:
    try:
        check_schema(schema)
    except NotASchema as error:
        words = f"spec.schema is no JSON schema: {error.message}"
        raise Refused("invalid", words, field="spec.schema") from None


def _numbers(spec: Mapping[str, object]) -> dict[str, object]:
    """`max_tokens`, `temperature` and `seed`, where they are given."""
    found: dict[str, object] = {}
    for name, least, most, kinds, example in (
        ("max_tokens", 1, MOST_TOKENS, (int,), "a whole number from 1 on"),
        ("temperature", 0, HOTTEST, (int, float), f"a number from 0 to {HOTTEST:g}"),
        ("seed", 0, MOST_SEED, (int,), "a whole number from 0 on"),
    ):
        value = spec.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
            raise Refused("invalid", f"spec.{name} must be {example}", field=f"spec.{name}")
        found[name] = value
    return found


def _asked(spec: Mapping[str, object]) -> str:
    """The words for people: the prompt, or the last message."""
    messages = spec.get("messages")
    return str(messages[-1]["content"] if isinstance(messages, list) else spec["prompt"])


def request_body(spec: Mapping[str, object], model: str) -> dict[str, object]:
    """What the server is sent."""
    messages = spec.get("messages") or [{"role": "user", "content": spec["prompt"]}]
    if spec.get("system"):
        messages = [{"role": "system", "content": spec["system"]}, *messages]  # type: ignore[misc]
    body: dict[str, object] = {"model": model, "messages": messages, "stream": True}
    body["stream_options"] = {"include_usage": True}
    body |= {name: spec[name] for name in ("max_tokens", "temperature", "seed") if name in spec}
    if "schema" in spec:
        described = {"name": "answer", "schema": spec["schema"], "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    return body


# -- what came ----------------------------------------------------------------------------------------------------


class Answer:
    """An answer as it comes: its text is the run's output, its tokens the progress."""

    def __init__(self, context: RunContext) -> None:
        """Nothing has come yet; the time counts from now."""
        self.model = ""
        self.finish_reason = ""
        self.short: str | None = None
        self._context = context
        self._run_began_s = self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = 0.0
        self._pieces: list[str] = []
        self._chunks = 0
        self._told: dict[str, object] = {}

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    def ask(self) -> None:
        """The question is sent now: the time to the first token counts from here."""
        self._began_s = time.monotonic()
        self._context.progress(None, None, "", f"{self.model} reads the prompt")

    def take(self, document: dict[str, object]) -> None:
        """Take in one event of the stream.

        Raises:
            PromptFailed: it tells of an error.
        """
        if "error" in document:
            words = error_words(document)
            raise PromptFailed(f"{self.model} broke off: {words}")
        if isinstance(document.get("usage"), dict):
            self._told = document["usage"]  # type: ignore[assignment]
        choices = document.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return
        delta = choices[0].get("delta")
        if isinstance(delta, dict):
            # What a model thinks before it answers takes its time too, and is no part of the answer.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            self._piece(delta.get("content"), thought)
        if isinstance(choices[0].get("finish_reason"), str):
            self.finish_reason = choices[0]["finish_reason"]
            if self.finish_reason == CUT_OFF:
                self._context.progress(self._chunks, None, "tokens", f"{self.model}, cut off at its length")

    def _piece(self, content: object, thought: object) -> None:
        if not (isinstance(content, str) and content) and not thought:
            return
        self._last_s = time.monotonic()
        if self._first_s is None:
            self._first_s = self._last_s
        self._chunks += 1
        if isinstance(content, str) and content:
            self._pieces.append(content)
            self._context.output.write(content.encode("utf-8", "replace"))
        self._context.progress(self._chunks, None, "tokens", self.model)

    def outcome(self, job: Job, reason: Reason | None = None, message: str = "") -> Outcome:
        """How the run ended, with what it cost."""
        text = self.text
        value = b""
        if reason is None and len(text) <= MOST_VALUE_BYTES:
            value = pickle.dumps((True, text), protocol=5)
        return Outcome(
            job.task_id,
            job.run,
            reason,
            message[: 2 * MOST_WORDS],
            result=(self.short or _last_line(text)) if reason is None else None,
            value=value,
            usage=self._usage(),
        )

    def _usage(self) -> Usage:
        """The server's own counts where it tells them; else each piece that came counts as a token."""
        duration_s = round(time.monotonic() - self._run_began_s, 6)
        tokens = _count(self._told.get("completion_tokens")) or self._chunks
        read = _count(self._told.get("prompt_tokens"))
        if self._first_s is None:  # an answer without a sign of it, such as the first bytes of a character
            return Usage(duration_s=duration_s, prompt_tokens=read, completion_tokens=tokens or None)
        writing_s = self._last_s - self._first_s
        return Usage(
            duration_s=duration_s,
            prompt_tokens=read,
            completion_tokens=tokens,
            first_token_s=round(self._first_s - self._began_s, 3),
            tokens_per_s=round((tokens - 1) / writing_s, 1) if tokens > 1 and writing_s > 0 else None,
        )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _last_line(text: str) -> str | None:
    """The last line that says something, at most 200 characters."""
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), None)


# -- asking -------------------------------------------------------------------------------------------------------


def _ask(choice: Choice, spec: Mapping[str, object], answer: Answer) -> None:
    """Send the question and take in the answer, to its end."""
    place = choice.server.place
    answer.ask()
    with _opened(place, request_body(spec, choice.model)) as (status, chunks):
        if status != OK:
            raise _refusal(status, b"".join(_at_most(chunks, MOST_ERROR_BYTES)), choice, spec)
        try:
            for document in documents(chunks):
                answer.take(document)
        except NotAStream as error:
            raise PromptFailed(f"{place.url} sent no answer that can be read: {error}") from None
    if not answer.finish_reason:
        raise PromptFailed(f"{place.url} ended the answer in the middle; what came is in the output")


@contextmanager
def _opened(place: Place, body: dict[str, object]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The status and the bytes of the answer; leaving it closes the connection, which ends the generation."""
    import httpx2  # only a worker that is given a prompt needs it

    url = f"{place.url}/v1/chat/completions"
    has_begun = False
    try:
        with (
            client(place.url, None) as asking,
            asking.stream("POST", url, json=body, headers=headers_of(place)) as answer,
        ):
            has_begun = answer.status_code == OK
            yield answer.status_code, answer.iter_bytes()
    except httpx2.ConnectError:
        raise PromptFailed(f"{place.url} does not answer any more") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        words = str(error) or type(error).__name__
        if has_begun:
            words = (
                f"the connection to {place.url} was cut in the middle ({words}); what came is in the output"
            )
            raise PromptFailed(words) from None
        raise PromptFailed(f"{place.url} gave no answer: {words}") from None


def _at_most(chunks: Iterator[bytes], most: int) -> Iterator[bytes]:
    held = 0
    for chunk in chunks:
        yield chunk
        held += len(chunk)
        if held > most:
            return


def _refusal(status: int, body: bytes, choice: Choice, spec: Mapping[str, object]) -> PromptFailed:
    """Why the server did not begin to answer."""
    try:
        found = parsed(body)
    except NotAStream:
        found = {}
    words = error_words(found) or body[:MOST_WORDS].decode("utf-8", "replace").strip() or "no reason given"
    url = choice.server.place.url
    may_pass = status == TOO_MANY or status >= SERVERS_FAULT
    if _TOO_LONG.search(words):
        words = (
            f"the prompt is too long for {choice.model}: {words}; shorten it, or take a model with more room"
        )
    elif may_pass:
        words = f"{url} answered HTTP {status}: {words}"
    elif "schema" in spec:
        words = f"{url} does not answer by this schema (HTTP {status}): {words}"
    else:
        words = f"{url} answered HTTP {status}: {words}"
    # What may pass by itself is tried again, where retries are asked for.
    return PromptFailed(words, reason="exception" if may_pass else "start")


def error_words(document: Mapping[str, object]) -> str:
    """What a server says of an error, in whichever of the usual shapes."""
    for name in ("error", "detail", "message"):
        found = document.get(name)
        if isinstance(found, dict):
            found = found.get("message") or json.dumps(found)
        if isinstance(found, str) and found.strip():
            return " ".join(found.split())[:MOST_WORDS]
    return ""


def _check(answer: Answer, spec: Mapping[str, object]) -> None:
    """That an answer is what its schema asked for."""
    if "schema" not in spec:
        return
    if answer.finish_reason == CUT_OFF:
        raise PromptFailed("the answer was cut off at max_tokens before it was whole: allow it more")
    try:
        document = json.loads(answer.text)
    except RecursionError:
        raise PromptFailed(f"the answer of {answer.model} is nested too deeply") from None
    except ValueError:
        words = (
            f"the answer of {answer.model} is no JSON: its server seems to know no schemas; leave schema out"
        )
        raise PromptFailed(words) from None
    answer.short = json.dumps(document, ensure_ascii=False)[:200]
    try:
        check_answer(document, cast("Mapping[str, object]", spec["schema"]))
    except NotFitting as error:
        raise PromptFailed(f"the answer does not fit the schema: {error.message}") from None
    except NotASchema as error:
        raise PromptFailed(f"spec.schema cannot be followed: {error.message}", reason="start") from None
