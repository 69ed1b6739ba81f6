// @ts-check
/**
 * A client of one room. It knows no DOM: a page, a script or a test shows what it tells.
 *
 *     import { connect } from "/client.js";
 *     const room = connect("/r/door", { onchange: ({ connection, value }) => console.log(connection, value) });
 *     room.plus();
 *
 * It speaks `tallyroom.v1`: each action is applied exactly once, whatever happens to the connection, the server or the
 * page. An action is shown at once and stored before it is sent; what was not settled when its page went away is sent by
 * the next page of that origin (`orphans.js`). A lost connection comes back by itself, later and later and never in step
 * with others, unless the server's close code says that coming back is of no use.
 *
 * A server that does not choose `tallyroom.v1` cannot be used: browsers fail a connection whose subprotocols are all
 * passed over, and without numbers nothing here would hold.
 */
import { apiUrl, randomId, socketUrl } from "./address.js";
import { comesBack, delay } from "./backoff.js";
import { applyToCounter } from "./counter.js";
import { attempt } from "./faults.js";
import { Orphans } from "./orphans.js";
import { Outbox } from "./outbox.js";
import * as rows from "./rows.js";
import { Session } from "./session.js";
import { Store } from "./store.js";
import { Surroundings } from "./surroundings.js";

export { apiUrl, applyToCounter, comesBack, delay, socketUrl };

/** @typedef {import("./client.js").Snapshot} Snapshot */
/** @typedef {import("./client.js").Options} Options */
/** @typedef {import("./client.js").Room} Room */
/** @typedef {import("./client.js").Unsure} Unsure */

/** Only a connection that lived this long lets the pauses start small again: some servers accept and then fail. */
const STEADY_AFTER_MS = 5_000;
/** More than anybody presses while a server is away; a script that does is told. */
const MAX_PENDING = 100_000;

/**
 * What is known before the first connection.
 * @type {Readonly<Snapshot>}
 */
export const UNKNOWN = Object.freeze({
  connection: "connecting",
  accepts: true,
  value: null,
  users: null,
  retryAt: null,
  code: null,
  pending: 0,
  orphans: 0,
  unsure: Object.freeze([]),
  durable: false,
});

/**
 * Opens a room and keeps it open until `close()`.
 * @param {string | URL} url a room's page or socket; relative to the page where there is one
 * @param {Options} [options]
 * @returns {Room}
 */
export function connect(url, options = {}) {
  return new Connection(url, options);
}

/** @implements {Room} */
class Connection {
  #url;
  #api;
  #options;
  /** @type {any} the browser's window, or what stands for it */
  #window;
  #random;
  /** @type {Readonly<Snapshot>} */
  #snapshot = UNKNOWN;
  /** @type {Session | null} the one whose events count; an older one is no longer listened to */
  #session = null;
  #outbox;
  #store;
  #orphans;
  #surroundings;
  /** @type {string | null} the id that takes the place of a forgotten one, until it has */
  #fresh = null;
  /** @type {Promise<void> | null} what is being stored */
  #saving = null;
  #isFlowDue = false;
  #isOver = false;
  #tries = 0;
  #liveSince = 0;
  /** @type {any} the next try */
  #timer;

  /**
   * @param {string | URL} url
   * @param {Options} options
   */
  constructor(url, options) {
    this.#options = options;
    this.#window = options.window ?? globalThis;
    this.#random = options.random ?? Math.random;
    const base = this.#window.location?.href;
    this.#url = socketUrl(url, base);
    this.#api = options.api ? new URL(options.api, base).href : apiUrl(url, base) ?? this.#url;
    this.#outbox = new Outbox(this.#newId(), (value, action) => this.#apply(value, action));
    this.#store = new Store(this.#window, () => this.#rescue(), () => this.#show({ durable: this.#store.durable }));
    this.#orphans = new Orphans({
      store: this.#store,
      window: this.#window,
      random: this.#random,
      newId: () => this.#newId(),
      own: () => this.#own(),
      onfound: (found) => this.#found(found),
      onrefused: (refused, api) => api === this.#api && this.#complain(refused),
    });
    this.#surroundings = new Surroundings(this.#window, {
      onback: () => this.#back(),
      // A socket over a network that went away would look alive for minutes.
      ondoubt: () => this.#lost(),
      // No reason to sit out the pause.
      onwake: () => this.retryNow(),
      onleave: () => this.#leave(),
    });
    this.#surroundings.listen();
    this.#orphans.look();
    this.#open();
  }

  get snapshot() {
    return this.#snapshot;
  }

  plus() {
    return this.send({ action: "plus" });
  }

  minus() {
    return this.send({ action: "minus" });
  }

  /** @param {object} action */
  send(action) {
    const copy = JSON.parse(JSON.stringify(action));
    if (typeof copy !== "object" || copy === null || Array.isArray(copy)) throw new TypeError("an action is an object");
    delete copy.n;
    if (!this.#snapshot.accepts || this.#outbox.pending >= MAX_PENDING) return false;
    this.#outbox.press(copy);
    this.#showActions();
    this.#soon();
    return true;
  }

  /** @param {readonly Unsure[]} [chosen] */
  async resend(chosen = this.#snapshot.unsure) {
    return this.#decide((stored) => rows.again(stored, [...chosen], this.#newId()));
  }

  /** @param {readonly Unsure[]} [chosen] */
  async discard(chosen = this.#snapshot.unsure) {
    return this.#decide((stored) => rows.discard(stored, [...chosen]));
  }

  retryNow() {
    if (this.#session || this.#isOver) return;
    this.#tries = 0;
    this.#surroundings.listen();
    this.#open();
  }

  close() {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#drop();
    this.#end(1000);
    this.#orphans.close();
    this.#flow();
  }

  #open() {
    clearTimeout(this.#timer);
    // While the device itself is offline, "connecting" would promise too much; it is still tried, because some
    // networks (a loopback, a virtual machine) work without what the browser takes for being online.
    this.#show({ connection: this.#surroundings.isOnline ? "connecting" : "offline", accepts: true, retryAt: null, code: null });
    if (this.#fresh) return;
    this.#session = new Session(this.#window, this.#url, this.#outbox.client, {
      onevent: (event) => this.#receive(event),
      onend: (code, afterMs) => this.#ended(code, afterMs),
    });
  }

  /** @param {any} event */
  #receive(event) {
    const { refused, holdMs, trouble } = this.#outbox.receive(event, Date.now());
    for (const one of refused) this.#complain(one);
    if (event?.type === "error" && event.n === undefined) {
      this.#complain({ code: String(event.code), message: String(event.message) });
    }
    if (event?.type === "users" && Number.isSafeInteger(event.count) && event.count >= 0) this.#show({ users: event.count });
    if (event?.type === "bye") this.#outbox.disconnected();
    if (trouble === "forgotten") this.#forget();
    else if (trouble === "confused") this.#lost();
    else if (holdMs !== null) this.#session?.hold(holdMs, () => this.#release());
    else if (event?.type === "state" && this.#outbox.welcomed) this.#live();
    this.#showActions();
    this.#soon();
  }

  #live() {
    if (this.#snapshot.connection === "live") return;
    this.#session?.live();
    this.#liveSince = Date.now();
    this.#orphans.start();
    this.#show({ connection: "live", value: this.#outbox.value });
  }

  #release() {
    this.#outbox.release();
    this.#soon();
  }

  /**
   * @param {number | null} code
   * @param {number | null} afterMs
   */
  #ended(code, afterMs) {
    if (code === null || comesBack(code)) {
      this.#lost(afterMs);
    } else {
      this.#drop();
      this.#end(code);
    }
  }

  /** @param {number | null} [afterMs] when the server wants to see us again; drawn where it did not say */
  #lost(afterMs = null) {
    this.#drop();
    if (this.#liveSince && Date.now() - this.#liveSince >= STEADY_AFTER_MS) this.#tries = 0;
    this.#liveSince = 0;
    const pause = afterMs ?? delay(this.#tries, this.#random(), this.#surroundings.isVisible);
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#open(), pause);
    this.#show({ connection: this.#surroundings.isOnline ? "waiting" : "offline", retryAt: Date.now() + pause });
  }

  /** @param {number} code */
  #end(code) {
    this.#surroundings.ignore();
    this.#show({ connection: "closed", accepts: false, retryAt: null, code });
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#session?.drop();
    this.#session = null;
    this.#outbox.disconnected();
    this.#orphans.stop();
  }

  /** Carries on after the present task: what is pressed in one go is stored in one go. */
  #soon() {
    if (this.#isFlowDue) return;
    this.#isFlowDue = true;
    queueMicrotask(() => {
      this.#isFlowDue = false;
      this.#flow();
    });
  }

  /** Sends what is ready to be sent, and stores what is not stored yet. */
  #flow() {
    if (this.#session?.isOpen) for (const { n, action } of this.#outbox.toSend()) this.#session.send({ ...action, n });
    const write = this.#outbox.toStore(Date.now());
    if (write) this.#saving = this.#save(write);
    else if (this.#isOver && !this.#saving && !this.#fresh) this.#store.close();
  }

  /** @param {import("./outbox.js").Write} write */
  async #save(write) {
    const range = write.mark ? /** @type {rows.Range} */ ([write.client, ...write.mark]) : null;
    const done = await this.#store.change(range, (stored) => rows.write(stored, write, this.#api));
    this.#saving = null;
    this.#outbox.stored(done);
    if (!done) this.#forget();
    this.#flow();
  }

  /**
   * The room knows nothing of this client any more, or may have forgotten it, or another page found that out first: a
   * fresh id takes its place.
   */
  async #forget() {
    if (this.#fresh) return;
    const fresh = this.#newId();
    this.#fresh = fresh;
    this.#outbox.forget();
    this.#drop();
    this.#show({ connection: "connecting" });
    await this.#saving;
    const { client } = this.#outbox;
    const isSettled = (/** @type {number} */ n) => this.#outbox.isSettled(n);
    const moved = await this.#store.change(rows.allOf(client), (stored) => rows.retire(stored, fresh, isSettled));
    this.#outbox.renamed(fresh, new Set(moved));
    this.#fresh = null;
    this.#orphans.tell();
    this.#orphans.look();
    this.#showActions();
    if (this.#isOver) this.#flow();
    else if (this.#snapshot.connection !== "closed") this.#lost();
  }

  /**
   * @param {(stored: rows.Row[]) => rows.Change<number>} change
   * @returns {Promise<number>}
   */
  async #decide(change) {
    const count = await this.#store.change("all", change);
    this.#orphans.tell();
    this.#orphans.look();
    return count;
  }

  /** @param {rows.Row[]} found what other pages left behind, and what nobody can decide but the user */
  #found(found) {
    const here = found.filter(({ api }) => api === this.#api);
    const unsure = here.filter((row) => row.unsure).map(({ client, n, action }) => Object.freeze({ client, n, action }));
    const same = JSON.stringify(unsure) === JSON.stringify(this.#snapshot.unsure);
    this.#show({
      // One's own count as pending, also once nobody here sends them any more.
      orphans: here.filter((row) => !row.unsure && row.client !== this.#outbox.client).length,
      unsure: same ? this.#snapshot.unsure : Object.freeze(unsure),
    });
  }

  /** The clients whose actions this connection sends itself. */
  #own() {
    if (this.#snapshot.connection === "closed") return [];
    return this.#fresh ? [this.#outbox.client, this.#fresh] : [this.#outbox.client];
  }

  #rescue() {
    return this.#outbox.rows().map((row) => ({ ...row, api: this.#api, unsure: false }));
  }

  #newId() {
    return randomId(this.#window.crypto ?? globalThis.crypto);
  }

  #showActions() {
    this.#show({ value: this.#outbox.value, pending: this.#outbox.pending });
  }

  /** @param {Partial<Snapshot>} change */
  #show(change) {
    // Who has closed a room hears nothing more of it, whatever is still under way.
    if (this.#isOver && this.#snapshot.connection === "closed") return;
    const before = this.#snapshot;
    const keys = /** @type {(keyof Snapshot)[]} */ (Object.keys(change));
    if (keys.every((key) => Object.is(before[key], change[key]))) return;
    const now = Object.freeze({ ...before, ...change });
    this.#snapshot = now;
    attempt(() => this.#options.onchange?.(now, before));
  }

  /** @param {import("./client.js").RoomError} error */
  #complain(error) {
    if (!this.#isOver) attempt(() => this.#options.onerror?.(error));
  }

  /**
   * @param {any} value
   * @param {any} action
   */
  #apply(value, action) {
    let after = value;
    attempt(() => (after = (this.#options.apply ?? applyToCounter)(value, action)));
    return after;
  }

  /** A try that began without a network may hang; one that begins now will not. */
  #back() {
    if (this.#snapshot.connection === "live") return;
    this.#drop();
    this.retryNow();
  }

  /** The page may be gone before what is being stored is: the last presses do not wait for it. */
  #leave() {
    const write = this.#outbox.toStoreNow();
    if (write) this.#store.change(null, (stored) => rows.write(stored, write, this.#api));
  }
}
