// @ts-check
/** What a browser tells a page about its surroundings: network, somebody who looks, coming and going. */

/**
 * @typedef {object} Listener
 * @property {() => void} onback the network is back
 * @property {() => void} ondoubt the network is gone
 * @property {() => void} onwake somebody looks again
 * @property {() => void} onleave the page may be gone in a moment
 */

export class Surroundings {
  /** @type {any} the browser's window, or what stands for it */
  #window;
  #listener;

  /**
   * @param {any} window
   * @param {Listener} listener
   */
  constructor(window, listener) {
    this.#window = window;
    this.#listener = listener;
  }

  get isOnline() {
    return this.#window.navigator?.onLine !== false;
  }

  get isVisible() {
    return this.#window.document?.visibilityState !== "hidden";
  }

  listen() {
    this.#each("addEventListener");
  }

  ignore() {
    this.#each("removeEventListener");
  }

  /** @param {"addEventListener" | "removeEventListener"} verb */
  #each(verb) {
    this.#window[verb]?.("online", this.#listener.onback);
    this.#window[verb]?.("offline", this.#listener.ondoubt);
    this.#window[verb]?.("pageshow", this.#wake);
    this.#window[verb]?.("pagehide", this.#listener.onleave);
    this.#window.document?.[verb]?.("visibilitychange", this.#wake);
  }

  #wake = () => {
    if (this.isVisible) this.#listener.onwake();
  };
}
