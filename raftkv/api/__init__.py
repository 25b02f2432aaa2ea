"""What a client's request means, and the aiohttp front that carries requests to it.

Told: request heads and bodies, the outcomes of ``raftkv.outcomes``. Tells: answers, as status, headers and
body. May never know, outside ``aiohttp_front``: sockets, the event loop, the time, the log's bytes.
"""
