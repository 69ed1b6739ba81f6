// @ts-check
/**
 * A client of one room. It knows no DOM: a page, a script or a test shows what it tells.
 *
 *     import { connect } from "/client.js";
 *     const room = connect("/r/door", { onchange: ({ connection, value }) => console.log(connection, value) });
 *     room.plus();
 *
 * It comes back by itself after a lost connection, later and later and never in step with others, unless the
 * server's close code says that coming back is of no use.
 */

/** @typedef {import("./client.js").Snapshot} Snapshot */
/** @typedef {import("./client.js").Options} Options */
/** @typedef {import("./client.js").Room} Room */

/** The longest pause before another try, in milliseconds, while somebody looks and while nobody does. */
const MAX_DELAY_MS = 15_000;
const MAX_DELAY_HIDDEN_MS = 60_000;
/** The first try again follows within this; each later one may wait twice as long as the one before. */
const FIRST_DELAY_MS = 500;
/** A connection that has not brought the room's state by then is given up and tried again. */
const OPEN_WITHIN_MS = 10_000;
/** Only a connection that lived this long lets the pauses start small again: some servers accept and then fail. */
const STEADY_AFTER_MS = 5_000;
/** Close codes after which the same connection would only end the same way. */
const FINAL_CODES = new Set([1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409]);

/**
 * What is known before the first connection.
 * @type {Readonly<Snapshot>}
 */
export const UNKNOWN = Object.freeze({
  connection: "connecting",
  accepts: false,
  value: null,
  users: null,
  retryAt: null,
  code: null,
});

/**
 * Merges an event of the server into what is shown. Events and fields that it does not know change nothing, and
 * then the same object comes back.
 * @param {Readonly<Snapshot>} snapshot
 * @param {any} event a parsed message, of any shape
 * @returns {Readonly<Snapshot>}
 */
export function merge(snapshot, event) {
  if (event?.type === "state" && event.value !== undefined) {
    return { ...snapshot, value: event.value, connection: "live", accepts: true };
  }
  if (event?.type === "users" && Number.isSafeInteger(event.count) && event.count >= 0) {
    return { ...snapshot, users: event.count };
  }
  return snapshot;
}

/**
 * Says whether to come back after a close code.
 * @param {number} code
 */
export function comesBack(code) {
  return !FINAL_CODES.has(code);
}

/**
 * How long to wait before try number `tries` (from 0) of coming back, in milliseconds. The whole pause is drawn, so
 * that a thousand pages that lost the same server do not return at the same moment.
 * @param {number} tries
 * @param {number} random from 0 up to, not including, 1
 * @param {boolean} [visible]
 */
export function delay(tries, random, visible = true) {
  const longest = visible ? MAX_DELAY_MS : MAX_DELAY_HIDDEN_MS;
  return Math.round(random * Math.min(longest, FIRST_DELAY_MS * 2 ** tries));
}

/**
 * The WebSocket address of a room's page.
 * @param {string | URL} url a room's page or socket, absolute or relative to `base`
 * @param {string} [base]
 */
export function socketUrl(url, base) {
  const socket = new URL(url, base);
  socket.protocol = socket.protocol.replace(/^http/, "ws");
  socket.hash = "";
  return socket.href;
}

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
  #options;
  /** @type {any} the browser's window, or what stands for it */
  #window;
  #random;
  /** @type {Readonly<Snapshot>} */
  #snapshot = UNKNOWN;
  /** @type {WebSocket | null} the one whose events count; an older one is no longer listened to */
  #socket = null;
  #tries = 0;
  #liveSince = 0;
  /** @type {any} the one timer: for the next try, or the deadline of this one */
  #timer;

  /**
   * @param {string | URL} url
   * @param {Options} options
   */
  constructor(url, options) {
    this.#options = options;
    this.#window = options.window ?? globalThis;
    this.#random = options.random ?? Math.random;
    this.#url = socketUrl(url, this.#window.location?.href);
    this.#listen("addEventListener");
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
    if (!this.#snapshot.accepts || this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(action));
    return true;
  }

  retryNow() {
    if (this.#socket) return;
    this.#tries = 0;
    this.#listen("addEventListener");
    this.#open();
  }

  close() {
    this.#drop();
    this.#end(1000);
  }

  #open() {
    clearTimeout(this.#timer);
    const socket = new this.#window.WebSocket(this.#url);
    this.#socket = socket;
    // While the device itself is offline, "connecting" would promise too much; it is still tried, because some
    // networks (a loopback, a virtual machine) work without what the browser takes for being online.
    this.#show({ connection: this.#isOnline() ? "connecting" : "offline", retryAt: null, code: null });
    socket.onmessage = (/** @type {MessageEvent} */ { data }) => this.#receive(data);
    socket.onclose = (/** @type {CloseEvent} */ { code }) => this.#closed(code);
    this.#timer = setTimeout(() => this.#lost(), OPEN_WITHIN_MS);
  }

  /** @param {unknown} data */
  #receive(data) {
    const event = parse(data);
    if (event?.type === "error") {
      this.#options.onerror?.({ code: String(event.code), message: String(event.message) });
      return;
    }
    const wasLive = this.#snapshot.connection === "live";
    const next = merge(this.#snapshot, event);
    if (!wasLive && next.connection === "live") {
      clearTimeout(this.#timer);
      this.#liveSince = Date.now();
    }
    this.#show(next);
  }

  /** @param {number} code */
  #closed(code) {
    this.#drop();
    if (comesBack(code)) this.#lost();
    else this.#end(code);
  }

  #lost() {
    this.#drop();
    if (this.#liveSince && Date.now() - this.#liveSince >= STEADY_AFTER_MS) this.#tries = 0;
    this.#liveSince = 0;
    const pause = delay(this.#tries, this.#random(), this.#isVisible());
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#open(), pause);
    this.#show({
      connection: this.#isOnline() ? "waiting" : "offline",
      accepts: false,
      retryAt: Date.now() + pause,
    });
  }

  /** @param {number} code */
  #end(code) {
    this.#listen("removeEventListener");
    this.#show({ connection: "closed", accepts: false, retryAt: null, code });
  }

  /** Lets go of the socket, so that nothing it still says is heard. */
  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    // An attempt that is cut off reports an error, which nobody has to hear.
    socket.onerror = () => {};
    socket.close();
  }

  /** @param {Partial<Snapshot>} change */
  #show(change) {
    const before = this.#snapshot;
    const keys = /** @type {(keyof Snapshot)[]} */ (Object.keys(change));
    if (keys.every((key) => Object.is(before[key], change[key]))) return;
    this.#snapshot = Object.freeze({ ...before, ...change });
    this.#options.onchange?.(this.#snapshot, before);
  }

  #isOnline() {
    return this.#window.navigator?.onLine !== false;
  }

  #isVisible() {
    return this.#window.document?.visibilityState !== "hidden";
  }

  /** @param {"addEventListener" | "removeEventListener"} verb */
  #listen(verb) {
    this.#window[verb]?.("online", this.#back);
    this.#window[verb]?.("offline", this.#doubt);
    this.#window[verb]?.("pageshow", this.#wake);
    this.#window.document?.[verb]?.("visibilitychange", this.#wake);
  }

  /** Somebody looks again, or the network is back: no reason to sit out the pause. */
  #wake = () => {
    if (this.#isVisible()) this.retryNow();
  };

  /** A try that began without a network may hang; one that begins now will not. */
  #back = () => {
    if (this.#snapshot.connection === "live") return;
    this.#drop();
    this.retryNow();
  };

  /** A socket over a network that went away would look alive for minutes. */
  #doubt = () => this.#lost();
}

/**
 * @param {unknown} data
 * @returns {any} null for what is no JSON text
 */
function parse(data) {
  try {
    return JSON.parse(/** @type {string} */ (data));
  } catch {
    return null;
  }
}
