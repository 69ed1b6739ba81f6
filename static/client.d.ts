/** What is known of a room now. Never changed in place: every change makes a new one. */
export interface Snapshot {
  /**
   * `connecting`: a try is under way; `live`: what is shown is current; `waiting`: the next try begins at `retryAt`;
   * `offline`: the device has no network; `closed`: it will not come back by itself, `code` says why.
   */
  readonly connection: "connecting" | "live" | "waiting" | "offline" | "closed";
  /** Whether an action sent now reaches the room. */
  readonly accepts: boolean;
  /** The room's last known value; null before the first. */
  readonly value: any;
  /** How many were online when last told; null before the first. */
  readonly users: number | null;
  /** When the next try begins, in milliseconds as `Date.now()` counts; null while none is planned. */
  readonly retryAt: number | null;
  /** The close code that ended the connection for good, else null. */
  readonly code: number | null;
}

/** The server's no to an action, or its complaint about a message. */
export interface RoomError {
  readonly code: string;
  /** A sentence in English. */
  readonly message: string;
}

export interface Options {
  /** Called after each change, with the new snapshot and the one before. */
  onchange?(snapshot: Snapshot, before: Snapshot): void;
  onerror?(error: RoomError): void;
  /** Draws from 0 up to, not including, 1; `Math.random` by default. */
  random?(): number;
  /** Where WebSocket, document and navigator are found; `globalThis` by default. */
  window?: object;
}

/** One room, kept open until `close()`. */
export interface Room {
  readonly snapshot: Snapshot;
  plus(): boolean;
  minus(): boolean;
  /** Sends any action, such as `{ action: "set", value: 3 }`. False: it was not sent and will not be. */
  send(action: object): boolean;
  /** Connects at once where it would wait or had ended; does nothing while it is connected or connecting. */
  retryNow(): void;
  close(): void;
}

export function connect(url: string | URL, options?: Options): Room;
export const UNKNOWN: Snapshot;
export function merge(snapshot: Snapshot, event: any): Snapshot;
export function comesBack(code: number): boolean;
export function delay(tries: number, random: number, visible?: boolean): number;
export function socketUrl(url: string | URL, base?: string): string;
