// @ts-check
/**
 * One client's actions from the press to the verdict: their numbers, what of them is stored, marked, sent and settled,
 * and the value with them laid over it. It knows no clock, socket, store or DOM; who holds it asks what is to be done
 * (`toStore`, `toSend`), does it, and tells what came of it (`stored`, `receive`).
 *
 * The numbers of the actions that wait are `settled + 1 … last`, without gaps. Of them, those up to `#stored` are in the
 * store, those up to `#wired` are marked there as put on a wire, and those up to `#sent` are sent on this session.
 * Nothing is sent that is not marked, and nothing is marked that cannot be sent now.
 */
import { bounded } from "./backoff.js";
import { applyToCounter } from "./counter.js";
import { mayBeForgotten } from "./rows.js";

/**
 * @typedef {object} Write what is to be stored, all of it or nothing
 * @property {string} client
 * @property {string | null} epoch under which what is marked is going to be sent
 * @property {number} at when that is, as `Date.now()` counts: not before
 * @property {{ n: number, action: object, wired: boolean }[]} put new ones, in the order of their numbers
 * @property {[from: number, to: number] | null} mark stored ones that are going to be put on a wire
 * @property {number} remove all up to this number are settled
 */
/** @typedef {{ n: number, code: string, message: string, action: object }} Refused */
/**
 * @typedef {object} Outcome
 * @property {Refused[]} refused told for the first time
 * @property {number | null} holdMs nothing is sent until `release()`, which is due then
 * @property {"" | "forgotten" | "confused"} trouble `forgotten`: call `forget()` and take a fresh id; `confused`: the
 * server contradicts itself, and only a new session's `welcome` will tell
 */

/** How many numbers a client may have unsettled on the wire, where the server does not say. */
const WINDOW = 1024;

/** @type {Readonly<Outcome>} */
const NOTHING = Object.freeze({ refused: [], holdMs: null, trouble: "" });

export class Outbox {
  /** @type {(value: any, action: any) => any} */
  #apply;
  /** @type {{ action: object, refused: boolean }[]} number `settled + 1` first */
  #waiting = [];
  /** How many of those that wait are refused; their numbers are not settled before an ack or a welcome says so. */
  #refused = 0;
  /** @type {{ action: object, rev: number }[]} accepted, and in effect when a state of that revision is shown */
  #landing = [];
  /** @type {{ epoch: string, rev: number, value: any } | null} the last state */
  #base = null;
  /** @type {any} */
  #shown = null;
  /** @type {Write | null} */
  #writing = null;
  #settled = 0;
  #removed = 0;
  #stored = 0;
  /** Up to here all is stored when what is being stored is. */
  #ahead = 0;
  #wired = 0;
  /** When number 1 was first put on a wire; null before. @type {number | null} */
  #since = null;
  #sent = 0;
  #window = WINDOW;
  #welcomed = false;
  #held = 0;
  #forgetting = false;

  /**
   * @param {string} client
   * @param {(value: any, action: any) => any} [apply] the value after an action; it must not change its arguments
   */
  constructor(client, apply = applyToCounter) {
    this.client = client;
    /** @type {string | null} under which this client is known; null before its first welcome */
    this.epoch = null;
    this.#apply = apply;
  }

  /** The last state with this client's own actions laid over it that are not yet in effect; null before the first. */
  get value() {
    return this.#shown;
  }

  /** Whether this session's welcome has come. */
  get welcomed() {
    return this.#welcomed;
  }

  /** How many actions have no verdict yet. */
  get pending() {
    return this.#waiting.length - this.#refused;
  }

  /**
   * Whether an action has its verdict.
   * @param {number} n
   */
  isSettled(n) {
    return n <= this.#settled || Boolean(this.#waiting[n - this.#settled - 1]?.refused);
  }

  get #last() {
    return this.#settled + this.#waiting.length;
  }

  /**
   * Takes an action in. It is seen at once.
   * @param {object} action kept as it is: it must not be changed afterwards
   */
  press(action) {
    this.#waiting.push({ action, refused: false });
    if (this.#base) this.#shown = this.#apply(this.#shown, action);
  }

  /**
   * What is to be stored now: null where that is nothing, or while something is being stored. So whatever is pressed
   * meanwhile is stored together.
   * @param {number} now
   * @returns {Write | null}
   */
  toStore(now) {
    if (this.#writing || this.#forgetting) return null;
    const wire = this.#mayWire();
    const put = this.#after(this.#stored).map(({ n, action }) => ({ n, action, wired: n <= wire }));
    const markTo = Math.min(this.#stored, wire);
    const mark = markTo > this.#wired ? /** @type {[number, number]} */ ([this.#wired + 1, markTo]) : null;
    const remove = this.#settled > this.#removed ? this.#settled : 0;
    if (put.length === 0 && !mark && !remove) return null;
    this.#writing = { client: this.client, epoch: this.epoch, at: now, put, mark, remove };
    return this.#writing;
  }

  /**
   * What is to be stored at once, beside what is being stored, because the page may be gone before that has ended. It
   * counts as stored from here on; it is not marked, so that nothing of it is sent before what is stored later is.
   * @returns {Write | null}
   */
  toStoreNow() {
    // A write that marks may come to nothing, and then all that it stores has to wait for the next.
    if (this.#forgetting || this.#writing?.mark) return null;
    const from = Math.max(this.#stored, this.#ahead, this.#writing?.put.at(-1)?.n ?? 0);
    const put = this.#after(from).map((one) => ({ ...one, wired: false }));
    if (put.length === 0) return null;
    if (this.#writing) this.#ahead = this.#last;
    else this.#stored = this.#last;
    return { client: this.client, epoch: null, at: 0, put, mark: null, remove: 0 };
  }

  /**
   * What `toStore` gave has come to an end.
   * @param {import("./rows.js").Stored | null} done null: nothing of it was stored
   */
  stored(done) {
    const write = this.#writing;
    this.#writing = null;
    if (!write || !done) return;
    this.#since ??= done.since;
    this.#stored = Math.max(this.#stored, this.#ahead);
    this.#removed = Math.max(this.#removed, write.remove);
    if (write.mark) this.#wired = Math.max(this.#wired, write.mark[1]);
    for (const { n, wired } of write.put) {
      this.#stored = Math.max(this.#stored, n);
      if (wired) this.#wired = Math.max(this.#wired, n);
    }
  }

  /**
   * What is to be sent now, in this order; it counts as sent from here on.
   * @returns {{ n: number, action: object }[]}
   */
  toSend() {
    const to = Math.min(this.#wired, this.#mayWire());
    const messages = [];
    for (let n = this.#sent + 1; n <= to; n += 1) messages.push({ n, action: this.#waiting[n - this.#settled - 1].action });
    this.#sent = Math.max(this.#sent, to);
    return messages;
  }

  /** The session is over: nothing is sent before the next welcome. */
  disconnected() {
    this.#welcomed = false;
    this.#held = 0;
  }

  /** One wait that `holdMs` asked for is over. */
  release() {
    this.#held = Math.max(0, this.#held - 1);
  }

  /**
   * Takes in an event of the server. What it does not know changes nothing.
   * @param {any} event a parsed message, of any shape
   * @param {number} now as `Date.now()` counts
   * @returns {Readonly<Outcome>}
   */
  receive(event, now) {
    if (this.#forgetting) return NOTHING;
    switch (event?.type) {
      case "welcome":
        return isWelcome(event) ? this.#welcome(event, now) : NOTHING;
      case "state":
        if (isState(event)) this.#state(event);
        return NOTHING;
      case "ack":
        if (isNumber(event.n) && isNumber(event.rev)) this.#settle(event.n, event.rev);
        return NOTHING;
      case "error":
        return { ...NOTHING, refused: this.#refuse([event]) };
      case "retry":
        return this.#welcomed && isNumber(event.expected) ? this.#retry(event) : NOTHING;
      default:
        return NOTHING;
    }
  }

  /**
   * This client is forgotten: nothing more is stored or sent under its id. What is being stored is waited for first.
   */
  forget() {
    this.#forgetting = true;
    this.disconnected();
  }

  /**
   * Goes on under a fresh id. What was never put on a wire keeps its order, before what was pressed meanwhile.
   * @param {string} client
   * @param {Set<number>} moved the old numbers that the store now holds under the new id, as 1, 2, 3…; what of the rest
   * was stored is no longer this page's to send
   */
  renamed(client, moved) {
    const first = this.#settled + 1;
    this.#waiting = this.#waiting.filter(({ refused }, index) => {
      const n = first + index;
      return !refused && (n > this.#stored || moved.has(n));
    });
    this.#refused = 0;
    this.client = client;
    this.epoch = null;
    this.#stored = moved.size;
    this.#settled = this.#removed = this.#ahead = this.#wired = this.#sent = 0;
    this.#since = null;
    this.#landing = [];
    this.#forgetting = false;
    this.#lay();
  }

  /** What waits, as it is stored: for a store that takes the place of one that failed. */
  rows() {
    const stored = this.#after(this.#settled).slice(0, this.#stored - this.#settled);
    return stored.map(({ n, action }) => {
      const wired = n <= this.#wired;
      return { client: this.client, n, action, wired, epoch: wired ? this.epoch : null, wiredAt: wired ? this.#since : null };
    });
  }

  /** @param {number} n settled, or later */
  #after(n) {
    return this.#waiting.slice(n - this.#settled).map(({ action }, index) => ({ n: n + 1 + index, action }));
  }

  /** The last number that may be put on the wire now. */
  #mayWire() {
    if (!this.#welcomed || this.#held > 0) return 0;
    return Math.min(this.#last, this.#settled + this.#window);
  }

  /**
   * @param {any} event
   * @param {number} now
   */
  #welcome(event, now) {
    if (this.#isForgotten(event, now)) return { ...NOTHING, trouble: /** @type {const} */ ("forgotten") };
    this.epoch = event.epoch;
    this.#window = isNumber(event.window) && event.window > 0 ? event.window : WINDOW;
    const refused = this.#refuse(Array.isArray(event.refused) ? event.refused : []);
    this.#settle(event.n, event.rev);
    this.#sent = event.n;
    this.#held = 0;
    this.#welcomed = true;
    return { ...NOTHING, refused };
  }

  /**
   * A client of which nothing was ever on a wire cannot be forgotten. One of which nothing is known to be settled cannot
   * tell that it was by the number; where number 1 is on a wire for so long that it may have been, it counts as forgotten.
   * @param {any} event
   * @param {number} now
   */
  #isForgotten({ epoch, n }, now) {
    if (n < this.#settled) return true;
    if (n === 0 && this.#since !== null && mayBeForgotten(this.#since, now)) return true;
    const wiring = this.#writing?.mark || this.#writing?.put.some(({ wired }) => wired);
    const known = this.#settled > 0 || this.#wired > 0 || wiring;
    return Boolean(known) && this.epoch !== null && epoch !== this.epoch;
  }

  /** @param {any} event */
  #state({ epoch, rev, value }) {
    if (epoch !== this.epoch) return;
    if (this.#base && this.#base.epoch === epoch && this.#base.rev > rev) return;
    this.#base = { epoch, rev, value };
    this.#landing = this.#landing.filter((one) => one.rev > rev);
    this.#lay();
  }

  /** @param {any} event */
  #retry({ expected, code, after_ms: afterMs }) {
    // A session that is too busy to ask its room may tell too low a number.
    if (expected <= this.#settled && code === "gap") return { ...NOTHING, trouble: /** @type {const} */ ("confused") };
    this.#sent = Math.max(this.#settled, Math.min(this.#sent, expected - 1));
    this.#held += 1;
    return { ...NOTHING, holdMs: bounded(afterMs) };
  }

  /**
   * @param {any[]} refusals
   * @returns {Refused[]} those that were not known before
   */
  #refuse(refusals) {
    const fresh = [];
    for (const refusal of refusals) {
      const one = this.#waiting[refusal?.n - this.#settled - 1];
      if (!one || one.refused) continue;
      one.refused = true;
      this.#refused += 1;
      fresh.push({ n: refusal.n, code: String(refusal.code), message: String(refusal.message), action: one.action });
    }
    if (fresh.length > 0) this.#lay();
    return fresh;
  }

  /**
   * @param {number} n
   * @param {number} rev
   */
  #settle(n, rev) {
    if (n <= this.#settled) return;
    const settled = this.#waiting.splice(0, n - this.#settled);
    // A state that is shown already and holds them: they are in effect.
    const landed = this.#base !== null && this.#base.epoch === this.epoch && this.#base.rev >= rev;
    for (const { action, refused } of settled) {
      if (refused) this.#refused -= 1;
      else if (!landed) this.#landing.push({ action, rev });
    }
    this.#settled = n;
    this.#stored = Math.max(this.#stored, n);
    this.#wired = Math.max(this.#wired, n);
    this.#sent = Math.max(this.#sent, n);
    if (landed) this.#lay();
  }

  #lay() {
    if (!this.#base) return;
    const waiting = this.#waiting.filter(({ refused }) => !refused);
    this.#shown = this.#base.value;
    for (const { action } of [...this.#landing, ...waiting]) this.#shown = this.#apply(this.#shown, action);
  }
}

/** @param {any} event */
function isWelcome(event) {
  return typeof event.epoch === "string" && isNumber(event.n) && isNumber(event.rev);
}

/** @param {any} event */
function isState(event) {
  return typeof event.epoch === "string" && isNumber(event.rev) && event.value !== undefined;
}

/** @param {unknown} value */
function isNumber(value) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0;
}
