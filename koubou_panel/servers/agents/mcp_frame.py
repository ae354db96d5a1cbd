"""The frame of an MCP server here: the official SDK's, strict about arguments, with roles and plain refusals.

The SDK serves both protocol versions on one path: 2026-07-28, where every request stands alone, and 2025-11-25 with
its sessions. Who may come in is decided before it, by the port's own guard.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import ListenHandler
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
    Resource,
    SubscribeRequestParams,
    TextContent,
    ToolAnnotations,
    UnsubscribeRequestParams,
)
from pydantic import ValidationError
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from koubou_panel.core.commands import Caller
from koubou_panel.core.decide import role_refusal
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused
from koubou_panel.servers.access import Allow
from koubou_panel.servers.agents.delegate import named_caller
from koubou_panel.servers.agents.fields import TOOL_FIELDS, renamed
from koubou_panel.servers.agents.mcp_notices import Notices
from koubou_panel.servers.agents.mcp_sessions import (
    FRESH_IDLE_S,
    IDLE_S,
    MAX_BODY_BYTES,
    MAX_SESSIONS,
    MOST_EACH,
    Sessions,
)
from koubou_panel.servers.agents.middleware import VERDICT

PATH = "/mcp"
# What a token of each role may use; whoever is not named here may use nothing.
MAY: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "run": frozenset({"read", "run"}),
    "full": frozenset({"read", "run", "full"}),
}


def may(caller: Caller, need: str) -> bool:
    """Whether `caller` may use what needs the role `need`."""
    return need in MAY.get(caller.role, frozenset())


def caller_of_request(request: ServerRequestContext[Any, Any]) -> Caller:
    """Who sent a request: a named token by its name, else the program by the name that it gives itself."""
    verdict = getattr(request.request, "scope", {}).get(VERDICT)
    if not isinstance(verdict, Allow):
        raise Refused("forbidden", "this server answers over its own port only")
    params = request.session.client_params
    name = printable(params.client_info.name) if params is not None else ""
    return named_caller(verdict, "mcp", name)


def caller_of_context(context: Context[Any, Any]) -> Caller:
    """Who called a tool."""
    return caller_of_request(context.request_context)


def printable(text: str) -> str:
    """`text` on one line, without what does not print."""
    return "".join(" " if char.isspace() else char for char in text if _prints(char)).strip()


def _prints(char: str) -> bool:
    return char.isspace() or not unicodedata.category(char).startswith("C")


class Frame(MCPServer[Any]):
    """An MCP server whose tools raise `Refused`, and are open to who has the role for them."""

    def __init__(self, name: str, *, title: str, version: str, instructions: str) -> None:
        """A server that offers nothing yet."""
        self.notices = Notices(self._is_resource)
        self.needs: dict[str, str] = {}
        self.more_resources: Callable[[], list[Resource]] = list
        self.ending = asyncio.Event()
        super().__init__(
            name,
            title=title,
            version=version,
            instructions=instructions,
            log_level="WARNING",
            subscriptions=self.notices.bus,
            middleware=[self._show_what_is_open, self.notices.middleware],
        )
        # MCPServer has no door of its own for subscriptions within a session.
        lowlevel = self._lowlevel_server
        lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, self.notices.subscribe)
        lowlevel.add_request_handler(
            "resources/unsubscribe", UnsubscribeRequestParams, self.notices.unsubscribe
        )

    def offer(
        self, function: Callable[..., Any], *, title: str, need: str, annotations: ToolAnnotations
    ) -> None:
        """Offer a tool to who has the role `need`; its docstring is its description."""
        description = inspect.getdoc(function) or ""
        self.add_tool(function, title=title, description=description, annotations=annotations)
        self.needs[function.__name__] = need

    # -- tools ------------------------------------------------------------------------------------------------

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; whatever is wrong with the call is told as an error of the tool, with a code and the field."""
        try:
            if context is not None:
                self._check(name, arguments, caller_of_context(context))
            return await super().call_tool(name, arguments, context)
        except Refused as refusal:
            return failure(renamed(refusal, TOOL_FIELDS))
        except ToolError as error:
            if isinstance(error.__cause__, Refused):
                return failure(renamed(error.__cause__, TOOL_FIELDS))
            if isinstance(error.__cause__, ValidationError):
                return failure(_invalid(error.__cause__))
            if isinstance(error, UnexpectedToolError):
                raise
            return failure(Refused("failed", str(error)))

    def _check(self, name: str, arguments: Mapping[str, object], caller: Caller) -> None:
        """Refuse an unknown tool, one that is not open to `caller`, and an unknown argument."""
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            open_to = [known for known, need in self.needs.items() if may(caller, need)]
            words = unknown("tool", name, open_to)
            raise Refused("unknown_tool", words, field="name", nearest=nearest(name, open_to))
        need = self.needs.get(name, "full")
        if not may(caller, need):
            raise role_refusal(caller.role, need)
        known = list(tool.parameters.get("properties", {}))
        for argument in arguments:
            if argument not in known:
                near = nearest(argument, known)
                raise Refused("invalid", unknown("argument", argument, known), field=argument, nearest=near)

    async def _show_what_is_open(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """List only those tools that the caller may use."""
        result = await call_next(ctx)
        if ctx.method != "tools/list" or not isinstance(result, dict):
            return result
        caller = caller_of_request(ctx)
        shown = [tool for tool in result["tools"] if may(caller, self.needs.get(tool["name"], "full"))]
        return {**result, "tools": shown}

    # -- prompts ----------------------------------------------------------------------------------------------

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[Any, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """A prompt with its arguments filled in; a name or an argument that is wrong is told as such."""
        known = [prompt.name for prompt in self._prompt_manager.list_prompts()]
        if name not in known:
            raise MCPError(INVALID_PARAMS, unknown("prompt", name, known), {"nearest": nearest(name, known)})
        try:
            return await super().get_prompt(name, arguments, context)
        except ValueError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error

    # -- resources --------------------------------------------------------------------------------------------

    async def list_resources(self) -> list[Resource]:
        """The resources that there always are, and those of `more_resources`."""
        return [*await super().list_resources(), *self.more_resources()]

    def end_listening(self) -> None:
        """End every stream that listens, in the protocol's own way."""
        entry = self._lowlevel_server.get_request_handler("subscriptions/listen")
        if entry is not None and isinstance(entry.handler, ListenHandler):
            entry.handler.close()

    def _is_resource(self, uri: str) -> bool:
        """Whether `uri` is the address of a resource, or could be one by a template."""
        known = self._resource_manager
        if any(str(resource.uri) == uri for resource in known.list_resources()):
            return True
        return any(template.parsed_template.match(uri) is not None for template in known.list_templates())


class Mount:
    """An MCP server as a part of an application: its route, and what must run while that is served.

    Args:
        build: makes the server. It takes a while (schemas are made), so it is called off the loop.
        idle_s: a session without a request for so many seconds ends; sooner, if it was only opened.
        max_sessions: how many sessions there may be at once.
        most_each: and how many of one asker.
    """

    def __init__(
        self,
        build: Callable[[], Frame],
        *,
        idle_s: float = IDLE_S,
        max_sessions: int = MAX_SESSIONS,
        most_each: int = MOST_EACH,
    ) -> None:
        """Not running yet."""
        self._build = build
        self._idle_s = idle_s
        self._max_sessions = max_sessions
        self._most_each = most_each
        self._sessions: Sessions | None = None
        self.manager: StreamableHTTPSessionManager | None = None
        self.frame: Frame | None = None
        self.route = Route(PATH, endpoint=self)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Frame]:
        """Serve while this is entered; once."""
        frame = await asyncio.to_thread(self._build)
        frame.streamable_http_app(
            # The port's guard has looked at Host and Origin already, for every path alike.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            session_idle_timeout=min(FRESH_IDLE_S, self._idle_s),
            max_sessions=self._max_sessions,
            max_request_body_size=MAX_BODY_BYTES,
        )
        async with frame.session_manager.run():
            self.manager, self.frame = frame.session_manager, frame
            self._sessions = Sessions(self.manager, idle_s=self._idle_s, most_each=self._most_each)
            try:
                yield frame
            finally:
                frame.notices.close()

    async def end(self) -> None:
        """Have streams and waits come to their end, as the port is about to close: each is told so, none is cut."""
        if self.frame is None:
            return
        self.frame.ending.set()
        self.frame.end_listening()
        # The manager ends sessions only when it is left, which waits for their streams.
        for transport in list(self.frame.session_manager._server_instances.values()):  # noqa: SLF001
            await transport.terminate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a session belongs to the credentials that opened it."""
        if self._sessions is None:
            raise RuntimeError("requests are answered while `running()` is entered")
        verdict = scope.get(VERDICT)
        actor = ""
        if isinstance(verdict, Allow):
            actor = verdict.actor
            owner = AccessToken(token="", client_id=verdict.actor, scopes=[verdict.role.value])
            scope = {**scope, "user": AuthenticatedUser(owner)}
        await self._sessions.handle(actor, scope, receive, send)


def failure(refusal: Refused) -> CallToolResult:
    """A refusal as a tool's result: JSON, as every other result."""
    error = {
        "code": refusal.code,
        "message": refusal.message,
        "field": refusal.field,
        "nearest": refusal.nearest,
    }
    told = {key: value for key, value in error.items() if value is not None}
    text = json.dumps({"error": told}, ensure_ascii=False)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _invalid(error: ValidationError) -> Refused:
    """What is wrong with the arguments of a call: the first fault, in words that do not repeat the value."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return Refused("invalid", f"{field}: {message}" if field else message, field=field or None)
