// @ts-check
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import WebSocket from "ws";
import * as client from "../../static/client.js";
import { chooseLanguage, STRINGS } from "../../static/strings.js";
import { fakeWindow, startFake } from "./fake-server.js";
import { PATIENCE, until } from "./harness.js";

const { apiUrl, comesBack, connect, delay, socketUrl, UNKNOWN } = client;

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

test("a room's HTTP address follows from its page, and is never guessed", () => {
  assert.equal(apiUrl("http://a.test:6789/r/door?x#top"), "http://a.test:6789/api/rooms/door");
  assert.equal(apiUrl("/", "https://a.test/r/door"), "https://a.test/api/rooms/main");
  assert.equal(apiUrl("wss://a.test/r/x"), "https://a.test/api/rooms/x");
  assert.equal(apiUrl("https://a.test/sub/r/x"), "https://a.test/sub/api/rooms/x");
  for (const path of ["/sub/", "/sub", "/r/", "/r/a/b", "/r/a%20b"]) assert.equal(apiUrl(`http://a.test${path}`), null, path);
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
  /** @type {import("./fake-server.js").FakeServer} */
  let server;
  /** @type {import("../../static/client.js").Room | undefined} */
  let room;
  /** @type {import("../../static/client.js").Snapshot[]} */
  let seen;
  /** @type {any[]} */
  let errors;
  /** @type {ReturnType<typeof fakeWindow>} */
  let window;

  beforeEach(async () => {
    server = await startFake();
    server.room.value = 7;
    seen = [];
    errors = [];
    window = fakeWindow();
  });

  afterEach(async () => {
    room?.close();
    await server.kill();
  });

  /** @param {Partial<import("../../static/client.js").Options>} [options] */
  function open(options = {}) {
    const onerror = (/** @type {any} */ error) => errors.push(error);
    room = connect(`${server.url}/`, { onchange: (now) => seen.push(now), onerror, random: () => 0, window, ...options });
    return room;
  }

  /** @param {(now: import("../../static/client.js").Snapshot) => boolean} condition */
  const becomes = (condition) => until(() => room !== undefined && condition(room.snapshot), () => JSON.stringify(room?.snapshot));

  const isLive = (/** @type {{ connection: string }} */ now) => now.connection === "live";

  /** The connection of a room that is open, and what the server holds of it. */
  async function opened() {
    open();
    await becomes(isLive);
    return server.session();
  }

  /** The messages that the server has got are these numbers. */
  const got = (/** @type {import("./fake-server.js").FakeSession} */ session, /** @type {number[]} */ numbers) =>
    until(
      () => session.received.length >= numbers.length && JSON.stringify(session.received.map(({ n }) => n)) === JSON.stringify(numbers),
      () => JSON.stringify(session.received),
    );

  test("it names its dialect and its client, another one for each connection", async () => {
    /** @type {string[]} */
    const offered = [];
    window.WebSocket = /** @type {any} */ (
      class extends WebSocket {
        /**
         * @param {string} url
         * @param {string[]} protocols
         */
        constructor(url, protocols) {
          super(url, protocols);
          offered.push(...protocols);
        }
      }
    );
    await opened();
    room?.close();
    await opened();
    assert.deepEqual([offered[0], offered[2]], ["tallyroom.v1", "tallyroom.v1"]);
    for (const token of [offered[1], offered[3]]) {
      assert.match(token, /^client\.[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    assert.notEqual(offered[1], offered[3]);
  });

  test("it is live when the state has come, not before", async () => {
    server.onsession = (session) => {
      session.tell(server.room.welcome(session.client));
      session.tell({ type: "users", count: 2 });
    };
    open();
    await becomes((now) => now.users === 2);
    assert.equal(room?.snapshot.connection, "connecting");
    (await server.session()).tell(server.room.state());
    await becomes(isLive);
    assert.equal(room?.snapshot.value, 7);
  });

  test("each action is one message with its number", async () => {
    const session = await opened();
    assert.deepEqual([room?.plus(), room?.minus(), room?.send({ action: "set", value: 3, n: 99 })], [true, true, true]);
    assert.deepEqual([room?.snapshot.value, room?.snapshot.pending], [3, 3]);
    await got(session, [1, 2, 3]);
    assert.deepEqual(session.received, [
      { action: "plus", n: 1 },
      { action: "minus", n: 2 },
      { action: "set", value: 3, n: 3 },
    ]);
    await becomes((now) => now.pending === 0);
    assert.equal(server.room.value, 3);
  });

  test("an action is taken as it is when it is sent, and only an object is one", async () => {
    const session = await opened();
    const action = { action: "plus", by: 2 };
    room?.send(action);
    action.by = 3;
    await got(session, [1]);
    assert.equal(session.received[0].by, 2);
    for (const wrong of [null, 3, "plus", [], undefined]) assert.throws(() => room?.send(/** @type {any} */ (wrong)));
  });

  test("what somebody else's code throws is told, and keeps nothing from being sent", async (t) => {
    const told = t.mock.fn();
    globalThis.reportError = told;
    t.after(() => Reflect.deleteProperty(globalThis, "reportError"));
    const fail = () => {
      throw new Error("theirs");
    };
    open({ onchange: fail, onerror: fail, apply: fail });
    await becomes(isLive);
    room?.plus();
    room?.send({ action: "nonsense" });
    room?.plus();
    await becomes((now) => now.pending === 0 && now.value === 9);
    assert.ok(told.mock.callCount() > 3);
    assert.ok(told.mock.calls.every(({ arguments: [error] }) => error.message === "theirs"));
  });

  test("what is pressed before the server answers is seen with its first state, and sent", async () => {
    open();
    for (let presses = 0; presses < 3; presses += 1) assert.equal(room?.plus(), true);
    assert.deepEqual([room?.snapshot.value, room?.snapshot.pending], [null, 3]);
    await becomes((now) => isLive(now) && now.pending === 0);
    assert.equal(server.room.value, 10);
    assert.ok(seen.every(({ value }) => value === null || value === 10));
  });

  test("no more is on the wire than the window allows", async () => {
    server.room.window = 3;
    server.holds = true;
    const session = await opened();
    for (let presses = 0; presses < 8; presses += 1) room?.plus();
    await got(session, [1, 2, 3]);
    server.commit();
    await got(session, [1, 2, 3, 4, 5, 6]);
    server.commit();
    await got(session, [1, 2, 3, 4, 5, 6, 7, 8]);
    server.commit();
    await becomes((now) => now.pending === 0);
  });

  test("a refused action is told once, and taken back", async () => {
    server.room.max = 8;
    await opened();
    room?.plus();
    room?.send({ action: "plus", by: 4 });
    await becomes((now) => now.pending === 0);
    assert.equal(room?.snapshot.value, 8);
    assert.deepEqual(errors, [{ n: 2, code: "out_of_range", message: "no to 2", action: { action: "plus", by: 4 } }]);
  });

  test("what was refused while it was away is told by the welcome", async () => {
    server.room.max = 7;
    server.mute = true;
    const session = await opened();
    room?.plus();
    await until(() => server.room.known(session.client).n === 1, () => "nothing came");
    session.socket.terminate();
    await becomes((now) => isLive(now) && now.pending === 0);
    assert.equal(errors.length, 1);
    assert.equal(room?.snapshot.value, 7);
  });

  test("what is no JSON object is passed over, and a complaint is told", async () => {
    const session = await opened();
    for (const message of ["{", "null", "3", "[]", '{"type":"party"}', '{"type":"error","code":"a","message":"b"}']) session.socket.send(message);
    await until(() => errors.length > 0, () => "no error was told");
    assert.deepEqual(errors, [{ code: "a", message: "b" }]);
    assert.equal(room?.snapshot.connection, "live");
  });

  test("told to send again, it waits for the longest and sends once, from what is expected", async () => {
    server.holds = true;
    let expected = 0;
    server.onmessage = ({ n }, session) => {
      if (expected > 0) return false;
      session.tell({ type: "retry", n, expected: 2, code: n === 2 ? "rate_limited" : "gap", message: "", after_ms: n === 4 ? 60 : 20 });
      if (n === 4) expected = 2;
      return true;
    };
    const session = await opened();
    const begun = Date.now();
    server.room.known = () => ({ n: 1, at: Date.now(), refused: new Map(), answers: new Map() });
    for (let presses = 0; presses < 4; presses += 1) room?.plus();
    await got(session, [1, 2, 3, 4, 2, 3, 4]);
    assert.ok(Date.now() - begun >= 55, "it waited");
  });

  test("an answer that was lost after the commit is learned from the welcome: nothing is sent twice", async () => {
    server.mute = true;
    const first = await opened();
    room?.plus();
    room?.plus();
    await until(() => server.room.rev === 2, () => "nothing came");
    server.mute = false;
    first.socket.terminate();
    await becomes((now) => isLive(now) && now.pending === 0);
    const second = await server.session();
    assert.deepEqual([second.received, server.room.rev, room?.snapshot.value], [[], 2, 9]);
    assert.equal(second.client, first.client);
  });

  test("what was lost on its way is sent again", async () => {
    server.holds = true;
    const first = await opened();
    room?.plus();
    await got(first, [1]);
    server.room.crash();
    server.holds = false;
    first.socket.terminate();
    await becomes((now) => isLive(now) && now.pending === 0);
    assert.equal(server.room.value, 8);
    assert.deepEqual(seen.map(({ value }) => value).filter((value) => ![null, 7, 8].includes(value)), []);
  });

  test("presses while it is away are taken, seen and sent when it is back", async () => {
    await opened();
    await server.kill();
    await becomes((now) => now.connection === "waiting");
    for (let presses = 0; presses < 5; presses += 1) assert.equal(room?.plus(), true);
    assert.deepEqual([room?.snapshot.value, room?.snapshot.pending], [12, 5]);
    await server.start();
    await becomes((now) => isLive(now) && now.pending === 0);
    assert.deepEqual([server.room.value, room?.snapshot.value], [12, 12]);
  });

  test("forgotten, it takes a fresh id, sends what was never on a wire, and asks about the rest", async () => {
    server.holds = true;
    const first = await opened();
    room?.plus();
    room?.plus();
    await got(first, [1, 2]);
    await server.kill();
    await becomes((now) => now.connection === "waiting");
    room?.send({ action: "plus", by: 10 });
    room?.send({ action: "plus", by: 20 });
    server.room.wipe(100);
    server.holds = false;
    await server.start();
    await becomes((now) => isLive(now) && now.pending === 0 && now.unsure.length === 2);
    assert.equal(server.room.value, 130);
    const second = await server.session();
    assert.notEqual(second.client, first.client);
    assert.deepEqual(second.received.map(({ by, n }) => [by, n]), [[10, 1], [20, 2]]);
    assert.deepEqual(room?.snapshot.unsure.map(({ client, n, action }) => [client === first.client, n, action]), [
      [true, 1, { action: "plus" }],
      [true, 2, { action: "plus" }],
    ]);
    const [one, two] = room?.snapshot.unsure ?? [];
    assert.equal(await room?.resend([one]), 1);
    assert.equal(await room?.resend([one]), 0, "it is decided about once");
    assert.equal(await room?.discard([two]), 1);
    await until(() => server.room.value === 131, () => `${server.room.value}`);
    await becomes((now) => now.value === 131 && now.unsure.length === 0 && now.orphans === 0);
  });

  test("an epoch that changes on a living session asks about what was on the wire", async () => {
    server.holds = true;
    const first = await opened();
    room?.plus();
    await got(first, [1]);
    server.room.wipe(50);
    first.greet();
    await becomes((now) => isLive(now) && now.unsure.length === 1 && now.value === 50);
    assert.notEqual((await server.session()).client, first.client);
  });

  test("an epoch that changes under somebody who only looks changes only the value", async () => {
    const first = await opened();
    server.room.wipe(50);
    first.greet();
    await becomes((now) => now.value === 50);
    assert.equal(await server.session(), first);
    room?.plus();
    await becomes((now) => now.value === 51 && now.pending === 0);
  });

  for (const code of [1001, 1006, 1011, 1012, 1013]) {
    test(`it comes back after ${code}, and keeps showing the last value meanwhile`, async () => {
      const first = await opened();
      const before = seen.length;
      server.room.value = 8;
      server.room.rev = 1;
      if (code === 1006) first.socket.terminate();
      else first.socket.close(code);
      await becomes((now) => isLive(now) && now.value === 8);
      const states = seen.slice(before).map((now) => now.connection);
      assert.deepEqual([...new Set(states)], ["waiting", "connecting", "live"]);
      assert.ok(seen.slice(before).every((now) => now.connection === "live" || (now.value === 7 && now.accepts)));
    });
  }

  for (const code of [1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409]) {
    test(`it stays away after ${code} until it is told to connect again`, async () => {
      const first = await opened();
      first.socket.close(code);
      await becomes((now) => now.connection === "closed");
      const { users } = seen[seen.length - 1];
      assert.deepEqual({ ...room?.snapshot }, { ...UNKNOWN, connection: "closed", accepts: false, value: 7, users, code });
      assert.equal(room?.plus(), false);
      window.dispatchEvent(new Event("online"));
      window.document.dispatchEvent(new Event("visibilitychange"));
      assert.equal(room?.snapshot.connection, "closed");
      room?.retryNow();
      await becomes((now) => isLive(now) && now.code === null);
      assert.equal(room?.plus(), true);
      await becomes((now) => now.pending === 0);
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
      await becomes(isLive);
      (await server.session()).socket.close(1012);
      await becomes((now) => now.connection === "waiting");
      window.document.visibilityState = "visible";
      wake(window);
      assert.equal(room?.snapshot.connection, "connecting");
      await becomes(isLive);
    });
  }

  test("after a bye it comes back when the server said", async () => {
    const first = await opened();
    first.tell({ type: "bye", code: 1012, reconnect_after_ms: 1840 });
    first.socket.close(1012);
    await becomes((now) => now.connection === "waiting");
    const pause = (room?.snapshot.retryAt ?? 0) - Date.now();
    assert.ok(pause > 1000 && pause <= 1840, `it waits ${pause} ms`);
  });

  test("what is pressed after a bye waits for the next session", async () => {
    const first = await opened();
    first.tell({ type: "bye", code: 1012, reconnect_after_ms: 0 });
    first.tell({ type: "error", code: "mark", message: "" });
    await until(() => errors.length > 0, () => "the mark did not come");
    room?.plus();
    await becomes((now) => now.durable === false && now.pending === 1);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(first.received, []);
    first.socket.close(1012);
    await becomes((now) => isLive(now) && now.pending === 0);
    assert.equal(server.room.value, 8);
  });

  test("a server that says nothing for twice a beat is left, and found again", async () => {
    server.onsession = (session) => {
      session.tell({ ...server.room.welcome(session.client), beat_ms: 40 });
      session.tell(server.room.state());
    };
    open();
    await becomes(isLive);
    await becomes((now) => now.connection === "waiting");
    await becomes(isLive);
  });

  test("a beat is enough to stay, and where there are none silence says nothing", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const { socket, tell } = mockSocket(() => 0.5);
    tell({ ...server.room.welcome("c"), beat_ms: 20_000 });
    tell(server.room.state());
    for (let beats = 0; beats < 3; beats += 1) {
      t.mock.timers.tick(39_999);
      tell({ type: "beat" });
    }
    assert.equal(room?.snapshot.connection, "live");
    t.mock.timers.tick(40_000);
    assert.equal(socket.closed, true);
    assert.equal(room?.snapshot.connection, "waiting");
    t.mock.timers.tick(250);
    const next = sockets[1];
    next.onmessage({ data: JSON.stringify({ ...server.room.welcome("c"), beat_ms: 0 }) });
    next.onmessage({ data: JSON.stringify(server.room.state()) });
    t.mock.timers.tick(10_000_000);
    assert.equal(room?.snapshot.connection, "live");
  });

  test("without a network it says so, and a socket over it is not trusted", async () => {
    await opened();
    window.navigator.onLine = false;
    window.dispatchEvent(new Event("offline"));
    assert.equal(room?.snapshot.connection, "offline");
    window.navigator.onLine = true;
    window.dispatchEvent(new Event("online"));
    await becomes(isLive);
  });

  test("an attempt that does not open within 10 s is given up and tried again", (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const { socket } = mockSocket(() => 0.5);
    t.mock.timers.tick(9_999);
    assert.equal(sockets.length, 1);
    t.mock.timers.tick(1);
    assert.equal(socket.closed, true);
    assert.equal(room?.snapshot.connection, "waiting");
    t.mock.timers.tick(250);
    assert.equal(sockets.length, 2);
    assert.equal(room?.snapshot.connection, "connecting");
  });

  test("a server that accepts and fails at once does not bring the pauses back to the start", async () => {
    const random = mock.fn(() => 0.1);
    const pauses = /** @type {number[]} */ ([]);
    server.onsession = ({ socket }) => socket.close(1011);
    open({
      random,
      onchange: (now) => now.connection === "waiting" && pauses.push((now.retryAt ?? 0) - Date.now()),
    });
    await until(() => pauses.length === 4, () => `${pauses}`);
    assert.ok(random.mock.callCount() >= 4, "each pause is drawn anew");
    assert.ok(pauses[3] > 300 && pauses[3] <= 400, `the fourth pause is ${pauses[3]} ms`);
  });

  test("closed by its user it stays closed", async () => {
    const { socket } = await opened();
    room?.close();
    await once(socket, "close", { signal: AbortSignal.timeout(PATIENCE) });
    assert.equal(room?.snapshot.connection, "closed");
    assert.equal(room?.plus(), false);
    room?.retryNow();
    assert.equal(room?.snapshot.connection, "closed");
  });

  /** @type {any[]} */
  let sockets = [];
  /** A room whose sockets open nothing. */
  function mockSocket(random = () => 0) {
    sockets = [];
    class Silent {
      constructor() {
        sockets.push(this);
      }
      close() {
        Object.assign(this, { closed: true });
      }
    }
    room = connect("http://a.test/", { random, window: { ...fakeWindow(), WebSocket: Silent } });
    const [socket] = sockets;
    return { socket, tell: (/** @type {object} */ event) => socket.onmessage({ data: JSON.stringify(event) }) };
  }
});
