// One question, two answers side by side, a vote: blind (Battle) or picked (Side by side).

import { Answer, isFinal } from "./answer.js";
import { Composer, controls } from "./composer.js";
import { h, icon, newId, toast } from "./dom.js";
import { modelCard, modelSelect, removeTalk, shareDialog, withTerms } from "./parts.js";
import { grew, toBottom } from "./scroll.js";
import { act, follow } from "./server.js";

const VERDICTS = [["left", "A is better"], ["right", "B is better"], ["tie", "Tie"], ["both_bad", "Both are bad"]];
const SAID = { left: "You preferred A.", right: "You preferred B.", tie: "You called it a tie.", both_bad: "You found both bad." };
const LEFT_OUT = {
  not_blind: "The names were visible, so it does not count in the ratings.",
  names_a_model: "An answer named its model, so it does not count in the ratings.",
};

export function duel(page, kind, id) {
  const view = new Duel(page, kind);
  if (id) view.load(id);
  return view;
}

class Duel {
  constructor(page, kind) {
    this.page = page;
    this.kind = kind;
    this.blind = kind === "battle";
    this.rounds = h("div", { class: "rounds" });
    this.voteBar = h("div", { class: "vote", hidden: true, role: "group", "aria-label": "Your vote" },
      VERDICTS.map(([verdict, label], index) => h("button", {
        type: "button", "data-verdict": verdict, onclick: () => this.vote(verdict),
      }, h("kbd", {}, String(index + 1)), label)));
    this.outcome = h("div", { class: "outcome", hidden: true });
    this.tools = h("div", { class: "row tools", hidden: true },
      h("button", { class: "small", type: "button", onclick: () => this.remove() }, icon("trash"), "Delete"));
    this.intro = this.#intro();
    const extras = [];
    if (!this.blind) {
      this.controls = controls(page.models, page.default_max_tokens);
      this.pick = [0, 1].map((side) => modelSelect(page.models, side ? "Right model" : "Left model", page.models[Math.min(side, page.models.length - 1)]?.name, () => this.#limit()));
      this.picker = h("div", { class: "pickers" }, this.pick[0], h("span", { class: "versus" }, "vs"), this.pick[1]);
      extras.push(this.picker);
      this.#limit();
    }
    this.composer = new Composer({
      label: this.blind ? "Ask two hidden models" : "Ask both models",
      maxChars: page.max_input_chars,
      onSend: (text) => this.ask(text),
      onStop: () => this.stop(),
      controls: this.controls?.element,
    });
    this.element = h("section", { class: "duel", "data-kind": kind }, ...extras, this.intro, this.rounds,
      this.outcome, this.tools, h("div", { class: "dock" }, this.voteBar, this.composer.element));
    this.reset();
  }

  #intro() {
    const heading = this.blind ? "Which answer is better?" : "Two models, side by side";
    const line = this.blind
      ? "Ask anything. Two models answer without their names; you vote, then you see who they were."
      : "Choose two models and ask both the same.";
    return h("div", { class: "intro" }, h("h1", {}, heading), h("p", {}, line),
      h("div", { class: "examples" }, this.page.examples.slice(0, 4).map((text) =>
        h("button", { type: "button", onclick: () => { this.composer.set(text); this.composer.submit(); } }, text))));
  }

  #limit() {
    const chosen = this.pick.map((pick) => this.page.models.find((model) => model.name === pick.select.value)).filter(Boolean);
    if (chosen.length) this.controls.limit(Math.min(...chosen.map((model) => model.max_tokens)));
  }

  reset() {
    this.close();
    this.battle = null;
    this.panes = [[], []];
    this.rounds.replaceChildren();
    this.intro.hidden = false;
    this.outcome.hidden = true;
    this.tools.hidden = true;
    this.voteBar.hidden = true;
    this.composer.element.hidden = false;
    for (const pick of this.pick || []) pick.select.disabled = false;
    this.composer.busy(false);
  }

  close() {
    this.unfollow?.();
    this.unfollow = null;
  }

  async load(id) {
    try {
      const battle = await act("open", { id });
      if (this.isLeft) return;
      this.show(battle);
      if (!this.blind) {
        this.#limit(); // of its models, before its settings: a slider cuts what is beyond its end
        this.controls.set(battle.settings);
      }
    } catch (error) {
      if (this.isLeft) return;
      toast(error.message);
      this.page.go(this.kind);
    }
  }

  async ask(text) {
    if (this.battle?.verdict) this.reset();
    const question = { id: newId(), text, kind: this.kind, to: this.battle?.id || "" };
    if (!this.blind) Object.assign(question, this.controls.values(), { models: this.pick.map((pick) => pick.select.value) });
    this.voteBar.hidden = true;
    try {
      const battle = await withTerms(this.page, question);
      if (this.isLeft) return;
      this.show(battle);
    } catch (error) {
      this.#offerVote();
      throw error;
    }
    this.page.remember(this.kind, this.battle.id);
    toBottom();
  }

  show(battle) {
    this.battle = battle;
    this.intro.hidden = true;
    this.tools.hidden = false;
    this.rounds.replaceChildren();
    this.answers = new Map();
    const [left, right] = battle.sides;
    if (!left?.length) return;
    left.forEach((turn, index) => this.rounds.append(this.#round(turn, right[index])));
    this.#followOpen();
    this.#offerVote();
    this.#showOutcome();
    if (this.pick && battle.models.length) this.pick.forEach((pick, side) => { pick.select.value = battle.models[side]; });
    for (const pick of this.pick || []) pick.select.disabled = true;
  }

  #round(left, right) {
    const panes = [left, right].map((turn, side) => {
      const model = this.battle.models[side]; // known after the vote
      const answer = new Answer(turn, { onRetry: () => this.retry(turn.id), hasSources: this.page.sources.includes(model) });
      this.answers.set(turn.id, answer);
      const name = model || (side ? "Model B" : "Model A");
      return h("article", { class: "pane", "data-side": side ? "right" : "left", "aria-label": side ? "Right answer" : "Left answer" },
        h("header", {}, h("span", { class: "side-mark" }, side ? "B" : "A"), h("span", { class: "pane-name" }, name)), answer.element);
    });
    return h("div", { class: "round" },
      h("div", { class: "question", dir: "auto" }, left.question),
      h("div", { class: "panes", tabIndex: 0, role: "group", "aria-label": "Two answers" }, panes));
  }

  #followOpen() {
    this.close();
    const open = [...this.answers].filter(([, answer]) => !isFinal(answer.status)).map(([turn]) => turn);
    this.composer.busy(open.length > 0);
    if (!open.length) return;
    this.unfollow = follow(open, (event) => {
      this.answers.get(event.turn)?.apply(event);
      grew();
    }, () => {
      this.unfollow = null;
      for (const answer of this.answers.values()) answer.ended();
      this.composer.busy(false);
      this.#offerVote();
      // So that 1 to 4 vote; "/" leads back into the box.
      if (!this.voteBar.hidden && !this.composer.area.value) this.composer.area.blur();
      grew();
    });
  }

  #last() {
    return [...this.answers.values()].slice(-2);
  }

  #offerVote() {
    const done = this.battle && !this.battle.verdict && this.#last().every((answer) => answer.status === "done");
    this.voteBar.hidden = !done || this.unfollow !== null;
  }

  async retry(turn) {
    try {
      await act("retry", { turn });
      if (this.isLeft) return;
      this.answers.get(turn).reset();
      toBottom();
      this.#followOpen();
    } catch (error) {
      toast(error.message);
    }
  }

  async stop() {
    const open = [...this.answers].filter(([, answer]) => !isFinal(answer.status)).map(([turn]) => turn);
    try {
      await act("stop", { turns: open });
    } catch (error) {
      toast(error.message);
    }
  }

  async vote(verdict) {
    if (this.voteBar.hidden || this.voting) return;
    this.voting = true;
    for (const button of this.voteBar.children) button.disabled = true;
    try {
      this.show(await act("vote", { battle: this.battle.id, verdict }));
      toBottom();
    } catch (error) {
      toast(error.message);
    }
    for (const button of this.voteBar.children) button.disabled = false;
    this.voting = false;
  }

  #showOutcome() {
    this.outcome.hidden = !this.battle.verdict;
    if (!this.battle.verdict) return;
    const winner = { left: 0, right: 1 }[this.battle.verdict];
    const cards = this.battle.models.map((name, side) => modelCard(this.page, name, { change: this.battle.changes[side], mark: side ? "B" : "A", badge: side === winner ? "Your choice" : "" }));
    const leftOut = LEFT_OUT[this.battle.left_out_by];
    this.outcome.replaceChildren(
      h("p", { class: "outcome-line" }, h("strong", {}, "Your vote is kept. "), SAID[this.battle.verdict]),
      ...(leftOut ? [h("p", { class: "aside" }, leftOut)] : []),
      h("div", { class: "cards" }, cards),
      h("div", { class: "row center" },
        h("button", { class: "primary", type: "button", onclick: () => this.page.go(this.kind) }, this.blind ? "Next battle" : "New comparison"),
        h("button", { type: "button", onclick: () => this.share() }, icon("share"), "Share")));
  }

  async share() {
    try {
      await shareDialog(this.battle, this.battle.conversation, this.battle.sides[0].at(-1).id);
    } catch (error) {
      toast(error.message);
    }
  }

  remove() {
    return removeTalk(this, this.battle.id, this.kind);
  }

  key(event) {
    const index = "1234".indexOf(event.key);
    if (index >= 0) this.vote(VERDICTS[index][0]);
  }
}
