// The evaluation: questions, answers, and what the judge said in both orders.

import { h, safeHtml } from "./dom.js";
import { getJson } from "./server.js";

const WAVERED = "\u0000wavered";
const NONE = "\u0000none";

export function evaluation() {
  return new Evaluation();
}

class Evaluation {
  constructor() {
    this.body = h("div", { class: "evaluation" });
    this.element = h("section", { class: "read wide" }, h("h1", {}, "Evaluation"),
      h("p", { class: "lead" }, "Held-out questions that no visitor asked: every model's answer, and the judge's reasons in both orders."), this.body);
    this.#load();
  }

  close() {}

  async #load() {
    let overview;
    try {
      overview = await getJson("evaluation.json");
    } catch (error) {
      this.body.replaceChildren(h("p", { class: "error" }, error.message));
      return;
    }
    if (!overview.questions.length) {
      this.body.replaceChildren(h("p", { class: "notice" }, "There is no evaluation to show yet."));
      return;
    }
    this.overview = overview;
    const categories = [...new Set(overview.questions.map((question) => question.category))].filter(Boolean).sort();
    this.category = h("select", { "aria-label": "Category", onchange: () => this.#list() },
      h("option", { value: "" }, "All categories"), categories.map((name) => h("option", { value: name }, name)));
    this.verdict = h("select", { "aria-label": "Verdict", onchange: () => this.#list() },
      h("option", { value: "" }, "Any verdict"), overview.models.map((name) => h("option", { value: name }, `Won by ${name}`)),
      h("option", { value: "tie" }, "Tie"), h("option", { value: WAVERED }, "Orders disagree"), h("option", { value: NONE }, "Not judged"));
    this.search = h("input", { type: "search", placeholder: "Search the questions", "aria-label": "Search the questions", oninput: () => this.#list() });
    this.list = h("ul", { class: "question-list" });
    this.detail = h("div", { class: "detail" });
    this.body.replaceChildren(h("div", { class: "filters" }, this.category, this.verdict, this.search), h("div", { class: "split" }, this.list, this.detail));
    this.#list();
    this.open(overview.questions[0].id, false);
  }

  #list() {
    const wanted = this.search.value.trim().toLowerCase();
    const rows = this.overview.questions.filter((question) =>
      (!this.category.value || question.category === this.category.value) && this.#hasVerdict(question) && question.text.toLowerCase().includes(wanted));
    this.list.replaceChildren(...rows.slice(0, 300).map((question) => h("li", {},
      h("button", { type: "button", "data-id": question.id, onclick: () => this.open(question.id, true) }, question.text, h("small", {}, question.category)))));
    if (!rows.length) this.list.append(h("li", { class: "aside none" }, "No question is like that."));
    this.#mark();
  }

  #hasVerdict({ won_by: wonBy }) {
    const wanted = this.verdict.value;
    if (wanted === WAVERED) return wonBy.length > 1;
    if (wanted === NONE) return wonBy.length === 0;
    return !wanted || (wonBy.length === 1 && wonBy[0] === wanted);
  }

  #mark() {
    for (const button of this.list.querySelectorAll("button")) {
      if (button.dataset.id === this.current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  async open(id, scrolls) {
    this.current = id;
    this.#mark();
    try {
      const question = await getJson(`question.json?id=${encodeURIComponent(id)}`);
      if (this.current !== id) return;
      this.detail.replaceChildren(...question.turns.map((turn) => h("div", { class: "question", dir: "auto" }, turn)),
        ...Object.entries(question.answers).map(([model, turns]) => h("article", { class: "pane" },
          h("header", {}, h("span", { class: "pane-name" }, model)), h("div", { class: "answer" }, turns.map(rendered)))),
        question.judgments.length ? h("h2", {}, "The judge") : "",
        ...question.judgments.map((judgment) => h("details", { class: "judgment" },
          h("summary", {}, said(judgment), h("small", {}, judgment.judge)), rendered(judgment.html))));
      if (scrolls && innerWidth < 720) this.detail.scrollIntoView({ behavior: "smooth" });
    } catch (error) {
      this.detail.replaceChildren(h("p", { class: "error" }, error.message));
    }
  }
}

function said({ models, winner, verdict }) {
  if (winner === "tie") return `${models.join(" and ")}: a tie`;
  if (winner) return `${winner} wins, shown ${models[0] === winner ? "first" : "second"}`;
  return `${models.join(" and ")}: ${verdict}`;
}

function rendered(blocks) {
  return h("div", { class: "answer-body" }, blocks.map((html) => safeHtml(h("div", { class: "block", dir: "auto" }), html)));
}
