// @ts-check
/** The state machine of a client's numbers on its own: no socket, no clock, no store. */
import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { applyToCounter } from "../../static/counter.js";
import { Outbox } from "../../static/outbox.js";
import { MAX } from "./harness.js";

const PLUS = { action: "plus" };
const EPOCH = "e1";
const NOW = 1_800_000_000_000;

/** @type {Outbox} */
let outbox;
beforeEach(() => {
  outbox = new Outbox("c1");
});

/**
 * @param {object} [fields]
 * @param {number} [now]
 */
const welcome = (fields, now = NOW) => outbox.receive({ type: "welcome", epoch: EPOCH, rev: 0, n: 0, window: 1024, refused: [], ...fields }, now);
/**
 * @param {number} rev
 * @param {any} value
 * @param {string} [epoch]
 */
const state = (rev, value, epoch = EPOCH) => outbox.receive({ type: "state", epoch, rev, value }, NOW);
/**
 * @param {number} n
 * @param {number} rev
 */
const ack = (n, rev) => outbox.receive({ type: "ack", n, rev }, NOW);
/**
 * @param {number} n
 * @param {number} expected
 */
const retry = (n, expected, afterMs = 10) => outbox.receive({ type: "retry", n, expected, code: "gap", message: "", after_ms: afterMs }, NOW);
const error = (/** @type {number} */ n) => outbox.receive({ type: "error", n, code: "out_of_range", message: "no" }, NOW);

/** Presses, and lets everything be stored. */
function press(times = 1) {
  for (let count = 0; count < times; count += 1) outbox.press(PLUS);
  store();
}

function store() {
  for (let write = outbox.toStore(NOW); write; write = outbox.toStore(NOW)) {
    const wires = write.mark?.[0] === 1 || write.put.some(({ n, wired }) => n === 1 && wired);
    outbox.stored({ since: wires ? NOW : null });
  }
}

const sent = () => outbox.toSend().map(({ n }) => n);

describe("storing and sending", () => {
  test("nothing is sent before it is stored", () => {
    welcome();
    outbox.press(PLUS);
    assert.deepEqual(sent(), []);
    assert.deepEqual(outbox.toStore(NOW), { client: "c1", epoch: EPOCH, at: NOW, put: [{ n: 1, action: PLUS, wired: true }], mark: null, remove: 0 });
    assert.deepEqual(sent(), []);
    outbox.stored({ since: NOW });
    assert.deepEqual(outbox.toSend(), [{ n: 1, action: PLUS }]);
    assert.deepEqual(sent(), []);
  });

  test("what is pressed while something is stored is stored together", () => {
    outbox.press(PLUS);
    outbox.toStore(NOW);
    for (let count = 0; count < 20; count += 1) outbox.press(PLUS);
    assert.equal(outbox.toStore(NOW), null);
    outbox.stored({ since: NOW });
    assert.equal(outbox.toStore(NOW)?.put.length, 20);
  });

  test("what was stored while offline is marked before it is sent, and not sooner", () => {
    press(3);
    assert.equal(outbox.toStore(NOW), null);
    welcome();
    assert.deepEqual(sent(), []);
    assert.deepEqual(outbox.toStore(NOW), { client: "c1", epoch: EPOCH, at: NOW, put: [], mark: [1, 3], remove: 0 });
    outbox.stored({ since: NOW });
    assert.deepEqual(sent(), [1, 2, 3]);
  });

  test("what is lost on the way to the store is stored again", () => {
    outbox.press(PLUS);
    const first = outbox.toStore(NOW);
    outbox.stored(null);
    assert.deepEqual(outbox.toStore(NOW), first);
  });

  test("what is pressed last is stored at once when the page is left, beside what is being stored", () => {
    assert.equal(outbox.toStoreNow(), null);
    outbox.press(PLUS);
    outbox.toStore(NOW);
    outbox.press(PLUS);
    outbox.press(PLUS);
    assert.deepEqual(outbox.toStoreNow()?.put.map(({ n, wired }) => [n, wired]), [[2, false], [3, false]]);
    outbox.stored({ since: NOW });
    assert.equal(outbox.toStore(NOW), null);
    outbox.press(PLUS);
    assert.deepEqual(outbox.toStoreNow()?.put.map(({ n }) => n), [4]);
    assert.equal(outbox.toStore(NOW), null);
    welcome();
    assert.deepEqual(outbox.toStore(NOW)?.mark, [1, 4]);
    outbox.press(PLUS);
    assert.equal(outbox.toStoreNow(), null, "the mark may come to nothing");
    outbox.stored({ since: NOW });
    store();
    assert.deepEqual(sent(), [1, 2, 3, 4, 5]);
  });

  test("never more than the window is on the wire", () => {
    press(10);
    welcome({ window: 4 });
    store();
    assert.deepEqual(sent(), [1, 2, 3, 4]);
    ack(2, 2);
    store();
    assert.deepEqual(sent(), [5, 6]);
    assert.equal(outbox.pending, 8);
  });

  test("settled ones are removed from the store", () => {
    welcome();
    press(3);
    sent();
    ack(2, 2);
    assert.deepEqual(outbox.toStore(NOW), { client: "c1", epoch: EPOCH, at: NOW, put: [], mark: null, remove: 2 });
    outbox.stored({ since: NOW });
    assert.equal(outbox.toStore(NOW), null);
  });

  test("after a new welcome it sends from the next number on", () => {
    welcome();
    press(5);
    sent();
    ack(1, 1);
    outbox.disconnected();
    press();
    assert.deepEqual(sent(), []);
    welcome({ n: 3, rev: 3 });
    store();
    assert.deepEqual(sent(), [4, 5, 6]);
  });
});

describe("a retry", () => {
  test("is waited for as long as the longest says, and sent once, from what is expected", () => {
    welcome();
    press(5);
    sent();
    assert.equal(retry(3, 3, 300).holdMs, 300);
    assert.equal(retry(4, 3, 300).holdMs, 300);
    assert.equal(retry(5, 3, 400).holdMs, 400);
    outbox.release();
    outbox.release();
    assert.deepEqual(sent(), []);
    outbox.release();
    assert.deepEqual(sent(), [3, 4, 5]);
  });

  test("holds up what is pressed meanwhile, which is not marked either", () => {
    welcome();
    press();
    sent();
    retry(1, 1);
    outbox.press(PLUS);
    assert.equal(outbox.toStore(NOW)?.put[0].wired, false);
    outbox.stored({ since: NOW });
    assert.deepEqual(sent(), []);
    outbox.release();
    store();
    assert.deepEqual(sent(), [1, 2]);
  });

  test("for a number that is settled is a contradiction, which a new welcome solves", () => {
    welcome();
    press(2);
    sent();
    ack(2, 2);
    assert.equal(retry(2, 2).trouble, "confused");
  });

  test("of a session that is too busy is obeyed from what is not settled", () => {
    welcome();
    press(3);
    sent();
    ack(1, 1);
    assert.equal(outbox.receive({ type: "retry", n: 2, expected: 1, code: "overloaded", after_ms: 9 }, NOW).holdMs, 9);
    outbox.release();
    assert.deepEqual(sent(), [2, 3]);
  });

  test("is over with the session", () => {
    welcome();
    press();
    sent();
    retry(1, 1);
    outbox.disconnected();
    welcome();
    assert.deepEqual(sent(), [1]);
  });
});

describe("what is shown", () => {
  test("a press is seen at once, and neither jumps back nor counts double", () => {
    welcome();
    state(0, 0);
    press(2);
    assert.equal(outbox.value, 2);
    sent();
    state(1, 10);
    assert.equal(outbox.value, 12, "another's state");
    ack(1, 2);
    assert.equal(outbox.value, 12, "not in effect before its state is shown");
    state(2, 11);
    assert.equal(outbox.value, 12);
    ack(2, 3);
    state(7, 20);
    assert.equal(outbox.value, 20);
  });

  test("an ack of what is shown already takes effect at once", () => {
    welcome();
    press();
    sent();
    state(5, 5);
    assert.equal(outbox.value, 6);
    ack(1, 5);
    assert.equal(outbox.value, 5);
  });

  test("a welcome takes effect when a state of its revision is shown", () => {
    welcome();
    state(0, 0);
    press(3);
    sent();
    outbox.disconnected();
    welcome({ n: 2, rev: 2 });
    assert.equal(outbox.value, 3);
    state(2, 2);
    assert.equal(outbox.value, 3);
    assert.equal(outbox.pending, 1);
  });

  test("an older state is not shown, nor one of another epoch", () => {
    welcome();
    state(3, 3);
    state(2, 2);
    state(9, 9, "other");
    assert.equal(outbox.value, 3);
  });

  test("what is refused is taken back and told once", () => {
    welcome();
    state(0, 0);
    press(2);
    sent();
    assert.deepEqual(error(1).refused, [{ n: 1, code: "out_of_range", message: "no", action: PLUS }]);
    assert.deepEqual([outbox.value, outbox.pending], [1, 1]);
    assert.deepEqual(error(1).refused, []);
    outbox.disconnected();
    assert.deepEqual(welcome({ n: 2, rev: 0, refused: [{ n: 1, code: "a", message: "b" }, { n: 2, code: "c", message: "d" }] }).refused, [
      { n: 2, code: "c", message: "d", action: PLUS },
    ]);
    assert.deepEqual([outbox.value, outbox.pending], [0, 0]);
  });

  test("before the first state there is nothing to show", () => {
    press(2);
    assert.equal(outbox.value, null);
    welcome();
    state(0, 5);
    assert.equal(outbox.value, 7);
  });

  test("it knows what the counter does, and leaves alone what it does not know", () => {
    /** @type {[any, any, any][]} */
    const cases = [
      [1, PLUS, 2],
      [1, { action: "plus", by: 5 }, 6],
      [1, { action: "minus" }, 0],
      [1, { action: "minus", by: 1_000_000 }, -999_999],
      [1, { action: "set", value: -4 }, -4],
      [1, { action: "reset" }, 0],
      [1, { action: "plus", by: 0 }, 1],
      [1, { action: "plus", by: 1_000_001 }, 1],
      [1, { action: "plus", by: "2" }, 1],
      [1, { action: "set" }, 1],
      [1, { action: "set", value: MAX + 1 }, 1],
      [1, { action: "limits", max: 3 }, 1],
      [MAX, PLUS, MAX],
      [-MAX, { action: "minus" }, -MAX],
      ["text", PLUS, "text"],
      [{ a: 1 }, PLUS, { a: 1 }],
    ];
    for (const [before, action, after] of cases) assert.deepEqual(applyToCounter(before, action), after, JSON.stringify(action));
  });

  test("another model says itself what an action does", () => {
    const list = new Outbox("c1", (value, { add }) => [...value, add]);
    list.receive({ type: "welcome", epoch: EPOCH, rev: 0, n: 0 }, NOW);
    list.receive({ type: "state", epoch: EPOCH, rev: 0, value: ["a"] }, NOW);
    list.press({ add: "b" });
    assert.deepEqual(list.value, ["a", "b"]);
  });
});

describe("a forgotten client", () => {
  test("is one whose epoch is another, or of which less is settled than it knows", () => {
    welcome();
    press(2);
    sent();
    ack(2, 2);
    outbox.disconnected();
    assert.equal(welcome({ n: 2, rev: 2 }).trouble, "");
    assert.equal(welcome({ n: 1, rev: 2 }).trouble, "forgotten");
    assert.equal(welcome({ n: 2, rev: 2, epoch: "e2" }).trouble, "forgotten");
  });

  test("may be one of which nothing is known, whose first action is on a wire for longer than a room remembers surely", () => {
    const minute = 60_000;
    /** @type {[minutes: number, n: number, trouble: string][]} */
    const cases = [
      [0, 0, ""],
      [58, 0, ""],
      [60, 0, "forgotten"],
      [60 * 24 * 31, 0, "forgotten"],
      // The clock was set back: nothing is known of when that was.
      [-1, 0, "forgotten"],
      // The room knows it.
      [60, 1, ""],
      [-1, 2, ""],
    ];
    for (const [minutes, n, trouble] of cases) {
      outbox = new Outbox("c1");
      welcome();
      press(2);
      assert.deepEqual(sent(), [1, 2]);
      outbox.disconnected();
      assert.equal(welcome({ n, rev: n }, NOW + minutes * minute).trouble, trouble, `${n} after ${minutes} minutes`);
      assert.deepEqual(sent(), trouble ? [] : [1, 2].slice(n));
    }
  });

  test("may be one whose first action another page has put on a wire, since it did", () => {
    press();
    welcome();
    outbox.toStore(NOW);
    outbox.stored({ since: NOW - 3_000_000 });
    assert.deepEqual(sent(), [1]);
    outbox.disconnected();
    assert.equal(welcome({}, NOW + 600_000).trouble, "forgotten");
  });

  test("is not one of which something is settled, and more is on a wire for long", () => {
    welcome();
    press(2);
    sent();
    ack(1, 1);
    outbox.disconnected();
    assert.equal(welcome({ n: 1, rev: 1 }, NOW + 7_200_000).trouble, "");
    assert.deepEqual(sent(), [2]);
  });

  test("is told by the time of what its fresh id puts on a wire, not of what the old one did", () => {
    welcome();
    press();
    sent();
    const later = NOW + 7_200_000;
    assert.equal(welcome({}, later).trouble, "forgotten");
    outbox.forget();
    outbox.renamed("c2", new Set());
    outbox.press(PLUS);
    welcome({}, later);
    outbox.toStore(later);
    outbox.stored({ since: later });
    assert.equal(welcome({}, later).trouble, "");
    assert.deepEqual(sent(), [1]);
  });

  test("cannot be one of which nothing was ever on a wire", () => {
    welcome();
    state(4, 4);
    outbox.disconnected();
    press(2);
    assert.equal(welcome({ epoch: "e2" }).trouble, "");
    state(1, 1, "e2");
    assert.equal(outbox.value, 3);
    store();
    assert.deepEqual(sent(), [1, 2]);
  });

  test("is one of which something is being marked just then", () => {
    press();
    welcome();
    outbox.toStore(NOW);
    assert.equal(welcome({ epoch: "e2" }).trouble, "forgotten");
  });

  test("goes on under a fresh id with what was never on a wire, in its order, before what was pressed since", () => {
    welcome();
    state(0, 0);
    press(2);
    sent();
    outbox.disconnected();
    outbox.press({ action: "set", value: 100 });
    outbox.press(PLUS);
    store();
    assert.equal(welcome({ epoch: "e2" }).trouble, "forgotten");
    outbox.forget();
    outbox.press({ action: "plus", by: 10 });
    assert.equal(outbox.toStore(NOW), null);
    outbox.renamed("c2", new Set([3, 4]));
    assert.deepEqual([outbox.client, outbox.pending], ["c2", 3]);
    assert.deepEqual(outbox.toStore(NOW)?.put, [{ n: 3, action: { action: "plus", by: 10 }, wired: false }]);
    outbox.stored({ since: NOW });
    welcome({ epoch: "e2" });
    state(0, 0, "e2");
    assert.equal(outbox.value, 111);
    assert.deepEqual(outbox.toStore(NOW)?.mark, [1, 3]);
    outbox.stored({ since: NOW });
    assert.deepEqual(outbox.toSend().map(({ n, action }) => [n, action]), [
      [1, { action: "set", value: 100 }],
      [2, PLUS],
      [3, { action: "plus", by: 10 }],
    ]);
  });

  test("leaves to others what another page has taken over", () => {
    press(3);
    outbox.forget();
    outbox.renamed("c2", new Set([2]));
    assert.equal(outbox.pending, 1);
  });

  test("does not ask about what was refused", () => {
    welcome();
    press(2);
    sent();
    error(1);
    assert.deepEqual([0, 1, 2, 3].map((n) => outbox.isSettled(n)), [true, true, false, false]);
  });
});

test("what it does not know, or cannot be meant, changes nothing", () => {
  welcome();
  state(2, 2);
  press();
  sent();
  const before = [outbox.value, outbox.pending];
  const odd = [null, undefined, 3, "state", [], {}, { type: "beat" }, { type: "state" }, { type: "ack" }, { type: "retry", n: 1 }];
  const wrong = [
    { type: "ack", n: -1, rev: 1 },
    { type: "ack", n: "1", rev: 1 },
    { type: "ack", n: 1.5, rev: 1 },
    { type: "error", code: "a", message: "b" },
    { type: "error", n: 7, code: "a", message: "b" },
    { type: "welcome", n: 0 },
    { type: "state", epoch: EPOCH, rev: 3 },
  ];
  for (const event of [...odd, ...wrong]) assert.deepEqual(outbox.receive(event, NOW), { refused: [], holdMs: null, trouble: "" });
  assert.deepEqual([outbox.value, outbox.pending], before);
});
