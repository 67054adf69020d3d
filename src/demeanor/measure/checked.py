"""What the fields of measured things may hold. They are checked whenever such a thing is made, also from a stranger's file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

EXACT = ConfigDict(allow_inf_nan=False, extra="forbid")
"""For dataclasses in which each number decides: one that is not known here may change what the others mean."""
OPEN = ConfigDict(allow_inf_nan=False, extra="ignore")
"""For dataclasses to which a later version may have added something."""

Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Rate = Annotated[float, Field(gt=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


class Checked(BaseModel):
    """A record whose known fields are checked; what is not known is let by, as a later version may have added it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)
