// @ts-check
/**
 * Actions whose page is gone: reloaded, crashed, closed with its browser. Any page of the origin sends them, by POST and
 * under the client and number that they were stored with. Whether their page is gone nobody can know; nobody has to,
 * since a number that comes twice is applied once. So there is no lock here: pages that are there say so when they are
 * asked, and that only saves sending twice.
 *
 * Of a forgotten client only number 1 could be taken twice: all others are a `gap`. A room forgets by age, or with its
 * epoch. So a number 1 that was put on a wire is posted only as long as a room remembers any client, and only where its
 * epoch is still the room's; about any other its user is asked, though the room may know it still.
 *
 * What remains. It would take an import or a restore over the room in the moment between our GET and our POST of a
 * number 1, whose first answer was lost, into a state that holds its effect but not its number. The protocol has no POST
 * on condition of an epoch that would close this.
 */
import { bounded, delay } from "./backoff.js";
import { report } from "./faults.js";
import * as rows from "./rows.js";

/** @typedef {import("./rows.js").Row} Row */
/**
 * @typedef {object} Around
 * @property {import("./store.js").Store} store
 * @property {any} window where `fetch` and `BroadcastChannel` are found
 * @property {() => number} random
 * @property {() => string} newId
 * @property {() => string[]} own the clients of this page's connection, whose actions it sends itself; none where it is over
 * @property {(rows: Row[]) => void} onfound all that is stored but for what living pages send themselves
 * @property {(refused: import("./outbox.js").Refused, api: string) => void} onrefused
 */

const CHANNEL = "tallyroom";
/** How long pages have to say that they are there; some more is drawn, so that pages do not all begin at once. */
const ANSWER_WITHIN_MS = 150;
const SPREAD_MS = 350;
/** How often a page looks for what others left behind. */
const LOOK_EVERY_MS = 60_000;
/** An answer that takes longer is given up, and asked for again. */
const FETCH_WITHIN_MS = 30_000;
/** What a model or the parser answers: the room's final no. Other statuses are final only where they are a repeat. */
const REFUSED = new Set([400, 422]);

/** The server cannot take it now. */
class Later extends Error {
  /** @param {number} afterMs */
  constructor(afterMs) {
    super("later");
    this.afterMs = afterMs;
  }
}

export class Orphans {
  #around;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /** @type {Set<string>} clients whose page said that it is there */
  #here = new Set();
  #sending = false;
  #running = false;
  #again = false;
  #closed = false;
  #tries = 0;
  /** @type {any} */
  #timer;
  #abort = new AbortController();

  /** @param {Around} around */
  constructor(around) {
    this.#around = around;
    const Channel = around.window.BroadcastChannel;
    this.#channel = Channel && new Channel(CHANNEL);
    this.#channel?.addEventListener("message", ({ data }) => this.#hear(data));
  }

  /** The server can be reached: sends what is there, and looks again from time to time. */
  start() {
    this.#sending = true;
    this.#tries = 0;
    this.look();
  }

  /** The server cannot be reached: looks only when it is asked to. */
  stop() {
    this.#sending = false;
    clearTimeout(this.#timer);
  }

  /** Looks what is there and, after `start`, sends it. */
  look() {
    clearTimeout(this.#timer);
    this.#again = true;
    if (!this.#running && !this.#closed) this.#run();
  }

  /** What is stored has changed in a way that other pages show. */
  tell() {
    this.#channel?.postMessage({ type: "changed" });
  }

  close() {
    this.#closed = true;
    this.stop();
    this.#channel?.close();
    this.#abort.abort();
  }

  async #run() {
    this.#running = true;
    let pause = LOOK_EVERY_MS * (1 + this.#around.random());
    while (this.#again && !this.#closed) {
      this.#again = false;
      await this.#ask();
      if (this.#closed) break;
      try {
        await this.#round();
        this.#tries = 0;
      } catch (error) {
        if (!(error instanceof Later) && !this.#closed) report(error);
        pause = Math.max(error instanceof Later ? error.afterMs : 0, delay(this.#tries, this.#around.random()));
        this.#tries += 1;
      }
    }
    this.#running = false;
    if (this.#sending && !this.#closed) this.#timer = setTimeout(() => this.look(), pause);
  }

  async #ask() {
    this.#here.clear();
    this.#channel?.postMessage({ type: "who" });
    const pause = ANSWER_WITHIN_MS + this.#around.random() * SPREAD_MS;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }

  /** @param {any} message of another page, which may be of another version */
  #hear(message) {
    if (message?.type === "who") this.#channel?.postMessage({ type: "here", clients: this.#around.own() });
    if (message?.type === "here" && Array.isArray(message.clients)) {
      for (const client of message.clients) this.#here.add(client);
    }
    if (message?.type === "changed") this.look();
  }

  /** Each client once: one that the server cannot take now does not hold up the others. */
  async #round() {
    /** @type {Later | null} */
    let later = null;
    for (const client of await this.#found()) {
      if (!this.#sending) return;
      try {
        await this.#send(client);
      } catch (error) {
        if (!(error instanceof Later)) throw error;
        if (!later || later.afterMs < error.afterMs) later = error;
      }
    }
    if (later) throw later;
  }

  /** @returns {Promise<Set<string>>} clients that have something to be sent */
  async #found() {
    const stored = await this.#around.store.read("all");
    const left = stored.filter(({ client, unsure }) => unsure || !this.#isLooked(client));
    this.#around.onfound(left);
    const postable = left.filter(({ unsure, api }) => !unsure && api.startsWith("http"));
    return new Set(postable.map(({ client }) => client));
  }

  /**
   * Whether a page looks after this client itself.
   * @param {string} client
   */
  #isLooked(client) {
    return this.#here.has(client) || this.#around.own().includes(client);
  }

  /** @param {string} client */
  async #send(client) {
    /** The room's, as far as it was told. */
    let epoch = "";
    while (this.#sending) {
      const stored = (await this.#around.store.read(rows.allOf(client))).filter(({ unsure }) => !unsure);
      if (stored.length === 0) break;
      // What is stored was read before the epoch is asked for: so an epoch that differs is a later one.
      const known = stored.find(({ wired }) => wired)?.epoch ?? null;
      if (!epoch || (known !== null && known !== epoch)) epoch = await this.#epoch(stored[0].api);
      if (known !== null && known !== epoch) {
        await this.#retire(client);
        break;
      }
      epoch = await this.#sendOne(stored[0], epoch);
    }
    await this.#found();
  }

  /**
   * @param {Row} row the client's first
   * @param {string} epoch the room's
   * @returns {Promise<string>} the room's epoch after it
   */
  async #sendOne(row, epoch) {
    const { client, n } = row;
    const { store } = this.#around;
    const now = Date.now();
    if (rows.isInDoubt(row, now)) {
      await this.#retire(client);
      return epoch;
    }
    if (!row.wired && !(await store.change([client, n, n], (found) => rows.mark(found, n, epoch, now)))) return epoch;
    const { response, body } = await this.#fetch(`${row.api}/actions`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": `${client}:${n}` },
      body: JSON.stringify(row.action),
    });
    const verdict = judge(response, body, n);
    if (verdict === "forgotten") {
      await this.#retire(client);
      return epoch;
    }
    if (verdict === "later") throw new Later(waitMs(response, body));
    await store.change(null, () => ({ remove: [[client, 1, n]], result: null }));
    const { code, detail, title } = body;
    if (verdict === "refused") this.#around.onrefused({ n, code, message: String(detail ?? title), action: row.action }, row.api);
    return typeof body.epoch === "string" ? body.epoch : epoch;
  }

  /** @param {string} api */
  async #epoch(api) {
    const { response, body } = await this.#fetch(api, {});
    if (response.status === 200 && typeof body.epoch === "string") return body.epoch;
    throw new Later(waitMs(response, body));
  }

  /**
   * Its numbers mean nothing any more, or may not: what was never on a wire is sent under a fresh id in the same round,
   * the rest is shown.
   * @param {string} client
   */
  async #retire(client) {
    const { store, newId } = this.#around;
    const fresh = newId();
    const moved = await store.change(rows.allOf(client), (found) => rows.retire(found, fresh));
    this.#again = true;
    this.tell();
    if (moved.length > 0) await this.#send(fresh);
  }

  /**
   * @param {string} url
   * @param {object} request
   * @returns {Promise<{ response: Response, body: any }>}
   */
  async #fetch(url, request) {
    const abort = new AbortController();
    const giveUp = () => abort.abort();
    const deadline = setTimeout(giveUp, FETCH_WITHIN_MS);
    this.#abort.signal.addEventListener("abort", giveUp);
    try {
      const response = await this.#around.window.fetch(url, { cache: "no-store", signal: abort.signal, ...request });
      const body = await response.json().catch(() => null);
      return { response, body: body ?? {} };
    } catch {
      throw new Later(0);
    } finally {
      clearTimeout(deadline);
      this.#abort.signal.removeEventListener("abort", giveUp);
    }
  }
}

/**
 * @param {Response} response
 * @param {any} body
 * @param {number} n the first that is stored of its client: all before it are settled
 * @returns {"accepted" | "refused" | "forgotten" | "later"}
 */
function judge({ status, headers }, body, n) {
  if (status === 200 && typeof body.epoch === "string") return "accepted";
  if (status === 409 && body.code === "gap" && body.expected < n) return "forgotten";
  const repeated = headers.get("Idempotent-Replayed") === "true";
  // Too large to be taken, ever: it would hold up all that comes after it.
  if (status === 413 && !repeated) return "forgotten";
  if (typeof body.code === "string" && (REFUSED.has(status) || repeated)) return "refused";
  return "later";
}

/**
 * @param {Response} response
 * @param {any} body
 */
function waitMs({ headers }, body) {
  if (Number.isSafeInteger(body.after_ms) && body.after_ms > 0) return bounded(body.after_ms);
  const seconds = Number(headers.get("Retry-After"));
  return seconds > 0 ? bounded(seconds * 1000) : 0;
}
