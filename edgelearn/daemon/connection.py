# SPDX-License-Identifier: Apache-2.0
"""One connection: h11 between a stream and a handler, with every wait and every size limited.

A client that is slow, silent, oversized or gone costs one small object until its deadline.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h11

from edgelearn.daemon import log
from edgelearn.daemon.http import Body, HttpError, Peer, Request, Response, status_of
from edgelearn.daemon.limits import Limits, Room
from edgelearn.errors import EdgelearnError

Handler = Callable[[Request], Awaitable[Response]]

_READ = 1 << 16
_LINGER_BYTES, _LINGER_SECONDS = 64 << 20, 2.0
"""What is read and thrown away of a refused body, so that the client sees the answer instead of a reset."""


class Connection:
    """Requests of one client, one after the other, until either side has had enough."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: Peer,
        limits: Limits,
        room: Room,
        limit_of: Callable[[str, str], tuple[int, bool]],
    ) -> None:
        self._reader, self._writer, self._peer = reader, writer, peer
        self._limits, self._room, self._limit_of = limits, room, limit_of
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._timer: asyncio.TimerHandle | None = None
        self._held = 0
        self.is_busy = False
        self.is_idle = False

    async def serve(self, handler: Handler) -> None:
        """Answer until the connection ends; nothing is raised but a cancellation."""
        try:
            while await self._exchange(handler):
                self._h11.start_next_cycle()
        except (ConnectionError, TimeoutError, asyncio.TimeoutError, h11.LocalProtocolError):
            pass  # the client is gone or asleep
        finally:
            self._deadline(None)
            self._writer.close()
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), self._limits.write)

    async def _exchange(self, handler: Handler) -> bool:
        """One request and its answer; whether another may follow."""
        try:
            head = await self._head()
            if head is None:
                return False
            self.is_busy = True
            response = await self._answer(head, handler)
            self._skip()
            await self._send(response, head.method == b"HEAD")
        except HttpError as error:
            await self._send(Response.refusal(error.status, str(error), error.headers), False)
        finally:
            self.is_busy = False
            self._room.give(self._held)
            self._held = 0
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            return True
        await self._linger()
        return False

    # Reading

    def _deadline(self, seconds: float | None) -> None:
        """From now on reading fails after so many seconds; cheaper than a task per read."""
        if self._timer:
            self._timer.cancel()
        late = TimeoutError("too slow")
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, self._reader.set_exception, late)

    async def _event(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(error.error_status_hint, f"this is not HTTP/1.1 ({error}): correct it") from error
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(await self._reader.read(_READ))

    async def _head(self) -> h11.Request | None:
        """The next request's head, None when the client has no more."""
        if not self._h11.trailing_data[0]:
            self._deadline(self._limits.idle)
            self.is_idle = True
            data = await self._reader.read(_READ)
            self.is_idle = False
            self._h11.receive_data(data)
        self._deadline(self._limits.head)
        try:
            event = await self._event()
        except TimeoutError as error:
            raise HttpError(408, f"the head took over {self._limits.head:g} s: send it at once") from error
        finally:
            self._deadline(None)
        return event if isinstance(event, h11.Request) else None

    async def _answer(self, head: h11.Request, handler: Handler) -> Response:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        method, target = head.method.decode("ascii"), head.target.decode("latin-1")
        body = Body(self._body(headers, *self._limit_of(method, target)))
        try:
            return await handler(Request(method, target, headers, self._peer, body))
        except HttpError as error:
            return Response.refusal(error.status, str(error), error.headers)
        except EdgelearnError as error:
            return Response.refusal(status_of(error), str(error), kind=type(error).__name__)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.error(f"{method} {target[:200]} failed", trace=traceback.format_exc())
            return Response.refusal(500, "the daemon failed at this request: see its log")

    async def _body(self, headers: dict[str, str], limit: int, held: bool) -> AsyncIterator[bytes]:
        """Parts of the body up to `limit` bytes; `held` ones count against the room for all."""
        coding = headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise HttpError(415, f"bodies of Content-Encoding {coding[:40]} are not taken: send it plain")
        declared = headers.get("content-length")
        most = limit if declared is None else int(declared)
        if most > limit:
            raise HttpError(413, f"the body has {most:,} bytes, at most {limit:,} are taken: send less at once")
        expected = most if declared is not None or "transfer-encoding" in headers else 0
        if held:
            self._room.take(expected)
            self._held += expected
        if self._h11.they_are_waiting_for_100_continue:
            self._writer.write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        self._deadline(self._limits.body + expected / self._limits.pace)
        seen = 0
        try:
            while isinstance(event := await self._event(), h11.Data):
                seen += len(event.data)
                if seen > limit:
                    raise HttpError(
                        413, f"the body has more than the {limit:,} bytes that are taken: send less at once"
                    )
                yield bytes(event.data)
        except TimeoutError as error:
            raise HttpError(408, "the body came too slowly: send it faster, or in smaller parts") from error
        finally:
            self._deadline(None)

    def _skip(self) -> None:
        """Go past the end of a request whose body nobody read, if it has come already."""
        with suppress(h11.RemoteProtocolError):
            while self._h11.their_state is h11.SEND_BODY and isinstance(self._h11.next_event(), h11.Data):
                pass

    async def _linger(self) -> None:
        """Read on for a moment after a refusal, so that it arrives."""
        seen = 0
        self._deadline(_LINGER_SECONDS)
        with suppress(OSError, TimeoutError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
            while (data := await self._reader.read(_READ)) and seen < _LINGER_BYTES:
                seen += len(data)

    # Writing

    async def _send(self, response: Response, is_head: bool) -> None:
        if self._h11.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
            return
        try:
            self._writer.write(self._encoded(response, is_head))
            await self._drained()
            if response.stream is not None and not is_head:
                async for part in self._while_there(response.stream):
                    self._writer.write(self._h11.send(h11.Data(data=part)) or b"")
                    await self._drained()
                self._writer.write(self._h11.send(h11.EndOfMessage()) or b"")
        finally:
            if response.stream is not None and hasattr(response.stream, "aclose"):
                await response.stream.aclose()

    async def _while_there(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Parts until they end or the client has gone, which one that only listens does without a word."""
        gone = asyncio.ensure_future(self._reader.read(_READ))
        try:
            while True:
                part = asyncio.ensure_future(anext(parts, None))
                await asyncio.wait({part, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not part.done() and (early := gone.result()):  # the next request, sent before this one's answer
                    self._h11.receive_data(early)
                    await asyncio.wait({part})
                elif not part.done():
                    part.cancel()
                    await asyncio.wait({part})
                    return
                if (content := part.result()) is None:
                    return
                yield content
        finally:
            gone.cancel()

    def _encoded(self, response: Response, is_head: bool) -> bytes:
        """Head, and the whole content where there is no stream, so that they leave together."""
        headers = [("Content-Type", response.kind), *response.headers.items()]
        if response.stream is None:
            headers.append(("Content-Length", str(len(response.content))))
        if self._h11.their_state not in (h11.DONE, h11.MUST_CLOSE) or response.status == 408:
            headers.append(("Connection", "close"))
        phrase = HTTPStatus(response.status).phrase.encode()
        parts = [self._h11.send(h11.Response(status_code=response.status, headers=headers, reason=phrase))]
        if response.stream is None or is_head:
            if response.content and not is_head:
                parts.append(self._h11.send(h11.Data(data=response.content)))
            parts.append(self._h11.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    async def _drained(self) -> None:
        if self._writer.transport.get_write_buffer_size():
            await asyncio.wait_for(self._writer.drain(), self._limits.write)
        if self._writer.is_closing():
            raise ConnectionResetError
