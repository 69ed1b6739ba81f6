// @ts-check
/**
 * One WebSocket from its opening to its end, and all that is timed on it: how long it may take to open, how long it may
 * be silent, how long the server wants to be left alone.
 */
import { bounded } from "./backoff.js";

/**
 * @typedef {object} Listener
 * @property {(event: any) => void} onevent a parsed message, of any shape; null where it was no JSON text
 * @property {(code: number | null, afterMs: number | null) => void} onend told once: the close code, null where the
 * socket was given up; and when to come back, where the server said so
 */

const PROTOCOL = "tallyroom.v1";
/** A connection that has not brought the room's state by then is given up and tried again; so is one that said `bye`. */
const OPEN_WITHIN_MS = 10_000;

export class Session {
  /** @type {WebSocket} */
  #socket;
  #listener;
  /** @type {any} the deadline of its opening, of the next thing to be heard, or of its end */
  #deadline;
  /** @type {Set<any>} */
  #holds = new Set();
  #silenceMs = 0;
  #live = false;
  /** @type {number | null} */
  #afterMs = null;

  /**
   * @param {any} window where WebSocket is found
   * @param {string} url
   * @param {string} client
   * @param {Listener} listener
   */
  constructor(window, url, client, listener) {
    this.#listener = listener;
    this.#socket = new window.WebSocket(url, [PROTOCOL, `client.${client}`]);
    this.#socket.onmessage = ({ data }) => this.#receive(parse(data));
    this.#socket.onclose = ({ code }) => this.#end(code);
    // What goes wrong is followed by a close; outside of browsers an error that nobody hears would end the program.
    this.#socket.onerror = () => {};
    this.#expect(OPEN_WITHIN_MS);
  }

  /** Whether messages can be sent now. */
  get isOpen() {
    return this.#socket.readyState === 1 && this.#afterMs === null;
  }

  /** @param {object} message */
  send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  /** The room's state has come: from now on only silence ends it. */
  live() {
    if (this.#live) return;
    this.#live = true;
    this.#expect(this.#silenceMs);
  }

  /**
   * Calls `done` after a while, unless the session has ended by then.
   * @param {number} ms
   * @param {() => void} done
   */
  hold(ms, done) {
    const timer = setTimeout(() => {
      this.#holds.delete(timer);
      done();
    }, ms);
    this.#holds.add(timer);
  }

  /** Lets go of the socket, so that nothing it still says is heard. */
  drop() {
    clearTimeout(this.#deadline);
    for (const timer of this.#holds) clearTimeout(timer);
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  /** @param {any} event */
  #receive(event) {
    if (event?.type === "welcome") this.#silenceMs = 2 * bounded(event.beat_ms);
    if (event?.type === "bye") {
      this.#afterMs = bounded(event.reconnect_after_ms);
      this.#expect(OPEN_WITHIN_MS);
    } else if (this.#live && this.#afterMs === null) {
      this.#expect(this.#silenceMs);
    }
    this.#listener.onevent(event);
  }

  /** @param {number | null} code */
  #end(code) {
    this.drop();
    this.#listener.onend(code, this.#afterMs);
  }

  /** @param {number} ms 0: for ever */
  #expect(ms) {
    clearTimeout(this.#deadline);
    if (ms > 0) this.#deadline = setTimeout(() => this.#end(null), ms);
  }
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
