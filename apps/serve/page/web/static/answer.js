// One answer: its blocks, the dots while it is awaited, and what became of it.

import { copyText, h, icon, safeHtml } from "./dom.js";
import { sourcesOf } from "./sources.js";

const FINAL = new Set(["done", "stopped", "failed", "blocked"]);
export const isFinal = (status) => FINAL.has(status);

export class Answer {
  constructor(turn, { onRetry = null, hasSources = false } = {}) {
    this.onRetry = onRetry;
    this.findSources = () => (hasSources ? sourcesOf(turn.id) : null);
    this.sources = this.findSources();
    this.body = h("div", { class: "answer-body" });
    this.note = h("div", { class: "answer-note" });
    this.element = h("div", { class: "answer", "aria-live": "off" }, this.body, this.note);
    this.blocks = [];
    this.startMs = Date.now();
    this.apply({ ...turn, keep: 0, place: 0 });
  }

  // As it is read, without the names and buttons above code.
  get text() {
    const heads = [...this.body.querySelectorAll(".code-name")];
    for (const head of heads) head.hidden = true;
    const text = this.body.innerText;
    for (const head of heads) head.hidden = false;
    return text;
  }

  apply(event) {
    if (event.html) this.#draw(event.keep, event.html);
    this.status = event.status;
    this.error = event.error;
    this.place = event.place;
    this.element.dataset.status = event.status;
    clearInterval(this.timer);
    if (!isFinal(event.status) && !this.blocks.length) {
      this.timer = setInterval(() => this.#note(), 1000);
    }
    this.#note();
  }

  // Nothing more will come. One without an end was deleted meanwhile, as in another window.
  ended() {
    if (!isFinal(this.status)) this.apply({ status: "failed", error: "This answer was deleted.", place: 0 });
  }

  // Throws the old answer away, as when it is asked for again.
  reset() {
    this.startMs = Date.now();
    this.sources = this.findSources();
    this.apply({ keep: 0, html: [], status: "waiting", error: "", place: 0 });
  }

  #draw(keep, html) {
    while (this.blocks.length > keep) this.blocks.pop().remove();
    for (const piece of html) {
      const block = safeHtml(h("div", { class: "block", dir: "auto" }), piece);
      for (const code of block.querySelectorAll(".code-block")) addCopy(code);
      for (const table of block.querySelectorAll("table")) {
        table.replaceWith(h("div", { class: "table", tabIndex: 0 }, table.cloneNode(true)));
      }
      this.body.append(block);
      this.blocks.push(block);
    }
  }

  #note() {
    this.note.replaceChildren();
    if (isFinal(this.status)) {
      clearInterval(this.timer);
      if (this.status === "stopped") this.note.append(h("p", { class: "aside" }, "Stopped."));
      if (this.error) this.note.append(h("p", { class: "error", role: "alert" }, this.error));
      if (this.onRetry && (this.status === "failed" || this.status === "stopped")) {
        this.note.append(h("button", { class: "small", type: "button", onclick: this.onRetry }, icon("again"), "Try again"));
      }
      if (this.sources && this.blocks.length && (this.status === "done" || this.status === "stopped")) this.note.append(this.sources);
    } else if (!this.blocks.length) {
      const seconds = Math.floor((Date.now() - this.startMs) / 1000);
      const place = this.place > 0 ? `, ${this.place} in front of you` : "";
      this.note.append(h("p", { class: "dots", role: "status" },
        h("span"), h("span"), h("span"), h("em", {}, seconds > 1 ? `${seconds} s${place}` : "")));
    }
  }
}

function addCopy(code) {
  const button = h("button", { class: "code-copy", type: "button", onclick: () => copyText(code.querySelector("code").textContent) }, "Copy");
  code.querySelector(".code-name").append(button);
  code.querySelector("pre").tabIndex = 0;
}
