"""The source that a path or a name stands for: JSON, CSV (.gz too), Parquet, a folder of one of these, a Hugging Face data set."""

from __future__ import annotations

import re
from pathlib import Path

from demeanor.data.as_lines import refuse_foreign_file
from demeanor.data.columns import Columns
from demeanor.data.hub_source import HubSource
from demeanor.data.parquet_source import ParquetSource, are_utterances
from demeanor.data.rows import refuse_pipe
from demeanor.data.surveys import Source
from demeanor.data.text_source import TextSource
from demeanor.errors import InputFileError

_TEXT = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv"}
SUFFIXES = _TEXT | {f"{suffix}.gz": kind for suffix, kind in _TEXT.items()} | {".parquet": "parquet"}
_OPEN = (".txt", ".txt.gz", ".log", ".data", "")  # names that say nothing of what a file holds
_OF_A_MODEL = ("config.json", "adapter_config.json", "tokenizer_config.json")
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?(:\S+)?")


def open_source(spec: str, columns: Columns | None = None) -> Source:
    """The source that a path or a hub name ("owner/name", "owner/name@config:split") stands for. Raises InputFileError."""
    path, columns = Path(spec), columns or Columns()
    if not path.exists():
        if _HUB.fullmatch(spec) and not _suffix(path):
            return HubSource(spec, columns)
        raise InputFileError(f"{spec}: no such file or folder (a Hugging Face data set is named 'owner/name', or 'owner/name:split')")
    refuse_pipe(path)
    files = files_in(path) if path.is_dir() else [path]
    kinds = {_suffix(p) for p in files}
    if "" in kinds and path.suffix.lower() not in _OPEN:
        refuse_foreign_file(path)
        raise InputFileError(f"{path}: cannot tell what it holds; name it .jsonl, .jsonl.gz, .csv or .parquet")
    root = path if path.is_dir() else path.parent
    if kinds == {"parquet"} and not are_utterances(files[0], columns):
        return ParquetSource(files, root, columns)
    return TextSource(files, root, columns, next(iter(kinds)))


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that hold rows. Raises InputFileError where there are none, or they are of several kinds."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and _suffix(p))
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not files:
        raise InputFileError(f"{folder}: the folder has no .jsonl, .csv or .parquet file")
    kinds = {_suffix(p) for p in files}
    if len(kinds) > 1:
        raise InputFileError(f"{folder}: the folder holds {' and '.join(sorted(kinds))} files; screen one kind at a time")
    return files


def says_nothing(path: Path) -> bool:
    """Whether a file's name says nothing of what it holds."""
    return not _suffix(path) and path.suffix.lower() in _OPEN


def holds_replies(text: str) -> bool:
    """Whether a text says where rows are, and names no model: a file, a folder of files of rows, or a data set with its split."""
    path = Path(text)
    if path.is_dir():
        return not any((path / name).exists() for name in _OF_A_MODEL) and any(_suffix(file) for file in path.rglob("*"))
    return not text.endswith(".gguf") and (path.is_file() or bool(_suffix(path)) or (":" in text and bool(_HUB.fullmatch(text))))


def names_rows(text: str) -> bool:
    """Whether a text says where rows are: it is a file that is there, or one word that is named like one."""
    try:
        return Path(text).is_file() or (len(text.split()) == 1 and bool(_suffix(Path(text))))
    except (OSError, ValueError):  # too long for a name, or none
        return False


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), "")
