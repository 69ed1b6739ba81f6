#!/usr/bin/env python3
"""A client of a Tallyroom room that comes back by itself and whose actions count exactly once. To be copied.

    async with Room("ws://localhost:6789/r/door", lambda room: print(room.value, room.users)) as door:
        print(await door.act({"action": "plus", "by": 5}))  # {'verdict': 'accepted', 'rev': 42}

docs/protocol.md tells why it does what it does. What waits is kept in memory only and is gone with the program.
It needs `websockets`, and Python 3.11. As a program it takes lines: + - +5 -3 =7
"""
import asyncio
import contextlib
import json
import logging
import math
import random
import re
import sys
import threading
import time
import uuid
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

FINAL_CODES = {1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409}  # whoever came back would be closed so again
CUT = 1006
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds; how much of it is waited is drawn, so that not all come at once
STEADY_AFTER = 5.0  # seconds; some servers accept and then fail
PATIENCE = 10.0  # seconds for the welcome to come, and for the close after a bye
REMEMBERED = 3600 - 60  # seconds; what is sent now takes its time


@dataclass
class Own:
    """An action of ours until it is in effect."""
    action: dict
    verdict: asyncio.Future
    sent: bool = False  # whether it was ever put on a wire
    rev: int | None = None  # where it was settled

    def judge(self, verdict, **details):
        if not self.verdict.done():  # who awaited it may have given up
            self.verdict.set_result({"verdict": verdict, **details})


class Room:
    """A room, open until `close()` or until the server says that coming back is of no use. Make it in an event loop.

    `value` is the last state with our own actions laid over it, `users` how many are here; both are None at first.
    `on_change(room)` is called after each change.
    """

    def __init__(self, url, on_change=lambda room: None):
        self.users, self.connected, self.ended, self.unsure = None, False, False, []
        self._url, self._on_change, self._state, self._socket = url, on_change, None, None
        self._wake = asyncio.Event()
        self._take_fresh_id([])
        self._running = asyncio.create_task(self._run())

    @property
    def value(self):
        if self._state is None:
            return None
        value = self._state["value"]
        for own in self._mine.values():
            value = foreseen(value, own.action)
        return value

    @property
    def pending(self):
        return len(self._mine)

    def act(self, action):
        """Does an action once, whatever happens to the connection, and gives a future of the room's verdict:

        `accepted` at `rev`; `refused` with `code` and `message`; `unsure`: nobody can tell whether it counted, because
        the room forgot us or we ended (it stands in `unsure`, too: ask your user); `unsent`: it never will count.
        """
        own = Own(json.loads(json.dumps(action, allow_nan=False)), asyncio.get_running_loop().create_future())
        if self.ended:
            own.judge("unsent")
            return own.verdict
        self._last += 1
        self._mine[self._last] = own
        self._changed()
        return own.verdict

    async def close(self):
        if self.connected:
            await self._socket.close()
        self._running.cancel()
        await asyncio.wait([self._running])
        self._end()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def _run(self):
        longest = FIRST_PAUSE
        try:
            while True:
                self._bye, self._steady_at = None, math.inf
                try:
                    code = await self._talk()
                except (OSError, InvalidHandshake):
                    code = CUT
                if code in FINAL_CODES:
                    return
                self.connected = False
                self._changed()
                if time.monotonic() > self._steady_at:
                    longest = FIRST_PAUSE
                await asyncio.sleep(random.random() * longest if self._bye is None else self._bye)
                longest = min(LONGEST_PAUSE, 2 * longest)
        finally:
            self._end()

    async def _talk(self):
        """One connection, until it is of no more use; gives the close code."""
        self._on_wire, self._held_until, self._silence = math.inf, 0, PATIENCE  # nothing is sent before the welcome
        offer = ["tallyroom.v1", f"client.{self._id}"]
        async with connect(self._url, subprotocols=offer, close_timeout=1) as self._socket:
            if self._socket.subprotocol != offer[0]:
                raise ConnectionError("the server speaks another dialect")
            sending = asyncio.create_task(self._send())
            try:
                hopeful = True
                while hopeful:
                    async with asyncio.timeout(self._silence):
                        message = await self._socket.recv()
                    hopeful = self._hear(json.loads(message))
                    self._changed()
                return CUT
            except ConnectionClosed as err:
                return err.rcvd.code if err.rcvd else CUT
            except TimeoutError:  # it was silent for too long
                return CUT
            finally:
                sending.cancel()

    async def _send(self):
        """Sends what is not settled, in order, whenever it may."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                n, held = self._on_wire + 1, self._held_until - time.monotonic()
                if held > 0:
                    await asyncio.sleep(held)
                elif n > min(self._last, self._settled + self._window):
                    self._wake.clear()
                    await self._wake.wait()
                else:
                    self._on_wire = n
                    if own := self._mine.get(n):  # it is missing where it was refused
                        own.sent = True
                        self._first_sent = self._first_sent or time.time()
                        await self._socket.send(json.dumps({**own.action, "n": n}))

    def _hear(self, event):
        """Takes in an event; False: this connection is of no more use."""
        match event:
            case {"type": "welcome"} if self._is_forgotten(event):
                self._take_fresh_id(self._give_up())
                return False
            case {"type": "welcome"}:
                self._epoch, self._window, self._on_wire = event["epoch"], event["window"], event["n"]
                self._held_until, self._silence = 0, 2 * event["beat_ms"] / 1000 or None
                self.connected, self._steady_at = True, time.monotonic() + STEADY_AFTER
                for refusal in event["refused"]:
                    self._refuse(refusal)
                self._settle(event["n"], event["rev"])
            case {"type": "state"}:
                self._state = event
                self._take_effect()
            case {"type": "users"}:
                self.users = event["count"]
            case {"type": "ack"}:
                self._settle(event["n"], event["rev"])
            case {"type": "error", "n": _}:
                self._refuse(event)
            case {"type": "error"}:
                logging.warning("not understood: %s", event["message"])
            case {"type": "retry"}:
                self._on_wire = min(self._on_wire, event["expected"] - 1)
                self._held_until = max(self._held_until, time.monotonic() + event["after_ms"] / 1000)
            case {"type": "bye"}:
                self._bye, self._silence = event["reconnect_after_ms"] / 1000, PATIENCE
        return True

    def _refuse(self, refusal):
        if own := self._mine.pop(refusal["n"], None):
            own.judge("refused", code=refusal["code"], message=refusal["message"])

    def _settle(self, n, rev):
        for settled in range(self._settled + 1, n + 1):
            if own := self._mine.get(settled):
                own.rev = rev
                own.judge("accepted", rev=rev)
        self._settled = max(self._settled, n)
        self._take_effect()

    def _take_effect(self):
        # Revisions of another epoch say nothing.
        shown = self._state["rev"] if self._state and self._state["epoch"] == self._epoch else -1
        self._mine = {n: own for n, own in self._mine.items() if own.rev is None or own.rev > shown}

    def _is_forgotten(self, welcome):
        if welcome["n"] < self._settled or self._epoch not in (None, welcome["epoch"]):
            return True
        # A clock that was set back says nothing.
        return welcome["n"] == 0 and bool(self._first_sent) and not 0 <= time.time() - self._first_sent < REMEMBERED

    def _give_up(self):
        """Nobody can tell whether what was sent counted; gives what was not, which is safe."""
        unsettled = [own for own in self._mine.values() if own.rev is None]
        for own in unsettled:
            if own.sent:
                self.unsure.append(own.action)
                own.judge("unsure")
        return [own for own in unsettled if not own.sent]

    def _take_fresh_id(self, mine):
        self._id, self._epoch, self._first_sent = str(uuid.uuid4()), None, None
        self._settled, self._last, self._window = 0, len(mine), 0
        self._mine = dict(enumerate(mine, 1))  # by their numbers

    def _end(self):
        for own in self._give_up():
            own.judge("unsent")
        self.ended, self.connected, self._mine = True, False, {}
        self._changed()

    def _changed(self):
        self._wake.set()
        asyncio.get_running_loop().call_soon(self._on_change, self)


def foreseen(value, action):
    """The counter after an action, as far as can be told before the room has judged it."""
    try:
        match action["action"]:
            case "plus":
                return value + action.get("by", 1)
            case "minus":
                return value - action.get("by", 1)
            case "set":
                return action["value"]
            case "reset":
                return 0
    except (KeyError, TypeError):  # no such action: the room will say so
        pass
    return value


async def main(url="ws://localhost:6789/"):
    """Acts by the lines of standard input, and prints what changes."""
    lines, loop, shown = asyncio.Queue(), asyncio.get_running_loop(), ""

    def read():
        for line in open(0, "rb", buffering=0):  # a buffer's lock would be in the way of Ctrl-C
            loop.call_soon_threadsafe(lines.put_nowait, line.decode().strip())
        loop.call_soon_threadsafe(lines.put_nowait, None)

    def show(room):
        nonlocal shown
        state = "ended" if room.ended else "connected" if room.connected else "away"
        before, shown = shown, f"{room.value} ({room.pending} pending, {room.users} users, {state})"
        if shown != before:
            print(shown, flush=True)

    async def tell(verdict):
        print(await verdict, flush=True)

    threading.Thread(target=read, daemon=True).start()
    async with Room(url, show) as room, asyncio.TaskGroup() as telling:
        while (line := await lines.get()) is not None:
            if found := re.fullmatch(r"([+-])(\d*)", line):
                action = {"action": "plus" if found[1] == "+" else "minus", "by": int(found[2] or 1)}
            elif found := re.fullmatch(r"=(-?\d+)", line):
                action = {"action": "set", "value": int(found[1])}
            else:
                print("lines are + - +5 -3 =7", flush=True)
                continue
            telling.create_task(tell(room.act(action)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
