#!/usr/bin/env node
/**
 * A client of a Tallyroom room that comes back by itself and whose actions count exactly once. To be copied.
 *
 *     const door = new Room("ws://localhost:6789/r/door", (room) => console.log(room.value, room.users));
 *     console.log(await door.act({ action: "plus", by: 5 })); // { verdict: "accepted", rev: 42 }
 *
 * docs/protocol.md tells why it does what it does. What waits is kept in memory only and is gone with the program.
 * It needs `ws`, and Node 20. As a program it takes lines: + - +5 -3 =7
 */
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";

const FINAL_CODES = new Set([1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409]); // whoever came back would be closed so again
const CUT = 1006;
const FIRST_PAUSE = 500; // all in milliseconds; how much of it is waited is drawn, so that not all come at once
const LONGEST_PAUSE = 15_000;
const STEADY_AFTER = 5_000; // some servers accept and then fail
const PATIENCE = 10_000; // for the welcome to come, and for the close after a bye
const REMEMBERED = 3_600_000 - 60_000; // what is sent now takes its time

/**
 * A room, open until `close()` or until the server says that coming back is of no use.
 *
 * `value` is the last state with our own actions laid over it, `users` how many are here; both are null at first.
 * `onChange(room)` is called after each change.
 */
export class Room {
  users = null;
  connected = false;
  ended = false;
  unsure = [];
  #state = null;
  #socket = null;
  #onWire = Infinity;
  #heldUntil = 0;
  #longest = FIRST_PAUSE;
  #url; #onChange; #id; #epoch; #firstSent; #settled; #last; #mine; #window; #silence; #bye; #steadyAt;
  #deadline; #hold; // timers

  constructor(url, onChange = () => {}) {
    this.#url = url;
    this.#onChange = onChange;
    this.#takeFreshId([]);
    this.#open();
  }

  get value() {
    if (!this.#state) return null;
    return [...this.#mine.values()].reduce((value, { action }) => foreseen(value, action), this.#state.value);
  }

  get pending() {
    return this.#mine.size;
  }

  /**
   * Does an action once, whatever happens to the connection, and promises the room's verdict:
   *
   * `accepted` at `rev`; `refused` with `code` and `message`; `unsure`: nobody can tell whether it counted, because the
   * room forgot us or we ended (it stands in `unsure`, too: ask your user); `unsent`: it never will count.
   */
  act(action) {
    return new Promise((resolve) => {
      const judge = (verdict, details) => resolve({ verdict, ...details });
      if (this.ended) return judge("unsent");
      // `sent`: whether it was ever put on a wire. `rev`: where it was settled.
      const own = { action: JSON.parse(JSON.stringify(action)), judge, sent: false, rev: null };
      this.#last += 1;
      this.#mine.set(this.#last, own);
      this.#changed();
    });
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#end();
  }

  #open() {
    const socket = new WebSocket(this.#url, ["tallyroom.v1", `client.${this.#id}`], { closeTimeout: 1_000 });
    // A socket that was given up is no longer heard.
    socket.on("message", (data) => socket === this.#socket && this.#hear(JSON.parse(data)));
    socket.on("close", (code) => socket === this.#socket && this.#lost(code));
    socket.on("error", () => {}); // a close follows
    this.#socket = socket;
    this.#bye = null;
    this.#steadyAt = Infinity;
    this.#silence = PATIENCE;
    this.#listen();
  }

  #listen() {
    clearTimeout(this.#deadline);
    if (this.#silence > 0) this.#deadline = setTimeout(() => this.#lost(CUT), this.#silence);
  }

  #lost(code) {
    this.#drop();
    if (FINAL_CODES.has(code)) return this.#end();
    if (performance.now() > this.#steadyAt) this.#longest = FIRST_PAUSE;
    this.#deadline = setTimeout(() => this.#open(), this.#bye ?? Math.random() * this.#longest);
    this.#longest = Math.min(LONGEST_PAUSE, 2 * this.#longest);
    this.#changed();
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.connected = false;
    this.#onWire = Infinity; // nothing is sent before the next welcome
    this.#heldUntil = 0;
    clearTimeout(this.#deadline);
    clearTimeout(this.#hold);
    socket?.terminate();
  }

  /** Sends what is not settled, in order, as far as it may. */
  #send() {
    clearTimeout(this.#hold);
    const held = this.#heldUntil - performance.now();
    if (held > 0) {
      this.#hold = setTimeout(() => this.#send(), held);
      return;
    }
    while (this.#onWire < Math.min(this.#last, this.#settled + this.#window)) {
      this.#onWire += 1;
      const own = this.#mine.get(this.#onWire);
      if (!own) continue; // it was refused
      own.sent = true;
      this.#firstSent ??= Date.now();
      this.#socket.send(JSON.stringify({ ...own.action, n: this.#onWire }));
    }
  }

  #hear(event) {
    switch (event.type) {
      case "welcome":
        if (this.#isForgotten(event)) {
          this.#takeFreshId(this.#giveUp());
          return this.#lost(CUT);
        }
        this.#epoch = event.epoch;
        this.#window = event.window;
        this.#onWire = event.n;
        this.#heldUntil = 0;
        this.#silence = 2 * event.beat_ms;
        this.#steadyAt = performance.now() + STEADY_AFTER;
        this.connected = true;
        event.refused.forEach((refusal) => this.#refuse(refusal));
        this.#settle(event.n, event.rev);
        break;
      case "state":
        this.#state = event;
        this.#takeEffect();
        break;
      case "users":
        this.users = event.count;
        break;
      case "ack":
        this.#settle(event.n, event.rev);
        break;
      case "error":
        if (event.n === undefined) console.warn("not understood:", event.message);
        else this.#refuse(event);
        break;
      case "retry":
        this.#onWire = Math.min(this.#onWire, event.expected - 1);
        this.#heldUntil = Math.max(this.#heldUntil, performance.now() + event.after_ms);
        break;
      case "bye":
        this.#bye = event.reconnect_after_ms;
        this.#silence = PATIENCE;
        break;
    }
    this.#listen();
    this.#changed();
  }

  #refuse({ n, code, message }) {
    this.#mine.get(n)?.judge("refused", { code, message });
    this.#mine.delete(n);
  }

  #settle(n, rev) {
    for (let settled = this.#settled + 1; settled <= n; settled += 1) {
      const own = this.#mine.get(settled);
      if (!own) continue;
      own.rev = rev;
      own.judge("accepted", { rev });
    }
    this.#settled = Math.max(this.#settled, n);
    this.#takeEffect();
  }

  #takeEffect() {
    // Revisions of another epoch say nothing.
    const shown = this.#state?.epoch === this.#epoch ? this.#state?.rev : -1;
    for (const [n, { rev }] of this.#mine) if (rev !== null && rev <= shown) this.#mine.delete(n);
  }

  #isForgotten({ epoch, n }) {
    if (n < this.#settled || epoch !== (this.#epoch ?? epoch)) return true;
    const age = Date.now() - this.#firstSent; // a clock that was set back says nothing
    return n === 0 && this.#firstSent !== null && !(age >= 0 && age < REMEMBERED);
  }

  /** Nobody can tell whether what was sent counted; gives what was not, which is safe. */
  #giveUp() {
    const unsettled = [...this.#mine.values()].filter(({ rev }) => rev === null);
    for (const { action, judge } of unsettled.filter(({ sent }) => sent)) {
      this.unsure.push(action);
      judge("unsure");
    }
    return unsettled.filter(({ sent }) => !sent);
  }

  #takeFreshId(mine) {
    this.#id = randomUUID();
    this.#epoch = this.#firstSent = null;
    this.#settled = this.#window = 0;
    this.#last = mine.length;
    this.#mine = new Map(mine.map((own, index) => [index + 1, own])); // by their numbers
  }

  #end() {
    for (const { judge } of this.#giveUp()) judge("unsent");
    this.#mine.clear();
    this.ended = true;
    this.#drop();
    this.#changed();
  }

  #changed() {
    this.#send();
    queueMicrotask(() => this.#onChange(this));
  }
}

/** The counter after an action, as far as can be told before the room has judged it. */
function foreseen(value, { action, by = 1, value: wanted }) {
  if (action === "plus") return value + by;
  if (action === "minus") return value - by;
  if (action === "set") return wanted;
  return action === "reset" ? 0 : value;
}

/** Acts by the lines of standard input, and prints what changes. */
async function main(url = "ws://localhost:6789/") {
  let shown = "";
  const room = new Room(url, ({ value, pending, users, connected, ended }) => {
    const before = shown;
    shown = `${value} (${pending} pending, ${users} users, ${ended ? "ended" : connected ? "connected" : "away"})`;
    if (shown !== before) console.log(shown);
  });
  const acts = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const [, sign, by, value] = /^(?:([+-])(\d*)|=(-?\d+))$/.exec(line.trim()) ?? [];
    if (sign) acts.push(room.act({ action: sign === "+" ? "plus" : "minus", by: Number(by || 1) }).then(console.log));
    else if (value) acts.push(room.act({ action: "set", value: Number(value) }).then(console.log));
    else console.log("lines are + - +5 -3 =7");
  }
  await Promise.all(acts);
  room.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(...process.argv.slice(2));
