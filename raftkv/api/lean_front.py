"""The front on the lean protocol: the keys' routes with no task, no future and no second parser per request.

Told: heads and bodies of a connection's requests. Tells: the API's answers; of everything that is not a single
key's, that the other front serves it. May never know: what a request means.

Both fronts ask the same ``Api`` and take room for bodies from the same place; what one answers, so does the other.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

from raftkv.api import plain
from raftkv.api.exchange import Pending
from raftkv.api.failures import request_failed
from raftkv.api.problems import RequestRefused, problem
from raftkv.api.ready import ReadyAnswers
from raftkv.api.requests import HEEDED, no_room, too_large
from raftkv.api.requests import Head as RequestHead
from raftkv.api.responses import Response, common_header_bytes
from raftkv.api.routes import Api
from raftkv.api.settings import ApiSettings
from raftkv.http.answers import Answer
from raftkv.http.handling import Exchange, Handler, ServerSettings, Verdict, Within
from raftkv.http.heads import Head
from raftkv.http.room import BodyRoom
from raftkv.problems import Code

KEYS_PREFIX: Final = b"/v1/kv/"
_METHODS: Final = {method.encode(): method for method in ("GET", "HEAD", "PUT", "DELETE")}
_VALUE: Final = rb"[ \t]*((?:[^ \t\r]+(?:[ \t]+[^ \t\r]+)*)?)"
"""Of a field, without the white space around it. No possessive repeat with a lookahead in it: Python 3.11.2, Debian's,
takes what that looked at for a part of the value."""
_HEEDED_FIELD: Final = re.compile(rb"\r\n(%b):%b" % (b"|".join(sorted(HEEDED)), _VALUE), re.IGNORECASE)


def connection_settings(settings: ApiSettings, node_id: str) -> ServerSettings:
    """The API's limits, as the lean protocol takes them."""
    return ServerSettings(
        head_timeout_s=settings.head_timeout_ms / 1000,
        body_timeout_s=settings.body_timeout_ms / 1000,
        idle_timeout_s=settings.keep_alive_timeout_ms / 1000,
        write_stall_timeout_s=settings.send_timeout_ms / 1000,
        discard_timeout_s=settings.discard_timeout_ms / 1000,
        discard_bytes_max=settings.discard_bytes_max,
        refusal_fields=common_header_bytes(node_id),
    )


class LeanFront:
    """What the lean connections of one node share."""

    def __init__(self, api: Api, room: BodyRoom) -> None:
        """``room`` is for bodies that are being read."""
        self._api, self._room = api, room
        self._plain_keys = api.plain_keys
        self._unanswered_count = 0
        self._all_done: asyncio.Future[None] | None = None
        """While stopping: done when nothing is left to be answered."""
        self._plain_reader = plain.reader()
        self._ready = ReadyAnswers(api.node_id)

    def stop(self) -> asyncio.Future[None]:
        """Done when everything that was asked by now is answered; ``asyncio.wait`` gives that its time.

        What arrives from now on is answered 503 ``shutting_down``; each answer is its connection's last.
        """
        self._all_done = asyncio.get_running_loop().create_future()
        if not self._unanswered_count:
            self._all_done.set_result(None)
        return self._all_done

    def handler(self, before: Handler | None = None) -> Handler:
        """Of one more connection. ``before`` is asked first, and has what it does not hand over."""
        return _Connection(self, before)

    def begin(self, head: Head) -> Answer | Pending:
        """The answer where the head settles it, otherwise what to do with the body."""
        if self._all_done is not None:
            return self.answer_of(problem(Code.SHUTTING_DOWN, "this node is stopping; ask another one"))
        fields, version = _HEEDED_FIELD.findall(head.fields), (1, head.minor_version)
        try:
            decision = self._api.begin(RequestHead(_METHODS[head.method], head.target, fields, version))
        except Exception as error:  # noqa: BLE001 - a bug of ours, told by the log and as 500
            return self._completed(self._failed(error, head.method, head.target))
        return self.answer_of(decision) if isinstance(decision, Response) else decision

    def within(self, pending: Pending) -> Within:
        """How the body of this request is to be read."""

        def refused(why: RequestRefused) -> Answer:
            return self.answer_of(pending.given_up(why))

        limit = pending.body_bytes_max
        return Within(limit, self._room, lambda: refused(no_room()), lambda: refused(too_large(limit)))

    def answer_of(self, response: Response) -> Answer:
        """The response as the lean protocol writes it, with what every answer carries."""
        return self._completed(_bare(response))

    def _completed(self, answer: Answer) -> Answer:
        """With what every answer carries."""
        status, body, content_type, fields, close = answer
        fields = self._ready.around(fields, now_s=time.time())
        return Answer(status, body, content_type, fields, close or self._all_done is not None)

    @staticmethod
    def _failed(error: Exception, method: bytes, target: bytes) -> Answer:
        """The answer where ours could not be made, the connection's last; the log tells why."""
        response = request_failed(error, method.decode("latin-1"), target.decode("latin-1"))
        return _bare(response)._replace(close=True)

    def finish(self, pending: Pending, exchange: Exchange) -> None:
        """The request is whole; it is answered now or later."""
        respond, head = self._respond_by(exchange), exchange.head
        try:
            pending.finish(exchange.body, respond)
        except Exception as error:  # noqa: BLE001 - a bug of ours, told by the log and as 500
            respond(self._failed(error, head.method, head.target))

    def on_plain(self, data: bytes, start: int, exchange: Exchange) -> int:
        """A request that is told at a glance is taken at a glance; where it ends, or 0."""
        if self._plain_keys is None or self._all_done is not None:
            return 0
        request = self._plain_reader.read(data, start)
        if request is None:
            return 0
        respond = self._respond_by(exchange)
        try:
            if self._plain_keys.take(request, respond):
                return request.end
        except Exception as error:  # noqa: BLE001 - a bug of ours, told by the log and as 500
            respond(self._failed(error, request.method, request.target))
            return request.end
        self._unanswered_count -= 1
        return 0

    def _respond_by(self, exchange: Exchange) -> Callable[[plain.Told | Answer | Response], None]:
        """Counts the exchange as long as it has no answer. What failed is answered; what it began may end later."""
        self._unanswered_count += 1

        def respond(answer: plain.Told | Answer | Response) -> None:
            if exchange.answer is not None and Code.INTERNAL.status in (exchange.answer.status, answer.status):
                return
            self._unanswered_count -= 1
            if isinstance(answer, plain.Told):
                exchange.respond(self._ready.of(answer, now_s=time.time(), close=self._all_done is not None))
            else:
                exchange.respond(self._completed(answer) if isinstance(answer, Answer) else self.answer_of(answer))
            if self._all_done is not None and not self._unanswered_count and not self._all_done.done():
                self._all_done.set_result(None)

        return respond


def _bare(response: Response) -> Answer:
    """Without what every answer carries."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in response.headers])
    return Answer(response.status, response.body, response.content_type.encode(), lines.encode("latin-1"))


class _Connection:
    """The handler of one connection: a request is whole before the next one's head is looked at."""

    __slots__ = ("_before", "_front", "_pending", "on_plain")

    def __init__(self, front: LeanFront, before: Handler | None) -> None:
        self._front, self._before = front, before
        self.on_plain = front.on_plain
        """No target of a key is anybody else's: nobody is asked before."""
        self._pending: Pending | None = None
        """Of the request whose body is being read; None: it is not ours."""

    def on_head(self, head: Head) -> int | Within | Answer | Verdict:
        """What the API says to it, if it is a single key's."""
        self._pending = None
        if self._before is not None:
            verdict = self._before.on_head(head)
            if verdict is not Verdict.HAND_OVER:
                return verdict
        if not head.target.startswith(KEYS_PREFIX) or head.method not in _METHODS or head.upgrades:
            return Verdict.HAND_OVER
        decision = self._front.begin(head)
        if isinstance(decision, Answer):
            return decision
        self._pending = decision
        return self._front.within(decision)

    def on_request(self, exchange: Exchange) -> None:
        """The request is whole."""
        pending, self._pending = self._pending, None
        if pending is None:
            assert self._before is not None
            self._before.on_request(exchange)
            return
        self._front.finish(pending, exchange)
