// A shared conversation: as it was when its visitor shared it, to read only.

import { Answer, isFinal } from "./answer.js";
import { h } from "./dom.js";
import { Gone, LoginNeeded, getJson } from "./server.js";

const REFRESH_MS = 2000; // while an answer is still on its way

export async function showShared(main, token) {
  let talk;
  try {
    talk = await getJson(`s/${token}.json`);
  } catch (error) {
    if (error instanceof LoginNeeded) throw error;
    main.replaceChildren(notice(error));
    return;
  }
  show(main, token, talk);
}

// What is on show stays while the server cannot be reached; a link taken back ends it.
async function refresh(main, token) {
  let talk;
  try {
    talk = await getJson(`s/${token}.json`);
  } catch (error) {
    if (error instanceof Gone) main.replaceChildren(notice(error));
    else refreshSoon(main, token);
    return;
  }
  show(main, token, talk);
}

const refreshSoon = (main, token) => setTimeout(() => refresh(main, token), REFRESH_MS);
const notice = (error) => h("p", { class: "notice" }, error.message);

function show(main, token, talk) {
  document.title = talk.title;
  const rounds = talk.columns[0].map((turn, index) => h("div", { class: "round" },
    h("div", { class: "question", dir: "auto" }, turn.question),
    h("div", { class: `panes columns-${talk.columns.length}`, tabIndex: 0, role: "group", "aria-label": "Answers" },
      talk.columns.map((column, side) => column[index] && h("article", { class: "pane" },
        h("header", {}, h("span", { class: "pane-name" }, talk.models[side])), new Answer(column[index]).element)))));
  main.replaceChildren(h("section", { class: "shared" },
    h("p", { class: "aside" }, "Shared by a visitor of this page."), ...rounds,
    h("p", { class: "row center" }, h("a", { class: "button-link", href: document.body.dataset.base }, "Ask something yourself"))));
  if (talk.columns.flat().some((turn) => !isFinal(turn.status))) refreshSoon(main, token);
}
