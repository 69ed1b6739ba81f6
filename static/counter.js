// @ts-check
/**
 * What the counter's actions do, as far as a page can tell before the room has judged them. It lets a press be seen
 * at once; the room alone decides.
 */

/** The most that one `plus` or `minus` may add or take. */
const MAX_STEP = 1_000_000;

/**
 * The value after an action; the same value where the action is not known, not lawful, or would leave the range that
 * every JSON client can hold. Limits that the room has of its own are not known here: the room refuses what breaks them.
 * @param {any} value
 * @param {any} action
 * @returns {any}
 */
export function applyToCounter(value, action) {
  if (!Number.isSafeInteger(value)) return value;
  const after = valueAfter(value, action);
  return Number.isSafeInteger(after) ? after : value;
}

/**
 * @param {number} value
 * @param {any} action
 */
function valueAfter(value, { action, by = 1, value: wanted }) {
  const lawful = Number.isSafeInteger(by) && by >= 1 && by <= MAX_STEP;
  if (action === "plus" && lawful) return value + by;
  if (action === "minus" && lawful) return value - by;
  if (action === "set") return wanted;
  if (action === "reset") return 0;
  return value;
}
