// "Where did this come from?": passages of the training data that share words with an answer. What
// they say is shown as text, whoever wrote it.

import { h } from "./dom.js";
import { grew } from "./scroll.js";
import { act } from "./server.js";

const ROLES = { assistant: "an answer", user: "a question", system: "a system message", tool: "what a tool returned" };

export function sourcesOf(turn) {
  const panel = h("div", { class: "sources-panel", hidden: true, role: "status" });
  let isKnown = false;
  const look = async () => {
    if (!isKnown) {
      button.disabled = true;
      panel.hidden = false;
      panel.replaceChildren(h("p", { class: "aside" }, "Searching the training data…"));
      try {
        panel.replaceChildren(...shown(await act("sources", { turn })));
        isKnown = true;
      } catch (error) {
        panel.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
      }
      button.disabled = false;
    } else {
      panel.hidden = !panel.hidden;
    }
    button.setAttribute("aria-expanded", String(!panel.hidden));
    grew();
  };
  const button = h("button", { class: "small", type: "button", "aria-expanded": "false", onclick: look }, "Where did this come from?");
  return h("div", { class: "sources" }, button, panel);
}

function shown(result) {
  const { passages, num_withheld: numWithheld, min_words: minWords } = result;
  const withheld = numWithheld ? [h("p", { class: "aside" }, `${numWithheld} more may not be shown on this page.`)] : [];
  if (result.is_short) return [h("p", { class: "aside" }, `An answer of fewer than ${minWords} words is too short to be found.`)];
  if (!passages.length && !numWithheld) {
    return [h("p", {}, `No passage of the training data shares more than ${minWords - 1} words in a row with this answer; the model has put it together.`)];
  }
  return [
    h("p", { class: "aside" }, "Passages of the training data that share the longest runs of words with this answer. That they are alike does not prove that it came from them."),
    ...passages.map((passage) => h("figure", { class: "source" },
      h("blockquote", { dir: "auto" }, passage.pieces.map(([text, isShared]) => (isShared ? h("mark", {}, text) : text))),
      h("figcaption", {}, h("strong", {}, `${passage.num_words} words in a row`), ` in ${ROLES[passage.role] || passage.role}: turn ${passage.turn} of conversation `, h("code", {}, passage.conversation)))),
    ...withheld,
  ];
}
