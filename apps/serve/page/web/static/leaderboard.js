// Ratings with their intervals, from votes; the map of win rates; categories.

import { h } from "./dom.js";
import { getJson } from "./server.js";

const REFRESH_MS = 30000;
const NAMES = { all: "All", code: "Code", long: "Long questions", english: "English", "other languages": "Other languages" };
const RULES = {
  not_blind: "names were shown", names_a_model: "an answer named its model", too_fast: "cast too fast",
  picks_battles: "battles were picked by model", one_sided: "one model favoured beyond chance", many_of_one_address: "too many of one network",
};

export function leaderboard() {
  return new Leaderboard();
}

class Leaderboard {
  constructor() {
    this.category = "all";
    this.body = h("div", { class: "board" }, h("p", { class: "aside" }, "Counting the votes."));
    this.element = h("section", { class: "read" }, h("h1", {}, "Leaderboard"),
      h("p", { class: "lead" }, "Strengths by Bradley and Terry from blind votes: 400 points are odds of ten to one. The bars are 95 % intervals; models whose intervals overlap share a rank."), this.body);
    this.#load();
    this.timer = setInterval(() => this.#load(), REFRESH_MS);
  }

  close() { clearInterval(this.timer); }

  async #load() {
    try {
      if (this.controlsStyle) this.styled = await getJson("style.json");
      this.tables = await getJson("leaderboard.json");
      this.#draw();
    } catch (error) {
      this.body.replaceChildren(h("p", { class: "error" }, error.message));
    }
  }

  #draw() {
    const names = Object.keys(this.tables.categories).filter((name) => name === "all" || this.tables.categories[name].num_votes > 0);
    const table = this.tables.categories[this.category] || this.tables.categories.all;
    const tabs = h("div", { class: "chips", role: "group", "aria-label": "Category" }, names.map((name) =>
      h("button", { type: "button", class: name === this.category ? "chip here" : "chip", "aria-pressed": String(name === this.category), onclick: () => { this.category = name; this.#draw(); } },
        `${NAMES[name]} `, h("small", {}, String(this.tables.categories[name].num_votes)))));
    const style = h("button", { type: "button", class: this.controlsStyle ? "chip here" : "chip", "aria-pressed": String(Boolean(this.controlsStyle)), onclick: () => { this.controlsStyle = !this.controlsStyle; this.#load(); } }, "Style control");
    const left = Object.entries(this.tables.left_out);
    tabs.append(style);
    const { judge } = this.tables;
    const voted = this.controlsStyle ? styleControlled(this.styled) : table.ratings.length ? ratings(table.ratings) : noVotes();
    this.element.classList.toggle("wide", judge.length > 0);
    this.body.replaceChildren(tabs,
      judge.length ? h("div", { class: "sides" },
        h("div", {}, h("h2", {}, "By votes"), voted),
        h("div", {}, h("h2", {}, "By the judge"), ratings(judge),
          h("p", { class: "aside" }, "The same arithmetic over the judge's verdicts on the held-out questions of the Evaluation tab."))) : voted,
      !this.controlsStyle && table.ratings.length ? h("div", {}, h("h2", {}, "Who wins against whom"), winRates(table)) : "",
      h("p", { class: "aside" }, `${this.tables.num_votes.toLocaleString()} votes count.`,
        left.length ? ` Left out: ${left.map(([rule, count]) => `${count} because ${RULES[rule] || rule}`).join(", ")}.` : "",
        " Every vote and every change of rank is in a hash-chained log; its newest digest is ", h("code", {}, this.tables.log_digest.slice(0, 16)), "."));
  }
}

const noVotes = () => h("p", { class: "notice" }, "No votes yet. The first battle begins this table.");

function styleControlled(styled) {
  if (!styled?.ratings.length) return noVotes();
  const effects = Object.entries(styled.effects).map(([name, effect]) => `${name} ${effect < 0 ? "−" : "+"}${Math.abs(effect)}`);
  return h("div", {}, ratings(styled.ratings),
    h("p", { class: "aside" }, `All votes, once length and layout are taken out. What each adds to the log-odds of a win: ${effects.join(", ")}.`));
}

const COLUMN_CLASS = { Model: "", "": "bar" };

function ratings(rows) {
  const low = Math.min(...rows.map((row) => row.low));
  const span = Math.max(1, Math.max(...rows.map((row) => row.high)) - low);
  const bar = (row) => {
    const at = (value) => 4 + 192 * (value - low) / span;
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", "0 0 200 16");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "interval");
    svg.setAttribute("aria-hidden", "true");
    for (const [from, to, name] of [[row.low, row.high, "span"], [row.rating, row.rating, "dot"]]) {
      const line = document.createElementNS(ns, "line");
      for (const [key, value] of [["x1", at(from)], ["x2", at(to)], ["y1", 8], ["y2", 8], ["class", name]]) line.setAttribute(key, value);
      svg.append(line);
    }
    return svg;
  };
  const counted = rows[0].battles !== undefined;
  const columns = ["Rank", "Model", "Rating", "", ...(counted ? ["Battles", "Wins"] : [])];
  return h("div", { class: "table", tabIndex: 0 }, h("table", { class: "ratings" },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col", class: COLUMN_CLASS[name] ?? "number" }, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, h("td", { class: "number" }, String(row.rank)), h("th", { scope: "row" }, row.model),
      h("td", { class: "number" }, String(row.rating), h("small", {}, `${row.low} to ${row.high}`)), h("td", { class: "bar" }, bar(row)),
      counted && h("td", { class: "number" }, row.battles.toLocaleString()), counted && h("td", { class: "number" }, percent(row.win_rate)))))));
}

function winRates(table) {
  const names = table.ratings.map((row) => row.model);
  return h("div", { class: "table", tabIndex: 0 }, h("table", { class: "map" },
    h("thead", {}, h("tr", {}, h("td", {}, "Row wins"), names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, table.win_rates.map((row, index) => h("tr", {}, h("th", { scope: "row" }, names[index]),
      row.map((rate, other) => h("td", { class: `number heat-${rate === null || index === other ? "none" : Math.round(rate * 10)}` }, rate === null || index === other ? "" : percent(rate))))))));
}

const percent = (share) => `${Math.round(100 * share)} %`;
