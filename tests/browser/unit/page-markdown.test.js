import assert from "node:assert/strict";
import test from "node:test";
import { Window } from "happy-dom";

const dom = new Window();
const { document, Text, HTMLAnchorElement } = dom;
Object.assign(globalThis, { document, Text, HTMLAnchorElement });
console.assert = () => {}; // the parser's own, which tell nothing that a reader would see
const { Markdown } = await import("../../../client/browser/page/markdown.js");

/**
 * What becomes of a text that comes in these pieces.
 *
 * @param {Iterable<string>} pieces
 */
function drawn(pieces) {
  const root = document.createElement("div");
  const markdown = new Markdown(/** @type {any} */ (root));
  for (const piece of pieces) markdown.write(piece);
  markdown.end();
  return root;
}

/** A generator of numbers in [0, 1) that is the same at every run. @param {number} seed */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const MARKS = [
  ..."* ** _ __ ` ``` ~~ $ $$ \\ \\( \\) \\[ \\] [ ]( ](http://x.y/ ) ![ <br> < | ! https://q.z/ 😀 ( . ,".split(" "),
  ..."\n|\n\n|\n- |\n1. |\n> |\n# |\n    |\n```js\n|- [x] |--- | |\t".split("|"),
  "\n|a|b|\n|-|-|\n",
];

/**
 * A text full of marks, and the words in it.
 *
 * @param {() => number} random
 */
function scramble(random) {
  /** @type {string[]} */
  const words = [];
  let text = "";
  for (let left = 1 + Math.floor(random() * 24); left > 0; left -= 1) {
    if (random() < 0.5) text += MARKS[Math.floor(random() * MARKS.length)];
    else {
      const word = `w${words.length}w`;
      words.push(word);
      text += word;
    }
  }
  return { text, words };
}

test("A text gives the same elements however it was cut, and none of its words is lost.", () => {
  const random = randomFrom(7);
  for (let round = 0; round < 1_500; round += 1) {
    const { text, words } = scramble(random);
    const whole = drawn([text]);
    const cut = Math.floor(random() * text.length);
    for (const pieces of [[...text], text.split(""), [text.slice(0, cut), text.slice(cut)]]) {
      assert.equal(drawn(pieces).innerHTML, whole.innerHTML, JSON.stringify(text));
    }
    const links = [...whole.querySelectorAll("[href]")].map((link) => link.getAttribute("href"));
    const languages = [...whole.querySelectorAll("[data-language]")].map((code) => code.getAttribute("data-language"));
    const shown = [whole.textContent, ...links, ...languages].join(" ");
    for (const word of words) assert.ok(shown.includes(word), `${word} of ${JSON.stringify(text)}`);
  }
});

test("A long text goes on in further boxes, the same however it was cut, with every character.", () => {
  for (const text of ["word ".repeat(8_000), `\`\`\`\n${"x = 1\n".repeat(5_000)}`, "😀".repeat(9_000)]) {
    const whole = drawn([text]);
    const pieces = Array.from({ length: Math.ceil(text.length / 30) }, (_, index) =>
      text.slice(index * 30, index * 30 + 30),
    );
    assert.equal(drawn(pieces).innerHTML, whole.innerHTML);
    assert.equal((whole.textContent ?? "").trim(), text.replace(/^```\n/, "").trim());
  }
  assert.ok(drawn(["word ".repeat(8_000)]).children.length >= 4);
});

test("What would nest or grow without end is drawn flat, or as it is.", () => {
  const deep = drawn([`${"> ".repeat(5_000)}x`, "\n\n", "*a".repeat(60_000), "y"]);
  let depth = 0;
  for (let element = deep.firstElementChild; element; element = element.firstElementChild) depth += 1;
  assert.ok(depth < 40, `${depth} deep`);
  assert.ok(deep.querySelectorAll("*").length < 21_000);
  assert.ok(deep.textContent?.endsWith("y"));
});

test("Only addresses that show something become links; others are text, with nothing hidden.", () => {
  const good = drawn(["[a](https://x.y/z) [b](mailto:a@x.y) https://q.z [c](<https://x.y/> 'title')"]);
  const links = [...good.querySelectorAll("a")];
  assert.deepEqual(
    links.map((link) => link.getAttribute("href")),
    ["https://x.y/z", "mailto:a@x.y", "https://q.z/", "https://x.y/"],
  );
  for (const link of links) {
    assert.equal(link.getAttribute("rel"), "noopener noreferrer");
    assert.equal(link.getAttribute("target"), "_blank");
  }
  const bad = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "/relative",
    "https://good@evil.example/",
  ];
  for (const address of bad) {
    const root = drawn([`[press](${address}) on`]);
    assert.equal(root.querySelector("[href]"), null, address);
    assert.ok(root.textContent?.includes(address.slice(0, 10)), address);
  }
});

test("Images are never loaded: they are links to what they are images of.", () => {
  const root = drawn(["![a cat](https://x.y/cat.png)"]);
  assert.equal(root.querySelector("img"), null);
  assert.equal(root.querySelector("a")?.getAttribute("href"), "https://x.y/cat.png");
});

test("Markup is text.", () => {
  for (const text of [
    "<script>x</script>",
    "<img src=x onerror=y>",
    "`<b>`",
    "```\n<i>\n```",
    "| <b> |\n|---|\n| <i> |",
  ]) {
    const root = drawn([text]);
    assert.equal(root.querySelector("script, img, b, i"), null, text);
    assert.match(root.textContent ?? "", /<\w+/);
  }
});

test("Headings begin below those of the page, and skip no level.", () => {
  assert.equal(drawn(["### a\n\n# b\n\n###### c\n"]).innerHTML, "<h3>a</h3><h3>b</h3><h4>c</h4>");
});

test("The last character shows before the parser has decided on it, and stands there once.", () => {
  const root = document.createElement("div");
  const markdown = new Markdown(/** @type {any} */ (root));
  markdown.write("It is 42.");
  assert.equal(root.textContent, "It is 42.");
  markdown.write(" Yes");
  assert.equal(root.textContent, "It is 42. Yes");
  markdown.end();
  assert.equal(root.textContent, "It is 42. Yes");
});
