// Small pieces that several pages share.

import { copyText, h, toast } from "./dom.js";
import { act, getJson, link } from "./server.js";

export function modelSelect(models, label, value, onchange) {
  const select = h("select", { "aria-label": label, onchange }, models.map((model) => h("option", { value: model.name }, model.name)));
  if (value) select.value = value;
  const element = h("label", { class: "model-select" }, select);
  element.select = select;
  return element;
}

export function modelCard(page, name, { mark = "", badge = "", change = null } = {}) {
  const card = page.cards.find((known) => known.name === name) || { name, facts: [] };
  return h("div", { class: "card" },
    h("header", {}, mark && h("span", { class: "side-mark" }, mark), h("h2", {}, name), badge && h("span", { class: "badge" }, badge)),
    change && h("p", { class: "rating" }, "Rating ", h("strong", {}, change.rating.toLocaleString()), " ",
      h("span", { class: change.change < 0 ? "down" : "up" }, `${change.change < 0 ? "−" : "+"}${Math.abs(change.change)}`), " by this vote"),
    facts(card, change === null));
}

// What is known of the model at once, and its scores when they are there. Those by votes are left
// out beside a rating that a vote has just changed: the leaderboard follows within seconds.
function facts({ name, facts: known }, showsVotes) {
  const row = ([term, fact]) => [h("dt", {}, term), h("dd", {}, fact)];
  const list = h("dl", { hidden: !known.length }, known.map(row));
  scores(name, showsVotes).then((rows) => {
    list.append(...rows.flatMap(row));
    list.hidden = !list.children.length;
  }).catch(() => {}); // the leaderboard says what is wrong with it
  return list;
}

async function scores(name, showsVotes) {
  const { categories, judge } = await getJson("leaderboard.json");
  const of = (term, rows) => rows.filter((row) => row.model === name).map((row) => [term, `${row.rating.toLocaleString()}, between ${row.low.toLocaleString()} and ${row.high.toLocaleString()}`]);
  return [...(showsVotes ? of("By votes", categories.all.ratings) : []), ...of("By the judge", judge)];
}

// Sends a question; asks for the terms once, where the page has any.
export async function withTerms(page, question) {
  if (page.terms && !page.agreed) {
    if (!(await agreed(page.terms))) throw new Error("Nothing was sent. Your question is still here.");
    page.agreed = true;
  }
  return act("ask", { ...question, agreed: Boolean(page.terms && page.agreed) });
}

function agreed(terms) {
  return new Promise((answer) => {
    const dialog = h("dialog", { class: "terms", "aria-labelledby": "terms-title" },
      h("h2", { id: "terms-title" }, "Before you ask"),
      terms.split("\n").filter((line) => line.trim()).map((line) => h("p", {}, line)),
      h("div", { class: "row" },
        h("button", { class: "primary", type: "button", onclick: () => dialog.close("yes") }, "I agree"),
        h("button", { type: "button", onclick: () => dialog.close("") }, "Not now")));
    dialog.addEventListener("close", () => { dialog.remove(); answer(dialog.returnValue === "yes"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Deletes what a view shows, once its visitor has said so, and begins that tab anew.
export async function removeTalk(view, id, tab) {
  if (!confirm("Delete this conversation from the server?")) return;
  try {
    await act("delete", { id });
    if (!view.isLeft) view.page.go(tab);
  } catch (error) {
    toast(error.message);
  }
}

// Shows the link to what ends with `turn`; makes one where there is none, and takes it back on wish.
export async function shareDialog(talk, conversation, turn) {
  const isNew = !talk.share_token;
  if (isNew) talk.share_token = (await act("share", { id: conversation, turn })).token;
  const address = link(`s/${talk.share_token}`);
  const takeBack = async () => {
    try {
      await act("share", { id: conversation, turn: "" });
      talk.share_token = "";
      dialog.close();
      toast("The link is gone; nobody can open it any more.");
    } catch (error) {
      toast(error.message);
    }
  };
  const dialog = h("dialog", { class: "share", "aria-labelledby": "share-title" },
    h("h2", { id: "share-title" }, "Anybody with this link can read it"),
    h("p", { class: "aside" }, isNew
      ? "It shows the conversation as it is now, and nothing that comes later."
      : "It shows the conversation as it was when the link was made. To show more, take it back and share again."),
    h("input", { readOnly: true, value: address, "aria-label": "The link", onfocus: ({ target }) => { target.select(); requestAnimationFrame(() => { target.scrollLeft = 0; }); } }),
    h("div", { class: "row" },
      h("button", { class: "primary", type: "button", onclick: () => { dialog.close(); copyText(address); } }, "Copy"),
      h("button", { type: "button", onclick: takeBack }, "Take it back"),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
