"""The peers' routes, as bytes: what they take, and how they refuse."""

from __future__ import annotations

import json

import pytest

from raftkv.core.messages import Envelope, Introduction
from raftkv.transport import codec
from raftkv.transport.routes import APPEND_ENTRIES, INTRODUCE, ROUTES, TARGET_OF
from tests.http.fronts import Fronts, post
from tests.transport.peers import Peers
from tests.transport.samples import REPLIES, REQUESTS, append, envelope, heartbeat, introduction

MSGPACK = b"Content-Type: application/msgpack"


async def answer(peers: Peers, raw: bytes):
    """What a fresh peer answers, and what it heard."""
    peer = await peers.peer()
    fronts = Fronts()
    wire = await fronts.wire(peer.port)
    wire.send(raw)
    reply = await wire.reply()
    wire.close()
    return reply, peer.heard


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
async def test_request_is_taken_on_its_route_and_on_no_other(peers: Peers, message):
    body = codec.encode(envelope(message))
    for target in ROUTES:
        if target == TARGET_OF[type(message)]:
            continue
        reply, heard = await answer(peers, post(target, body, MSGPACK))
        assert (reply.status, json.loads(reply.body)["code"]) in ((400, "bad_request"), (413, "too_large"))
        assert heard == []


@pytest.mark.parametrize("message", REPLIES, ids=lambda message: type(message).__name__)
async def test_reply_is_no_request(peers: Peers, message):
    reply, heard = await answer(peers, post(APPEND_ENTRIES, codec.encode(envelope(message)), MSGPACK))
    assert (reply.status, heard) == (400, [])


async def test_heartbeat_and_introduction_are_answered_in_msgpack(peers: Peers):
    reply, heard = await answer(peers, post(APPEND_ENTRIES, codec.encode(envelope(heartbeat())), MSGPACK))
    assert (reply.status, reply.fields[b"content-type"]) == (200, b"application/msgpack")
    assert isinstance(codec.decode(reply.body), Envelope)
    assert heard == [envelope(heartbeat())]
    reply, heard = await answer(peers, post(INTRODUCE, codec.encode_introduction(introduction()), MSGPACK))
    assert codec.decode_introduction(reply.body) == introduction()
    assert isinstance(heard[0], Introduction)


GOOD = codec.encode(envelope(heartbeat()))


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (post(APPEND_ENTRIES, GOOD), 415, "unsupported_media_type"),
        (post(APPEND_ENTRIES, GOOD, b"Content-Type: application/json"), 415, "unsupported_media_type"),
        (post(APPEND_ENTRIES, GOOD, MSGPACK, b"Content-Encoding: gzip"), 415, "unsupported_media_type"),
        (post(APPEND_ENTRIES, GOOD, MSGPACK).replace(b"POST", b"PUT", 1), 405, "method_not_allowed"),
        (post(b"/raft/v1/install-snapshots", GOOD, MSGPACK), 404, "not_found"),
        (post(b"/raft/v2/append-entries", GOOD, MSGPACK), 404, "not_found"),
        (post(APPEND_ENTRIES + b"?x", GOOD, MSGPACK), 404, "not_found"),
        (post(APPEND_ENTRIES, b"", MSGPACK), 400, "bad_request"),
        (post(APPEND_ENTRIES, GOOD[:-1], MSGPACK), 400, "bad_request"),
        (post(APPEND_ENTRIES, GOOD + b"\0", MSGPACK), 400, "bad_request"),
        (post(APPEND_ENTRIES, b"\xdd\xff\xff\xff\xff" * 100, MSGPACK), 400, "bad_request"),
        (post(INTRODUCE, GOOD, MSGPACK), 400, "bad_request"),
        (post(b"/raft/v1/request-vote", bytes(codec.SMALL_BYTES_MAX + 1), MSGPACK), 413, "too_large"),
        (post(INTRODUCE, bytes(codec.INTRODUCTION_BYTES_MAX + 1), MSGPACK), 413, "too_large"),
    ],
)
async def test_what_is_no_message_is_refused_and_the_node_hears_nothing(peers: Peers, raw, status, code):
    """faults 64."""
    reply, heard = await answer(peers, raw)
    assert (reply.status, json.loads(reply.body)["code"]) == (status, code)
    assert heard == []


async def test_reply_to_a_connection_that_is_gone_goes_nowhere(peers: Peers):
    peer = await peers.peer()
    peer.holds = lambda message: True
    link, node = await peers.connected(peer)
    link.send(envelope(append(b"a")))
    await link.close()
    peer.release()
    assert len(node.failed) == 1
