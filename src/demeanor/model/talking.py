"""How a model is talked to: a loaded one with its chat template, and one that is not loaded yet, by its files alone."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from demeanor.conversation import Conversation, Message
from demeanor.errors import ChatTemplateError, ModelError, ModelNotFoundError
from demeanor.model import adapters, embedded, templates
from demeanor.model.chat import ChatEncoder
from demeanor.model.loading import base_and_adapter, full_name, whole, whole_model
from demeanor.model.pretrained import LoadedModel, tokenizer_in


def with_template(loaded: LoadedModel, template: str | None = None, keep_own: bool = False) -> LoadedModel:
    """A loaded model whose tokenizer has a chat template: its own, or the one that it is told here.

    Args:
        loaded: As `load_model` gives it.
        template: "chatml", "llama3", "plain", the path of a file with a template, or a template itself; by default the model's own.
        keep_own: Tell it only to a model that has none.

    Raises:
        ChatTemplateError: there is no template, or the one that is given cannot render a conversation.
    """
    _tell(loaded.tokenizer, template, loaded.model.config._name_or_path or "the model", keep_own)
    return loaded


def _tell(tokenizer: PreTrainedTokenizerBase, template: str | None, name: str, keep_own: bool) -> None:
    if template is None or (keep_own and templates.has_one(tokenizer)):
        if not templates.has_one(tokenizer):
            raise ChatTemplateError(
                f"{name} has no chat template (is it a base model?); say how a conversation is "
                "written for it: --template chatml, llama3, plain ('User: ...'), or a file that holds the template"
            )
        return
    templates.tell(tokenizer, templates.as_recorded(template))
    (trial,) = ChatEncoder(tokenizer).encode([Conversation((Message("user", "Hello there"), Message("assistant", "Good day")))])
    if isinstance(trial, ChatTemplateError):
        shown = template if len(template) < 80 else "the template"
        raise ChatTemplateError(f"{shown} cannot be used as a chat template: {trial}") from trial


def encoder_of(name: str | os.PathLike[str], template: str | None = None) -> ChatEncoder | None:
    """How a model's conversations would be written, without loading its weights; None for a GGUF file, which is only looked for.

    What is on the hub and not here is fetched. `template` is for a model that has none.

    Raises:
        ModelError: as `load_model` does for what is not there, not whole, or cannot be merged.
        ChatTemplateError: as `with_template` does.
    """
    name = full_name(name)
    base, adapter = base_and_adapter(name)
    if adapter is not None:
        adapters.check_adapter(adapter)
    if base.endswith(".gguf"):
        if not Path(base).is_file():
            raise ModelNotFoundError(f"no such file: {base}")
        return None
    folder = embedded.ensure() if base == embedded.NAME else whole_model(base, name)
    if not whole(folder):
        raise ModelError(f"{folder} lacks its weights, or a part of them; save or download the whole model again")
    own = adapter if adapter is not None and (adapter / "tokenizer_config.json").is_file() else folder
    tokenizer = tokenizer_in(own)
    _tell(tokenizer, template, name, keep_own=True)
    return ChatEncoder(tokenizer)
