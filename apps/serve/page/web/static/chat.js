// One model, one conversation, with branches: an edited question keeps what it replaced.

import { Answer, isFinal } from "./answer.js";
import { Composer, controls } from "./composer.js";
import { copyText, h, icon, iconButton, newId, toast } from "./dom.js";
import { modelCard, modelSelect, removeTalk, shareDialog, withTerms } from "./parts.js";
import { grew, toBottom } from "./scroll.js";
import { act, follow, link } from "./server.js";

export function chat(page, id) {
  const view = new Chat(page);
  if (id) view.load(id);
  return view;
}

class Chat {
  constructor(page) {
    this.page = page;
    this.controls = controls(page.models, page.default_max_tokens);
    this.picker = modelSelect(page.models, "Model", page.models[0]?.name, () => this.#limit());
    this.turns = h("div", { class: "turns" });
    this.tools = h("div", { class: "row tools", hidden: true },
      h("button", { class: "small", type: "button", onclick: () => this.share() }, icon("share"), "Share"),
      h("button", { class: "small", type: "button", onclick: () => this.download("md") }, icon("down"), "Markdown"),
      h("button", { class: "small", type: "button", onclick: () => this.download("json") }, icon("down"), "JSON"),
      h("button", { class: "small", type: "button", onclick: () => this.remove() }, icon("trash"), "Delete"));
    this.intro = h("div", { class: "intro" }, h("h1", {}, "What would you like to know?"),
      h("p", {}, "One model, as long a conversation as you like."),
      h("div", { class: "examples" }, page.examples.slice(0, 4).map((text) =>
        h("button", { type: "button", onclick: () => { this.composer.set(text); this.composer.submit(); } }, text))));
    this.card = h("div", { class: "cards single" });
    this.composer = new Composer({
      label: "Ask something", maxChars: page.max_input_chars,
      onSend: (text) => this.ask(text), onStop: () => this.stop(), controls: this.controls.element,
      leading: [this.picker],
    });
    this.element = h("section", { class: "chat" }, this.intro, this.turns, this.tools,
      h("div", { class: "dock" }, this.composer.element));
    this.talk = null;
    this.answers = new Map();
    this.chosen = new Map();
    this.#limit();
  }

  #limit() {
    const model = this.page.models.find((known) => known.name === this.picker.select.value);
    if (model) this.controls.limit(model.max_tokens);
    if (this.intro) this.card?.replaceChildren(...(model ? [modelCard(this.page, model.name)] : []));
    if (this.card && !this.card.isConnected) this.intro.append(this.card);
  }

  close() {
    this.unfollow?.();
    this.unfollow = null;
  }

  async load(id) {
    try {
      const talk = await act("open", { id });
      if (this.isLeft) return;
      this.show(talk);
      this.#limit(); // of its model, before its settings: a slider cuts what is beyond its end
      this.controls.set(talk.settings);
      toBottom();
    } catch (error) {
      if (this.isLeft) return;
      toast(error.message);
      this.page.go("chat");
    }
  }

  async ask(text, { parent = this.#path().at(-1)?.id || "", first = false } = {}) {
    const question = { id: newId(), text, kind: "chat", to: this.talk?.id || "", parent, first, models: [this.picker.select.value], ...this.controls.values() };
    const talk = await withTerms(this.page, question);
    if (this.isLeft) return;
    this.chosen.set(first ? "" : parent, question.id);
    this.show(talk);
    this.page.remember("chat", talk.id);
    toBottom();
  }

  show(talk) {
    this.talk = talk;
    this.intro.hidden = true;
    this.tools.hidden = false;
    this.picker.select.value = talk.model;
    this.picker.select.disabled = true;
    this.#draw();
    this.#followOpen();
  }

  #children(parent) {
    return this.talk.turns.filter((turn) => (turn.parent || "") === parent);
  }

  // The branch on show: at each turn the one that was chosen, or the newest.
  #path() {
    const path = [];
    if (!this.talk) return path;
    for (let parent = ""; ;) {
      const branches = this.#children(parent);
      if (!branches.length) return path;
      const turn = branches.find((one) => one.id === this.chosen.get(parent)) || branches.at(-1);
      path.push(turn);
      parent = turn.id;
    }
  }

  #draw() {
    this.answers.clear();
    const path = this.#path();
    this.turns.replaceChildren(...path.map((turn, index) => this.#turn(turn, index === path.length - 1)));
  }

  #turn(turn, isLast) {
    const parent = turn.parent || "";
    const branches = this.#children(parent);
    const at = branches.indexOf(turn);
    const hasSources = this.page.sources.includes(this.talk.model);
    const answer = new Answer(turn, { onRetry: () => this.retry(turn.id), hasSources });
    this.answers.set(turn.id, answer);
    const move = (step) => {
      this.chosen.set(parent, branches[at + step].id);
      this.#draw();
      this.#followOpen();
    };
    const question = h("div", { class: "question", dir: "auto" }, turn.question);
    const above = h("div", { class: "turn-tools" },
      branches.length > 1 && h("span", { class: "branches" },
        h("button", { type: "button", "aria-label": "Earlier branch", disabled: at === 0, onclick: () => move(-1) }, "‹"),
        `${at + 1} / ${branches.length}`,
        h("button", { type: "button", "aria-label": "Later branch", disabled: at === branches.length - 1, onclick: () => move(1) }, "›")),
      iconButton("edit", "Edit the question", () => this.#edit(turn, question)));
    const below = h("div", { class: "turn-tools" },
      iconButton("copy", "Copy the answer", () => copyText(answer.text)),
      isLast && iconButton("again", "Answer again", () => this.ask(turn.question, { parent, first: !parent }).catch((error) => toast(error.message))));
    return h("div", { class: "turn" }, h("div", { class: "asked" }, above, question), answer.element, below);
  }

  #edit(turn, question) {
    const area = h("textarea", { class: "edit", value: turn.question, "aria-label": "Edit the question", rows: 3, maxLength: this.page.max_input_chars });
    const parent = turn.parent || "";
    const send = async () => {
      if (!area.value.trim()) return;
      try {
        await this.ask(area.value.trim(), { parent, first: !parent });
      } catch (error) {
        toast(error.message);
      }
    };
    question.replaceWith(h("div", { class: "editing" }, area, h("div", { class: "row" },
      h("button", { class: "primary small", type: "button", onclick: send }, "Send"),
      h("button", { class: "small", type: "button", onclick: () => this.#draw() }, "Cancel"))));
    area.focus();
  }

  #followOpen() {
    this.close();
    const open = [...this.answers].filter(([, answer]) => !isFinal(answer.status)).map(([turn]) => turn);
    this.composer.busy(open.length > 0);
    if (!open.length) return;
    this.unfollow = follow(open, (event) => {
      this.answers.get(event.turn)?.apply(event);
      const kept = this.talk.turns.find((turn) => turn.id === event.turn);
      if (event.html) kept.html = [...kept.html.slice(0, event.keep), ...event.html];
      Object.assign(kept, { status: event.status, error: event.error });
      grew();
    }, () => {
      this.unfollow = null;
      for (const answer of this.answers.values()) answer.ended();
      this.composer.busy(false);
      grew();
    });
  }

  async retry(turn) {
    try {
      await act("retry", { turn });
      if (this.isLeft) return;
      Object.assign(this.talk.turns.find((one) => one.id === turn), { status: "waiting", html: [], error: "" });
      this.answers.get(turn).reset();
      toBottom();
      this.#followOpen();
    } catch (error) {
      toast(error.message);
    }
  }

  async stop() {
    try {
      await act("stop", { turns: [...this.answers.keys()].slice(-8) });
    } catch (error) {
      toast(error.message);
    }
  }

  async share() {
    try {
      await shareDialog(this.talk, this.talk.id, this.#path().at(-1).id);
    } catch (error) {
      toast(error.message);
    }
  }

  download(format) {
    const turn = this.#path().at(-1)?.id ?? "";
    h("a", { href: link(`download/${this.talk.id}.${format}?turn=${turn}`), download: "" }).click();
  }

  remove() {
    return removeTalk(this, this.talk.id, "chat");
  }

  key() {}
}
