"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("questions");
const make = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};
// What people and models wrote stands in the direction of its own script.
const written = (tag, cls, text) => {
  const node = make(tag, cls, text);
  node.dir = "auto";
  return node;
};
const color = (place) => `var(--m${place % 8})`;

// The texts: inline, or parts that a script beside the page calls in with part(k, [...]).
const textsOf = new Map();
const loading = new Map();
const index = new Map();
function part(number, texts) {
  for (const one of texts) textsOf.set(one.question.id, one);
}
function words(number, some) {
  for (const [word, gaps] of Object.entries(some)) {
    let place = 0;
    index.set(word, gaps.map((gap) => (place += gap)));
  }
}
function load(name) {
  if (!loading.has(name)) {
    loading.set(name, new Promise((done, failed) => {
      const script = make("script");
      script.src = `${data.folder}/${name}.js`;
      script.onload = done;
      script.onerror = () => failed(new Error(`${data.folder}/${name}.js is missing; keep the folder beside this page`));
      document.head.append(script);
    }));
  }
  return loading.get(name);
}
async function texts(q) {
  if (!textsOf.has(q.id)) await load(`part-${q.part}`);
  return textsOf.get(q.id);
}
const inline = document.getElementById("texts");
if (inline) part(0, JSON.parse(inline.textContent));

// A small, safe subset of Markdown: fenced code, inline code, bold. Text is never parsed as HTML.
function said(text) {
  const node = written("div", "said");
  text.split(/```[^\n]*\n?/).forEach((part, i) => {
    if (i % 2) {
      const code = make("pre", "", part.replace(/\n$/, ""));
      code.dir = "ltr";
      node.append(code);
      return;
    }
    for (const piece of part.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
      if (/^`.+`$/s.test(piece)) node.append(make("code", "", piece.slice(1, -1)));
      else if (/^\*\*.+\*\*$/s.test(piece)) node.append(make("b", "", piece.slice(2, -2)));
      else if (piece) node.append(piece);
    }
  });
  return node;
}

function outcome(j) {
  if (j.status !== "ok") return j.status;
  if (j.models.length === 1) {
    const [low, high] = j.scale;
    return low < 0 ? `${j.scores[0]} on ${low} to ${high}` : `${j.scores[0]} of ${high}`;
  }
  const scores = j.scores ? ` (${j.scores.join(" : ")})` : "";
  if (j.lead === 0) return "tie" + scores;
  return `${j.models[j.lead > 0 ? 0 : 1]} better` + scores;
}

function verdict(j) {
  const node = make("details", "verdict");
  const head = make("summary");
  const shown = j.order ? [...j.models].reverse() : j.models;
  head.append(make("b", j.status === "ok" ? "" : "muted", outcome(j)));
  head.append(make("span", "muted", shown.join(" shown before ")));
  head.append(make("span", "tag", `${j.protocol} · ${j.judge}`));
  if (data.turns > 1 && j.turn) head.append(make("span", "tag", `turn ${j.turn + 1}`));
  node.append(head, written("div", "why", j.text || "No response is stored."));
  return node;
}

function answerBox(answer, model, place, turns) {
  const box = make("div", "answer");
  box.tabIndex = 0;
  const head = make("h4");
  const dot = make("span", "dot");
  dot.style.background = color(place);
  head.append(dot, model);
  if (answer.correct === true) head.append(make("span", "right", "  ✓ correct"));
  if (answer.correct === false) head.append(make("span", "wrong", "  ✗ wrong"));
  box.append(head);
  for (const flag of answer.flags) box.append(make("span", "tag bad", flag));
  answer.turns.forEach((text, i) => {
    if (i) box.append(written("div", "turn", turns[i]));
    box.append(text ? said(text) : make("i", "muted", "empty answer"));
  });
  return box;
}

async function fill(node, q) {
  const inside = make("div", "inside");
  node.append(inside);
  let shown;
  try {
    shown = await texts(q);
  } catch (error) {
    inside.append(make("p", "banner", error.message));
    return;
  }
  const { question } = shown;
  node.querySelector(".ask").textContent = question.turns[0];
  question.turns.forEach((turn, i) => {
    if (i) inside.append(written("p", "said", turn));
    if (question.reference[i]) inside.append(written("p", "note said", `Reference: ${question.reference[i]}`));
  });
  const answers = make("div", "answers");
  data.models.forEach((model, place) => {
    const answer = shown.answers[model];
    if (answer) answers.append(answerBox(answer, model, place, question.turns));
  });
  const verdicts = make("div", "verdicts");
  verdicts.append(make("h4", "", `${shown.judgments.length} judgments`));
  shown.judgments.forEach((j) => verdicts.append(verdict(j)));
  inside.append(answers, verdicts);
}

function meter(q) {
  const node = make("span", "meter");
  const total = q.won.reduce((a, b) => a + b, 0);
  q.won.forEach((count, place) => {
    if (!count) return;
    const model = data.models[place];
    const part = make("i");
    part.style.width = `${(100 * count) / total}%`;
    part.style.background = model ? color(place) : "var(--tie)";
    part.title = `${model || "tie"}: ${count} of ${total}`;
    node.append(part);
  });
  return node;
}

const rows = data.questions.map((q) => {
  const node = make("details", "q");
  node.id = `q-${q.id}`;
  const head = make("summary");
  head.append(written("span", "ask", q.ask), make("span", "tag", q.category), meter(q));
  node.append(head);
  node.addEventListener("toggle", () => { if (node.open && node.children.length < 2) fill(node, q); });
  head.addEventListener("click", () => history.replaceState(null, "", `#${node.id}`));
  return { q, node };
});
list.append(...rows.map((row) => row.node));

const search = document.getElementById("search");
const category = document.getElementById("category");
const kind = document.getElementById("kind");
const winner = document.getElementById("winner");
const count = document.getElementById("count");

// All of a question's texts in lower case, made at its first search.
const lowered = new Map();
function haystack(q) {
  if (!lowered.has(q.id)) {
    const { question, answers, judgments } = textsOf.get(q.id);
    const all = [question.id, ...question.turns, ...judgments.map((j) => j.text)];
    for (const answer of Object.values(answers)) all.push(...answer.turns);
    lowered.set(q.id, all.join(" ").toLowerCase());
  }
  return lowered.get(q.id);
}
// Words as the index has them: scripts without blanks as grams of two or three characters.
function indexed(text) {
  const found = [];
  for (const run of text.normalize("NFC").toLowerCase().match(/[\p{L}\p{N}\p{M}_]+/gu) || []) {
    const size = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u.test(run) ? 2
      : /[\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u.test(run) ? 3 : 0;
    const letters = [...run];
    if (!size || letters.length <= size) found.push(run);
    else for (let i = 0; i + size <= letters.length; i++) found.push(letters.slice(i, i + size).join(""));
  }
  return found;
}
// The places of the questions in which a word begins or stands inside some word.
function placesOf(word) {
  const places = new Set();
  for (const [known, at] of index) if (known.includes(word)) for (const place of at) places.add(place);
  return places;
}
// All words must occur; "several words" in quotation marks must occur as they are.
async function matching(asked) {
  const phrases = (asked.toLowerCase().match(/"[^"]+"|[^\s"]+/g) || []).map((p) => p.replaceAll('"', ""));
  if (!phrases.length) return null;
  let places = rows.map((_, place) => place);
  if (!inline) {
    await Promise.all(Array.from({ length: data.num_index_files }, (_, k) => load(`words-${k}`)));
    for (const word of phrases.flatMap(indexed)) {
      const held = placesOf(word);
      places = places.filter((place) => held.has(place));
    }
    if (!phrases.some((phrase) => /\s/.test(phrase))) return new Set(places);
    await Promise.all(places.map((place) => texts(rows[place].q)));
  }
  return new Set(places.filter((place) => phrases.every((p) => haystack(rows[place].q).includes(p))));
}
let asked = 0;
async function filter() {
  const mine = ++asked;
  let found = null;
  try {
    if (search.value && !inline) count.textContent = "searching";
    found = await matching(search.value);
  } catch (error) {
    count.textContent = error.message;
    return;
  }
  if (mine !== asked) return;
  const place = data.models.indexOf(winner.value);
  let shown = 0;
  rows.forEach(({ q, node }, at) => {
    const is = (!found || found.has(at)) && (!category.value || q.category === category.value) &&
      (!winner.value || q.leaders.includes(place)) && (!kind.value || q.kinds.includes(kind.value));
    node.hidden = !is;
    shown += is;
  });
  count.textContent = `${shown} of ${rows.length} questions`;
}
search.addEventListener("input", filter);
for (const control of [category, kind, winner]) control.addEventListener("change", filter);
filter();

const unfold = document.getElementById("unfold");
unfold.addEventListener("click", () => {
  const open = unfold.textContent === "Open all";
  const chosen = rows.filter(({ node }) => !node.hidden).slice(0, open ? 200 : undefined);
  for (const { node } of chosen) node.open = open;
  unfold.textContent = open ? "Close all" : "Open all";
});
function follow() {
  const wanted = rows.find(({ node }) => `#${node.id}` === decodeURIComponent(location.hash));
  if (wanted) { wanted.node.open = true; wanted.node.scrollIntoView(); }
}
addEventListener("hashchange", follow);
follow();
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !isTyping) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape" && event.target === search) { search.value = ""; filter(); }
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
