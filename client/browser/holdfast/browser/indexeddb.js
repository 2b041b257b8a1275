/** A storage that all tabs of the origin share and that outlives them, with more room than localStorage. */

/** @import {KeyValueStorage} from "./storage.js" */

const STORE = "records";

/**
 * Keeps records in IndexedDB, for `connect(url, { storage: indexedDBStorage() })`. The database is opened at the first
 * use, and again where the browser closed it.
 *
 * @param {string} [name] of the database
 * @returns {KeyValueStorage}
 */
export function indexedDBStorage(name = "holdfast") {
  /** @type {Promise<IDBDatabase> | null} */
  let opening = null;

  const forget = () => {
    opening = null;
  };
  const open = () => {
    opening ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onerror = () => {
        forget();
        reject(request.error);
      };
      request.onsuccess = () => {
        const database = request.result;
        database.onclose = forget;
        database.onversionchange = () => {
          forget();
          database.close();
        };
        resolve(database);
      };
    });
    return opening;
  };

  /**
   * A write that was taken may still fail when it is committed, where there is no room.
   *
   * @param {IDBTransactionMode} mode
   * @param {(records: IDBObjectStore) => IDBRequest} use
   */
  const transact = async (mode, use) => {
    const transaction = (await open()).transaction(STORE, mode);
    const request = use(transaction.objectStore(STORE));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  };

  return {
    getItem: async (key) => (await transact("readonly", (records) => records.get(key))) ?? null,
    setItem: (key, value) => transact("readwrite", (records) => records.put(value, key)),
    removeItem: (key) => transact("readwrite", (records) => records.delete(key)),
  };
}
