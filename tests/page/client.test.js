// @ts-check
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import WebSocket, { WebSocketServer } from "ws";
import * as client from "../../static/client.js";
import { chooseLanguage, STRINGS } from "../../static/strings.js";

const { comesBack, connect, delay, merge, socketUrl, UNKNOWN } = client;

describe("what is shown", () => {
  test("a state sets the value and makes the room live", () => {
    const shown = merge(UNKNOWN, { type: "state", value: -3 });
    assert.deepEqual(shown, { ...UNKNOWN, connection: "live", accepts: true, value: -3 });
  });

  test("a count of users changes only the users", () => {
    assert.deepEqual(merge(UNKNOWN, { type: "users", count: 4 }), { ...UNKNOWN, users: 4 });
  });

  test("fields that are not known are passed over", () => {
    const shown = merge(UNKNOWN, { type: "state", value: 1, rev: 9, users: 7, connection: "closed" });
    assert.deepEqual(shown, { ...UNKNOWN, connection: "live", accepts: true, value: 1 });
  });

  test("an event that is not known changes nothing", () => {
    const odd = [null, undefined, 3, "state", [], {}, { type: "beat" }, { type: "state" }, { type: "users" }];
    const counts = [-1, 1.5, "3", null].map((count) => ({ type: "users", count }));
    for (const event of [...odd, ...counts]) assert.equal(merge(UNKNOWN, event), UNKNOWN);
  });

  test("merging leaves the snapshot before as it was", () => {
    const before = Object.freeze({ ...UNKNOWN });
    merge(before, { type: "state", value: 1 });
    assert.deepEqual(before, UNKNOWN);
  });
});

describe("coming back", () => {
  test("it comes back after a cut, a fault, a restart and being too slow", () => {
    for (const code of [1001, 1005, 1006, 1011, 1012, 1013]) assert.equal(comesBack(code), true, String(code));
  });

  test("it does not come back where that is of no use", () => {
    for (const code of [1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409]) assert.equal(comesBack(code), false, String(code));
  });

  test("the first try follows within half a second", () => {
    assert.equal(delay(0, 0), 0);
    assert.ok(delay(0, 0.999) <= 500);
  });

  test("the pauses grow up to 15 s while visible, and to a minute while hidden", () => {
    assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 2000].map((tries) => delay(tries, 0.5)), [250, 500, 1000, 2000, 4000, 7500, 7500, 7500]);
    assert.ok(delay(50, 0.999999) <= 15_000);
    assert.ok(delay(50, 0.999999, false) <= 60_000);
    assert.ok(delay(50, 0.999999, false) > 15_000);
  });

  test("the whole pause is drawn", () => {
    for (const tries of [0, 3, 9]) assert.equal(delay(tries, 0), 0);
  });
});

test("a room's page is its socket's address", () => {
  assert.equal(socketUrl("http://a.test:6789/r/door#top"), "ws://a.test:6789/r/door");
  assert.equal(socketUrl("/", "https://a.test/r/door"), "wss://a.test/");
  assert.equal(socketUrl("ws://a.test/r/x"), "ws://a.test/r/x");
});

test("the declarations name what the client exports", async () => {
  const declared = await readFile(new URL("../../static/client.d.ts", import.meta.url), "utf8");
  const names = [...declared.matchAll(/^export (?:function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(names.sort(), Object.keys(client).sort());
});

describe("languages", () => {
  test("each reader gets the first language of theirs that the page speaks", () => {
    /** @type {[string[], string][]} */
    const cases = [
      [["zh-CN"], "zh-Hans"],
      [["zh"], "zh-Hans"],
      [["zh-SG"], "zh-Hans"],
      [["zh-Hans-HK"], "zh-Hans"],
      [["zh-TW"], "zh-Hant"],
      [["zh-HK"], "zh-Hant"],
      [["zh-MO"], "zh-Hant"],
      [["zh-Hant"], "zh-Hant"],
      [["fr-CA"], "fr"],
      [["en-US", "fr"], "en"],
      [["de-DE", "fr-FR", "en"], "fr"],
      [["de-DE"], "en"],
      [[], "en"],
    ];
    for (const [languages, expected] of cases) assert.equal(chooseLanguage(languages), expected, languages.join());
  });

  test("each language says everything", () => {
    const shape = (/** @type {object} */ strings) => Object.entries(strings).map(([key, value]) => `${key}:${typeof value}`);
    for (const strings of Object.values(STRINGS)) {
      assert.deepEqual(shape(strings), shape(STRINGS.en));
      assert.deepEqual(Object.keys(strings.ended), Object.keys(STRINGS.en.ended));
      assert.equal(/\d+/.exec(strings.users(1234))?.[0], "1234");
    }
  });
});

describe("a connection", () => {
  /** @type {WebSocketServer} */
  let server;
  /** @type {import("../../static/client.js").Room | undefined} */
  let room;
  /** @type {import("../../static/client.js").Snapshot[]} */
  let seen;
  /** @type {ReturnType<typeof fakeWindow>} */
  let window;

  beforeEach(async () => {
    server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
    await once(server, "listening");
    seen = [];
    window = fakeWindow();
  });

  afterEach(async () => {
    room?.close();
    for (const socket of server.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
  });

  /** @param {Partial<import("../../static/client.js").Options>} [options] */
  function open(options = {}) {
    const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
    room = connect(`http://127.0.0.1:${port}/`, { onchange: (now) => seen.push(now), random: () => 0, window, ...options });
    return room;
  }

  /** The next session, once it is open; it is told a state unless `value` is null. */
  async function session(/** @type {number | null} */ value = 7) {
    const [socket] = await once(server, "connection");
    if (value !== null) socket.send(JSON.stringify({ type: "state", value }));
    return /** @type {WebSocket} */ (socket);
  }

  /** @param {(now: import("../../static/client.js").Snapshot) => boolean} condition */
  async function becomes(condition) {
    const deadline = Date.now() + 10_000;
    while (!(room && condition(room.snapshot))) {
      if (Date.now() > deadline) assert.fail(JSON.stringify(room?.snapshot));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  const isLive = (/** @type {{ connection: string }} */ now) => now.connection === "live";

  test("it is live when the state has come, not before", async () => {
    open();
    const socket = await session(null);
    socket.send(JSON.stringify({ type: "users", count: 2 }));
    await becomes((now) => now.users === 2);
    assert.equal(room?.snapshot.connection, "connecting");
    assert.equal(room?.plus(), false);
    socket.send(JSON.stringify({ type: "state", value: 5 }));
    await becomes(isLive);
    assert.equal(room?.snapshot.value, 5);
  });

  test("each action is one message", async () => {
    open();
    const socket = await session();
    await becomes(isLive);
    const messages = /** @type {string[]} */ ([]);
    socket.on("message", (data) => messages.push(String(data)));
    assert.deepEqual([room?.plus(), room?.minus(), room?.send({ action: "set", value: 3 })], [true, true, true]);
    while (messages.length < 3) await once(socket, "message");
    assert.deepEqual(messages, ['{"action":"plus"}', '{"action":"minus"}', '{"action":"set","value":3}']);
  });

  test("what is no JSON object is passed over, and an error is told", async () => {
    const errors = /** @type {any[]} */ ([]);
    open({ onerror: (error) => errors.push(error) });
    const socket = await session(null);
    for (const message of ["{", "null", "3", "[]", '{"type":"error","code":"a","message":"b","n":1}']) socket.send(message);
    socket.send('{"type":"state","value":1}');
    await becomes(isLive);
    assert.deepEqual(errors, [{ code: "a", message: "b" }]);
  });

  for (const code of [1001, 1006, 1011, 1012, 1013]) {
    test(`it comes back after ${code}, and keeps showing the last value meanwhile`, async () => {
      open();
      const first = await session(7);
      await becomes(isLive);
      if (code === 1006) first.terminate();
      else first.close(code);
      await session(8);
      await becomes((now) => isLive(now) && now.value === 8);
      const states = seen.map((now) => now.connection);
      assert.deepEqual(states, ["live", "waiting", "connecting", "live"].concat(states.slice(4)));
      assert.ok(seen.slice(1, 3).every((now) => now.value === 7 && !now.accepts));
    });
  }

  for (const code of [1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409]) {
    test(`it stays away after ${code} until it is told to connect again`, async () => {
      open();
      const first = await session();
      await becomes(isLive);
      first.close(code);
      await becomes((now) => now.connection === "closed");
      assert.deepEqual({ ...room?.snapshot }, { ...UNKNOWN, connection: "closed", value: 7, code });
      window.dispatchEvent(new Event("online"));
      window.document.dispatchEvent(new Event("visibilitychange"));
      assert.equal(room?.snapshot.connection, "closed");
      room?.retryNow();
      await session(9);
      await becomes((now) => isLive(now) && now.value === 9);
    });
  }

  for (const [name, wake] of /** @type {[string, (w: any) => void][]} */ ([
    ["somebody looks again", (w) => w.document.dispatchEvent(new Event("visibilitychange"))],
    ["the network is back", (w) => w.dispatchEvent(new Event("online"))],
    ["the page is restored", (w) => w.dispatchEvent(new Event("pageshow"))],
  ])) {
    test(`it comes back at once when ${name}`, async () => {
      window.document.visibilityState = "hidden";
      open({ random: () => 0.99 });
      (await session()).close(1012);
      await becomes((now) => now.connection === "waiting");
      window.document.visibilityState = "visible";
      wake(window);
      assert.equal(room?.snapshot.connection, "connecting");
      await session();
      await becomes(isLive);
    });
  }

  test("without a network it says so, and a socket over it is not trusted", async () => {
    open();
    await session();
    await becomes(isLive);
    window.navigator.onLine = false;
    window.dispatchEvent(new Event("offline"));
    assert.equal(room?.snapshot.connection, "offline");
    window.navigator.onLine = true;
    window.dispatchEvent(new Event("online"));
    await session();
    await becomes(isLive);
  });

  test("an attempt that does not open within 10 s is given up and tried again", (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const sockets = /** @type {any[]} */ ([]);
    class Silent {
      constructor() {
        sockets.push(this);
      }
      close() {
        this.closed = true;
      }
    }
    room = connect("http://a.test/", { random: () => 0.5, window: { ...fakeWindow(), WebSocket: Silent } });
    t.mock.timers.tick(9_999);
    assert.equal(sockets.length, 1);
    t.mock.timers.tick(1);
    assert.equal(sockets[0].closed, true);
    assert.equal(room.snapshot.connection, "waiting");
    t.mock.timers.tick(250);
    assert.equal(sockets.length, 2);
    assert.equal(room.snapshot.connection, "connecting");
    room.close();
  });

  test("a server that accepts and fails at once does not bring the pauses back to the start", async () => {
    const random = mock.fn(() => 0.1);
    const pauses = /** @type {number[]} */ ([]);
    open({
      random,
      onchange: (now) => now.connection === "waiting" && pauses.push((now.retryAt ?? 0) - Date.now()),
    });
    for (let tries = 0; tries < 4; tries += 1) (await session()).close(1011);
    await becomes(() => pauses.length === 4);
    assert.equal(random.mock.callCount(), 4, "each pause is drawn anew");
    assert.ok(pauses[3] > 300 && pauses[3] <= 400, `the fourth pause is ${pauses[3]} ms`);
  });

  test("closed by its user it stays closed", async () => {
    open();
    const socket = await session();
    await becomes(isLive);
    room?.close();
    await once(socket, "close");
    assert.equal(room?.snapshot.connection, "closed");
    assert.equal(room?.plus(), false);
  });
});

/** As much of a browser's window as the client asks for. */
function fakeWindow() {
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  return Object.assign(new EventTarget(), { WebSocket, document, navigator: { onLine: true } });
}
