// @ts-check
/**
 * When to come back to a server that went away. It knows no clock and draws nothing itself.
 */

/** The longest pause before another try, in milliseconds, while somebody looks and while nobody does. */
const MAX_DELAY_MS = 15_000;
const MAX_DELAY_HIDDEN_MS = 60_000;
/** The first try again follows within this; each later one may wait twice as long as the one before. */
const FIRST_DELAY_MS = 500;
/** What a server may make a client wait at most: a timer takes no more than 2^31 ms, and fires at once beyond. */
const MAX_WAIT_MS = 3_600_000;
/** Close codes after which the same connection would only end the same way. */
const FINAL_CODES = new Set([1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409]);

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
 * How long to wait where a server says it, in milliseconds.
 * @param {unknown} ms of any shape; 0 where it is no duration
 */
export function bounded(ms) {
  return typeof ms === "number" && ms > 0 ? Math.min(ms, MAX_WAIT_MS) : 0;
}
