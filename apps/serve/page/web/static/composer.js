// The box in which people ask: Enter sends, Shift+Enter is a new line.

import { h, icon, iconButton, toast } from "./dom.js";

export class Composer {
  // onSend(text) resolves once the server has the question, and rejects when it has not.
  constructor({ label, maxChars, onSend, onStop, controls = null, leading = [] }) {
    this.onSend = onSend;
    this.area = h("textarea", {
      rows: 1, placeholder: label, "aria-label": label, maxLength: maxChars, dir: "auto",
      oninput: () => this.fit(), onkeydown: (event) => this.#key(event),
    });
    this.send = h("button", { class: "send", type: "submit", title: "Send", "aria-label": "Send" }, icon("send"));
    this.stop = h("button", { class: "send stop", type: "button", title: "Stop", "aria-label": "Stop", hidden: true, onclick: onStop }, icon("stop"));
    const drawer = controls ? h("div", { class: "drawer", hidden: true }, controls) : null;
    const sliders = controls ? iconButton("sliders", "Parameters", () => {
      drawer.hidden = !drawer.hidden;
      sliders.setAttribute("aria-expanded", String(!drawer.hidden));
    }) : null;
    sliders?.setAttribute("aria-expanded", "false");
    this.element = h("form", { class: "composer", onsubmit: (event) => { event.preventDefault(); this.submit(); } },
      drawer,
      h("div", { class: controls ? "box" : "box plain" }, this.area,
        h("div", { class: "box-row" }, ...leading, sliders, h("span", { class: "spring" }), this.stop, this.send)));
    this.isBusy = false;
  }

  busy(isBusy) {
    this.isBusy = isBusy;
    this.stop.hidden = !isBusy;
    this.send.hidden = isBusy;
  }

  fit() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, 220)}px`;
  }

  set(text) {
    this.area.value = text;
    this.fit();
    this.area.focus();
  }

  async submit() {
    const text = this.area.value.trim();
    if (!text) return;
    if (this.isBusy) {
      toast("Wait for the answer, or stop it. Your text stays here.");
      return;
    }
    this.busy(true);
    this.area.value = "";
    this.fit();
    try {
      await this.onSend(text);
    } catch (error) {
      this.busy(false);
      if (!this.area.value) this.set(text);
      toast(error.message);
    }
  }

  #key(event) {
    // Safari has ended the composition by then, and says 229.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      this.submit();
    }
  }
}

export function controls(models, defaults) {
  const longest = Math.max(16, ...models.map((model) => model.max_tokens));
  const field = (label, hint, attributes) => {
    const output = h("output", {}, String(attributes.value));
    const input = h("input", { type: "range", ...attributes, oninput: () => { output.textContent = input.value; } });
    return [input, h("label", { class: "field" }, h("span", {}, label, h("small", {}, hint), output), input)];
  };
  const [temperature, temperatureField] = field("Temperature", "0: the likeliest", { min: 0, max: 2, step: 0.05, value: 0.7 });
  const [topP, topPField] = field("Top-p", "share of likely tokens", { min: 0.05, max: 1, step: 0.05, value: 1 });
  const [tokens, tokensField] = field("Longest answer", "in tokens", { min: Math.min(16, longest), max: longest, step: 1, value: defaults });
  const system = h("textarea", { rows: 2, maxLength: 4000, placeholder: "The model's own" });
  const element = h("div", { class: "fields" }, temperatureField, topPField, tokensField,
    h("label", { class: "field wide" }, h("span", {}, "System message"), system));
  return {
    element,
    limit(maxTokens) {
      tokens.max = maxTokens;
      tokens.dispatchEvent(new Event("input"));
    },
    // As a conversation has them that is opened again.
    set(settings) {
      const shown = [[temperature, settings.temperature], [topP, settings.top_p], [tokens, settings.max_tokens]];
      for (const [input, value] of shown) {
        if (value === undefined) continue;
        input.value = value;
        input.dispatchEvent(new Event("input"));
      }
      system.value = settings.system || "";
    },
    values: () => ({
      temperature: Number(temperature.value), top_p: Number(topP.value),
      max_tokens: Number(tokens.value), system: system.value.trim(),
    }),
  };
}
