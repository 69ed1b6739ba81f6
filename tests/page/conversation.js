// @ts-check
/**
 * Holds a conversation of `docs/protocol/` with a client, client.js unless another one is given: the runner plays the
 * server, and says what the client must send and show.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { WebSocketServer } from "ws";
import { connect } from "../../static/client.js";
import { fakeWindow } from "./fake-server.js";
import { PATIENCE, until } from "./harness.js";

/** How far a client's timer may be ahead of the runner's, in milliseconds. */
const SLACK_MS = 20;
/** What the runner gives, or takes, where a placeholder is new; every other one is a UUID. */
const VALUES = /** @type {Record<string, any>} */ ({
  $message: "a message",
  $server: "0.0.0",
  $durability: "memory",
  $permissions: ["read", "write"],
  $at: "2026-11-21T07:20:01.123Z",
  $ms: 20,
  $rev: 41,
  $rev2: 57,
});

/**
 * @typedef {object} Library what is under test
 * @property {(action: any) => void} act
 * @property {() => { value: any, pending: number, users: number | null, refused: string[], unsure: number, ended: boolean }} shown
 * @property {() => boolean} isCut whether it has noticed that its connection is gone
 * @property {() => void} close
 */

/** @param {string} url @returns {Library} */
function pageClient(url) {
  /** @type {string[]} */
  const refused = [];
  const onerror = (/** @type {any} */ error) => error.n !== undefined && refused.push(error.code);
  const fetch = () => Promise.reject(new Error("a conversation is held by WebSocket"));
  // Pauses that are as short as they may be drawn, on the whole.
  const random = () => Math.random() / 10;
  const room = connect(url.replace(/^ws/, "http"), { onerror, random, window: fakeWindow({ fetch }) });
  return {
    act: (action) => room.send(action),
    shown() {
      const { value, pending, users, unsure, connection } = room.snapshot;
      return { value, pending, users, refused, unsure: unsure.length, ended: connection === "closed" };
    },
    isCut: () => room.snapshot.connection !== "live",
    close: () => room.close(),
  };
}

/** A library under test, and the sockets that it opened. */
class Client {
  /** @type {{ socket: import("ws").WebSocket, protocols: string[] }[]} */
  arrivals = [];
  /** @type {import("ws").WebSocket | null} */
  socket = null;
  /** @type {any[]} sent, and not asked for yet */
  messages = [];

  /** @param {Library} library */
  constructor(library) {
    this.library = library;
  }

  /** What is shown, as far as `expected` names it. @param {any} expected */
  shown(expected) {
    return Object.fromEntries(Object.entries(this.library.shown()).filter(([name]) => name in expected));
  }
}

class Runner {
  /** @type {Map<string, Client>} */
  clients = new Map();
  /** @type {Map<string, any>} */
  names = new Map([["$room", "main"]]);

  /**
   * @param {WebSocketServer} server
   * @param {(url: string) => Library} open
   */
  constructor(server, open) {
    this.server = server;
    this.open = open;
    server.on("connection", (socket, request) => {
      const client = this.clients.get((request.url ?? "").slice("/r/main?".length)) ?? assert.fail(`a socket at ${request.url}`);
      const protocols = (request.headers["sec-websocket-protocol"] ?? "").split(/,\s*/);
      client.arrivals.push({ socket, protocols });
      socket.on("message", (data) => client.messages.push(JSON.parse(String(data))));
    });
  }

  /** @param {string} name */
  client(name) {
    const { port } = /** @type {import("node:net").AddressInfo} */ (this.server.address());
    const client = this.clients.get(name) ?? new Client(this.open(`ws://127.0.0.1:${port}/r/main?${name}`));
    this.clients.set(name, client);
    return client;
  }

  /** @param {any} step */
  async take(step) {
    if (step.side === "server" || step.may || step.stop || step.request) return;
    if (step.connect) await this.connected(this.client(step.connect), step);
    else if (step.act) this.client(step.act).library.act(step.action);
    else if (step.shows) await this.shows(this.client(step.shows.client), step.shows);
    else if (step.wait !== undefined) await this.wait(step.wait);
    else if (step.disconnect) await this.cut(this.client(step.disconnect));
    else if (step.to) await this.tell(this.client(step.to), step);
    else if (step.quiet) await this.quiet(this.client(step.from));
    else if (step.send) await this.hear(this.client(step.from), step.send);
    else assert.fail("a step of a kind that is not known");
  }

  /**
   * @param {Client} client
   * @param {any} step
   */
  async connected(client, { protocols = [] }) {
    await until(() => client.arrivals.length > 0, () => `no socket was opened; shown: ${JSON.stringify(client.library.shown())}`);
    const arrival = client.arrivals.shift() ?? assert.fail();
    client.socket = arrival.socket;
    const offered = [...arrival.protocols].sort();
    const expected = [...protocols].sort();
    assert.ok(this.same(expected, offered), `${offered} is offered, not ${expected}`);
  }

  /** What comes next is asked of a client that has noticed. @param {Client} client */
  async cut(client) {
    client.socket?.terminate();
    await until(() => client.library.isCut(), () => "it does not notice that it is cut off");
  }

  /**
   * @param {Client} client
   * @param {any} step
   */
  async tell(client, { event, events = [event], close }) {
    if (close !== undefined) client.socket?.close(close);
    else for (const one of events) client.socket?.send(JSON.stringify(this.fill(one)));
  }

  /**
   * @param {Client} client
   * @param {any} expected
   */
  async hear(client, expected) {
    await until(() => client.messages.length > 0, () => `nothing is sent; expected: ${JSON.stringify(expected)}`);
    const message = client.messages.shift();
    assert.ok(this.same(expected, message), `${JSON.stringify(message)} is sent, not ${JSON.stringify(expected)}`);
  }

  /** @param {Client} client */
  async quiet(client) {
    const socket = client.socket ?? assert.fail("there is no socket");
    const answered = once(socket, "pong", { signal: AbortSignal.timeout(PATIENCE) });
    socket.ping();
    await answered;
    assert.deepEqual(client.messages, []);
  }

  /**
   * @param {Client} client
   * @param {any} expected
   */
  async shows(client, { client: _, ...expected }) {
    const wanted = this.fill(expected);
    await until(
      () => isDeepStrictEqual(client.shown(wanted), wanted),
      () => `${JSON.stringify(client.shown(wanted))} is shown, not ${JSON.stringify(wanted)}`,
    );
  }

  /** @param {any} ms */
  async wait(ms) {
    await new Promise((resolve) => setTimeout(resolve, this.fill(ms) - SLACK_MS));
    for (const { messages, arrivals } of this.clients.values()) assert.deepEqual([messages, arrivals.length], [[], 0], "it does not wait");
  }

  /** A value with its placeholders filled in. @param {any} value @returns {any} */
  fill(value) {
    if (typeof value === "string") {
      if (/^\$[A-Za-z0-9]+$/.test(value)) return this.value(value);
      return value.replace(/\$[A-Za-z0-9]+/g, (name) => String(this.value(name)));
    }
    if (Array.isArray(value)) return value.map((one) => this.fill(one));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.fill(one)]));
  }

  /** @param {string} name */
  value(name) {
    if (!this.names.has(name)) this.names.set(name, VALUES[name] ?? randomUUID());
    return this.names.get(name);
  }

  /**
   * Whether what came is what is expected; a client's id that is new is learned, and is no other one.
   * @param {any} expected
   * @param {any} actual
   */
  same(expected, actual) {
    for (const [index, one] of Array.isArray(expected) ? expected.entries() : []) {
      const name = /^client\.(\$[A-Za-z0-9]+)$/.exec(one)?.[1];
      const id = /^client\.([0-9a-f-]{36})$/.exec(actual[index])?.[1];
      if (name && id && !this.names.has(name) && ![...this.names.values()].includes(id)) this.names.set(name, id);
    }
    return isDeepStrictEqual(this.fill(expected), actual);
  }

  close() {
    for (const { library } of this.clients.values()) library.close();
  }
}

/** The conversations that have a client's side. */
export async function forClients() {
  const folder = new URL("../../docs/protocol/", import.meta.url);
  const files = (await readdir(folder)).filter((name) => name.endsWith(".json"));
  const read = async (/** @type {string} */ name) => ({ name, ...JSON.parse(await readFile(new URL(name, folder), "utf8")) });
  const all = await Promise.all(files.map(read));
  const ours = all.filter(({ sides = ["client"] }) => sides.includes("client"));
  // As `tests/support/conversation.rs` has it.
  assert.equal(ours.length, 23, "a conversation for clients is missing, or new");
  return ours;
}

/**
 * @param {{ steps: any[] }} conversation
 * @param {(url: string) => Library} [open]
 */
export async function hold({ steps }, open = pageClient) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "tallyroom.v1" });
  await once(server, "listening");
  const runner = new Runner(server, open);
  try {
    for (const [index, step] of steps.entries()) {
      try {
        await runner.take(step);
      } catch (error) {
        throw new Error(`step ${index + 1}, ${JSON.stringify(step)}: ${/** @type {Error} */ (error).message}`);
      }
    }
    for (const client of runner.clients.values()) assert.deepEqual(client.messages, [], "it sends what nobody expects");
  } finally {
    runner.close();
    for (const socket of server.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
  }
}
