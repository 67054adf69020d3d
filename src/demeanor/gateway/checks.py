"""Judging without passing anything on: a decision, a score, and the shape of OpenAI's moderations.

    POST /v1/check           {"messages": [...]}, the reply last                 -> the decision
                             {"conversations": [{"messages": [...]}, ...]}       -> {"results": [...]}, one for each in its order
    POST /v1/score           the same                                            -> the reading
    POST /v1/moderations     {"input": "a reply", or several}                    -> OpenAI's shape: flagged, categories by rule

A conversation that cannot be read, and a reply that cannot be scored, are never "allowed" or "not flagged" in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demeanor.conversation import Conversation, Message
from demeanor.errors import ConversationError, DemeanorError
from demeanor.gateway.config import GatewayConfig
from demeanor.gateway.conversations import HEADER, Identity, conversation_of
from demeanor.gateway.desk import Asked, Desk
from demeanor.gateway.endpoint import Answer, Incoming, RefusedError
from demeanor.gateway.frames import dumped
from demeanor.gateway.hooks import Hooks
from demeanor.gateway.limits import messages_refused
from demeanor.gateway.refusals import App, Refusal
from demeanor.gateway.telling import headers as telling
from demeanor.gateway.telling import told
from demeanor.monitor.async_stream import in_thread
from demeanor.monitor.decision import Decision, new_id
from demeanor.monitor.session import Monitor
from demeanor.monitor.sessions import Sessions
from demeanor.scoring.engine import overloaded

OVERLOADED = Refusal(429, "more is asked for than can be judged now; ask again in a second", "overloaded", headers=(("retry-after", "1"),))


@dataclass
class Checks:
    """The check endpoints on one monitor."""

    config: GatewayConfig
    monitor: Monitor
    sessions: Sessions
    identity: Identity
    hooks: Hooks
    waiting: int = 0
    """Conversations that are being judged here now."""

    async def check(self, incoming: Incoming) -> App:
        """Decide on the last reply of a conversation, or of several."""
        return await self._each(incoming, self._check)

    async def score(self, incoming: Incoming) -> App:
        """Score the last reply of a conversation, or of several. Nothing is decided, and nothing recorded."""
        return await self._each(incoming, self._score)

    async def moderations(self, incoming: Incoming) -> App:
        """Decide on replies without what was said before them, in the shape of OpenAI's moderations."""
        request = incoming.json()
        texts = request.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise RefusedError(Refusal(400, "'input' is a text, or a list of texts", "invalid_value", "input"))
        found = await self.admitted(len(texts), [self.judged(incoming, Asked(new_id(), (), None), text) for text in texts])
        decisions = [decision for decision in found if isinstance(decision, Decision)]
        rules = [resolved.rule.name for resolved in self.monitor.policy.rules]
        results = [_moderated(decision, rules) for decision in decisions]
        return self._told(incoming, {"id": f"modr-{new_id()}", "model": self.monitor.model, "results": results}, decisions)

    async def _each(self, incoming: Incoming, one: Callable[[Incoming, Mapping[str, Any]], Any]) -> App:
        request = incoming.json()
        many = request.get("conversations")
        if many is None:
            result, decision = (await self.admitted(1, [one(incoming, request)]))[0]
            return self._told(incoming, result, [decision] if decision is not None else [])
        if not isinstance(many, list) or not many or not all(isinstance(item, Mapping) for item in many):
            message = "'conversations' is a list of objects with 'messages'"
            raise RefusedError(Refusal(400, message, "invalid_value", "conversations"))

        async def row(item: Mapping[str, Any]) -> tuple[dict[str, Any], Decision | None]:
            try:
                found: tuple[dict[str, Any], Decision | None] = await one(incoming, item)
            except ConversationError as error:
                return {"error": str(error)}, None
            return found

        found = await self.admitted(len(many), [row(item) for item in many])
        return self._told(incoming, {"results": [result for result, _ in found]}, [d for _, d in found if d is not None], many=True)

    async def admitted(self, count: int, work: list[Any]) -> list[Any]:
        """Results of work, where there is room for it. Raises RefusedError: 429."""
        most = self.config.limits.checks
        if self.waiting + count > most:
            for one in work:
                one.close()
            too_many = Refusal(400, f"{count} conversations in one request are more than {most}; send fewer at once", "too_many")
            raise RefusedError(OVERLOADED if count <= most else too_many)
        self.waiting += count
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self.waiting -= count

    async def _check(self, incoming: Incoming, request: Mapping[str, Any]) -> tuple[dict[str, Any], Decision]:
        said, reply, unread = _read(request, self.config)
        name = self.identity.name(request, incoming.header(HEADER), incoming.who)
        decision = await self.judged(incoming, Asked(name, said.messages, unread), reply)
        return {"object": "demeanor.decision", **told(decision), **decision.to_record()}, decision

    async def _score(self, _: Incoming, request: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        said, reply, unread = _read(request, self.config)
        scorer = self.monitor.scorer
        if scorer is None:
            raise RefusedError(Refusal(503, f"nothing can be scored: {self.monitor.problem}", "no_model"))
        if unread is not None:
            return {"object": "demeanor.reading", "error": unread}, None
        try:
            reading = await in_thread(scorer.score, Conversation((*said.messages, Message("assistant", reply))))
        except DemeanorError as error:
            return {"object": "demeanor.reading", "error": str(error)}, None
        return {"object": "demeanor.reading", **reading.to_record()}, None

    async def judged(self, incoming: Incoming, asked: Asked, reply: str) -> Decision:
        """Decide on one reply."""
        desk = Desk(self.monitor, self.sessions, asked)
        try:
            decision = await in_thread(desk.judge, 0, reply)
        finally:
            desk.close()
        await in_thread(self.hooks.decided, decision, desk.judged(0))
        if overloaded(decision.not_scored):
            incoming.served.decisions.append(decision)
            raise RefusedError(OVERLOADED)
        return decision

    def _told(self, incoming: Incoming, body: dict[str, Any], decisions: list[Decision], many: bool = False) -> Answer:
        incoming.served.decisions += decisions
        about = telling(decisions) if decisions and not many else {}
        headers = tuple((name.encode(), value.encode()) for name, value in about.items())
        return Answer(200, dumped(body), ((b"content-type", b"application/json"), *headers))


def _read(request: Mapping[str, Any], config: GatewayConfig) -> tuple[Conversation, str, str | None]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ConversationError("'messages' is missing or empty; give the conversation as a list of messages, the reply last")
    if (refusal := messages_refused(request, config.request_limits)) is not None:
        raise RefusedError(refusal)
    return conversation_of(messages)


def _moderated(decision: Decision, rules: list[str]) -> dict[str, Any]:
    """A decision in OpenAI's shape. What could not be scored is flagged: a caller that looks at nothing else must not take it for fine."""
    fired = {rule: rule in decision.rules for rule in rules}
    return {
        "flagged": decision.action != "allow" or decision.not_scored is not None,
        "categories": fired | {"not_scored": decision.not_scored is not None},
        "category_scores": {rule: 1.0 if hit else 0.0 for rule, hit in fired.items()}
        | {"not_scored": float(decision.not_scored is not None)},
        "demeanor": told(decision),
    }
