// @ts-check
/**
 * Where actions are kept until they are settled: in IndexedDB, which all pages of an origin share and which outlives
 * them, or in memory where there is none. Both know one verb: read, decide, write, in one transaction.
 */

/** @typedef {import("./rows.js").Row} Row */
/** @typedef {import("./rows.js").Range} Range */
/**
 * @template T
 * @typedef {(rows: Row[]) => import("./rows.js").Change<T>} Decide
 */
/**
 * @typedef {object} Keeper
 * @property {<T>(range: Range | "all" | null, decide: Decide<T>) => Promise<T>} change
 * @property {(range: Range | "all") => Promise<Row[]>} read
 * @property {() => void} close
 */

const DATABASE = "tallyroom";
const VERSION = 1;
const ACTIONS = "actions";
/** Browsers were seen that opened no database until they were restarted; no press waits longer than this for one. */
const OPEN_WITHIN_MS = 5_000;

/** The store of one page: IndexedDB as long as it works, from then on memory. */
export class Store {
  /** @type {Promise<Keeper>} */
  #keeper;
  #rescue;
  #onchange;
  #isClosed = false;
  /** Whether what is stored outlives the page; false until the database is open. */
  durable = false;

  /**
   * @param {any} window where `indexedDB` and `IDBKeyRange` are found
   * @param {() => Row[]} rescue what to begin with in memory when the database fails
   * @param {() => void} onchange `durable` is another
   */
  constructor(window, rescue, onchange) {
    this.#rescue = rescue;
    this.#onchange = onchange;
    this.#keeper = this.#open(window);
  }

  /**
   * Reads a range (`null`: nothing), decides what to write, and writes it, all of it or nothing; durable when this
   * resolves, as far as `durable` says. Transactions come one after another, those of other pages included.
   * @template T
   * @param {Range | "all" | null} range
   * @param {Decide<T>} decide
   * @returns {Promise<T>}
   */
  change(range, decide) {
    return this.#try((keeper) => keeper.change(range, decide));
  }

  /**
   * @param {Range | "all"} range
   * @returns {Promise<Row[]>} by client and number
   */
  read(range) {
    return this.#try((keeper) => keeper.read(range));
  }

  /** Lets go of the database when what is underway has come to its end. */
  async close() {
    this.#isClosed = true;
    (await this.#keeper).close();
  }

  /** @param {any} window */
  async #open(window) {
    const database = await openDatabase(window.indexedDB).catch(() => null);
    if (!database) return new MemoryKeeper([]);
    this.durable = true;
    this.#onchange();
    return new DatabaseKeeper(database, window.IDBKeyRange);
  }

  /**
   * A database that failed once (no space, taken away by the browser) is not asked again. What it still holds is sent by
   * a later page, under the same numbers.
   * @template T
   * @param {(keeper: Keeper) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #try(work) {
    const used = this.#keeper;
    const keeper = await used;
    try {
      return await work(keeper);
    } catch (error) {
      if (keeper instanceof MemoryKeeper || this.#isClosed) throw error;
      if (this.#keeper === used) {
        this.#keeper = Promise.resolve(new MemoryKeeper(this.#rescue()));
        this.durable = false;
        keeper.close();
        this.#onchange();
      }
      return this.#try(work);
    }
  }
}

/**
 * @param {IDBFactory | undefined} factory
 * @returns {Promise<IDBDatabase | null>}
 */
async function openDatabase(factory) {
  if (!factory) return null;
  return new Promise((resolve, reject) => {
    const opening = factory.open(DATABASE, VERSION);
    const deadline = setTimeout(() => resolve(null), OPEN_WITHIN_MS);
    opening.onupgradeneeded = () => opening.result.createObjectStore(ACTIONS, { keyPath: ["client", "n"] });
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      clearTimeout(deadline);
      // A later version of this page may want to change the database: it must not wait for this one.
      opening.result.onversionchange = () => opening.result.close();
      resolve(opening.result);
    };
  });
}

/** @implements {Keeper} */
class DatabaseKeeper {
  /**
   * @param {IDBDatabase} database
   * @param {typeof IDBKeyRange} ranges
   */
  constructor(database, ranges) {
    this.database = database;
    this.ranges = ranges;
  }

  /**
   * @template T
   * @param {Range | "all" | null} range
   * @param {Decide<T>} decide
   * @returns {Promise<T>}
   */
  change(range, decide) {
    return new Promise((resolve, reject) => {
      // "strict": on disk when it is complete, and not only with the operating system.
      const transaction = this.database.transaction(ACTIONS, "readwrite", { durability: "strict" });
      const actions = transaction.objectStore(ACTIONS);
      transaction.onabort = () => reject(transaction.error ?? new Error("the transaction was aborted"));
      const carryOut = (/** @type {Row[]} */ rows) => {
        try {
          const { put = [], remove = [], result } = decide(rows);
          for (const one of remove) actions.delete(/** @type {IDBKeyRange} */ (this.#bound(one)));
          for (const row of put) actions.put(row);
          transaction.oncomplete = () => resolve(result);
          // Not to wait for the answers lets it be written even where the page is closed right after the press.
          transaction.commit?.();
        } catch (error) {
          reject(error);
          transaction.abort();
        }
      };
      if (range === null) carryOut([]);
      else actions.getAll(this.#bound(range)).onsuccess = ({ target }) => carryOut(/** @type {any} */ (target).result);
    });
  }

  /**
   * @param {Range | "all"} range
   * @returns {Promise<Row[]>}
   */
  read(range) {
    return new Promise((resolve, reject) => {
      const asked = this.database.transaction(ACTIONS).objectStore(ACTIONS).getAll(this.#bound(range));
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    });
  }

  close() {
    this.database.close();
  }

  /** @param {Range | "all"} range */
  #bound(range) {
    if (range === "all") return undefined;
    const [client, from, to] = range;
    return this.ranges.bound([client, from], [client, to]);
  }
}

/** @implements {Keeper} */
export class MemoryKeeper {
  /** @type {Map<string, Map<number, Row>>} by client and number; numbers are put in their order */
  #clients = new Map();

  /** @param {Row[]} rows */
  constructor(rows) {
    for (const row of rows) this.#put(row);
  }

  /**
   * @template T
   * @param {Range | "all" | null} range
   * @param {Decide<T>} decide
   * @returns {Promise<T>}
   */
  async change(range, decide) {
    const { put = [], remove = [], result } = decide(range === null ? [] : this.#read(range));
    for (const one of remove) this.#remove(one);
    for (const row of put) this.#put(row);
    return result;
  }

  /** @param {Range | "all"} range */
  async read(range) {
    return this.#read(range);
  }

  close() {}

  /**
   * @param {Range | "all"} range
   * @returns {Row[]}
   */
  #read(range) {
    if (range === "all") return [...this.#clients.keys()].sort().flatMap((client) => this.#read([client, 0, Infinity]));
    const [client, from, to] = range;
    return [...(this.#clients.get(client)?.values() ?? [])].filter(({ n }) => n >= from && n <= to);
  }

  /** @param {Row} row */
  #put(row) {
    const rows = this.#clients.get(row.client) ?? new Map();
    this.#clients.set(row.client, rows.set(row.n, row));
  }

  /** @param {Range} range */
  #remove(range) {
    const [client] = range;
    const rows = this.#clients.get(client);
    for (const { n } of this.#read(range)) rows?.delete(n);
    if (rows?.size === 0) this.#clients.delete(client);
  }
}
