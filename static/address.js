// @ts-check
/**
 * Where a room is: its socket, its HTTP interface, and the names under which clients are known there.
 */

/**
 * The WebSocket address of a room's page.
 * @param {string | URL} url a room's page or socket, absolute or relative to `base`
 * @param {string} [base]
 */
export function socketUrl(url, base) {
  const socket = new URL(url, base);
  socket.protocol = socket.protocol.replace(/^http/, "ws");
  socket.hash = "";
  return socket.href;
}

/**
 * The HTTP address of a room, `…/api/rooms/NAME`; null where the path is neither `/` nor ends with `/r/NAME`, since to
 * send somebody's action to a guessed room would be worse than not to send it.
 * @param {string | URL} url as for `socketUrl`
 * @param {string} [base]
 */
export function apiUrl(url, base) {
  const api = new URL(url, base);
  const found = /^(.*)\/(?:r\/([A-Za-z0-9_-]{1,64}))?$/.exec(api.pathname);
  if (!found || (found[2] === undefined && found[1] !== "")) return null;
  api.protocol = api.protocol.replace(/^ws/, "http");
  api.pathname = `${found[1]}/api/rooms/${found[2] ?? "main"}`;
  api.search = api.hash = "";
  return api.href;
}

/**
 * A random UUID (version 4). `crypto.randomUUID` is missing where a page is not secure, as over plain HTTP in a local
 * network; `getRandomValues` is not.
 * @param {Pick<Crypto, "getRandomValues">} crypto
 */
export function randomId(crypto) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
