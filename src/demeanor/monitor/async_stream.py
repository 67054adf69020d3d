"""Judging beside an event loop: a check in a thread, and a reply whose chunks come asynchronously, shown by `async for`.

What takes time (the looks, the decision, the record) is done in a thread of this reply's own, so that the event loop goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from demeanor.monitor.stream import ReplyStream

T = TypeVar("T")
AT_ONCE = 256  # checks that wait in threads of their own; they wait for the model, and cost nothing else
_threads = ThreadPoolExecutor(AT_ONCE, "demeanor-check")


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run a call in a thread. Where the caller is cancelled, the call is waited for first: it leaves nothing half done behind its back."""
    done = asyncio.get_running_loop().run_in_executor(_threads, call, *args)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise


class AsyncReplyStream(ReplyStream):
    """See ReplyStream; what it says of iterating holds for `async for`."""

    async def __aiter__(self) -> AsyncIterator[str]:
        assert isinstance(self._chunks, AsyncIterable)
        chunks = aiter(self._chunks)
        # one thread, in which calls take turns: what is still at work when the reader leaves is over before the reply is given up
        with_thread = ThreadPoolExecutor(1, "demeanor-stream")

        async def apart(call: Callable[..., T], *args: object) -> T:
            return await asyncio.get_running_loop().run_in_executor(with_thread, call, *args)

        try:
            await apart(self.begin)
            async for chunk in chunks:
                if piece := await apart(self.feed, chunk):
                    yield piece
                if self.stopped is not None:
                    break
            if piece := await apart(self.finish):
                yield piece
        except Exception as error:
            await apart(self.fail, error)
            raise
        finally:
            try:
                close = getattr(chunks, "aclose", None)
                if close is not None:
                    await close()
            finally:
                await asyncio.shield(apart(self.abandon))
                with_thread.shutdown(wait=False)
