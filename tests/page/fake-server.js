// @ts-check
/**
 * A server of `tallyroom.v1` in a few lines, for the faults that a real one does not make on demand. `FakeRoom` is the
 * room's side of the protocol without any IO; `startFake` puts it behind sockets and HTTP.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import WebSocket, { WebSocketServer } from "ws";
import { MAX, ownLoopback } from "./harness.js";

/** @typedef {{ client: string, n: number, action: any }} Asked */
/** @typedef {{ n: number, code: string, message: string }} Refusal */
/**
 * @typedef {object} Known
 * @property {number} n
 * @property {number} at when that was settled
 * @property {Map<number, Refusal>} refused
 * @property {Map<number, { rev: number, value: number }>} answers
 */
/**
 * @typedef {{ kind: "taken" | "flying" } | { kind: "repeat" } | { kind: "retry", expected: number, code: string }} Taken
 */

/** How long a room remembers a client after its last action, however crowded it is. */
export const REMEMBERED_MS = 3_600_000;

/** One room: what is asked waits until `commit()`, and is gone where it did not come to that. */
export class FakeRoom {
  epoch = randomUUID();
  rev = 0;
  value = 0;
  min = -MAX;
  max = MAX;
  window = 1024;
  /** @type {Map<string, Known>} */
  clients = new Map();
  /** @type {Asked[]} */
  flying = [];
  /** @type {(Asked & { rev: number })[]} */
  journal = [];
  /** The room's clock. */
  now = () => Date.now();

  /**
   * @param {string} client
   * @returns {Known}
   */
  known(client) {
    return this.clients.get(client) ?? { n: 0, at: 0, refused: new Map(), answers: new Map() };
  }

  /**
   * @param {string} client
   * @param {number} n
   * @param {any} action
   * @returns {Taken}
   */
  take(client, n, action) {
    const settled = this.known(client).n;
    const last = settled + this.flying.filter((one) => one.client === client).length;
    if (n <= settled) return { kind: "repeat" };
    if (n <= last) return { kind: "flying" };
    if (n > last + 1) return { kind: "retry", expected: last + 1, code: "gap" };
    if (n > settled + this.window) return { kind: "retry", expected: last + 1, code: "overloaded" };
    this.flying.push({ client, n, action });
    return { kind: "taken" };
  }

  /** Judges and keeps all that waits. */
  commit() {
    const batch = this.flying;
    this.flying = [];
    const refused = [];
    for (const { client, n, action } of batch) {
      const known = this.known(client);
      this.clients.set(client, known);
      known.n = n;
      known.at = this.now();
      const value = valueAfter(this.value, action);
      if (Number.isSafeInteger(value) && value >= this.min && value <= this.max) {
        this.value = value;
        this.rev += 1;
        this.journal.push({ client, n, action, rev: this.rev });
        known.answers.set(n, { rev: this.rev, value });
      } else {
        const refusal = { n, code: value === undefined ? "unknown_action" : "out_of_range", message: `no to ${n}` };
        known.refused.set(n, refusal);
        refused.push({ client, ...refusal });
      }
    }
    return { batch, refused };
  }

  crash() {
    this.flying = [];
  }

  /** Others took the places of all clients that may be forgotten. */
  forgetOld() {
    for (const [client, { at }] of this.clients) if (at + REMEMBERED_MS <= this.now()) this.clients.delete(client);
  }

  /** @param {number} [value] what an import brings; the clients are forgotten either way */
  wipe(value = 0) {
    Object.assign(this, { epoch: randomUUID(), rev: 0, value, clients: new Map(), flying: [], journal: [] });
  }

  /** @param {string} client */
  welcome(client) {
    const { n, refused } = this.known(client);
    return {
      type: "welcome",
      server: "0.0.0",
      room: "main",
      client,
      epoch: this.epoch,
      rev: this.rev,
      n,
      window: this.window,
      refused: [...refused.values()].filter((one) => one.n > n - this.window),
      durability: "disk",
      permissions: ["read", "write"],
      beat_ms: 20_000,
    };
  }

  state() {
    return { type: "state", epoch: this.epoch, rev: this.rev, value: this.value };
  }
}

/**
 * @param {number} value
 * @param {any} action
 */
function valueAfter(value, { action, by = 1, value: wanted }) {
  return { plus: value + by, minus: value - by, set: wanted, reset: 0 }[/** @type {"plus"} */ (action)];
}

/** One WebSocket at the fake server, and what came over it. */
export class FakeSession {
  /** @type {any[]} */
  received = [];

  /**
   * @param {FakeServer} server
   * @param {import("ws").WebSocket} socket
   * @param {string} client
   */
  constructor(server, socket, client) {
    this.server = server;
    this.socket = socket;
    this.client = client;
    socket.on("message", (data) => this.#act(JSON.parse(String(data))));
    socket.on("close", () => server.sessions.delete(this));
  }

  /** @param {object} event */
  tell(event) {
    this.socket.send(JSON.stringify(event));
  }

  greet() {
    const { room, sessions } = this.server;
    for (const other of sessions) if (other !== this && other.client === this.client) other.socket.close(4409);
    this.tell(room.welcome(this.client));
    this.tell({ type: "users", count: sessions.size });
    this.tell(room.state());
  }

  /** @param {any} message */
  #act(message) {
    this.received.push(message);
    if (this.server.onmessage(message, this)) return;
    const { n, ...action } = message;
    this.#answer(n, this.server.room.take(this.client, n, action));
  }

  /**
   * @param {number} n
   * @param {Taken} taken
   */
  #answer(n, taken) {
    const { room } = this.server;
    if (taken.kind === "retry") this.tell({ type: "retry", n, message: "later", after_ms: 5, ...taken, kind: undefined });
    else if (taken.kind === "repeat") this.#repeat(n, room.known(this.client).refused.get(n));
    else this.server.soon();
  }

  /**
   * @param {number} n
   * @param {Refusal | undefined} refusal
   */
  #repeat(n, refusal) {
    if (refusal) this.tell({ type: "error", ...refusal });
    this.tell({ type: "ack", n, rev: this.server.room.rev });
  }
}

export class FakeServer {
  room = new FakeRoom();
  /** @type {Set<FakeSession>} */
  sessions = new Set();
  /** True: nothing is committed before `commit()`. */
  holds = false;
  /** True: what is committed is told to nobody. */
  mute = false;
  /** Takes a message away from the room by answering true.
   * @type {(message: any, session: FakeSession) => boolean} */
  onmessage = () => false;
  /** Takes a request away by answering true.
   * @type {(request: import("node:http").IncomingMessage, response: import("node:http").ServerResponse, body: string) => boolean} */
  onrequest = () => false;
  /** @type {{ method: string, path: string, key: string | undefined }[]} */
  requests = [];
  /** @type {(() => void)[]} */
  #waiting = [];
  #due = false;
  #host = ownLoopback();
  #port = 0;
  /** @type {import("node:http").Server | undefined} */
  #http;

  get url() {
    return `http://${this.#host}:${this.#port}`;
  }

  /** Listens, on the same port as before. */
  async start() {
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => (offered.has("tallyroom.v1") ? "tallyroom.v1" : false) });
    const http = createServer((request, response) => this.#serve(request, response));
    http.on("upgrade", (request, socket, head) => {
      const client = /client\.([0-9a-f-]{36})/.exec(request.headers["sec-websocket-protocol"] ?? "")?.[1] ?? randomUUID();
      sockets.handleUpgrade(request, socket, head, (webSocket) => {
        const session = new FakeSession(this, webSocket, client);
        this.sessions.add(session);
        this.onsession(session);
      });
    });
    http.listen(this.#port, this.#host);
    await once(http, "listening");
    this.#port = /** @type {import("node:net").AddressInfo} */ (http.address()).port;
    this.#http = http;
  }

  /** What a new session is told. @type {(session: FakeSession) => void} */
  onsession = (session) => session.greet();

  /** As SIGKILL: what was not committed is gone. */
  async kill() {
    this.room.crash();
    this.#waiting = [];
    for (const { socket } of this.sessions) socket.terminate();
    const http = this.#http;
    this.#http = undefined;
    if (!http) return;
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  }

  /** The session that there is, or will be. */
  async session() {
    for (;;) {
      const [session] = [...this.sessions].slice(-1);
      if (session?.socket.readyState === 1) return session;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  soon() {
    if (this.#due || this.holds) return;
    this.#due = true;
    setImmediate(() => {
      this.#due = false;
      this.commit();
    });
  }

  commit() {
    const { batch, refused } = this.room.commit();
    if (batch.length === 0) return;
    for (const session of this.mute ? [] : this.sessions) {
      const own = batch.filter(({ client }) => client === session.client);
      for (const { client, ...refusal } of refused) if (client === session.client) session.tell({ type: "error", ...refusal });
      if (own.length > 0) session.tell({ type: "ack", n: own[own.length - 1].n, rev: this.room.rev });
      session.tell(this.room.state());
    }
    for (const answer of this.#waiting.splice(0)) answer();
  }

  /**
   * @param {import("node:http").IncomingMessage} request
   * @param {import("node:http").ServerResponse} response
   */
  async #serve(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const key = /** @type {string | undefined} */ (request.headers["idempotency-key"]);
    this.requests.push({ method: request.method ?? "", path: request.url ?? "", key });
    if (this.onrequest(request, response, body)) return;
    if (request.method === "GET") return this.#answer(response, 200, this.#shown());
    const [, client, n] = /^([0-9a-f-]{36}):([0-9]+)$/.exec(key ?? "") ?? [];
    const number = Number(n);
    const taken = this.room.take(client, number, JSON.parse(body));
    if (taken.kind === "retry") return this.#answer(response, 409, { code: taken.code, expected: taken.expected });
    if (taken.kind === "repeat") return this.#verdict(response, client, number, { "Idempotent-Replayed": "true" });
    this.#waiting.push(() => this.#verdict(response, client, number));
    this.soon();
  }

  #shown() {
    const { epoch, rev, value } = this.room;
    return { room: "main", epoch, rev, value };
  }

  /**
   * @param {import("node:http").ServerResponse} response
   * @param {string} client
   * @param {number} n
   * @param {Record<string, string>} [headers]
   */
  #verdict(response, client, n, headers) {
    const { refused, answers } = this.room.known(client);
    const refusal = refused.get(n);
    if (refusal) this.#answer(response, 422, { code: refusal.code, detail: refusal.message, status: 422 }, headers);
    else this.#answer(response, 200, { ...this.#shown(), ...answers.get(n) }, headers);
  }

  /**
   * @param {import("node:http").ServerResponse} response
   * @param {number} status
   * @param {object} body
   * @param {Record<string, string>} [headers]
   */
  #answer(response, status, body, headers = {}) {
    response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(body));
  }
}

export async function startFake() {
  const server = new FakeServer();
  await server.start();
  return server;
}

/** As much of a browser's window as the client asks for; without IndexedDB where `indexedDB` is not given. */
export function fakeWindow(more = {}) {
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const fetching = (/** @type {string} */ url, /** @type {object} */ options) => fetch(url, options);
  return Object.assign(new EventTarget(), { WebSocket, document, navigator: { onLine: true }, fetch: fetching, ...more });
}
