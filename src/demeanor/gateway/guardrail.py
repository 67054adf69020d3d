"""LiteLLM's generic guardrail API: `POST /beta/litellm_basic_guardrail_api`, before a request and after its answer.

A rule about a reply depends on what the user said, and LiteLLM sends that with the request only. So what was said is remembered from the
request's call to the response's, by the call's id: so many, for so long, and each within so many characters. A response whose request
is not known here is judged without what was said before, which leaves conditions on the user unjudged: the policy then says what is
done, and a withheld reply is not let through.

Answers always name an action: a missing one would count as NONE. A failure is a 500, never a 503, which `fail_open` lets through.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from demeanor.conversation import Message
from demeanor.errors import ConversationError
from demeanor.gateway.checks import Checks
from demeanor.gateway.conversations import before_reply
from demeanor.gateway.desk import Asked
from demeanor.gateway.endpoint import Answer, Incoming, RefusedError
from demeanor.gateway.frames import dumped
from demeanor.gateway.refusals import App, Refusal
from demeanor.gateway.telling import told
from demeanor.monitor.decision import Decision

PATH = "/beta/litellm_basic_guardrail_api"
MOST, AGE, LARGEST = 10_000, 900.0, 400_000  # calls, seconds, and characters of one


class _Heard(NamedTuple):
    messages: tuple[Message, ...]
    unread: str | None
    until: float


@dataclass
class Guardrail:
    """The endpoint, and what it remembers between the two calls of a request."""

    checks: Checks
    clock: Callable[[], float] = time.monotonic
    most: int = MOST
    heard: OrderedDict[str, _Heard] = field(default_factory=OrderedDict)

    async def answer(self, incoming: Incoming) -> App:
        """Answer a call."""
        try:
            request = incoming.json()
            kind, texts = request.get("input_type"), request.get("texts") or []
            if kind not in ("request", "response") or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
                raise RefusedError(Refusal(400, "'input_type' is request or response, and 'texts' a list of texts", "invalid_value"))
            call = _call(request, incoming.who)
            if kind == "request":
                self._remember(call, request)
                return _action("NONE")
            return await self._judged(incoming, call, texts)
        except ConversationError as error:
            raise RefusedError(Refusal(400, str(error), "invalid_conversation")) from None

    async def _judged(self, incoming: Incoming, call: str, texts: list[str]) -> App:
        kept = self.heard.get(call)
        messages, unread = (kept.messages, kept.unread) if kept is not None and kept.until > self.clock() else ((), None)
        checks = self.checks
        asked = Asked(f"litellm:{call}", messages, unread)
        decisions: list[Decision] = []
        for text in filter(str.strip, texts):
            decisions += await checks.admitted(1, [checks.judged(incoming, asked, text)])
        incoming.served.decisions += decisions
        about = [told(decision) for decision in decisions]
        withheld = [decision for decision in decisions if not decision.shown]
        if not withheld:
            return _action("NONE", demeanor=about)
        shown = iter(decisions)
        rewritten = [next(shown).text if text.strip() else text for text in texts]
        reason = "withheld by the policy: " + ", ".join(dict.fromkeys(rule for d in withheld for rule in d.rules or ("not scored",)))
        return _action("GUARDRAIL_INTERVENED", blocked_reason=reason, texts=rewritten, demeanor=about)

    def _remember(self, call: str, request: Mapping[str, Any]) -> None:
        structured = request.get("structured_messages")
        said = structured if isinstance(structured, list) else None
        said = said or [{"role": "user", "content": text} for text in request.get("texts") or []]
        if not said:
            return
        messages, unread = before_reply(said)
        while messages and sum(len(m.content) for m in messages) > LARGEST:
            messages = messages[1:]
        now = self.clock()
        self.heard[call] = _Heard(messages, unread, now + AGE)
        self.heard.move_to_end(call)
        while self.heard and (len(self.heard) > self.most or next(iter(self.heard.values())).until <= now):
            self.heard.popitem(last=False)


def _call(request: Mapping[str, Any], who: str) -> str:
    """What names a request, and its response: the call's id, else the trace's. Of another key's it is another. Raises RefusedError."""
    found = next((request[name] for name in ("litellm_call_id", "litellm_trace_id") if isinstance(request.get(name), str)), None)
    if not found:
        raise RefusedError(
            Refusal(400, "'litellm_call_id' is missing; without it a reply is judged without what it answers", "missing_call_id")
        )
    return f"{who}:{found[:256]}"


def _action(action: str, **more: Any) -> Answer:
    return Answer(200, dumped({"action": action, **more}))
