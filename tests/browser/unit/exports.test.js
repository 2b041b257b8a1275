import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const CLIENT = fileURLToPath(new URL("../../../client/browser/", import.meta.url));
const ENTRIES = ["index.d.ts", "react.d.ts"];

/** @typedef {{kind: string, names: Set<string>}} Declaration `names` as `module#Name`, of the library's alone */

/** The library's declarations as the package has them, without comments, by module. */
function declared() {
  const made = mkdtempSync(join(tmpdir(), "holdfast-types-"));
  try {
    const tsc = join(CLIENT, "node_modules/.bin/tsc");
    execFileSync(tsc, ["--project", "tsconfig.types.json", "--outDir", made], { cwd: CLIENT });
    const modules = readdirSync(made, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".d.ts"));
    return new Map(
      modules.map((path) => [path, readFileSync(join(made, path), "utf8").replace(/\/\*.*?\*\/|\/\/.*?$/gms, "")]),
    );
  } finally {
    rmSync(made, { recursive: true });
  }
}

/**
 * @param {string} module
 * @param {string} target as it is imported there
 */
function resolved(module, target) {
  return posix.join(dirname(module), target).replace(/\.js$/, ".d.ts");
}

/**
 * What the module declares, by name, and what it imports, as `module#Name`.
 *
 * @param {string} module
 * @param {string} source
 */
function read(module, source) {
  /** @type {Map<string, string>} */
  const known = new Map();
  for (const [, names, target] of source.matchAll(/^import (?:type )?\{([^}]*)\} from "(\.[^"]*)"/gm)) {
    for (const name of String(names).split(","))
      known.set(name.trim(), `${resolved(module, String(target))}#${name.trim()}`);
  }
  const heads = [...source.matchAll(/^(?:export )?(?:declare )?(type|class|function|const) (\w+)/gm)];
  for (const [, kind, name] of heads)
    if (kind === "type" || kind === "class") known.set(String(name), `${module}#${name}`);
  /** @type {Map<string, Declaration>} */
  const declarations = new Map();
  for (const [index, { 0: head, 1: kind, 2: name, index: at }] of heads.entries()) {
    const body = source.slice(at + head.length, heads[index + 1]?.index);
    const names = new Set(
      [...body.matchAll(/import\("(\.[^"]*)"\)\.(\w+)/g)].map(
        ([, target, other]) => `${resolved(module, String(target))}#${other}`,
      ),
    );
    for (const [word] of body.replace(/import\("[^"]*"\)\.\w+/g, "").matchAll(/\b[A-Z]\w*\b/g)) {
      const place = known.get(word);
      if (place !== undefined) names.add(place);
    }
    declarations.set(String(name), { kind: String(kind), names });
  }
  return declarations;
}

/**
 * What an entry gives, as `module#Name`.
 *
 * @param {string} module
 * @param {string} source
 */
function exported(module, source) {
  const given = [];
  for (const [, names, target] of source.matchAll(/^export \{([^}]*)\} from "([^"]*)"/gm)) {
    for (const name of String(names).split(","))
      if (name.trim()) given.push(`${resolved(module, String(target))}#${name.trim()}`);
  }
  for (const [, name, target, other] of source.matchAll(/^export type (\w+) = import\("([^"]*)"\)\.(\w+);/gm)) {
    assert.equal(name, other, "one name for one thing");
    given.push(`${resolved(module, String(target))}#${other}`);
  }
  if (given.length > 0) return given;
  return [...source.matchAll(/^export (?:declare )?(?:type|class|function|const) (\w+)/gm)].map(
    ([, name]) => `${module}#${name}`,
  );
}

test("What a public signature names is exported, and nothing else is.", () => {
  const sources = declared();
  /** @type {Map<string, Declaration>} */
  const declarations = new Map();
  for (const [module, source] of sources) {
    for (const [name, declaration] of read(module, source)) declarations.set(`${module}#${name}`, declaration);
  }
  /** @param {string} place */
  const names = (place) =>
    [...(declarations.get(place)?.names ?? [])].filter((name) => declarations.get(name)?.kind !== "const");
  const given = new Set(ENTRIES.flatMap((module) => exported(module, String(sources.get(module)))));
  const reached = new Set([...given].filter((place) => declarations.get(place)?.kind !== "type"));
  assert.ok(reached.has("connect.d.ts#connect") && reached.has("react.d.ts#useRun"));
  for (const place of reached) for (const name of names(place)) reached.add(name);
  assert.deepEqual([...reached].filter((place) => !given.has(place)).sort(), [], "not exported");
  assert.deepEqual([...given].filter((place) => !reached.has(place)).sort(), [], "exported for nothing");
});

test("Only functions, hooks and errors are there at run time: sessions and runs are made by them.", async () => {
  const library = await import("../../../client/browser/holdfast/index.js");
  assert.deepEqual(Object.keys(library).sort(), [
    "ClientClosedError",
    "CommandError",
    "ConnectionClosedError",
    "HoldfastError",
    "OutboxFullError",
    "UnknownRunError",
    "connect",
    "indexedDBStorage",
  ]);
});
