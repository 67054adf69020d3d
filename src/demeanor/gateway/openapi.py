"""What is served, as OpenAPI: paths and what they are for. The bodies of other parties' shapes are theirs to describe."""

from __future__ import annotations

from typing import Any

from demeanor.gateway.guardrail import PATH

_MESSAGES = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}, "content": {}}},
        }
    },
}
_MANY = {"type": "object", "required": ["conversations"], "properties": {"conversations": {"type": "array", "items": _MESSAGES}}}
_ONE_OR_MANY = {"oneOf": [_MESSAGES, _MANY]}
_ERROR = {
    "description": "Refused, with one line of why.",
    "content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "object"}}}}},
}


def description(upstream: bool) -> dict[str, Any]:
    """The description; `upstream`: whether an upstream answers, or the loaded model."""
    from demeanor import __version__

    answered = "Passed on to the upstream; its reply is judged." if upstream else "Answered by the loaded model; its reply is judged."
    models = "The models of the upstream." if upstream else "The loaded model."
    paths = {
        "/v1/chat/completions": {"post": _operation(f"A chat completion, whole or streamed. {answered}", _MESSAGES)},
        "/v1/check": {"post": _operation("Decide on the last reply of a conversation, or of several.", _ONE_OR_MANY)},
        "/v1/score": {"post": _operation("Score the last reply of a conversation, or of several.", _ONE_OR_MANY)},
        "/v1/moderations": {"post": _operation("Decide on replies alone, in the shape of OpenAI's moderations.", {"type": "object"})},
        PATH: {"post": _operation("LiteLLM's generic guardrail API.", {"type": "object"})},
        "/v1/models": {"get": _operation(models)},
        "/metrics": {"get": _operation("What was counted, for Prometheus; with keys it needs the scope admin.")},
        "/healthz": {"get": _operation("Whether the process answers.")},
        "/readyz": {"get": _operation("Whether replies can be judged and recorded; 503 with what is wrong.")},
    }
    return {"openapi": "3.1.0", "info": {"title": "Demeanor gateway", "version": __version__}, "paths": paths}


def _operation(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = {} if body is None else {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}
    return {"summary": summary, **request, "responses": {"200": {"description": "Done."}, "4XX": _ERROR, "5XX": _ERROR}}
