// @ts-check
/** What goes wrong in code that nobody waits for: it is told as any other fault, and keeps nothing else from being done. */

/** @param {unknown} error */
export function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else setTimeout(() => Promise.reject(error));
}

/**
 * Calls what somebody else wrote.
 * @param {() => void} call
 */
export function attempt(call) {
  try {
    call();
  } catch (error) {
    report(error);
  }
}
