"""YAML files that a person writes: read by the safe loader, with every mistake in one line.

A key that stands twice in a mapping is a mistake: YAML forbids it, and the loader alone would drop the first one unseen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from demeanor.errors import DemeanorError

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is the same safe loader, twenty times faster


class _Loader(_Safe):  # type: ignore[misc]
    """The safe loader, which refuses a key that stands twice."""

    def get_single_node(self) -> yaml.Node | None:
        root: yaml.Node | None = super().get_single_node()
        waiting, seen = [root], set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen or not isinstance(node, yaml.CollectionNode):
                continue
            seen.add(id(node))  # an alias gives the same node again
            if isinstance(node, yaml.MappingNode):
                _refuse_twice([key for key, _ in node.value])
                waiting += [value for _, value in node.value]
            else:
                waiting += node.value
        return root


def read_yaml(path: Path, raises: type[DemeanorError], hint: str = "") -> Any:
    """What a YAML file holds. Raises `raises` with the file and the line; `hint` goes behind why it cannot be read at all."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except UnicodeDecodeError as error:
        raise raises(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise raises(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise raises(f"{path}:{where} is not valid YAML: {problem}") from error
    except (ValueError, RecursionError) as error:  # such as a date with a thirteenth month
        raise raises(f"{path}: a value cannot be read ({error}); put it in quotes") from error


def _refuse_twice(keys: list[yaml.Node]) -> None:
    seen = set()
    for key in keys:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} appears twice; remove or rename one of them", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
