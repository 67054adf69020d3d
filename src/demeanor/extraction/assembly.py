"""What every extraction says of a vector set beside its traits: the model that was read, the day, and the versions that read it."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata

from torch import Tensor

from demeanor.model.identity import identify
from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.vector_set import VectorSet


def assembled(
    reader: ActivationReader,
    traits: dict[str, TraitEntry],
    neutral_norm: Tensor,
    neutral_scale: Tensor,
    pooling: Pooling = "mean",
    made_from: dict[str, str] | None = None,
) -> VectorSet:
    """The vector set of traits that were extracted from a reader's model; see VectorSet for the statistics [layers, ...]."""
    return VectorSet(
        model=identify(reader.model, reader.tokenizer, reader.blocks_path),
        traits=traits,
        pooling=pooling,
        neutral_norm=neutral_norm,
        neutral_scale=neutral_scale,
        created=_today(),
        versions=_versions(),
        made_from=made_from or {},
    )


def _today() -> str:
    """The day, so that the same inputs give the same bytes; SOURCE_DATE_EPOCH sets another."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else datetime.datetime.now(datetime.UTC)
    return now.date().isoformat()


def _versions() -> dict[str, str]:
    known = {name: metadata.version(name) for name in ("torch", "transformers")}
    try:
        known["demeanor"] = metadata.version("demeanor")
    except metadata.PackageNotFoundError:
        known["demeanor"] = "from source"
    return {**known, "python": platform.python_version()}
