// @ts-check
/**
 * The page of a room: it shows what the client tells and passes on what is pressed. It opens no socket itself.
 */
import { connect, UNKNOWN } from "./client.js";
import { chooseLanguage, STRINGS } from "./strings.js";

/** How long a message stays, in milliseconds. */
const TOAST_MS = 6_000;
const COPIED_MS = 2_000;
/** A change that is answered within this is no news: nobody is told that it waited. */
const PENDING_AFTER_MS = 1_000;

const language = chooseLanguage(navigator.languages ?? [navigator.language]);
const text = STRINGS[language];
const roomName = decodeURIComponent(location.pathname.split("/")[2] || "main");
const lessMotion = matchMedia("(prefers-reduced-motion: reduce)");

const value = element(".value");
const users = element(".users");
const plus = /** @type {HTMLButtonElement} */ (element(".plus"));
const minus = /** @type {HTMLButtonElement} */ (element(".minus"));
const again = element(".again");
const copy = element(".copy");
const toast = element(".toast");
const form = /** @type {HTMLFormElement} */ (element(".go"));
const field = /** @type {HTMLInputElement} */ (element("#room"));

/** @type {any} */
let toastTimer;
/** @type {any} */
let copiedTimer;
/** @type {any} */
let countdown;
/** @type {any} */
let pendingTimer;
/** @type {HTMLElement | null} the button that lost the keyboard's focus when it was disabled */
let focusLost = null;

translate();
element(".room-name").textContent = roomName;
element("h1").title = roomName;
render(UNKNOWN, UNKNOWN);
const room = connect(location.href, { onchange: render, onerror: ({ code, message }) => complain(code, message) });
listen();

/**
 * @param {import("./client.js").Snapshot} now
 * @param {import("./client.js").Snapshot} before
 */
function render(now, before) {
  if (now.value !== before.value) renderValue(now.value, before.value);
  if (now.users !== null) users.textContent = text.users(now.users);
  if (now.connection !== before.connection || now === before) renderConnection(now, before);
  renderStatus(now);
  renderPending(now, before);
  if (now.unsure !== before.unsure) renderUnsure(now.unsure);
  renderButtons(now.accepts);
  const lost = now.connection === "live" || now.value === null ? "" : "⚠ ";
  document.title = `${lost}${now.value ?? "…"} · ${roomName} · Tallyroom`;
}

/**
 * @param {number} now
 * @param {number | null} before
 */
function renderValue(now, before) {
  value.textContent = String(now);
  value.style.setProperty("--length", String(Math.max(3, String(now).length)));
  if (before === null || lessMotion.matches) return;
  const from = now > before ? "0.08em" : "-0.08em";
  value.animate([{ transform: `translateY(${from})`, opacity: 0.5 }, {}], { duration: 180, easing: "ease-out" });
}

/**
 * @param {import("./client.js").Snapshot} now
 * @param {import("./client.js").Snapshot} before
 */
function renderConnection({ connection, value, code }, before) {
  const closed = connection === "closed";
  // A try to come back is no news until it succeeds: the notice stays, and screen readers are not told of each.
  const retrying = connection === "connecting" && document.body.dataset.lost === "true";
  const lost = connection !== "live" && (connection !== "connecting" || retrying);
  document.body.dataset.connection = connection;
  document.body.dataset.lost = String(lost);
  element(".crowd").hidden = connection !== "live";
  element(".notice").hidden = !lost;
  const reason = closed ? text.ended[code ?? 0] ?? text.ended[0] : value === null ? text.unreached : text.stale;
  element(".notice-text").textContent = reason;
  again.textContent = closed ? text.again : text.tryNow;
  if (connection === "live") announce(text.live);
  else if (connection === "offline") announce(text.offline);
  else if (lost && (closed || before.connection === "live")) announce(reason);
  clearInterval(countdown);
  if (connection === "waiting") countdown = setInterval(() => renderStatus(room.snapshot), 200);
}

/** @param {import("./client.js").Snapshot} snapshot */
function renderStatus({ connection, retryAt }) {
  let status = text.closed;
  if (connection === "waiting") status = text.waiting(Math.max(1, Math.ceil(((retryAt ?? 0) - Date.now()) / 1000)));
  else if (connection !== "connecting") status = text[connection];
  else status = document.body.dataset.lost === "true" ? text.reconnecting : text.connecting;
  const pill = element(".status-text");
  if (pill.textContent !== status) pill.textContent = status;
}

/**
 * @param {import("./client.js").Snapshot} now
 * @param {import("./client.js").Snapshot} before
 */
function renderPending(now, before) {
  const count = now.pending + now.orphans;
  const shown = element(".pending");
  if (count === 0) {
    clearTimeout(pendingTimer);
    pendingTimer = undefined;
    shown.hidden = true;
    return;
  }
  element(".pending-text").textContent = text.pending(count);
  element(".keep-open").hidden = now.durable || now.pending === 0;
  if (!shown.hidden) return;
  if (now.connection !== "live") {
    shown.hidden = false;
    if (now.connection === before.connection) announce(text.pending(count));
  } else if (pendingTimer === undefined) {
    pendingTimer = setTimeout(() => (shown.hidden = false), PENDING_AFTER_MS);
  }
}

/** @param {readonly import("./client.js").Unsure[]} unsure */
function renderUnsure(unsure) {
  const panel = element(".unsure");
  const hadFocus = panel.contains(document.activeElement);
  panel.hidden = unsure.length === 0;
  if (panel.hidden) {
    if (hadFocus) plus.focus({ preventScroll: true });
    return;
  }
  element(".unsure-count").textContent = text.unsure(unsure.length);
  element(".unsure-sum").textContent = sumUp(unsure.map(({ action }) => action));
  announce(`${text.unsure(unsure.length)} ${element(".unsure-sum").textContent}`);
}

/**
 * What actions would do together, in signs: +3 −1 = 7.
 * @param {any[]} actions
 */
function sumUp(actions) {
  const sums = new Map();
  for (const { action, by = 1, value: wanted } of actions) {
    const sign = { plus: "+", minus: "\u2212" }[/** @type {"plus"} */ (action)];
    if (sign) sums.set(sign, (sums.get(sign) ?? 0) + by);
    else sums.set(`= ${action === "set" ? wanted : action === "reset" ? 0 : action}`, "");
  }
  return [...sums].map(([sign, sum]) => `${sign}${sum}`).join(" ");
}

/** @param {boolean} accepts */
function renderButtons(accepts) {
  if (plus.disabled === !accepts) return;
  if (!accepts && (document.activeElement === plus || document.activeElement === minus)) {
    focusLost = /** @type {HTMLElement} */ (document.activeElement);
  }
  plus.disabled = minus.disabled = !accepts;
  if (!accepts) return;
  if (document.activeElement === document.body) focusLost?.focus({ preventScroll: true });
  focusLost = null;
}

function listen() {
  plus.addEventListener("click", () => room.plus());
  minus.addEventListener("click", () => room.minus());
  again.addEventListener("click", () => room.retryNow());
  element(".resend").addEventListener("click", () => room.resend());
  element(".discard").addEventListener("click", () => room.discard());
  copy.addEventListener("click", copyLink);
  form.addEventListener("submit", goToRoom);
  field.addEventListener("input", () => showRoomMessage(""));
  addEventListener("keydown", press);
}

/** @param {KeyboardEvent} event */
function press(event) {
  const { target, key, repeat } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (target instanceof HTMLInputElement) return;
  if (target === plus || target === minus) {
    // A held Enter would click again and again.
    if (key === "Enter" && repeat) event.preventDefault();
  }
  const button = { "+": plus, "-": minus, "\u2212": minus }[key];
  if (!button) return;
  event.preventDefault();
  if (repeat || button.disabled) return;
  button.click();
  if (!lessMotion.matches) button.animate([{ transform: "scale(0.97)" }, {}], { duration: 140, easing: "ease-out" });
}

/** @param {SubmitEvent} event */
function goToRoom(event) {
  event.preventDefault();
  const name = field.value.trim();
  field.value = name;
  if (field.validity.valid) {
    location.assign(`/r/${name}`);
  } else {
    showRoomMessage(text.badRoom);
    field.focus();
  }
}

/** @param {string} message empty: none */
function showRoomMessage(message) {
  element("#room-message").textContent = message;
  if (message) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

async function copyLink() {
  const link = location.origin + location.pathname;
  if ((await writeClipboard(link)) || copySelected(link)) {
    const label = /** @type {HTMLElement} */ (copy.querySelector("span"));
    label.textContent = text.copied;
    announce(text.copied);
    clearTimeout(copiedTimer);
    copiedTimer = setTimeout(() => (label.textContent = text.copy), COPIED_MS);
    return;
  }
  const shown = element(".link");
  const input = /** @type {HTMLInputElement} */ (shown.querySelector("input"));
  shown.hidden = false;
  input.value = link;
  input.focus();
  input.select();
}

/**
 * Browsers have this only where the page is secure, so not over plain HTTP in a local network.
 * @param {string} link
 */
async function writeClipboard(link) {
  try {
    await navigator.clipboard.writeText(link);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} link */
function copySelected(link) {
  const area = document.createElement("textarea");
  area.className = "aside";
  area.readOnly = true;
  area.value = link;
  document.body.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    copy.focus({ preventScroll: true });
  }
}

/**
 * @param {string} code
 * @param {string} message the server's, in English
 */
function complain(code, message) {
  const own = Object.hasOwn(text.errors, code) ? text.errors[code] : "";
  toast.lang = own ? language : "en";
  toast.textContent = own || message;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.textContent = ""), TOAST_MS);
}

/** @param {string} message told to screen readers only, which do not see what changed elsewhere */
function announce(message) {
  element(".announcement").textContent = message;
}

function translate() {
  document.documentElement.lang = language;
  const words = /** @type {Record<string, any>} */ (text);
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = words[of(one, "text")];
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", words[of(one, "label")]);
  field.placeholder = words[of(field, "placeholder")];
}

/**
 * @param {Element} one
 * @param {string} name
 */
function of(one, name) {
  return /** @type {HTMLElement} */ (one).dataset[name] ?? "";
}

/**
 * @param {string} selector
 * @returns {HTMLElement}
 */
function element(selector) {
  return /** @type {HTMLElement} */ (document.querySelector(selector));
}
