"""The tutorials' own kind of clients against the examples, each doing what its tutorial shows."""
import asyncio
import os
import pathlib
import re
import ssl
import subprocess
import tempfile
import unittest
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_sync

EXAMPLES = pathlib.Path(os.environ.get("TALLYROOM_BIN", "target/debug/tallyroom")).parent / "examples"
PATIENCE = 20
# So much is taken as one message unless a flag says otherwise.
LARGEST = 16 * 1024 * 1024
TRANSPORTS = ("direct", "embedded")


class Example:
    """An example on a free port."""

    def __init__(self, name, *flags, transport="direct"):
        command = [EXAMPLES / name, "--listen", "localhost:0", "--transport", transport, *flags]
        environment = dict(os.environ, TALLYROOM_LOG="info")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http(s?)://(localhost:\d+)/", line):
                self.url = f"ws{found[1]}://{found[2]}"
                return
        raise AssertionError(f"{name} ended before it listened")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.stderr.close()
        assert self.process.wait(PATIENCE) == 0


async def hear(*clients):
    """The next message of each."""
    async with asyncio.timeout(PATIENCE):
        return [await client.recv() for client in clients]


async def closed(client):
    """The code that it is closed with."""
    async with asyncio.timeout(PATIENCE):
        try:
            raise AssertionError(f"it was told {await client.recv()!r}")
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else None


class Tutorials(unittest.IsolatedAsyncioTestCase):
    async def on_both(self, test, name, *flags):
        for transport in TRANSPORTS:
            with self.subTest(transport=transport), Example(name, *flags, transport=transport) as example:
                await test(example.url)

    async def test_echo_sends_text_and_binary_back(self):
        async def test(url):
            for path in ("/", "/websocket"):
                async with connect(url + path, max_size=None) as client:
                    for text in ("hello", "", "你好", "x" * 200_000):
                        await client.send(text)
                        self.assertEqual(await hear(client), [f"Echo: {text}"])
                    for data in (b"", bytes(range(256)), b"y" * 200_000):
                        await client.send(data)
                        self.assertEqual(await hear(client), [data])
                    await client.send(["in ", "several ", "frames"])
                    self.assertEqual(await hear(client), ["Echo: in several frames"])
            with self.assertRaises(InvalidStatus) as refused:
                await connect(url + "/elsewhere")
            self.assertEqual(refused.exception.response.status_code, 404)

        await self.on_both(test, "echo")

    async def test_echo_takes_a_message_of_the_limit_and_closes_on_a_larger_one(self):
        async def test(url):
            async with connect(url, max_size=None) as client:
                await client.send(b"z" * LARGEST)
                self.assertEqual([len(data) for data in await hear(client)], [LARGEST])
                await client.send(b"z" * (LARGEST + 1))
                self.assertEqual(await closed(client), 1009)

        await self.on_both(test, "echo")

    async def test_echo_puts_what_it_is_told_around_a_text(self):
        for flags, heard in (
            (["--prefix", "你说:"], "你说:hi"),
            (["--prefix", "Server received: "], "Server received: hi"),
            (["--prefix", "", "--suffix", " SB"], "hi SB"),
        ):
            with Example("echo", *flags) as example:
                async with connect(example.url) as client:
                    await client.send("hi")
                    self.assertEqual(await hear(client), [heard])

    async def test_many_echo_at_once(self):
        async def talk(url, name):
            async with connect(url) as client:
                for nth in range(50):
                    await client.send(f"{name} {nth}")
                    self.assertEqual(await hear(client), [f"Echo: {name} {nth}"])

        async def test(url):
            await asyncio.gather(*(talk(url, name) for name in range(50)))

        await self.on_both(test, "echo")

    async def test_greet_greets_by_name_and_closes(self):
        async def test(url):
            async with connect(url) as ann, connect(url) as bob:
                await ann.send("Ann")
                self.assertEqual(await hear(ann), ["Hello Ann!"])
                self.assertEqual(await closed(ann), 1000)
                await bob.send("Bob")
                self.assertEqual(await hear(bob), ["Hello Bob!"])

        await self.on_both(test, "greet")
        with tempfile.TemporaryDirectory() as folder:
            cert, key = (os.path.join(folder, name) for name in ("cert.pem", "key.pem"))
            flags = ["--tls-self-signed", "--tls-cert", cert, "--tls-key", key]
            for transport in TRANSPORTS:
                with self.subTest(transport=transport), Example("greet", *flags, transport=transport) as example:
                    self.assertTrue(example.url.startswith("wss://localhost:"), example.url)
                    # As the tutorial has it: the client loads the certificate that the server wrote.
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.load_verify_locations(cert)
                    async with connect(example.url, ssl=context) as client:
                        await client.send("Ann")
                        self.assertEqual(await hear(client), ["Hello Ann!"])
                        self.assertEqual(await closed(client), 1000)
                    with self.assertRaises(ssl.SSLError):
                        await connect(example.url)
        with Example("greet", "--reply", "你好呀你好") as example:
            async with connect(example.url) as client:
                await client.send("anything")
                self.assertEqual(await hear(client), ["你好呀你好"])

    async def test_broadcast_tells_everybody(self):
        async def test(url):
            async with connect(url) as ann, connect(url) as bob, connect(url) as eve:
                everybody = (ann, bob, eve)
                for client, text in ((ann, "one"), (bob, "two"), (eve, "你好"), (ann, "")):
                    await client.send(text)
                    self.assertEqual(await hear(*everybody), [f"Broadcast: {text}"] * 3)
                await eve.close()
                await ann.send("last")
                self.assertEqual(await hear(ann, bob), ["Broadcast: last"] * 2)

        await self.on_both(test, "broadcast")

    async def test_what_one_says_comes_in_its_order_to_everybody(self):
        async def test(url):
            async with connect(url) as ann, connect(url) as bob:
                said = [f"message {nth}" for nth in range(1000)]
                for text in said:
                    await ann.send(text)
                for client in (ann, bob):
                    heard = [(await hear(client))[0] for _ in said]
                    self.assertEqual(heard, [f"Broadcast: {text}" for text in said])

        await self.on_both(test, "broadcast")

    async def test_announce_numbers_its_clients(self):
        news = "Hey all, a new client has joined us"

        async def test(url):
            async with connect(url) as ann:
                self.assertEqual(await hear(ann), [news])
                async with connect(url) as bob:
                    self.assertEqual(await hear(ann, bob), [news] * 2)
                    await bob.send("hello")
                    self.assertEqual(await hear(ann, bob), ["Client(2) said: hello"] * 2)
                    await ann.send("hi")
                    self.assertEqual(await hear(ann, bob), ["Client(1) said: hi"] * 2)
                # Nobody is told of a leave, and no number is given twice.
                async with connect(url) as eve:
                    self.assertEqual(await hear(ann, eve), [news] * 2)
                    await eve.send("me too")
                    self.assertEqual(await hear(ann, eve), ["Client(3) said: me too"] * 2)

        await self.on_both(test, "announce")

    async def test_announce_gives_no_number_twice_however_clients_come_and_go(self):
        async def come(url):
            async with connect(url) as client:
                await client.send("who am I")
                while "said: who am I" not in (text := (await hear(client))[0]):
                    pass
                # Others ask, too; so it asks by a text of its own.
                mine = os.urandom(8).hex()
                await client.send(mine)
                while not (text := (await hear(client))[0]).endswith(f"said: {mine}"):
                    pass
                # What is said right before leaving is still its own.
                await client.send("bye")
                return int(re.match(r"Client\((\d+)\)", text)[1])

        async def test(url):
            numbers = await asyncio.gather(*(come(url) for _ in range(40)))
            self.assertEqual(sorted(numbers), list(range(1, 41)))

        await self.on_both(test, "announce")

    async def test_chat_tells_the_others_in_the_room_and_the_sender_that_it_came(self):
        async def test(url):
            def seat(room, user):
                return connect(f"{url}/websocket/{room}/{quote(user)}")

            async with seat("door", "ann") as ann, seat("door", "小明") as ming, seat("door", "ann") as phone:
                async with seat("other", "eve") as eve:
                    await ann.send("hello")
                    self.assertEqual(await hear(ann, ming, phone), ["", "ann: hello", ""])
                    await ming.send("你好")
                    self.assertEqual(await hear(ann, ming, phone), ["小明: 你好", "", "小明: 你好"])
                    await eve.send("nobody here?")
                    self.assertEqual(await hear(eve), [""])
            for path in ("/", "/websocket", "/websocket/door", "/websocket/door/", "/websocket/a-b/ann",
                         "/websocket/door/ann/more", "/websocket/door/a%20b", "/websocket//ann"):
                with self.assertRaises(InvalidStatus) as refused:
                    await connect(url + path)
                self.assertEqual(refused.exception.response.status_code, 404, path)

        await self.on_both(test, "chat")

    async def test_group_greets_newcomers_and_carries_texts_to_the_whole_group(self):
        async def test(url):
            def seat(group):
                return connect(f"{url}/room/{quote(group)}/")

            async with seat("客厅") as ann, seat("客厅") as bob, seat("kitchen") as eve:
                self.assertEqual(await hear(ann, bob, eve), ["来了呀客官"] * 3)
                await ann.send("hello")
                self.assertEqual(await hear(ann, bob), ["hello"] * 2)
                await eve.send("elsewhere")
                self.assertEqual(await hear(eve), ["elsewhere"])
                await bob.send("关闭")
                self.assertEqual(await closed(bob), 1000)
                await ann.send("alone")
                self.assertEqual(await hear(ann), ["alone"])

        await self.on_both(test, "group")

    async def test_clock_tells_the_time_to_each_at_its_own_intervals(self):
        async def test(url):
            async with connect(url) as ann, connect(url) as bob:
                heard = await asyncio.gather(*(self.times(client) for client in (ann, bob)))
                self.assertNotEqual(*heard)

        await self.on_both(test, "clock", "--longest", "1")

    async def times(self, client):
        times = []
        for _ in range(4):
            [text] = await hear(client)
            self.assertRegex(text, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
            times.append(datetime.fromisoformat(text))
            late = abs(datetime.now(timezone.utc) - times[-1])
            self.assertLess(late, timedelta(seconds=PATIENCE))
        self.assertEqual(times, sorted(times))
        return times


class OtherLibraries(unittest.TestCase):
    """The same by `websocket-client` and by the blocking client of `websockets`."""

    def test_echo_greet_and_group(self):
        with Example("echo") as example:
            client = websocket.create_connection(example.url + "/websocket", timeout=PATIENCE)
            client.send("hello")
            self.assertEqual(client.recv(), "Echo: hello")
            client.send_binary(b"\x00\xff")
            self.assertEqual(client.recv(), b"\x00\xff")
            client.close()
        with Example("greet") as example, connect_sync(example.url) as client:
            client.send("Ann")
            self.assertEqual(client.recv(PATIENCE), "Hello Ann!")
        with Example("group") as example:
            client = websocket.create_connection(example.url + "/room/1/", timeout=PATIENCE)
            self.assertEqual(client.recv(), "来了呀客官")
            client.send("关闭")
            opcode, frame = client.recv_data()
            self.assertEqual((opcode, int.from_bytes(frame[:2])), (websocket.ABNF.OPCODE_CLOSE, 1000))

    def test_a_client_of_callbacks_hears_what_is_broadcast(self):
        heard = []

        def on_message(client, text):
            heard.append(text)
            client.close()

        with Example("broadcast") as example:
            client = websocket.WebSocketApp(
                example.url, on_open=lambda client: client.send("hello"), on_message=on_message
            )
            client.run_forever()
        self.assertEqual(heard, ["Broadcast: hello"])


if __name__ == "__main__":
    unittest.main()
