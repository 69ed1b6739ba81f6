// @ts-check
/** What is kept of actions until they are settled, in IndexedDB and in memory alike. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import * as rows from "../../static/rows.js";
import { Store } from "../../static/store.js";

/** @typedef {import("../../static/rows.js").Row} Row */

const API = "http://a.test/api/rooms/main";
const PLUS = { action: "plus" };
const NOW = 1_800_000_000_000;
const HOUR = 3_600_000;

/**
 * @param {string} client
 * @param {number} n
 * @param {Partial<Row>} [more]
 * @returns {Row}
 */
const row = (client, n, more) => ({ client, n, api: API, action: PLUS, wired: false, epoch: null, wiredAt: null, unsure: false, ...more });

/** @param {Row[]} stored */
const put = (...stored) => () => ({ put: stored, result: null });

/** @type {[string, () => any][]} */
const KINDS = [
  ["in IndexedDB", () => ({ indexedDB: new IDBFactory(), IDBKeyRange })],
  ["in memory", () => ({})],
];

for (const [kind, newWindow] of KINDS) {
  describe(`a store ${kind}`, () => {
    const open = () => new Store(newWindow(), () => [], () => {});

    test("gives back what is put, by client and number", async () => {
      const store = open();
      await store.change(null, put(row("a", 1), row("a", 2), row("a", 10), row("b", 1)));
      assert.deepEqual(await store.read("all"), [row("a", 1), row("a", 2), row("a", 10), row("b", 1)]);
      assert.deepEqual(await store.read(["a", 2, 10]), [row("a", 2), row("a", 10)]);
      assert.deepEqual(await store.read(["c", 1, 10]), []);
      await store.close();
    });

    test("decides about what is there, removes, and then puts", async () => {
      const store = open();
      await store.change(null, put(row("a", 1), row("a", 2), row("b", 1)));
      const result = await store.change(rows.allOf("a"), (found) => ({
        remove: [rows.allOf("a")],
        put: found.slice(1).map((one) => ({ ...one, wired: true })),
        result: found.length,
      }));
      assert.equal(result, 2);
      assert.deepEqual(await store.read("all"), [row("a", 2, { wired: true }), row("b", 1)]);
      await store.close();
    });

    test("of two that decide about the same at once, one sees what the other did", async () => {
      const store = open();
      await store.change(null, put(row("a", 1), row("a", 2)));
      const moved = await Promise.all(["x", "y"].map((fresh) => store.change(rows.allOf("a"), (found) => rows.retire(found, fresh))));
      assert.deepEqual(moved, [[1, 2], []]);
      assert.deepEqual(await store.read("all"), [row("x", 1), row("x", 2)]);
      await store.close();
    });

    test("asks the user about what was on a wire when its client is forgotten, and about nothing that is settled", async () => {
      const store = open();
      const wired = { wired: true, epoch: "e" };
      await store.change(null, put(row("a", 4, wired), row("a", 5, wired), row("a", 6), row("a", 7)));
      assert.deepEqual(await store.change(rows.allOf("a"), (found) => rows.retire(found, "x", (n) => n <= 4)), [6, 7]);
      assert.deepEqual(await store.read("all"), [row("a", 5, { ...wired, unsure: true }), row("x", 1), row("x", 2)]);
      await store.close();
    });
  });
}

describe("a mark", () => {
  const write = { client: "a", epoch: "e", at: NOW, put: [], mark: /** @type {[number, number]} */ ([1, 2]), remove: 0 };
  const wired = { wired: true, epoch: "e", wiredAt: NOW };

  test("is put on what is there and was not sent in another epoch", () => {
    const { put: marked, result } = rows.write([row("a", 1), row("a", 2, wired)], write, API);
    assert.deepEqual(result, { since: NOW });
    assert.deepEqual(marked, [row("a", 1, wired), row("a", 2, wired)]);
  });

  test("has the time of the first that was put, and tells it of number 1", () => {
    const before = { ...wired, wiredAt: NOW - HOUR / 2 };
    const { put: marked, result } = rows.write([row("a", 1, before), row("a", 2)], write, API);
    assert.deepEqual(result, { since: NOW - HOUR / 2 });
    assert.deepEqual(marked, [row("a", 1, before), row("a", 2, wired)]);
    assert.deepEqual(rows.mark([row("a", 1, before)], 1, "e", NOW), { put: [row("a", 1, before)], result: true });
    assert.deepEqual(rows.write([], { ...write, mark: null, put: [{ n: 1, action: PLUS, wired: true }] }, API).result, { since: NOW });
    assert.deepEqual(rows.write([], { ...write, mark: null, put: [{ n: 1, action: PLUS, wired: false }] }, API).result, { since: null });
    assert.deepEqual(rows.write([row("a", 2), row("a", 3)], { ...write, mark: [2, 3] }, API).result, { since: null });
  });

  test("is not put on a number 1 that another page put on a wire so long ago that its client may be forgotten", () => {
    for (const wiredAt of [NOW - HOUR, NOW + 1, null, undefined]) {
      assert.deepEqual(rows.write([row("a", 1, { ...wired, wiredAt }), row("a", 2)], write, API), { result: null });
      assert.equal(rows.mark([row("a", 1, { ...wired, wiredAt })], 1, "e", NOW).result, false);
      assert.equal(rows.mark([row("a", 2, { ...wired, wiredAt })], 2, "e", NOW).result, true);
    }
  });

  test("is not put where another page took one over: then nothing is stored", () => {
    for (const second of [[], [row("a", 2, { unsure: true })], [row("a", 2, { wired: true, epoch: "other" })]]) {
      assert.deepEqual(rows.write([row("a", 1), ...second], { ...write, put: [{ n: 3, action: PLUS, wired: true }] }, API), { result: null });
      assert.equal(rows.mark(second, 2, "e", NOW).result, false);
    }
  });
});

describe("a database", () => {
  test("is durable, and outlives the page", async () => {
    const window = { indexedDB: new IDBFactory(), IDBKeyRange };
    const first = new Store(window, () => [], () => {});
    assert.equal(first.durable, false);
    await first.change(null, put(row("a", 1)));
    assert.equal(first.durable, true);
    await first.close();
    const second = new Store(window, () => [], () => {});
    assert.deepEqual(await second.read("all"), [row("a", 1)]);
    await second.close();
  });

  test("writes strictly: on disk, and not only with the operating system", async () => {
    const indexedDB = new IDBFactory();
    /** @type {any[]} */
    const asked = [];
    const opened = await openRaw(indexedDB);
    const transaction = opened.constructor.prototype.transaction;
    opened.constructor.prototype.transaction = function (/** @type {any[]} */ ...args) {
      if (args[1] === "readwrite") asked.push(args);
      return transaction.apply(this, args);
    };
    try {
      const store = new Store({ indexedDB, IDBKeyRange }, () => [], () => {});
      await store.change(null, put(row("a", 1)));
      await store.close();
    } finally {
      opened.constructor.prototype.transaction = transaction;
      opened.close();
    }
    assert.deepEqual(asked, [["actions", "readwrite", { durability: "strict" }]]);
  });

  test("that fails is replaced by memory, which begins with what the page knows; that is told", async () => {
    const indexedDB = new IDBFactory();
    let told = 0;
    const store = new Store({ indexedDB, IDBKeyRange }, () => [row("a", 1)], () => (told += 1));
    await store.change(null, put(row("a", 1)));
    assert.deepEqual([store.durable, told], [true, 1]);
    // What cannot be cloned cannot be stored, as little as anything on a full disk.
    await store.change(null, put(row("a", 2, { action: () => {} })));
    assert.deepEqual([store.durable, told], [false, 2]);
    assert.deepEqual((await store.read("all")).map(({ n }) => n), [1, 2]);
  });

  test("writes all of a change or nothing", async () => {
    const window = { indexedDB: new IDBFactory(), IDBKeyRange };
    const store = new Store(window, () => [], () => {});
    await store.change(null, put(row("a", 1)));
    await store.change(null, () => ({ remove: [["a", 1, 1]], put: [row("a", 2), row("a", 3, { action: () => {} })], result: null }));
    const next = new Store(window, () => [], () => {});
    assert.deepEqual(await next.read("all"), [row("a", 1)]);
    await next.close();
  });

  test("that cannot be opened is replaced by memory", async () => {
    for (const open of [() => { throw new Error("no"); }, () => { const asked = /** @type {any} */ ({}); setImmediate(() => asked.onerror()); return asked; }]) {
      const store = new Store({ indexedDB: { open } }, () => [], () => {});
      await store.change(null, put(row("a", 1)));
      assert.deepEqual([store.durable, (await store.read("all")).length], [false, 1]);
    }
  });

  test("that does not answer is not waited for", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const store = new Store({ indexedDB: { open: () => ({}) } }, () => [], () => {});
    const done = store.change(null, put(row("a", 1)));
    t.mock.timers.tick(5_000);
    await done;
    assert.equal(store.durable, false);
  });
});

/** @param {IDBFactory} factory */
function openRaw(factory) {
  return new Promise((resolve) => {
    const opening = factory.open("elsewhere");
    opening.onsuccess = () => resolve(opening.result);
  });
}
