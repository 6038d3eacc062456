"""One request and its answer: the ASGI application behind POST /v1/chat/completions and its siblings.

Everything runs inside ``__call__`` of an ASGI application, because that sees a disconnect at any
time: a framework's streaming response starts to listen only after its endpoint has returned, and is
blind while the first token is awaited.
"""

import asyncio
import logging

from starlette.types import Receive, Scope, Send

from gateway.access_log import AccessRecord
from gateway.api.client_watch import ClientWatch
from gateway.api.request import ClientGone, bearer, header, read_body, request_id
from gateway.bookkeeping import Ended
from gateway.catalogue import model_not_found
from gateway.serving import Serving
from gateway.stores.keys import Key
from gateway.wire import diagnostics, errors, models, spending, sse
from policies.cache import directives
from policies.cache.directives import UNSAID
from policies.errors import GatewayError, InternalError
from policies.facts import CallRefused
from policies.service import CANCELLED, OK, Call, Operation, Reply, Service

_LOG = logging.getLogger(__name__)
_CLIENT_CLOSED_REQUEST = 499
_JSON = (b"content-type", b"application/json")
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Endpoint:
    """The ASGI application of one operation."""

    def __init__(self, operation: Operation, serving: Serving) -> None:
        self._operation = operation
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Exchange(self._operation, self._serving, scope, receive, send).run()


class Exchange:
    """Answers one request. The status goes out with the first content, or with the first ping before it."""

    def __init__(
        self, operation: Operation, serving: Serving, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._operation = operation
        self._serving = serving
        self._scope = scope
        self._receive = receive
        self._send = send
        self._id = request_id(scope, serving.rng)
        self._arrived = serving.clock.now()
        self._trace = None if serving.tracing is None else serving.tracing.begin(scope, self._arrived)
        self._key: Key | None = None
        self._call: Call | None = None
        self._reply: Reply | None = None
        self._first_event: float | None = None
        self._status = 0
        self._outcome = CANCELLED  # until it is known better
        self._failure: GatewayError | None = None
        self._answered = False
        self._interruption: GatewayError | None = None
        self._task: asyncio.Task[object] | None = None
        self._watch: ClientWatch | None = None
        self._last_write = self._arrived
        self._writes = 0
        self._ping_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Answer the request, whatever happens."""
        serving = self._serving
        try:
            service = await self._accept()
        except GatewayError as error:
            serving.meter.emit(CallRefused(self._operation, type(error).__name__))
            await self._refuse(error)
        except ClientGone:
            self._status = _CLIENT_CLOSED_REQUEST
        except Exception:  # noqa: BLE001 - the edge: no traceback may reach a client
            serving.meter.emit(CallRefused(self._operation, InternalError.__name__))
            await self._fail()
        else:
            await self._answer(service)
        finally:
            self._enter()
            self._log()
            if self._trace is not None:
                self._trace.finish(
                    self._id,
                    self._status,
                    self._outcome,
                    call=self._call,
                    reply=self._reply,
                    first_event=self._first_event,
                )

    def interrupt(self, error: GatewayError) -> None:
        """End the answer with ``error`` now."""
        if self._task is not None and not self._answered:
            self._interruption = error
            self._task.cancel()

    async def _accept(self) -> Service:
        """Turn the request into a call, and find what serves it."""
        serving = self._serving
        key = serving.keyring.identify(bearer(self._scope), serving.wall_time())
        self._key = key
        body = await read_body(self._scope, self._receive, serving.settings.server.max_body)
        request = models.parse(self._operation, body)
        model = request["model"]
        entry = serving.catalogue.find(model) if serving.keyring.allows(key, model) else None
        if entry is None:
            raise model_not_found(model)
        said = header(self._scope, b"cache-control") if entry.cached else None
        self._call = Call(
            id=self._id,
            operation=self._operation,
            model=model,
            body=request,
            stream=self._operation is not Operation.EMBEDDING and bool(request.get("stream")),
            route=entry.name,
            tenant=key.tenant,
            tier=key.tier,
            key=key.id,
            trace=self._trace,
            arrived=self._arrived,
            directives=UNSAID if said is None else directives.parse(said.decode("latin-1")),
            allotment=serving.claims.allotment_of(key),
        )
        return entry.service

    async def _answer(self, service: Service) -> None:
        self._task = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        assert self._call is not None  # noqa: S101 - accepted
        self._watch = watch = ClientWatch(self._receive, task)
        self._serving.open_exchanges.add(self)
        if self._call.stream:
            self._schedule_ping()
        try:
            if self._call.stream:
                await self._send_stream(service, self._call)
            else:
                await self._send_whole(service, self._call)
        except GatewayError as error:
            await self._refuse(error)
        except asyncio.CancelledError:
            if self._interruption is None and not watch.gone:
                raise
            task.uncancel()
            await self._end_cancelled()
        except Exception:  # noqa: BLE001 - as above
            await self._fail()
        else:
            self._outcome = OK
        finally:
            self._finish()
            self._serving.open_exchanges.discard(self)

    def _finish(self) -> None:
        """The rest of the answer is there: from here on nothing ends it early."""
        self._answered = True
        if self._watch is not None:
            self._watch.stop()
        if self._ping_timer is not None:
            self._ping_timer.cancel()

    async def _end_cancelled(self) -> None:
        if self._interruption is not None:
            await self._refuse(self._interruption)
        else:
            self._status = self._status or _CLIENT_CLOSED_REQUEST

    async def _fail(self) -> None:
        _LOG.exception("request %s failed", self._id)
        await self._refuse(InternalError(f"The gateway failed. Report the request's id, {self._id}."))

    async def _send_whole(self, service: Service, call: Call) -> None:
        async with service(call) as reply:
            self._opened(reply)
            body = b"".join([event.data async for event in reply.events])
            headers = [_JSON, (b"content-length", b"%d" % len(body)), *self._told(reply)]
            books = self._serving.books
            headers += spending.headers(books.cost(reply), books.energy(reply))
            await self._start(200, headers)
            self._finish()
            await self._send({"type": "http.response.body", "body": body})

    async def _send_stream(self, service: Service, call: Call) -> None:
        clock = self._serving.clock
        async with service(call) as reply:
            self._opened(reply)
            if not self._status:
                await self._start(200, [*_STREAM, *self._told(reply)])
            together: list[bytes] = []
            async for event in reply.events:
                call.delivered += len(event.text)
                if not event.bookkeeping:
                    together.append(sse.message(event.data))
                if together and not reply.at_hand():
                    self._last_write = clock.now()
                    await self._write(b"".join(together))
                    together.clear()
            self._finish()
            await self._write(b"".join([*together, sse.DONE_MESSAGE]), more=False)

    async def _refuse(self, error: GatewayError) -> None:
        """Answer with an error, or end a stream that has begun with one."""
        self._outcome = type(error).__name__
        self._failure = error
        response = errors.render(error)
        self._finish()
        if self._status:
            await self._write(sse.message(response.body), more=False)
            return
        body = response.body
        headers = [_JSON, (b"content-length", b"%d" % len(body)), *response.headers, *self._told()]
        await self._start(response.status, headers)
        await self._write(body, more=False)

    def _opened(self, reply: Reply) -> None:
        self._reply = reply
        self._first_event = self._serving.clock.now() - self._arrived

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        self._writes += 1
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            self._writes -= 1

    def _told(self, reply: Reply | None = None) -> list[tuple[bytes, bytes]]:
        return diagnostics.headers(self._id, self._call, reply, self._first_event)

    def _schedule_ping(self) -> None:
        due = self._last_write + self._serving.settings.server.ping
        delay = due - self._serving.clock.now()
        self._ping_timer = asyncio.get_running_loop().call_later(delay, self._ping)

    def _ping(self) -> None:
        """Send a comment if nothing was written for a while, so that no hop on the way gives up.

        A client that doesn't read what is being written has no need of one.
        """
        if self._answered:
            return
        now = self._serving.clock.now()
        if now >= self._last_write + self._serving.settings.server.ping:
            self._last_write = now
            if not self._writes:
                self._serving.spawn(self._send_comment())
        self._schedule_ping()

    async def _send_comment(self) -> None:
        if not self._status:
            await self._start(200, [*_STREAM, *self._told()])
        if not self._answered:
            await self._write(sse.WAITING_COMMENT)

    def _enter(self) -> None:
        """Enter the request into the usage ledger, unless nobody knows whose it is."""
        if self._key is None:
            return
        self._serving.books.enter(
            Ended(
                request_id=self._id,
                key=self._key,
                operation=self._operation,
                status=self._status,
                outcome=self._outcome,
                duration=self._serving.clock.now() - self._arrived,
                first_event=self._first_event,
                call=self._call,
                reply=self._reply,
                failure=self._failure,
                characters=0 if self._call is None else self._call.delivered,
            )
        )

    def _log(self) -> None:
        serving = self._serving
        if serving.access_log is None:
            return
        serving.access_log.write(
            AccessRecord(
                request_id=self._id,
                method=self._scope["method"],
                path=self._scope["path"],
                status=self._status,
                outcome=self._outcome,
                duration=serving.clock.now() - self._arrived,
                key=self._key.id if self._key else None,
                call=self._call,
                first_event=self._first_event,
                upstream=self._reply.upstream if self._reply else None,
                usage=self._reply.usage if self._reply else None,
                cached=self._reply.cached if self._reply else None,
                trace=None if self._trace is None else self._trace.id,
            ),
            serving.wall_time(),
        )
