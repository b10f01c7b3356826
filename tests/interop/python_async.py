"""The asyncio client of python-socketio over one transport; what it shares with the plain one is not repeated:

    python python_async.py <url> <polling|websocket|upgrade>
"""

import asyncio
import os
import sys

import socketio

URL, TRANSPORT = sys.argv[1:3]
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}[TRANSPORT]
# How long any single awaited thing may take, in seconds. Nothing here is slow; this only ends a hang.
WITHIN = 8
# The reference server answers a burst with a poll response of more than 16 packets, which kills this client.
BURST = 10 if os.environ.get("JACKFIELD_TEST_URL") else 40
EVENTS = ("auth", "server_response", "message-back", "msg", "connect", "disconnect")


class Peer:
    def __init__(self):
        self.client = socketio.AsyncClient(reconnection=False)
        self._inboxes = {}
        for event in EVENTS:
            inbox = self._inboxes[event] = asyncio.Queue()
            self.client.on(event, lambda *args, to=inbox: to.put_nowait(list(args)))

    async def connect(self, **options):
        await self.client.connect(URL, transports=TRANSPORTS, wait_timeout=WITHIN, **options)
        await self.next("connect")
        return self

    async def next(self, event):
        return await asyncio.wait_for(self._inboxes[event].get(), WITHIN)

    async def ask(self, event, *args):
        return await self.client.call(event, args, timeout=WITHIN)


async def play():
    ada = await Peer().connect(auth={"token": "t"})
    assert await ada.next("auth") == [{"token": "t"}]
    assert await ada.ask("whoami") == ada.client.get_sid("/")
    await ada.client.emit("client_event", {"data": "test €"})
    assert await ada.next("server_response") == [{"data": "TEST €"}]
    value = {"bytes": bytes(range(256)), "nested": [b"x", {"😀": b"\x00"}]}
    assert await ada.ask("echo", value, "text") == (value, "text")
    assert await asyncio.gather(*(ada.ask("echo", at) for at in range(5))) == list(range(5))

    peers = await asyncio.gather(*(Peer().connect() for _ in range(20)))
    assert await asyncio.gather(*(peer.ask("join", "async") for peer in peers)) == [True] * 20
    for number in range(BURST):
        await ada.client.emit("broadcast", ("async", number))
    for peer in peers:
        got = [await peer.next("msg") for _ in range(BURST)]
        assert sorted(got) == [[number] for number in range(BURST)], got
    await peers[0].client.emit("kick")
    await peers[0].next("disconnect")
    await asyncio.gather(*(peer.client.disconnect() for peer in peers), ada.client.disconnect())


asyncio.run(asyncio.wait_for(play(), 60))
print("ok over " + TRANSPORT)
