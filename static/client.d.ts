/** What is known of a room now. Never changed in place: every change makes a new one. */
export interface Snapshot {
  /**
   * `connecting`: a try is under way; `live`: what is shown is current; `waiting`: the next try begins at `retryAt`;
   * `offline`: the device has no network; `closed`: it will not come back by itself, `code` says why.
   */
  readonly connection: "connecting" | "live" | "waiting" | "offline" | "closed";
  /** Whether an action is taken: also while the server is away, but not once the connection has ended for good. */
  readonly accepts: boolean;
  /**
   * The room's last known value with this connection's own actions laid over it that it does not hold yet; null before
   * the first. It neither jumps back nor counts an action twice when the room has taken it.
   */
  readonly value: any;
  /** How many were online when last told; null before the first. */
  readonly users: number | null;
  /** When the next try begins, in milliseconds as `Date.now()` counts; null while none is planned. */
  readonly retryAt: number | null;
  /** The close code that ended the connection for good, else null. */
  readonly code: number | null;
  /** How many of this connection's actions have no verdict of the room yet. */
  readonly pending: number;
  /** How many actions for this room pages have left behind that are gone; they are sent as soon as the server is back. */
  readonly orphans: number;
  /**
   * Actions for this room of which nobody knows whether they count: they were sent, and before an answer came the room was
   * restored, imported or lost, or so much time went by, an hour or more, that it may have forgotten who sent them. They
   * wait for `resend()` or `discard()`, across pages and reloads.
   */
  readonly unsure: readonly Unsure[];
  /** Whether actions that wait outlive the page. False where IndexedDB is missing, and for a moment at the beginning. */
  readonly durable: boolean;
}

/** An action whose client was forgotten by the server after it was sent, or may have been. */
export interface Unsure {
  readonly client: string;
  readonly n: number;
  readonly action: any;
}

/** The room's final no to an action, or the server's complaint about a message. */
export interface RoomError {
  readonly code: string;
  /** A sentence in English. */
  readonly message: string;
  /** What was refused, and its number; both are missing in a complaint. It may be an action that another page left. */
  readonly action?: any;
  readonly n?: number;
}

export interface Options {
  /** Called after each change, with the new snapshot and the one before. */
  onchange?(snapshot: Snapshot, before: Snapshot): void;
  /** Called once for each refused action, and for each complaint. */
  onerror?(error: RoomError): void;
  /**
   * The value after one of one's own actions, as far as it can be told before the room has judged it: what is shown
   * meanwhile. It must not change its arguments, and must give the value back for actions that it does not know.
   * `applyToCounter` by default.
   */
  apply?(value: any, action: any): any;
  /**
   * The room's HTTP address, `…/api/rooms/NAME`, by which actions of pages that are gone are sent. Needed only where
   * `url` is neither `/` nor ends with `/r/NAME`.
   */
  api?: string | URL;
  /** Draws from 0 up to, not including, 1; `Math.random` by default. */
  random?(): number;
  /** Where WebSocket, indexedDB, fetch, document and navigator are found; `globalThis` by default. */
  window?: object;
}

/** One room, kept open until `close()`. */
export interface Room {
  readonly snapshot: Snapshot;
  /** As `send({ action: "plus" })`. */
  plus(): boolean;
  /** As `send({ action: "minus" })`. */
  minus(): boolean;
  /**
   * Takes any action, such as `{ action: "set", value: 3 }`: it is applied exactly once, now or when the server is back,
   * or refused, which `onerror` tells. A field `n` is overwritten. False: it was not taken, because the connection has
   * ended for good or 100 000 actions are waiting.
   *
   * @throws {TypeError} where it is no JSON object
   */
  send(action: object): boolean;
  /** Sends unsure actions once more, all or some, as new ones. Tells how many nobody else had decided about. */
  resend(chosen?: readonly Unsure[]): Promise<number>;
  /** Drops unsure actions, all or some. Tells how many nobody else had decided about. */
  discard(chosen?: readonly Unsure[]): Promise<number>;
  /** Connects at once where it would wait or was ended by the server; does nothing otherwise. */
  retryNow(): void;
  /**
   * Ends it; nothing is told from then on. Actions that still wait are sent by the next page of this origin, where
   * `durable` is true.
   */
  close(): void;
}

/**
 * Opens a room of a server that speaks `tallyroom.v1` and keeps it open until `close()`.
 *
 * Each call is a client of its own to the server, with a fresh id.
 */
export function connect(url: string | URL, options?: Options): Room;
/** What is known before the first connection. */
export const UNKNOWN: Snapshot;
/** What the counter's actions do: `apply` where nothing else is given. */
export function applyToCounter(value: any, action: any): any;
/** Says whether to come back after a close code. */
export function comesBack(code: number): boolean;
/** How long to wait before try number `tries` (from 0) of coming back, in milliseconds. */
export function delay(tries: number, random: number, visible?: boolean): number;
/** The WebSocket address of a room's page. */
export function socketUrl(url: string | URL, base?: string): string;
/** The HTTP address of a room's page; null where its path does not say which room it is. */
export function apiUrl(url: string | URL, base?: string): string | null;
