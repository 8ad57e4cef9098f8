"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("questions");
const make = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};
const color = (model) => `var(--m${data.models.indexOf(model) % 8})`;
const byQuestion = new Map(data.questions.map((q) => [q.id, []]));
for (const j of data.judgments) byQuestion.get(j.q)?.push(j);

// A small, safe subset of Markdown: fenced code, inline code, bold. Text is never parsed as HTML.
function said(text) {
  const node = make("div", "said");
  text.split(/```[^\n]*\n?/).forEach((part, i) => {
    if (i % 2) { node.append(make("pre", "", part.replace(/\n$/, ""))); return; }
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
  if (j.models.length === 1) return `${j.scores[0]} of 10`;
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
  node.append(head, make("div", "why", j.text || "No response is stored."));
  return node;
}

function fill(node, q) {
  const inside = make("div", "inside");
  q.turns.forEach((turn, i) => {
    if (i) inside.append(make("p", "said", turn));
    if (q.reference[i]) inside.append(make("p", "note said", `Reference: ${q.reference[i]}`));
  });
  const answers = make("div", "answers");
  for (const model of data.models) {
    const answer = data.answers[model][q.id];
    if (!answer) continue;
    const box = make("div", "answer");
    box.tabIndex = 0;
    const head = make("h4");
    const dot = make("span", "dot");
    dot.style.background = color(model);
    head.append(dot, model);
    if (answer.correct === true) head.append(make("span", "right", "  ✓ correct"));
    if (answer.correct === false) head.append(make("span", "wrong", "  ✗ wrong"));
    box.append(head);
    for (const flag of answer.flags) box.append(make("span", "tag bad", flag));
    answer.turns.forEach((text, i) => {
      if (i) box.append(make("div", "turn", q.turns[i]));
      box.append(text ? said(text) : make("i", "muted", "empty answer"));
    });
    answers.append(box);
  }
  const verdicts = make("div", "verdicts");
  const found = byQuestion.get(q.id);
  verdicts.append(make("h4", "", `${found.length} judgments`));
  found.forEach((j) => verdicts.append(verdict(j)));
  inside.append(answers, verdicts);
  node.append(inside);
}

function meter(q) {
  const node = make("span", "meter");
  const counts = new Map();
  for (const j of byQuestion.get(q.id)) {
    if (j.lead === null || j.status !== "ok") continue;
    const name = j.lead === 0 ? "" : j.models[j.lead > 0 ? 0 : 1];
    counts.set(name, (counts.get(name) || 0) + 1);
  }
  const total = [...counts.values()].reduce((a, b) => a + b, 0);
  for (const name of [...data.models, ""]) {
    if (!counts.get(name)) continue;
    const part = make("i");
    part.style.width = `${(100 * counts.get(name)) / total}%`;
    part.style.background = name ? color(name) : "var(--tie)";
    part.title = `${name || "tie"}: ${counts.get(name)} of ${total}`;
    node.append(part);
  }
  return node;
}

const isSplit = (q) => {
  const seen = new Map();
  return byQuestion.get(q.id).some((j) => {
    if (j.lead === null) return false;
    const key = [j.protocol, j.judge, j.repeat, ...j.models].join();
    const before = seen.get(key);
    seen.set(key, Math.sign(j.lead));
    return before !== undefined && before !== Math.sign(j.lead);
  });
};
const kinds = {
  "": () => true,
  split: isSplit,
  unread: (q) => byQuestion.get(q.id).some((j) => j.status !== "ok"),
  flagged: (q) => data.models.some((m) => data.answers[m][q.id]?.flags.length),
  wrong: (q) => data.models.some((m) => data.answers[m][q.id]?.correct === false),
};
// The models that won the largest share of what they were judged on; none where all are level.
function ahead(q) {
  const won = new Map(), played = new Map();
  const count = (model, points) => {
    won.set(model, (won.get(model) || 0) + points);
    played.set(model, (played.get(model) || 0) + 1);
  };
  for (const j of byQuestion.get(q.id)) {
    if (j.lead !== null) j.models.forEach((m, i) => count(m, (1 + Math.sign(i ? -j.lead : j.lead)) / 2));
    else if (j.scores) count(j.models[0], j.scores[0]);
  }
  const share = (model) => won.get(model) / played.get(model);
  const best = Math.max(...[...won.keys()].map(share));
  const leaders = [...won.keys()].filter((model) => share(model) === best);
  return leaders.length < won.size ? leaders : [];
}
const rows = data.questions.map((q) => {
  const node = make("details", "q");
  node.id = `q-${q.id}`;
  const head = make("summary");
  head.append(make("span", "ask", q.turns[0]), make("span", "tag", q.category), meter(q));
  node.append(head);
  node.addEventListener("toggle", () => { if (node.open && node.children.length < 2) fill(node, q); });
  head.addEventListener("click", () => history.replaceState(null, "", `#${node.id}`));
  const answers = data.models.map((m) => data.answers[m][q.id]?.turns.join(" ") || "");
  const judged = byQuestion.get(q.id).map((j) => j.text);
  const text = [q.id, ...q.turns, ...answers, ...judged].join(" ").toLowerCase();
  return { q, node, text, leaders: ahead(q) };
});
list.append(...rows.map((row) => row.node));

const search = document.getElementById("search");
const category = document.getElementById("category");
const kind = document.getElementById("kind");
const winner = document.getElementById("winner");
function filter() {
  // All words must occur; "several words" in quotation marks must occur as they are.
  const words = (search.value.toLowerCase().match(/"[^"]+"|[^\s"]+/g) || [])
    .map((word) => word.replaceAll('"', ""));
  let count = 0;
  for (const { q, node, text, leaders } of rows) {
    const shown = words.every((word) => text.includes(word)) &&
      (!category.value || q.category === category.value) &&
      (!winner.value || leaders.includes(winner.value)) && kinds[kind.value](q);
    node.hidden = !shown;
    count += shown;
  }
  document.getElementById("count").textContent = `${count} of ${rows.length} questions`;
}
search.addEventListener("input", filter);
for (const control of [category, kind, winner]) control.addEventListener("change", filter);
filter();

const unfold = document.getElementById("unfold");
unfold.addEventListener("click", () => {
  const open = unfold.textContent === "Open all";
  for (const { node } of rows) if (!node.hidden) node.open = open;
  unfold.textContent = open ? "Close all" : "Open all";
});
function follow() {
  const asked = rows.find(({ node }) => `#${node.id}` === decodeURIComponent(location.hash));
  if (asked) { asked.node.open = true; asked.node.scrollIntoView(); }
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
