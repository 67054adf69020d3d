"""Activations of packs that were read before, kept in the cache folder, so that after an edit only what is new is read.

One SQLite file holds a row for each text and layer: the pooled activation as float32. A text's key is a hash over all that its
activation depends on: the model (weights, configuration, dtype, quantisation, device), the pooling, the tokens and the span. What has
not been used for longest goes when the file grows beyond its limit. Only texts of packs and the built-in everyday talk are kept, never a
user's replies: activations can be turned back into text. A file that is damaged or locked costs time, never a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from demeanor.conversation import ConversationLike, SpanOf
from demeanor.errors import OutputError, sound
from demeanor.model import embedded
from demeanor.model.blocks import text_config
from demeanor.model.identity import identify
from demeanor.model.packing import Job
from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader
from demeanor.model.residual import token_norms
from demeanor.progress import Progress

Array: TypeAlias = NDArray[np.float32]
LIMIT = 2 << 30  # bytes; the built-in packs take 190 MB on the embedded model
CHUNK = 256  # texts that are looked up, read and written together


class KeptActivations:
    """The kept activations in one file. `limit` is its size in bytes, about."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self.limit = limit

    def read(
        self,
        reader: ActivationReader,
        conversations: Sequence[ConversationLike],
        layers: Sequence[int],
        span: SpanOf = "response",
        pooling: Pooling = "mean",
        progress: Progress | None = None,
    ) -> Array:
        """What `reader.read` gives, [conversations, layers, hidden]; only what is not kept yet is read, and then kept."""

        def read(jobs: list[Job]) -> list[Array]:
            return [sound(result)[0].numpy() for result in reader.run(jobs, layers, pooling, progress=progress)]

        found = self._through(reader, reader.jobs(conversations, span), layers, pooling, read, progress or (lambda done: None))
        return np.stack(found) if found else np.zeros((0, len(layers), reader.hidden_size), np.float32)

    def residual_norms(self, reader: ActivationReader, conversations: Sequence[ConversationLike]) -> torch.Tensor:
        """What `model.residual.residual_norms` gives, likewise."""

        def read(jobs: list[Job]) -> list[Array]:
            return [norms.T.contiguous().numpy() for norms in token_norms(reader, jobs)]

        layers = range(reader.n_layers)
        found = self._through(reader, reader.jobs(conversations), layers, "norm of each token", read, lambda done: None)
        return torch.from_numpy(np.concatenate(found, axis=1)).median(1).values

    def spans(self, reader: ActivationReader, jobs: list[Job], layers: Sequence[int], progress: Progress | None = None) -> list[Array]:
        """The mean activations of all spans of each job, [spans, layers, hidden] a job."""

        def read(jobs: list[Job]) -> list[Array]:
            results = reader.run(jobs, layers, progress=progress)
            return [sound(result).transpose(0, 1).contiguous().numpy() for result in results]

        found = self._through(reader, jobs, layers, "mean of each span", read, progress or (lambda done: None))
        return [values.reshape(len(layers), -1, reader.hidden_size).transpose(1, 0, 2) for values in found]

    def _through(
        self,
        reader: ActivationReader,
        jobs: list[Job],
        layers: Sequence[int],
        what: str,
        read: Callable[[list[Job]], list[Array]],
        told: Progress,
    ) -> list[Array]:
        """For each job what is kept of it, else what `read` gives, [layers, ...]; `told` of those that are kept."""
        keys = _keys(reader, jobs, what)
        with self._open() as store:
            known: dict[bytes, Array] = {}
            for at in range(0, len(jobs), CHUNK) if store else ():
                known |= store.get(keys[at : at + CHUNK], layers)  # type: ignore[union-attr]
            missing = [i for i, key in enumerate(keys) if key not in known]
            told(len(jobs) - len(missing))
            for at in range(0, len(missing), CHUNK):
                these = missing[at : at + CHUNK]
                new = dict(zip([keys[i] for i in these], read([jobs[i] for i in these]), strict=True))
                known |= new
                if store:
                    store.put(new, layers)
            if store:
                store.shrink(self.limit)
        return [known[key] for key in keys]

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self._files() if path.is_file())

    def empty(self) -> None:
        """Delete all that is kept. Raises OutputError."""
        try:
            for path in self._files():
                path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot delete {self.path}: {error.strerror}") from error

    def _files(self) -> list[Path]:
        return [self.path, *(self.path.with_name(self.path.name + end) for end in ("-journal", "-wal", "-shm"))]

    @contextmanager
    def _open(self) -> Iterator[_Store | None]:
        """The store, made anew where the file is damaged; None where there can be none."""
        store = None
        for _ in range(2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch(0o600)
                store = _Store(self.path)
                break
            except sqlite3.OperationalError:  # locked, or no room
                break
            except sqlite3.DatabaseError:  # not a database, or a torn one
                with contextlib.suppress(OutputError):
                    self.empty()
            except OSError:
                break
        try:
            yield store
        finally:
            if store:
                store.close()


class _Store:
    """The table (text, layer) -> activation. Whatever fails after it was opened is as if nothing were kept."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, timeout=10, isolation_level=None)
        self.db.execute("PRAGMA auto_vacuum = FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS activation "
            "(text BLOB, layer INTEGER, value BLOB NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (text, layer)) WITHOUT ROWID"
        )

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.db.close()

    def get(self, keys: Sequence[bytes], layers: Sequence[int]) -> dict[bytes, Array]:
        """Activations [layers, hidden] of the texts that are kept at all these layers."""
        texts, wanted = ",".join("?" * len(keys)), ",".join("?" * len(layers))
        where = f"text IN ({texts}) AND layer IN ({wanted})"
        held: dict[bytes, dict[int, Array]] = {}
        try:
            for text, layer, value in self.db.execute(f"SELECT text, layer, value FROM activation WHERE {where}", (*keys, *layers)):  # noqa: S608 - marks only
                held.setdefault(text, {})[layer] = np.frombuffer(value, np.float32)
            self.db.execute(f"UPDATE activation SET used = ? WHERE {where}", (time.time_ns(), *keys, *layers))  # noqa: S608 - marks only
        except sqlite3.Error:
            return {}
        return {text: np.stack([rows[layer] for layer in layers]) for text, rows in held.items() if len(rows) == len(set(layers))}

    def put(self, found: Mapping[bytes, Array], layers: Sequence[int]) -> None:
        """Keep activations [layers, ...] of some texts."""
        now = time.time_ns()
        rows = ((key, layer, value[k].tobytes(), now) for key, value in found.items() for k, layer in enumerate(layers))
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("BEGIN")
            self.db.executemany("INSERT OR REPLACE INTO activation VALUES (?, ?, ?, ?)", rows)
            self.db.execute("COMMIT")

    def shrink(self, limit: int) -> None:
        """Let go of what was not used for longest, until the rest is within the limit."""
        with contextlib.suppress(sqlite3.Error):
            for _ in range(64):
                (pages,), (size,) = self.db.execute("PRAGMA page_count").fetchone(), self.db.execute("PRAGMA page_size").fetchone()
                if pages * size <= limit:
                    return
                (oldest,) = self.db.execute("SELECT min(used) FROM activation").fetchone()
                if oldest is None:
                    return
                self.db.execute("DELETE FROM activation WHERE used = ?", (oldest,))


def kept_activations() -> KeptActivations:
    """Those in the cache folder."""
    return KeptActivations(embedded.cache_dir() / "activations.db")


def _keys(reader: ActivationReader, jobs: Sequence[Job], what: str) -> list[bytes]:
    """A hash for each job over all that its pooled activation depends on, the layer apart."""
    identity = identify(reader.model, reader.tokenizer)
    config: Any = text_config(reader.model)
    settings = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version", "dtype")}
    common = json.dumps(
        [
            identity.fingerprint,
            identity.dtype,
            identity.quantization,
            settings,
            str(getattr(config, "_attn_implementation", "")),
            reader.blocks_path,
            reader.device.type,
            what,
            *(metadata.version(name) for name in ("torch", "transformers")),
        ],
        sort_keys=True,
        default=str,
    ).encode()
    return [
        hashlib.blake2b(
            common + torch.tensor([len(job.ids), *job.ids, *itertools.chain(*job.spans)]).numpy().tobytes(), digest_size=16
        ).digest()
        for job in jobs
    ]
