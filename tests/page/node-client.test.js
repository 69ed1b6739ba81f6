// @ts-check
/** The client of examples/clients/counter.mjs: the protocol's conversations; then the real server, killed and cut off. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { forClients, hold } from "./conversation.js";
import { PATIENCE, inTime, ownLoopback, scratch, startServer, until } from "./harness.js";
import { startProxy } from "./proxy.js";
import { mulberry32 } from "./random.js";

const program = new URL("../../examples/clients/counter.mjs", import.meta.url);
/** Not seen by TypeScript: it is written for people who use none. */
const { Room } = await import(program.href);
const PLUS = { action: "plus" };

// Pauses that are as short as they may be drawn, on the whole.
const draw = Math.random;
mock.method(Math, "random", () => draw() / 10);
mock.method(console, "warn", () => {});

/** @param {string} url */
function open(url) {
  const room = new Room(url);
  /** @type {string[]} */
  const refused = [];
  return {
    act: async (/** @type {any} */ action) => {
      const { verdict, code } = await room.act(action);
      if (verdict === "refused") refused.push(code);
    },
    shown() {
      const { value, pending, users, unsure, ended } = room;
      return { value, pending, users, refused, unsure: unsure.length, ended };
    },
    isCut: () => !room.connected,
    close: () => room.close(),
  };
}

for (const { name, title, ...conversation } of await forClients()) test(`${name}: ${title}`, () => hold(conversation, open));

describe("a scripted server", () => {
  /** @type {WebSocketServer} */
  let server;
  /** @type {any} */
  let room;
  /** @type {{ socket: import("ws").WebSocket, client: string, received: any[] }[]} */
  let arrivals;

  beforeEach(async () => {
    arrivals = [];
    server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "tallyroom.v1" });
    server.on("connection", (socket, request) => {
      const [, client] = /client\.(\S+)/.exec(request.headers["sec-websocket-protocol"] ?? "") ?? [];
      /** @type {any[]} */
      const received = [];
      socket.on("message", (data) => received.push(JSON.parse(String(data))));
      arrivals.push({ socket, client, received });
    });
    await once(server, "listening");
    room = new Room(`ws://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}/`);
  });
  afterEach(async () => {
    room.close();
    for (const socket of server.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
  });

  /** The next connection, which is welcomed. */
  async function arrival(fields = {}) {
    await until(() => arrivals.length > 0, () => "it does not come");
    const came = arrivals.shift() ?? assert.fail();
    const welcome = { type: "welcome", epoch: "e1", rev: 0, n: 0, window: 1024, refused: [], beat_ms: 20_000, ...fields };
    came.socket.send(JSON.stringify(welcome));
    return came;
  }

  /** @param {any[]} received @param {any[]} expected */
  async function hears(received, expected) {
    await until(() => received.length >= expected.length, () => `only ${JSON.stringify(received)} is sent`);
    assert.deepEqual(received, expected);
  }

  /** @param {Promise<{ verdict: string }>} act */
  const verdict = async (act) => (await inTime(act, () => "there is no verdict")).verdict;

  /** Acts once, is cut off, and finds a room that knows nothing of it when so much time seems to have gone by. */
  async function comesBackAfter(/** @type {number} */ ms) {
    const first = await arrival();
    const act = room.act(PLUS);
    await hears(first.received, [{ ...PLUS, n: 1 }]);
    const { now } = Date;
    const clock = mock.method(Date, "now", () => now() + ms);
    try {
      first.socket.terminate();
      const second = await arrival();
      assert.equal(second.client, first.client);
      if (Math.abs(ms) < 3_540_000) await hears(second.received, [{ ...PLUS, n: 1 }]);
      else assert.equal(await verdict(act), "unsure");
    } finally {
      clock.mock.restore();
    }
    return first;
  }

  test("is not sent a first action again that was without an answer for an hour", async () => {
    await comesBackAfter(3_600_000);
    const { client } = await comesBackAfter(-3_600_000);
    assert.deepEqual(room.unsure, [PLUS, PLUS]);
    assert.notEqual((await arrival()).client, client);
  });

  test("is sent a first action again that was without an answer for less", async () => {
    await comesBackAfter(3_500_000);
    assert.deepEqual(room.unsure, []);
  });

  test("ends it: what waits is told apart", async () => {
    const { socket, received } = await arrival({ window: 1 });
    const acts = [room.act(PLUS), room.act(PLUS)];
    await hears(received, [{ ...PLUS, n: 1 }]);
    socket.close(4409);
    assert.deepEqual(await Promise.all(acts.map(verdict)), ["unsure", "unsent"]);
    assert.equal(await verdict(room.act(PLUS)), "unsent");
  });

  test("says by a bye when to come back", async () => {
    const { socket } = await arrival();
    socket.send(JSON.stringify({ type: "bye", code: 1012, reconnect_after_ms: 700 }));
    const closed = performance.now();
    socket.close(1012);
    await arrival();
    assert.ok(performance.now() - closed >= 680);
  });
});

describe("the real server", () => {
  const CLIENTS = 4;
  const EACH = 60;
  const REFUSED = 20;

  /** @type {Awaited<ReturnType<typeof scratch>>} */
  let folder;
  /** @type {Awaited<ReturnType<typeof startServer>>} */
  let server;
  let place = { host: "", port: 0 };
  /** @type {any[]} */
  let rooms;
  /** @type {{ verdict: string }[]} */
  let verdicts;
  /** Called at each change of a room. */
  let onchange = () => {};

  beforeEach(async () => {
    folder = await scratch();
    place = { host: ownLoopback(), port: 0 };
    [rooms, verdicts] = [[], []];
    onchange = () => {};
    await serve();
  });
  afterEach(async () => {
    for (const room of rooms) room.close();
    await server.kill();
    await folder.remove();
  });

  /** Starts the server on this test's data, where it was before. */
  async function serve() {
    server = await startServer({ ...place, store: `disk:${join(folder.path, "data")}` });
    place.port = server.port;
  }

  /** @param {string} path */
  const get = async (path) => (await fetch(`${server.url}${path}`, { signal: AbortSignal.timeout(PATIENCE) })).text();

  /** Opens the rooms, of which the last pluses are refused. @param {string} url */
  async function enter(url) {
    rooms = Array.from({ length: CLIENTS }, () => new Room(`${url.replace("http", "ws")}/r/door`, () => onchange()));
    const { verdict } = await inTime(rooms[0].act({ action: "limits", max: CLIENTS * EACH - REFUSED }), () => "it cannot act");
    assert.equal(verdict, "accepted");
  }

  /** Each client acts, a few actions at a time, until all have their verdict. */
  async function actAll() {
    const act = async (/** @type {any} */ room) => {
      for (let time = 0; time < EACH / 5; time += 1) {
        verdicts.push(...(await Promise.all(Array.from({ length: 5 }, () => room.act(PLUS)))));
      }
    };
    await Promise.all(rooms.map(act));
  }

  async function assertEachCountedOnce() {
    const count = (/** @type {string} */ wanted) => verdicts.filter(({ verdict }) => verdict === wanted).length;
    const accepted = CLIENTS * EACH - REFUSED;
    assert.deepEqual([count("accepted"), count("refused")], [accepted, REFUSED]);
    const { value, rev } = JSON.parse(await get("/api/rooms/door"));
    assert.deepEqual([value, rev], [accepted, accepted + 1]);
    const entries = (await get("/api/rooms/door/journal")).trim().split("\n").map((line) => JSON.parse(line));
    assert.equal(new Set(entries.map(({ client, n }) => `${client}:${n}`)).size, accepted + 1);
    assert.equal(new Set(entries.map(({ client }) => client)).size, CLIENTS);
    for (const room of rooms) await until(() => room.value === value && room.pending === 0, () => `it shows ${room.value}`);
  }

  test("counts each action once while it is killed", async () => {
    await enter(server.url);
    const kill = async () => {
      for (let kills = 1; kills <= 4; kills += 1) {
        await until(() => verdicts.length >= 40 * kills, () => "it comes to a halt");
        await server.kill();
        await serve();
      }
    };
    await Promise.all([actAll(), kill()]);
    await assertEachCountedOnce();
  });

  test("counts each action once while connections are cut", async () => {
    const seed = Number(process.env.TALLYROOM_TEST_SEED ?? randomInt(2 ** 32));
    console.error(`TALLYROOM_TEST_SEED=${seed}`);
    const lots = mulberry32(seed);
    const proxy = await startProxy(server);
    await enter(proxy.url);
    let cuts = 0;
    let left = 10;
    // As many changes may be told between two cuts as the lot says.
    onchange = () => {
      left -= 1;
      if (left > 0 || cuts === 30) return;
      left = 1 + Math.floor(lots() * 60);
      cuts += 1;
      proxy.cut();
    };
    await actAll();
    await assertEachCountedOnce();
    assert.ok(cuts > 5, `only ${cuts} cuts`);
    for (const room of rooms) room.close();
    await proxy.stop();
  });

  test("is told the lines that the program reads", async () => {
    const ran = spawn(process.execPath, [fileURLToPath(program), `${server.url.replace("http", "ws")}/r/lines`]);
    ran.stdin.end("+\n+5\n-3\nup\n=-7\n-2\n");
    const ended = once(ran, "exit", { signal: AbortSignal.timeout(PATIENCE) });
    const [out, err, [code]] = await Promise.all([text(ran.stdout), text(ran.stderr), ended]);
    assert.deepEqual([code, err], [0, ""]);
    assert.equal(out.match(/'accepted'/g)?.length, 5, out);
    assert.match(out, /lines are/);
    assert.equal(JSON.parse(await get("/api/rooms/lines")).value, -9);
  });
});
