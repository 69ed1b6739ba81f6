// @ts-check
/** Actions whose page is gone are sent by another page of the same browser, exactly once. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import { connect } from "../../static/client.js";
import { fakeWindow, startFake } from "./fake-server.js";
import { until } from "./harness.js";

const PLUS = { action: "plus" };

/** @type {import("./fake-server.js").FakeServer} */
let server;
/** @type {any} one browser: its pages share it */
let disk;
/** @type {import("../../static/client.js").Room[]} */
let pages;
/** @type {any[]} */
let errors;

beforeEach(async () => {
  server = await startFake();
  disk = { indexedDB: new IDBFactory(), IDBKeyRange };
  pages = [];
  errors = [];
});
afterEach(async () => {
  for (const page of pages) page.close();
  await server.kill();
});

/** @param {object} [more] what this page's window has beyond the browser's */
function openPage(more = {}) {
  const page = connect(`${server.url}/`, {
    random: () => 0,
    window: fakeWindow({ ...disk, ...more }),
    onerror: (error) => errors.push(error),
  });
  pages.push(page);
  return page;
}

/**
 * @param {import("../../static/client.js").Room} page
 * @param {(now: import("../../static/client.js").Snapshot) => boolean} condition
 */
const becomes = (page, condition) => until(() => condition(page.snapshot), () => JSON.stringify(page.snapshot));
const isIdle = (/** @type {import("../../static/client.js").Snapshot} */ now) => now.connection === "live" && now.pending === 0 && now.orphans === 0;
const posts = () => server.requests.filter(({ method }) => method === "POST");

/** What is on the disk, once it is as many. */
async function stored(/** @type {number} */ count) {
  let found = /** @type {any[]} */ ([]);
  await until(
    async () => {
      found = await readDisk();
      return found.length === count;
    },
    () => JSON.stringify(found),
  );
  return found;
}

function readDisk() {
  return new Promise((resolve) => {
    const opening = disk.indexedDB.open("tallyroom", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("actions", { keyPath: ["client", "n"] });
    opening.onsuccess = () => {
      const asked = opening.result.transaction("actions").objectStore("actions").getAll();
      asked.onsuccess = () => {
        opening.result.close();
        resolve(asked.result);
      };
    };
  });
}

/** A page that goes away with presses that were never sent: the server was not there. */
async function leave(times = 3) {
  await server.kill();
  const page = openPage();
  for (let press = 0; press < times; press += 1) page.plus();
  const left = await stored(times);
  page.close();
  return left;
}

/** A page that goes away while the server knows of its presses, and the page not of their verdicts. */
async function leaveUnanswered(times = 2) {
  server.mute = true;
  const page = openPage();
  await becomes(page, (now) => now.connection === "live");
  for (let press = 0; press < times; press += 1) page.plus();
  await until(() => server.room.rev === times, () => `${server.room.rev}`);
  page.close();
  server.mute = false;
  return stored(times);
}

describe("what a page left behind", () => {
  test("while the server was away is sent by the next page, in order, under the stored numbers", async () => {
    const left = await leave();
    assert.deepEqual(left.map(({ n, wired, epoch }) => [n, wired, epoch]), [[1, false, null], [2, false, null], [3, false, null]]);
    const page = openPage();
    await becomes(page, (now) => now.orphans === 3);
    assert.equal(page.snapshot.pending, 0);
    await server.start();
    await becomes(page, (now) => isIdle(now) && now.value === 3);
    assert.deepEqual(posts().map(({ key }) => key), [1, 2, 3].map((n) => `${left[0].client}:${n}`));
    await stored(0);
  });

  test("is marked before it is posted", async () => {
    await leave(1);
    /** @type {any[]} */
    let seen = [];
    server.onrequest = (request, response) => {
      if (request.method !== "POST" || seen.length > 0) return false;
      readDisk().then((/** @type {any} */ rows) => {
        seen = rows;
        response.destroy();
      });
      return true;
    };
    await server.start();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.value === 1);
    assert.deepEqual(seen.map(({ wired, epoch }) => [wired, epoch]), [[true, server.room.epoch]]);
  });

  test("and was settled, with the answer lost, is not applied again", async () => {
    await leaveUnanswered();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.value === 2);
    await stored(0);
    assert.equal(server.room.value, 2);
  });

  test("is posted until it is answered: cut, over a limit, not ready, full, or out of step", async () => {
    const [{ client }] = await leave(2);
    /** @type {(() => { status: number, body: any, after?: string } | null)[]} */
    const faults = [
      () => null,
      () => ({ status: 429, body: { code: "rate_limited" }, after: "1" }),
      () => ({ status: 503, body: { code: "unavailable" } }),
      () => ({ status: 507, body: { code: "store_full" } }),
      () => ({ status: 409, body: { code: "gap", expected: 1 } }),
      () => ({ status: 502, body: "<html>" }),
      () => ({ status: 403, body: { code: "forbidden" } }),
    ];
    server.onrequest = (request, response) => {
      const fault = request.method === "POST" ? faults.shift() : undefined;
      if (!fault) return false;
      const told = fault();
      if (!told) response.destroy();
      else response.writeHead(told.status, told.after ? { "Retry-After": told.after } : {}).end(JSON.stringify(told.body));
      return true;
    };
    await server.start();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.value === 2);
    assert.deepEqual([...new Set(posts().map(({ key }) => key))], [`${client}:1`, `${client}:2`]);
    assert.deepEqual(errors, []);
  });

  test("and is refused is told once", async () => {
    await leave(1);
    server.room.max = 0;
    await server.start();
    const page = openPage();
    await becomes(page, isIdle);
    await stored(0);
    assert.deepEqual(errors, [{ n: 1, code: "out_of_range", message: "no to 1", action: PLUS }]);
  });

  test("is sent once by many pages that all find it", async () => {
    await leave(5);
    await server.start();
    const found = Array.from({ length: 4 }, () => openPage({ BroadcastChannel: undefined }));
    for (const page of found) await becomes(page, (now) => isIdle(now) && now.value === 5);
    assert.equal(server.room.rev, 5);
    await stored(0);
  });

  test("and its page lives after all: each press still counts once", async () => {
    await server.kill();
    const asleep = openPage({ BroadcastChannel: undefined });
    for (let press = 0; press < 3; press += 1) asleep.plus();
    await stored(3);
    server.onsession = (session) => (session.client === "" ? undefined : session.greet());
    await server.start();
    const awake = openPage();
    await becomes(awake, (now) => isIdle(now) && now.value === 3);
    await becomes(asleep, (now) => isIdle(now) && now.value === 3);
    asleep.plus();
    await becomes(awake, (now) => now.value === 4);
    assert.equal(server.room.rev, 4);
  });

  test("and is too large to be taken, ever, holds up nothing: the user is asked about it", async () => {
    const [{ client }] = await leave(2);
    server.onrequest = (_, response, body) => {
      if (!body || server.requests.some(({ key }) => key && key !== `${client}:1`)) return false;
      response.writeHead(413).end(JSON.stringify({ code: "too_large" }));
      return true;
    };
    await server.start();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 1 && now.value === 1);
    assert.equal(page.snapshot.unsure[0].n, 1);
  });

  test("is left to a page that says it is there", async () => {
    server.holds = true;
    const first = openPage({ BroadcastChannel });
    await becomes(first, (now) => now.connection === "live");
    first.plus();
    await until(() => server.room.flying.length === 1, () => "nothing came");
    const second = openPage({ BroadcastChannel });
    await becomes(second, (now) => now.connection === "live");
    // A third one that nobody answers finds the action, after the second has looked for as long.
    await becomes(openPage(), (now) => now.orphans === 1);
    assert.equal(second.snapshot.orphans, 0);
    server.holds = false;
    server.commit();
    await becomes(second, (now) => now.value === 1);
  });

  test("for another room is sent, too", async () => {
    await leave(2);
    await server.start();
    const page = connect(`${server.url}/r/elsewhere`, { random: () => 0, window: fakeWindow(disk) });
    pages.push(page);
    await stored(0);
    assert.deepEqual([page.snapshot.orphans, posts().every(({ path }) => path === "/api/rooms/main/actions")], [0, true]);
    assert.equal(server.room.value, 2);
  });
});

describe("a room that was wiped meanwhile", () => {
  test("gets what was never on a wire once, and the user is asked about the rest", async () => {
    const [{ client }] = await leaveUnanswered(2);
    await server.kill();
    const later = openPage();
    later.plus();
    await stored(3);
    later.close();
    server.room.wipe(10);
    await server.start();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 2 && now.value === 11);
    assert.deepEqual(page.snapshot.unsure, [1, 2].map((n) => ({ client, n, action: PLUS })));
    const other = openPage();
    await becomes(other, (now) => isIdle(now) && now.unsure.length === 2);
    assert.equal(server.room.rev, 1, "nobody sends them by himself");
    assert.deepEqual([await page.resend(), await other.resend(), await other.discard()], [2, 0, 0]);
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 0 && now.value === 13);
    await stored(0);
  });

  test("is noticed by many pages at once, and still gets each press once", async () => {
    await leaveUnanswered(1);
    await server.kill();
    const later = openPage();
    for (let press = 0; press < 4; press += 1) later.plus();
    await stored(5);
    later.close();
    server.room.wipe(0);
    await server.start();
    const found = Array.from({ length: 4 }, () => openPage({ BroadcastChannel: undefined }));
    for (const page of found) await becomes(page, (now) => isIdle(now) && now.value === 4 && now.unsure.length === 1);
    assert.equal(server.room.rev, 4);
    await stored(1);
  });

  test("gets each press once from a page that slept through all of it", async () => {
    const asleep = openPage({ BroadcastChannel: undefined });
    await becomes(asleep, (now) => now.connection === "live");
    server.mute = true;
    asleep.plus();
    await until(() => server.room.rev === 1, () => "nothing came");
    await server.kill();
    await becomes(asleep, (now) => now.connection !== "live");
    asleep.plus();
    asleep.plus();
    await stored(3);
    server.room.wipe(0);
    server.mute = false;
    const [{ client }] = await stored(3);
    server.onsession = (session) => (session.client === client ? session.socket.terminate() : session.greet());
    await server.start();
    const awake = openPage({ BroadcastChannel: undefined });
    await becomes(awake, (now) => isIdle(now) && now.value === 2 && now.unsure.length === 1);
    asleep.plus();
    server.onsession = (session) => session.greet();
    await becomes(asleep, (now) => isIdle(now) && now.value === 3 && now.unsure.length === 1);
    await becomes(awake, (now) => now.value === 3);
    assert.equal(server.room.rev, 3);
  });

  test("between two pages of which one has sent another's presses: they are not sent again", async () => {
    await server.kill();
    const page = openPage();
    page.plus();
    page.plus();
    await stored(2);
    // Another page put the first on a wire in a life of the room that is over, and nobody knows what came of it.
    await writeDisk((rows) => rows.map((row) => (row.n === 1 ? { ...row, wired: true, epoch: "over" } : row)));
    await server.start();
    await becomes(page, (now) => isIdle(now) && now.value === 1 && now.unsure.length === 1);
    page.plus();
    await becomes(page, (now) => now.value === 2 && now.pending === 0);
    assert.equal(server.room.rev, 2);
  });

  test("of a client that is known in part takes nothing of what was on a wire", async () => {
    const epoch = server.room.epoch;
    const [{ client }] = await leaveUnanswered(3);
    // The first two were settled and removed; a restored room knows of none, and has the same epoch.
    await writeDisk((rows) => rows.filter(({ n }) => n === 3));
    Object.assign(server.room, { clients: new Map(), rev: 0, value: 0, journal: [], epoch });
    const page = openPage();
    await becomes(page, (now) => now.unsure.length === 1);
    assert.deepEqual(page.snapshot.unsure, [{ client, n: 3, action: PLUS }]);
    assert.equal(server.room.rev, 0);
  });

  test("between the question for its epoch and the action is known by the answer", async () => {
    await leaveUnanswered(3);
    await writeDisk((rows) => rows.map((row) => (row.n === 3 ? { ...row, wired: false, epoch: null } : row)));
    server.onrequest = (request) => {
      if (request.method === "POST" && server.room.rev === 3) server.room.wipe(0);
      return false;
    };
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 1);
    assert.equal(page.snapshot.unsure[0].n, 2);
    // Number 1 was taken in the new life of the room, where nothing of the old one counts; 3 was never sent before.
    assert.deepEqual([server.room.rev, server.room.value], [2, 2]);
  });
});

describe("what was put on a wire longer ago than a room surely remembers a client", () => {
  const HOUR = 3_600_000;
  /** As if so much time had gone by since what is stored was put on a wire. */
  const age = (/** @type {number} */ ms) =>
    writeDisk((rows) => rows.map((row) => (row.wired ? { ...row, wiredAt: row.wiredAt - ms } : row)));
  /** The room forgets everybody, in the same life of its journal. */
  const forget = () => server.room.clients.clear();

  test("is not sent again: the user is asked, and may send it as a new one", async () => {
    const [{ client, wiredAt }] = await leaveUnanswered(2);
    assert.ok(Math.abs(Date.now() - wiredAt) < 60_000);
    await age(HOUR);
    forget();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 2);
    assert.deepEqual(page.snapshot.unsure, [1, 2].map((n) => ({ client, n, action: PLUS })));
    assert.deepEqual([posts(), server.room.value], [[], 2]);
    assert.equal(await page.resend([page.snapshot.unsure[1]]), 1);
    await becomes(page, (now) => isIdle(now) && now.value === 3 && now.unsure.length === 1);
    assert.equal(await page.discard(), 1);
    await stored(0);
    assert.equal(server.room.value, 3);
  });

  test("by a page of an earlier version, which noted no time, is not sent again either", async () => {
    await leaveUnanswered(1);
    await writeDisk((rows) => rows.map(({ wiredAt, ...row }) => row));
    forget();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 1);
    assert.equal(server.room.value, 1);
  });

  test("by a clock that was set back since, is not sent again either", async () => {
    await leaveUnanswered(1);
    await age(-HOUR);
    forget();
    const page = openPage();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 1);
    assert.equal(server.room.value, 1);
  });

  test("holds up nothing that was never on a wire, whichever of many pages finds it", async () => {
    await leaveUnanswered(1);
    await server.kill();
    const later = openPage();
    later.plus();
    await stored(2);
    later.close();
    // Presses of the same client, of which only the first was sent.
    await writeDisk(([first, second]) => {
      const [sent, unsent] = first.wired ? [first, second] : [second, first];
      return [sent, { ...unsent, client: sent.client, n: 2 }];
    });
    await age(HOUR);
    forget();
    await server.start();
    const found = Array.from({ length: 3 }, () => openPage({ BroadcastChannel: undefined }));
    for (const page of found) await becomes(page, (now) => isIdle(now) && now.value === 2 && now.unsure.length === 1);
    assert.equal(server.room.rev, 2);
    await stored(1);
  });

  test("is sent again where a number before it is known to be settled: a room that forgot it says so", async () => {
    const [{ client }] = await leaveUnanswered(3);
    await writeDisk((rows) => rows.filter(({ n }) => n > 1));
    await age(HOUR);
    await becomes(openPage(), (now) => isIdle(now) && now.value === 3);
    await stored(0);
    assert.deepEqual(posts().map(({ key }) => key), [`${client}:2`, `${client}:3`]);
  });

  test("less long ago, is sent again", async () => {
    const [{ client }] = await leaveUnanswered(1);
    await age(HOUR - 120_000);
    await becomes(openPage(), (now) => isIdle(now) && now.value === 1);
    await stored(0);
    assert.deepEqual(posts().map(({ key }) => key), [`${client}:1`]);
  });

  test("is not sent again by its own page that slept, nor by another that found it meanwhile", async (t) => {
    const asleep = openPage({ BroadcastChannel: undefined });
    await becomes(asleep, (now) => now.connection === "live");
    server.mute = true;
    asleep.plus();
    await until(() => server.room.rev === 1, () => "nothing came");
    const [{ client }] = await stored(1);
    server.onsession = (session) => (session.client === client ? session.socket.terminate() : session.greet());
    await server.kill();
    await becomes(asleep, (now) => now.connection !== "live");
    asleep.plus();
    await stored(2);
    const { now: clock } = Date;
    t.mock.method(Date, "now", () => clock() + HOUR);
    forget();
    server.mute = false;
    await server.start();
    const awake = openPage({ BroadcastChannel: undefined });
    await becomes(awake, (now) => isIdle(now) && now.value === 2 && now.unsure.length === 1);
    server.onsession = (session) => session.greet();
    await becomes(asleep, (now) => isIdle(now) && now.value === 2 && now.unsure.length === 1);
    asleep.plus();
    await becomes(awake, (now) => now.value === 3);
    assert.equal(server.room.rev, 3);
    await stored(1);
  });

  test("is taken out of what its own page shows, and asked about", async (t) => {
    server.mute = true;
    const page = openPage();
    await becomes(page, (now) => now.connection === "live");
    page.plus();
    await until(() => server.room.rev === 1, () => "nothing came");
    await server.kill();
    await becomes(page, (now) => now.connection !== "live");
    assert.deepEqual([page.snapshot.value, page.snapshot.pending], [1, 1]);
    const { now: clock } = Date;
    t.mock.method(Date, "now", () => clock() + HOUR);
    forget();
    server.mute = false;
    await server.start();
    await becomes(page, (now) => isIdle(now) && now.unsure.length === 1);
    assert.deepEqual([page.snapshot.value, server.room.value], [1, 1]);
    assert.equal(await page.discard(), 1);
    await stored(0);
  });
});

describe("a page that is over", () => {
  test("is told nothing more, whatever was under way when it was closed", async () => {
    server.mute = true;
    let told = 0;
    const page = connect(`${server.url}/`, { random: () => 0, window: fakeWindow(disk), onchange: () => (told += 1), onerror: () => (told += 1) });
    pages.push(page);
    await becomes(page, (now) => now.connection === "live");
    page.plus();
    page.close();
    const last = told;
    server.mute = false;
    await becomes(openPage(), (now) => isIdle(now) && now.value === 1);
    await stored(0);
    assert.deepEqual([told, page.snapshot.connection, page.snapshot.orphans], [last, "closed", 0]);
  });

  test("does not count its own presses twice where the server ended it", async () => {
    server.holds = true;
    const page = openPage({ BroadcastChannel });
    await becomes(page, (now) => now.connection === "live");
    page.plus();
    await until(() => server.room.flying.length === 1, () => "nothing came");
    (await server.session()).socket.close(4403);
    await becomes(page, (now) => now.connection === "closed");
    const other = openPage({ BroadcastChannel });
    await becomes(other, (now) => now.orphans === 1);
    await other.discard();
    // What another page says makes every page look: this one, after the other has.
    await becomes(openPage(), (now) => now.orphans === 1);
    assert.deepEqual([page.snapshot.pending, page.snapshot.orphans], [1, 0]);
  });
});

describe("a store", () => {
  test("of memory keeps what waits as long as the page lives, and says so", async () => {
    disk = {};
    server.holds = true;
    const page = openPage();
    await becomes(page, (now) => now.connection === "live");
    page.plus();
    await until(() => server.room.flying.length === 1, () => "nothing came");
    assert.equal(page.snapshot.durable, false);
    await server.kill();
    await becomes(page, (now) => now.connection !== "live");
    server.room.wipe(5);
    server.holds = false;
    page.plus();
    await server.start();
    await becomes(page, (now) => isIdle(now) && now.value === 6 && now.unsure.length === 1);
    await page.resend();
    await becomes(page, (now) => isIdle(now) && now.value === 7);
  });

  test("that breaks while presses wait loses none", async () => {
    const page = openPage();
    await becomes(page, (now) => now.connection === "live" && now.durable);
    await server.kill();
    page.plus();
    await stored(1);
    // As a browser does it whose user has the site's data cleared.
    const { IDBDatabase } = await import("fake-indexeddb");
    const { transaction } = IDBDatabase.prototype;
    IDBDatabase.prototype.transaction = () => {
      throw new DOMException("closed", "InvalidStateError");
    };
    try {
      page.plus();
      await becomes(page, (now) => !now.durable);
    } finally {
      IDBDatabase.prototype.transaction = transaction;
    }
    await server.start();
    await becomes(page, (now) => now.connection === "live" && now.pending === 0 && now.value === 2);
    assert.equal(server.room.rev, 2);
  });

  test("is asked once for what is pressed in one go", async () => {
    const { IDBDatabase } = await import("fake-indexeddb");
    const { transaction } = IDBDatabase.prototype;
    let writes = 0;
    IDBDatabase.prototype.transaction = function (/** @type {any[]} */ ...args) {
      if (args[1] === "readwrite") writes += 1;
      return transaction.apply(this, /** @type {any} */ (args));
    };
    try {
      const page = openPage();
      await becomes(page, (now) => now.connection === "live" && now.durable);
      for (let press = 0; press < 20; press += 1) page.plus();
      await becomes(page, (now) => now.pending === 0);
      await stored(0);
    } finally {
      IDBDatabase.prototype.transaction = transaction;
    }
    assert.ok(writes <= 3, `${writes} transactions for 20 presses`);
    assert.equal(server.room.value, 20);
  });
});

/** @param {(rows: any[]) => any[]} change */
async function writeDisk(change) {
  const before = /** @type {any[]} */ (await readDisk());
  await new Promise((resolve) => {
    const opening = disk.indexedDB.open("tallyroom", 1);
    opening.onsuccess = () => {
      const transaction = opening.result.transaction("actions", "readwrite");
      const actions = transaction.objectStore("actions");
      actions.clear();
      for (const row of change(before)) actions.put(row);
      transaction.oncomplete = () => {
        opening.result.close();
        resolve(null);
      };
    };
  });
}
