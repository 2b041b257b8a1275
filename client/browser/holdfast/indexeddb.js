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
    if (opening !== null) return opening;
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    opening = outcome(request).then((database) => {
      database.onclose = forget;
      database.onversionchange = () => {
        database.close();
        forget();
      };
      return database;
    });
    opening.catch(forget);
    return opening;
  };

  return {
    getItem: async (key) => {
      const value = await outcome((await open()).transaction(STORE).objectStore(STORE).get(key));
      return typeof value === "string" ? value : null;
    },
    setItem: async (key, value) => {
      await committed((await open()).transaction(STORE, "readwrite"), (records) => records.put(value, key));
    },
    removeItem: async (key) => {
      await committed((await open()).transaction(STORE, "readwrite"), (records) => records.delete(key));
    },
  };
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function outcome(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * A write that was taken may still fail when it is committed, where there is no room.
 *
 * @param {IDBTransaction} transaction
 * @param {(records: IDBObjectStore) => void} write
 * @returns {Promise<void>}
 */
function committed(transaction, write) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
    write(transaction.objectStore(STORE));
  });
}
