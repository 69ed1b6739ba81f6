// @ts-check
/**
 * What becomes of stored actions, decided from what is stored: pure functions that run within one transaction of the
 * store, so that of two pages that decide about the same action at the same time one sees what the other did.
 */

/**
 * @typedef {object} Row an action that is stored, by its client and number
 * @property {string} client
 * @property {number} n
 * @property {string} api the room's HTTP address
 * @property {object} action
 * @property {boolean} wired whether it was ever put on a wire, or is just going to be
 * @property {string | null} epoch in which that was; null where it never was
 * @property {number | null} [wiredAt] when that was for the first time, as `Date.now()` counts; null where it never was,
 * missing where a page of an earlier version put it on a wire
 * @property {boolean} unsure its client was forgotten after it was put on a wire, or may have been: only its user can say
 * what is to be done
 */
/** @typedef {[client: string, from: number, to: number]} Range numbers `from` to `to` of a client, both included */
/**
 * @template T
 * @typedef {{ put?: Row[], remove?: Range[], result: T }} Change what is removed is removed before anything is put
 */
/**
 * @typedef {object} Stored
 * @property {number | null} since when number 1 was first put on a wire, by whichever page, where it is among what is
 * stored; else null
 */

/** A room remembers a client for so long after its last action at least, however many others there are (design 3). */
const REMEMBERED_MS = 3_600_000;
/** What is sent now may take as long to come to the room. */
const UNDERWAY_MS = 60_000;

/**
 * Whether a room that knows nothing of a client may have settled its number 1 and forgotten the client since. A time that
 * is to come says that the clock was set back, and nothing else; so it is no better than none.
 * @param {number | null | undefined} since when number 1 was first put on a wire
 * @param {number} now
 */
export function mayBeForgotten(since, now) {
  if (typeof since !== "number" || since > now) return true;
  return now - since >= REMEMBERED_MS - UNDERWAY_MS;
}

/**
 * Whether this may be in although the room knows nothing of its client. Only a number 1 can be: of a client that stores
 * later ones alone the first is known to be settled, and a room that forgot it tells by a gap.
 * @param {Row} row
 * @param {number} now
 */
export function isInDoubt({ n, wired, wiredAt }, now) {
  return n === 1 && wired && mayBeForgotten(wiredAt, now);
}

/**
 * Everything of one client.
 * @param {string} client
 * @returns {Range}
 */
export function allOf(client) {
  return [client, 1, Number.MAX_SAFE_INTEGER];
}

/**
 * What a client of this page has to store. Nothing of it is, and the result is null, where another page took over what
 * was to be marked: because it was forgotten in the meantime, or because it is settled.
 * @param {Row[]} rows those that `write.mark` names, as far as they are there
 * @param {import("./outbox.js").Write} write
 * @param {string} api
 * @returns {Change<Stored | null>}
 */
export function write(rows, { client, epoch, at, put, mark, remove }, api) {
  const marked = mark ? markAll(rows, mark, epoch, at) : [];
  if (!marked) return { result: null };
  const added = put.map((one) => ({ client, api, ...one, ...wiring(one.wired, epoch, at), unsure: false }));
  const stored = [...marked, ...added];
  const since = stored.find(({ n }) => n === 1)?.wiredAt ?? null;
  return { put: stored, remove: remove > 0 ? [[client, 1, remove]] : [], result: { since } };
}

/**
 * Marks one stored action before it is put on a wire; the result says whether it may be.
 * @param {Row[]} rows the one, if it is there
 * @param {number} n
 * @param {string} epoch
 * @param {number} at
 * @returns {Change<boolean>}
 */
export function mark(rows, n, epoch, at) {
  const marked = markAll(rows, [n, n], epoch, at);
  return { put: marked ?? [], result: marked !== null };
}

/**
 * Makes of a forgotten client's actions those of a fresh one, where they were never put on a wire, and asks the user
 * about the rest. The result: the old numbers of those that have a new one, which is 1, 2, 3… in their order.
 * @param {Row[]} rows all of the client
 * @param {string} fresh
 * @param {(n: number) => boolean} [isSettled] what is known to have its verdict is removed
 * @returns {Change<number[]>}
 */
export function retire(rows, fresh, isSettled = () => false) {
  if (rows.length === 0) return { result: [] };
  const open = rows.filter(({ n }) => !isSettled(n));
  const unsent = open.filter(({ wired, unsure }) => !wired && !unsure);
  const unsure = open.filter(({ wired }) => wired).map((row) => ({ ...row, unsure: true }));
  return { put: [...unsure, ...renumber(unsent, fresh)], remove: [allOf(rows[0].client)], result: unsent.map(({ n }) => n) };
}

/**
 * The user wants these once more: they become a fresh client's. Those that another page decided about are passed over.
 * @param {Row[]} rows all that are stored
 * @param {{ client: string, n: number }[]} chosen
 * @param {string} fresh
 * @returns {Change<number>} how many there are
 */
export function again(rows, chosen, fresh) {
  const found = pick(rows, chosen);
  return { put: renumber(found, fresh), remove: found.map(rangeOf), result: found.length };
}

/**
 * The user wants these no more.
 * @param {Row[]} rows all that are stored
 * @param {{ client: string, n: number }[]} chosen
 * @returns {Change<number>} how many there were
 */
export function discard(rows, chosen) {
  const found = pick(rows, chosen);
  return { remove: found.map(rangeOf), result: found.length };
}

/**
 * @param {Row[]} rows
 * @param {[from: number, to: number]} range
 * @param {string | null} epoch
 * @param {number} at
 * @returns {Row[] | null} null: not all are there to be put on a wire in this epoch, at that time
 */
function markAll(rows, [from, to], epoch, at) {
  const free = rows.filter((row) => !row.unsure && (!row.wired || (row.epoch === epoch && !isInDoubt(row, at))));
  if (free.length !== to - from + 1) return null;
  return free.map((row) => (row.wired ? row : { ...row, ...wiring(true, epoch, at) }));
}

/**
 * @param {boolean} wired
 * @param {string | null} epoch
 * @param {number} at
 */
function wiring(wired, epoch, at) {
  return { wired, epoch: wired ? epoch : null, wiredAt: wired ? at : null };
}

/**
 * @param {Row[]} rows
 * @param {string} client
 */
function renumber(rows, client) {
  return rows.map((row, index) => ({ ...row, client, n: index + 1, ...wiring(false, null, 0), unsure: false }));
}

/**
 * @param {Row[]} rows
 * @param {{ client: string, n: number }[]} chosen
 */
function pick(rows, chosen) {
  const keys = new Set(chosen.map(({ client, n }) => `${client}:${n}`));
  return rows.filter(({ client, n, unsure }) => unsure && keys.has(`${client}:${n}`));
}

/**
 * @param {Row} row
 * @returns {Range}
 */
function rangeOf({ client, n }) {
  return [client, n, n];
}
