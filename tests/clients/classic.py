"""The well-known counter's client, as its tutorial has it, against the real server."""
import asyncio
import json
import os
import re
import subprocess
import unittest

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

BINARY = os.environ.get("TALLYROOM_BIN", "target/debug/tallyroom")
PATIENCE = 20


class Server:
    """The real server on a free port."""

    def __init__(self, *flags):
        command = [BINARY, "--listen", "localhost:0", "--store", "memory", *flags]
        environment = dict(os.environ, TALLYROOM_LOG="info")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://(localhost:\d+)/", line):
                self.url = f"ws://{found[1]}/"
                return
        raise AssertionError("the server ended before it listened")

    def stop(self):
        self.process.terminate()
        self.process.stderr.close()
        assert self.process.wait(PATIENCE) == 0


class Client:
    """What the tutorial's page does: switches on `type`, shows `value` and `count`."""

    def __init__(self, socket):
        self.socket = socket
        self.value = None
        self.users = None
        self.seen = []

    async def hear(self):
        event = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        self.seen.append(event["type"])
        match event["type"]:
            case "state":
                self.value = event["value"]
            case "users":
                self.users = event["count"]
            case _:
                raise AssertionError(f"unsupported event {event}")

    async def until(self, **shown):
        while any(getattr(self, name) != expected for name, expected in shown.items()):
            await self.hear()

    async def press(self, action):
        await self.socket.send(json.dumps({"action": action}))


class WellKnownClient(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)

    async def test_three_clients_count_together(self):
        async with connect(self.server.url) as a, connect(self.server.url) as b:
            first, second = Client(a), Client(b)
            await first.until(users=2, value=0)
            await second.until(users=2, value=0)
            self.assertEqual(second.seen, ["users", "state"])
            await first.press("plus")
            await second.until(value=1)
            await second.press("plus")
            await second.press("minus")
            await second.press("minus")
            for client in (first, second):
                await client.until(value=2)
                await client.until(value=0)
            async with connect(self.server.url) as c:
                third = Client(c)
                await third.until(users=3, value=0)
                await first.until(users=3)
            await first.until(users=2)
            await second.until(users=2)

    async def test_a_hundred_clients_see_a_hundred_presses(self):
        sockets = [await connect(self.server.url) for _ in range(100)]
        clients = [Client(socket) for socket in sockets]
        await asyncio.gather(*(client.press("plus") for client in clients))
        await asyncio.gather(*(client.until(value=100, users=100) for client in clients))
        await asyncio.gather(*(socket.close() for socket in sockets))

    async def test_a_client_is_kept_by_its_library_s_own_pings(self):
        async with connect(self.server.url, ping_interval=0.05, ping_timeout=PATIENCE) as socket:
            client = Client(socket)
            await client.until(users=1, value=0)
            for _ in range(5):
                pong = await socket.ping()
                await asyncio.wait_for(pong, PATIENCE)

    async def test_a_foreign_page_is_refused(self):
        with self.assertRaises(InvalidStatus) as refused:
            await connect(self.server.url, origin="https://evil.test")
        self.assertEqual(refused.exception.response.status_code, 403)


if __name__ == "__main__":
    unittest.main()
