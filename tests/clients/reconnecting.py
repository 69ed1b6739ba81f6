"""The client of examples/clients/counter.py: the protocol's conversations, with the test as the server; then the real
server, killed and cut off while several clients act."""
import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request
import uuid
from pathlib import Path
from unittest import mock

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples/clients/counter.py"
BINARY = os.environ.get("TALLYROOM_BIN", "target/debug/tallyroom")
PATIENCE = 60
PLUS = {"action": "plus"}
# What the test gives, or takes, where a placeholder is new; every other one is a UUID.
VALUES = {
    "$message": "a message", "$server": "0.0.0", "$durability": "memory", "$permissions": ["read", "write"],
    "$at": "2026-11-21T07:20:01.123Z", "$ms": 20, "$rev": 41, "$rev2": 57, "$room": "main",
}
# How far a client's clock may be ahead of the test's, in seconds.
SLACK = 0.02

spec = importlib.util.spec_from_file_location("counter", PROGRAM)
counter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(counter)


def short_pauses():
    """Pauses that are as short as they may be drawn, on the whole."""
    draw = random.Random()
    return mock.patch.object(counter.random, "random", lambda: draw.random() / 10)


class Watched:
    """A client under test: what it shows can be awaited."""

    def __init__(self, url):
        self.refused = []
        self.verdicts = []
        self.changed = asyncio.Event()
        self.room = counter.Room(url, lambda _: self.changed.set())

    def act(self, action):
        verdict = self.room.act(action)
        verdict.add_done_callback(self.judged)
        self.verdicts.append(verdict)
        return verdict

    def judged(self, verdict):
        if verdict.result()["verdict"] == "refused":
            self.refused.append(verdict.result()["code"])
        self.changed.set()

    def shown(self):
        room = self.room
        return {
            "value": room.value, "pending": room.pending, "users": room.users, "refused": self.refused,
            "unsure": len(room.unsure), "ended": room.ended,
        }

    async def until(self, condition, problem):
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await self.changed.wait()
                    self.changed.clear()
        except TimeoutError:
            raise AssertionError(f"{problem()}; shown: {self.shown()}") from None


class Played:
    """A client as the conversation's server sees it."""

    def __init__(self, url):
        self.watched = Watched(url)
        self.arrivals = asyncio.Queue()
        self.messages = asyncio.Queue()
        self.socket = None


class Conversation:
    """Holds a conversation of docs/protocol/ with clients, as its README tells."""

    def __init__(self):
        self.clients = {}
        self.names = {}

    async def hold(self, steps):
        async with serve(self.welcome, "127.0.0.1", 0, select_subprotocol=lambda *_: "tallyroom.v1", close_timeout=1) as server:
            self.port = server.sockets[0].getsockname()[1]
            try:
                for index, step in enumerate(steps, 1):
                    try:
                        await self.take(step)
                    except Exception as err:
                        raise AssertionError(f"step {index}, {json.dumps(step)}: {err!r}") from err
                for client in self.clients.values():
                    assert client.messages.empty(), "it sends what nobody expects"
            finally:
                await asyncio.gather(*(client.watched.room.close() for client in self.clients.values()))

    async def welcome(self, socket):
        client = self.clients[socket.request.path.removeprefix("/r/main?")]
        client.arrivals.put_nowait(socket)
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                client.messages.put_nowait(json.loads(message))

    def client(self, name):
        if name not in self.clients:
            self.clients[name] = Played(f"ws://127.0.0.1:{self.port}/r/main?{name}")
        return self.clients[name]

    async def take(self, step):
        match step:
            case {"side": "server"} | {"may": True} | {"stop": True} | {"request": _}:
                pass
            case {"connect": name}:
                client = self.client(name)
                client.socket = await asyncio.wait_for(client.arrivals.get(), PATIENCE)
                offered = re.split(r",\s*", client.socket.request.headers["Sec-WebSocket-Protocol"])
                self.compare(sorted(step["protocols"]), sorted(offered))
            case {"act": name, "action": action}:
                self.client(name).watched.act(action)
            case {"shows": {"client": name, **shown}}:
                watched, shown = self.client(name).watched, self.fill(shown)
                await watched.until(lambda: watched.shown().items() >= shown.items(), lambda: f"{shown} is not shown")
            case {"wait": ms}:
                await asyncio.sleep(self.fill(ms) / 1000 - SLACK)
                assert all(client.messages.empty() and client.arrivals.empty() for client in self.clients.values()), "it does not wait"
            case {"disconnect": name}:
                client = self.client(name)
                client.socket.transport.abort()
                await client.watched.until(lambda: not client.watched.room.connected, lambda: "it does not notice that it is cut off")
            case {"to": name, "close": code}:
                await self.client(name).socket.close(code)
            case {"to": name}:
                for event in step.get("events") or [step["event"]]:
                    await self.client(name).socket.send(json.dumps(self.fill(event)))
            case {"from": name, "quiet": True}:
                client = self.client(name)
                await asyncio.wait_for(await client.socket.ping(), PATIENCE)
                assert client.messages.empty(), f"it sends {client.messages.get_nowait()}"
            case {"from": name, "send": message}:
                self.compare(message, await asyncio.wait_for(self.client(name).messages.get(), PATIENCE))
            case _:
                raise AssertionError("a step of a kind that is not known")

    def fill(self, value):
        match value:
            case str() if re.fullmatch(r"\$[A-Za-z0-9]+", value):
                return self.names.setdefault(value, VALUES.get(value) or str(uuid.uuid4()))
            case str():
                return re.sub(r"\$[A-Za-z0-9]+", lambda found: str(self.fill(found[0])), value)
            case list():
                return [self.fill(one) for one in value]
            case dict():
                return {key: self.fill(one) for key, one in value.items()}
        return value

    def compare(self, expected, actual):
        """A client's id that is new is learned, and is no other one."""
        for wanted, came in zip(expected, actual) if isinstance(expected, list) else []:
            name, client = re.fullmatch(r"client\.(\$\w+)", wanted), re.fullmatch(r"client\.([0-9a-f-]{36})", came)
            if name and client and name[1] not in self.names and client[1] not in self.names.values():
                self.names[name[1]] = client[1]
        assert self.fill(expected) == actual, f"{actual} comes, not {self.fill(expected)}"


class Quiet(unittest.IsolatedAsyncioTestCase):
    """Without what asyncio says of a slow machine, and the client of a server's bad words."""

    def setUp(self):
        logging.disable(logging.WARNING)
        self.addCleanup(logging.disable, logging.NOTSET)


class Conversations(Quiet):
    async def test_every_conversation_that_has_a_client_s_side_is_held(self):
        held = 0
        for path in sorted((ROOT / "docs/protocol").glob("*.json")):
            conversation = json.loads(path.read_text())
            if "client" in conversation.get("sides", ["client"]):
                with self.subTest(path.name), short_pauses():
                    await Conversation().hold(conversation["steps"])
                held += 1
        # As tests/support/conversation.rs has it.
        self.assertEqual(held, 23)


class Scripted(Quiet):
    """What the conversations do not tell."""

    async def asyncSetUp(self):
        self.enterContext(short_pauses())
        self.arrivals = asyncio.Queue()
        self.ended = asyncio.Event()
        self.server = await serve(self.meet, "127.0.0.1", 0, select_subprotocol=lambda *_: "tallyroom.v1", close_timeout=1)
        self.watched = Watched(f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/")

    async def asyncTearDown(self):
        await self.watched.room.close()
        self.server.close()
        await self.server.wait_closed()

    async def meet(self, socket):
        self.arrivals.put_nowait(socket)
        await socket.wait_closed()

    async def arrival(self, **fields):
        """The next connection, which is welcomed."""
        socket = await asyncio.wait_for(self.arrivals.get(), PATIENCE)
        client = socket.request.headers["Sec-WebSocket-Protocol"].split("client.")[1]
        welcome = {"type": "welcome", "epoch": "e1", "rev": 0, "n": 0, "window": 1024, "refused": [], "beat_ms": 20_000, **fields}
        await socket.send(json.dumps(welcome))
        return socket, client

    async def verdict(self, act):
        return (await asyncio.wait_for(act, PATIENCE))["verdict"]

    async def hear(self, socket):
        return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))

    async def test_a_first_action_without_an_answer_for_an_hour_is_not_sent_again(self):
        for times, seconds in enumerate((3600, -3600), 1):
            socket, client = await self.arrival()
            act = self.watched.act(PLUS)
            await self.hear(socket)
            then = counter.time.time() + seconds
            with mock.patch.object(counter.time, "time", lambda: then):
                socket.transport.abort()
                socket, again = await self.arrival()
                self.assertEqual(client, again)
                self.assertEqual(await self.verdict(act), "unsure")
            self.assertEqual(self.watched.room.unsure, times * [PLUS])
        _, fresh = await self.arrival()
        self.assertNotEqual(client, fresh)

    async def test_a_first_action_without_an_answer_for_less_than_an_hour_is_sent_again(self):
        socket, client = await self.arrival()
        self.watched.act(PLUS)
        await self.hear(socket)
        then = counter.time.time() + 3500
        with mock.patch.object(counter.time, "time", lambda: then):
            socket.transport.abort()
            socket, again = await self.arrival()
            self.assertEqual(client, again)
            self.assertEqual(await self.hear(socket), {**PLUS, "n": 1})

    async def test_what_waits_when_the_server_ends_it_is_told_apart(self):
        socket, _ = await self.arrival(window=1)
        sent, unsent = self.watched.act(PLUS), self.watched.act(PLUS)
        await self.hear(socket)
        await socket.close(4409)
        self.assertEqual([await self.verdict(sent), await self.verdict(unsent)], ["unsure", "unsent"])
        self.assertEqual(await self.verdict(self.watched.act(PLUS)), "unsent")

    async def test_a_bye_says_when_to_come_back(self):
        socket, _ = await self.arrival()
        clock = asyncio.get_running_loop().time
        await socket.send(json.dumps({"type": "bye", "code": 1012, "reconnect_after_ms": 700}))
        closed = clock()
        await socket.close(1012)
        await self.arrival()
        self.assertGreaterEqual(clock() - closed, 0.7 - SLACK)

    async def test_what_cannot_be_said_in_json_is_not_taken(self):
        with self.assertRaises(ValueError):
            self.watched.act({"action": "set", "value": float("nan")})
        self.assertEqual(self.watched.room.pending, 0)


class Server:
    """The real server, on a port and data of its own that outlive it."""

    def __init__(self, folder):
        # An address that no other program is given a port of while the server is away.
        self.address = f"127.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}:0"
        self.folder = folder
        self.start()

    def start(self):
        command = [BINARY, "--listen", self.address, "--store", f"disk:{self.folder}"]
        environment = dict(os.environ, TALLYROOM_LOG="info")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://(127\.[\d.]+:\d+)", line):
                self.address = found[1]
                # Nobody reads on; it must not be held up by a pipe that is full.
                self.reading = asyncio.get_running_loop().run_in_executor(None, self.process.stderr.read)
                return
        raise AssertionError("the server ended before it listened")

    async def kill(self):
        self.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, PATIENCE)
        await self.reading
        self.process.stderr.close()

    async def get(self, path):
        def ask():
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=PATIENCE) as answer:
                return answer.read().decode()
        return await asyncio.to_thread(ask)


class Wire:
    """A TCP proxy that cuts each connection after a number of bytes, of either direction, which the test draws."""

    def __init__(self, address, draw):
        self.host, port = address.split(":")
        self.port = int(port)
        self.draw = draw
        self.cuts = 0

    async def listen(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        return "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    async def carry(self, client_reader, client_writer):
        server_reader, server_writer = await asyncio.open_connection(self.host, self.port)
        left = self.draw()

        async def pump(reader, writer):
            nonlocal left
            while left > 0 and (data := await reader.read(4096)):
                writer.write(data[:left])
                left -= len(data)
                await writer.drain()

        pumps = [asyncio.create_task(pump(client_reader, server_writer)), asyncio.create_task(pump(server_reader, client_writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self.cuts += left <= 0
        for writer in (client_writer, server_writer):
            writer.transport.abort()
        for one in pumps:
            one.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def stop(self):
        self.server.close()


class RealServer(Quiet):
    CLIENTS = 4
    EACH = 60

    async def asyncSetUp(self):
        self.enterContext(short_pauses())
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.server = Server(self.folder)
        self.seed = os.environ.get("TALLYROOM_TEST_SEED") or str(random.getrandbits(32))
        self.clients = []

    async def asyncTearDown(self):
        await asyncio.gather(*(client.room.close() for client in self.clients))
        await self.server.kill()

    async def enter(self, address, count):
        self.clients = [Watched(f"ws://{address}/r/door") for _ in range(count)]
        limited = await asyncio.wait_for(self.clients[0].act({"action": "limits", "max": self.CLIENTS * self.EACH - 20}), PATIENCE)
        self.assertEqual(limited["verdict"], "accepted")

    async def act_all(self):
        """Each client acts, a few actions at a time, until all have their verdict."""
        async def act(client):
            for _ in range(self.EACH // 5):
                await asyncio.gather(*(client.act(PLUS) for _ in range(5)))
        await asyncio.wait_for(asyncio.gather(*map(act, self.clients)), 3 * PATIENCE)

    async def assert_each_counted_once(self):
        told = [verdict.result() for client in self.clients for verdict in client.verdicts]
        kinds = [verdict["verdict"] for verdict in told]
        accepted = kinds.count("accepted")
        self.assertEqual(accepted + kinds.count("refused"), 1 + self.CLIENTS * self.EACH)
        self.assertEqual(kinds.count("refused"), 20)
        state = json.loads(await self.server.get("/api/rooms/door"))
        self.assertEqual((state["value"], state["rev"]), (accepted - 1, accepted))
        journal = [json.loads(line) for line in (await self.server.get("/api/rooms/door/journal")).splitlines()]
        counted = {(entry["client"], entry["n"]) for entry in journal}
        self.assertEqual(len(counted), accepted)
        self.assertEqual(len({client for client, _ in counted}), self.CLIENTS)
        for client in self.clients:
            await client.until(lambda: client.shown()["value"] == state["value"] and not client.room.pending, lambda: "it is behind")

    def verdicts(self):
        return sum(verdict.done() for client in self.clients for verdict in client.verdicts)

    async def test_each_action_counts_once_while_the_server_is_killed(self):
        await self.enter(self.server.address, self.CLIENTS)

        async def kill():
            for kills in range(1, 5):
                await self.clients[0].until(lambda: self.verdicts() >= 40 * kills, lambda: "it comes to a halt")
                await self.server.kill()
                self.server.start()

        await asyncio.gather(self.act_all(), kill())
        await self.assert_each_counted_once()

    async def test_each_action_counts_once_while_connections_are_cut(self):
        print(f"TALLYROOM_TEST_SEED={self.seed}", file=sys.stderr)
        lots = random.Random(self.seed)
        wire = Wire(self.server.address, lambda: lots.randrange(6000) if wire.cuts < 40 else float("inf"))
        self.addAsyncCleanup(wire.stop)
        await self.enter(await wire.listen(), self.CLIENTS)
        await self.act_all()
        await self.assert_each_counted_once()
        self.assertGreater(wire.cuts, 5)

    async def test_as_a_program_it_acts_by_lines(self):
        command = [sys.executable, PROGRAM, f"ws://{self.server.address}/r/lines"]
        ran = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=-1)
        out, err = await asyncio.wait_for(ran.communicate(b"+\n+5\n-3\nup\n=-7\n-2\n"), PATIENCE)
        self.assertEqual((ran.returncode, err), (0, b""))
        self.assertEqual(out.count(b"'accepted'"), 5, out)
        self.assertIn(b"lines are", out)
        self.assertEqual(json.loads(await self.server.get("/api/rooms/lines"))["value"], -9)

    async def test_the_shell_s_loop_counts_once_over_a_kill_of_the_server(self):
        blocks = re.findall(r"^```sh\n(.*?)^```$", (PROGRAM.parent / "README.md").read_text(), re.M | re.S)
        [loop] = [block for block in blocks if "curl" in block]
        program = loop.replace("localhost:6789", self.server.address)
        await self.server.kill()
        came = asyncio.Event()

        async def hang_up(_, writer):
            writer.transport.abort()
            came.set()

        host, port = self.server.address.split(":")
        async with await asyncio.start_server(hang_up, host, int(port)):
            ran = await asyncio.create_subprocess_exec("sh", "-euc", program, cwd=self.folder, stdout=-1)
            await asyncio.wait_for(came.wait(), PATIENCE)
        self.server.start()
        out, _ = await asyncio.wait_for(ran.communicate(), PATIENCE)
        self.assertEqual(ran.returncode, 0)
        self.assertRegex(out.decode(), r'^200: \{"room":"door",.*"rev":1,"value":1\}\n\{.*"value":1,"users":0\}')


if __name__ == "__main__":
    unittest.main()
