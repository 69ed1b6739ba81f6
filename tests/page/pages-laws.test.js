// @ts-check
/**
 * Many pages of one browser, opened, closed and cut off at random, on a server that dies, forgets and loses answers: each
 * press counts exactly once. What happens is drawn from a number; when it happens is not, so a failure may not come again.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import { connect } from "../../static/client.js";
import { fakeWindow, REMEMBERED_MS, startFake } from "./fake-server.js";
import { until } from "./harness.js";
import { mulberry32 } from "./random.js";

const ROUNDS = 60;

/** @typedef {import("../../static/client.js").Room} Page */
/** @typedef {"" | "wiped" | "aged"} Lot what the room forgets clients by */

/** How much later it is for pages and rooms than for the machine. */
let ahead = 0;
const clock = Date.now;
before(() => {
  Date.now = () => clock() + ahead;
});
after(() => {
  Date.now = clock;
});

class World {
  disk = { indexedDB: new IDBFactory(), IDBKeyRange };
  /** @type {Page[]} */
  pages = [];
  presses = 0;
  isUp = true;
  /** Accepted in a life of the room that is over. @type {number[]} */
  past = [];

  /**
   * @param {import("./fake-server.js").FakeServer} server
   * @param {number} seed
   */
  constructor(server, seed) {
    this.server = server;
    this.random = mulberry32(seed);
    server.onrequest = (_, response) => {
      // The request comes to nothing, or its answer does.
      if (this.draw(8) === 0) return Boolean(response.destroy());
      if (this.draw(8) === 0) response.end = () => response.destroy();
      return false;
    };
  }

  /** @param {number} below */
  draw(below) {
    return Math.floor(this.random() * below);
  }

  open() {
    if (this.pages.length === 4) return;
    const random = () => this.random() / 20;
    this.pages.push(connect(`${this.server.url}/`, { random, window: fakeWindow(this.disk) }));
  }

  press() {
    const page = this.pages[this.draw(this.pages.length)];
    for (let count = this.draw(4); page && count > 0; count -= 1) {
      if (page.send({ action: "plus", id: this.presses })) this.presses += 1;
    }
  }

  leave() {
    this.pages.splice(this.draw(this.pages.length), 1)[0]?.close();
  }

  /** @param {boolean} [all] */
  cut(all = false) {
    for (const { socket } of this.server.sessions) if (all || this.draw(2) === 0) socket.terminate();
  }

  /** Answers go nowhere for a while, and then the connections that lost them end. */
  mute() {
    if (this.server.mute) this.cut(true);
    this.server.mute = !this.server.mute;
  }

  async toggle() {
    if (this.isUp) await this.server.kill();
    else await this.server.start();
    this.isUp = !this.isUp;
  }

  async wipe() {
    if (this.isUp) await this.toggle();
    this.past.push(...this.server.room.journal.map(({ action }) => action.id));
    this.server.room.wipe();
  }

  /** The server is away until a crowded room may forget everybody, and does. */
  async age() {
    if (this.isUp) await this.toggle();
    ahead += REMEMBERED_MS + this.draw(REMEMBERED_MS);
    this.server.room.forgetOld();
  }

  /** @param {Lot} lot */
  async live(lot) {
    /** @type {[weight: number, () => void | Promise<void>][]} */
    const steps = [
      [20, () => this.press()],
      [6, () => this.open()],
      [4, () => this.leave()],
      [4, () => this.cut()],
      [3, () => this.toggle()],
      [2, () => this.mute()],
      [lot === "wiped" ? 1 : 0, () => this.wipe()],
      [lot === "aged" ? 1 : 0, () => this.age()],
    ];
    const total = steps.reduce((sum, [weight]) => sum + weight, 0);
    for (let round = 0; round < ROUNDS; round += 1) {
      let left = this.draw(total);
      await (steps.find(([weight]) => (left -= weight) < 0) ?? assert.fail())[1]();
      await new Promise((resolve) => setTimeout(resolve, this.draw(25)));
    }
  }

  /** From here on nothing goes wrong: pages that live are all settled, and a last one sends what is left. */
  async settle() {
    this.server.onrequest = () => false;
    this.server.mute = false;
    if (!this.isUp) await this.toggle();
    this.cut(true);
    this.open();
    const isDone = (/** @type {Page} */ { snapshot }) => snapshot.connection === "live" && snapshot.pending === 0 && snapshot.orphans === 0;
    await until(
      () => this.pages.every(isDone),
      () => JSON.stringify(this.pages.map(({ snapshot }) => snapshot)),
    );
  }

  /** @returns {Promise<any[]>} what is still on the disk, once nobody is going to send it */
  async left() {
    let rows = /** @type {any[]} */ ([]);
    await until(
      async () => {
        rows = await read(this.disk.indexedDB);
        return rows.every(({ unsure }) => unsure);
      },
      () => JSON.stringify(rows),
    );
    return rows.map(({ action }) => action.id);
  }
}

/** @type {[Lot, string][]} */
const LOTS = [
  ["", ""],
  ["wiped", ", or is asked about where the room is wiped"],
  ["aged", ", or is asked about where the room forgets by age"],
];
for (const [lot, otherwise] of LOTS) {
  test(`each press of many pages counts once${otherwise}`, async () => {
    for (let seed = 1; seed <= 6; seed += 1) {
      const server = await startFake();
      const world = new World(server, seed);
      try {
        await world.live(lot);
        await world.settle();
        const unsure = await world.left();
        const now = server.room.journal.map(({ action }) => action.id);
        assert.equal(new Set(now).size, now.length, `drawn from ${seed}: nothing is applied twice`);
        const known = new Set([...now, ...unsure, ...world.past]);
        assert.equal(known.size, world.presses, `drawn from ${seed}: nothing is lost`);
        if (!lot) assert.deepEqual([unsure.length, now.length], [0, world.presses]);
        for (const { snapshot } of world.pages) await until(() => snapshot.value === server.room.value, () => `${snapshot.value} is shown`);
      } finally {
        for (const page of world.pages) page.close();
        await server.kill();
      }
    }
  });
}

/** @param {IDBFactory} factory @returns {Promise<any[]>} */
function read(factory) {
  return new Promise((resolve) => {
    const opening = factory.open("tallyroom", 1);
    opening.onsuccess = () => {
      const asked = opening.result.transaction("actions").objectStore("actions").getAll();
      asked.onsuccess = () => {
        opening.result.close();
        resolve(asked.result);
      };
    };
  });
}
