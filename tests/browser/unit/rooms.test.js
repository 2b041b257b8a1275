import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, posix } from "node:path";
import test from "node:test";

const LIBRARY = new URL("../../../client/browser/holdfast/", import.meta.url);
/** The rooms of the library and which of them each may name, in code and in types; "." are the faces. */
const ROOMS = { ".": [".", "core", "browser"], browser: ["browser", "core"], core: ["core"] };
const SURROUNDINGS =
  /\b(setTimeout|setInterval|queueMicrotask|Date|performance|window|document|navigator|globalThis|WebSocket|localStorage|sessionStorage|indexedDB)\b/;

/** @type {Map<string, string>} */
const sources = new Map(
  readdirSync(LIBRARY, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".js"))
    .map((path) => [path, readFileSync(new URL(path, LIBRARY), "utf8")]),
);

/** @param {string} source */
function withoutComments(source) {
  return source.replace(/\/\*.*?\*\/|(?<!:)\/\/.*$/gms, "");
}

/**
 * The library's modules that a source names.
 *
 * @param {string} path of the source
 * @param {string} source
 */
function named(path, source) {
  return [...source.matchAll(/["'](\.{1,2}\/[^"']+\.js)["']/g)].map(([, target]) =>
    posix.join(dirname(path), String(target)),
  );
}

/**
 * The modules that import each other in a circle, from the first to itself; empty where none do.
 *
 * @param {Map<string, string[]>} imports
 */
function circle(imports) {
  /** @type {Set<string>} */
  const done = new Set();
  /** @param {string[]} way @returns {string[]} */
  const walk = (way) => {
    const last = String(way.at(-1));
    if (way.indexOf(last) < way.length - 1) return way.slice(way.indexOf(last));
    if (done.has(last)) return [];
    for (const next of imports.get(last) ?? []) {
      const found = walk([...way, next]);
      if (found.length > 0) return found;
    }
    done.add(last);
    return [];
  };
  for (const path of imports.keys()) {
    const found = walk([path]);
    if (found.length > 0) return found;
  }
  return [];
}

test("Every module of the library is in a room, and names only what its room may, also in its types.", () => {
  assert.ok(sources.size > 20);
  for (const [path, source] of sources) {
    const mayName = new Map(Object.entries(ROOMS)).get(dirname(path));
    assert.ok(mayName, `${path} is in no room`);
    for (const target of named(path, source)) {
      assert.ok(sources.has(target), `${path} names ${target}, which is not in the library`);
      assert.ok(mayName.includes(dirname(target)), `${path} may not name ${target}`);
    }
  }
});

test("No module imports itself over others.", () => {
  assert.deepEqual(
    circle(new Map([...sources].map(([path, source]) => [path, named(path, withoutComments(source))]))),
    [],
  );
});

test("A circle is found, whoever is asked first.", () => {
  const imports = { a: ["b"], b: ["c", "d"], c: [], d: ["e"], e: ["b"] };
  assert.deepEqual(circle(new Map(Object.entries(imports))), ["b", "d", "e", "b"]);
});

test("The core has no clock, no timer and no page.", () => {
  for (const [path, source] of sources) {
    if (dirname(path) === "core") assert.doesNotMatch(withoutComments(source), SURROUNDINGS, path);
  }
});
