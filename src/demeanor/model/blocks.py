"""Where the layers are: the decoder blocks of a model, whatever its architecture.

Layer k of this project is block k (0-based), its activation the block's output. Architectures name and nest their
blocks differently, and all of transformers keep them as one ModuleList with as many entries as the (text) config
says. So the list is found by that number, inside the part that the model itself calls its decoder first.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from demeanor.errors import BlocksNotFoundError


def decoder_blocks(model: PreTrainedModel, path: str | None = None) -> nn.ModuleList:
    """The model's decoder blocks in order.

    Args:
        model: Any decoder-only transformers model, multimodal and mixture-of-experts ones included.
        path: Dotted name of the ModuleList, for models where it is not found by itself ("model.layers").

    Raises:
        BlocksNotFoundError: `path` leads nowhere, or no list of blocks fits; the message lists the candidates.
    """
    if path is not None:
        try:
            named = model.get_submodule(path)
        except AttributeError:
            named = None
        if not isinstance(named, nn.ModuleList):
            raise BlocksNotFoundError(f"{path!r} is not a list of blocks in this model; {_choices(model)}")
        return named
    count = text_config(model).num_hidden_layers
    decoder = model.get_decoder()
    for root in (decoder, model):
        fitting = [m for _, m in _lists(root) if len(m) == count]
        if fitting:
            return fitting[0]
    raise BlocksNotFoundError(
        f"no list of {count} decoder blocks was found in {type(model).__name__}; name it with blocks= (--blocks): {_choices(model)}"
    )


def text_config(model: PreTrainedModel):  # type: ignore[no-untyped-def]  # a config class of transformers' choice
    """The config of the language part, which holds the depth and width."""
    return model.config.get_text_config(decoder=True)


def _lists(root: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """ModuleLists from the outermost in: experts and vision towers inside a block come after the blocks."""
    found = [(name, m) for name, m in root.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    yield from sorted(found, key=lambda item: item[0].count("."))


def _choices(model: PreTrainedModel) -> str:
    lists = [f"{name} ({len(m)})" for name, m in _lists(model) if not any(part.isdigit() for part in name.split("."))]
    return f"lists in this model: {', '.join(lists)}" if lists else "this model holds no list of modules"
