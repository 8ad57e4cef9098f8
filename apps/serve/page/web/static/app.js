// The page: its tabs, its address, and what was asked before.

import { about } from "./about.js";
import { chat } from "./chat.js";
import { h, iconButton, toast } from "./dom.js";
import { duel } from "./duel.js";
import { evaluation } from "./evaluation.js";
import { leaderboard } from "./leaderboard.js";
import { toTop } from "./scroll.js";
import { LoginNeeded, act, logIn } from "./server.js";
import { showShared } from "./shared.js";

const TABS = [["battle", "Battle"], ["chat", "Chat"], ["side_by_side", "Side by side"], ["leaderboard", "Leaderboard"], ["evaluation", "Evaluation"], ["about", "About"]];
const VIEWS = {
  battle: (page, id) => duel(page, "battle", id),
  side_by_side: (page, id) => duel(page, "side_by_side", id),
  chat,
  leaderboard,
  evaluation,
  about,
};

const main = document.getElementById("main");
let page = null;
let view = null;

function address() {
  const [tab, id] = location.hash.slice(1).split("/");
  return [VIEWS[tab] ? tab : "battle", /^[0-9a-f]{32}$/.test(id || "") ? id : ""];
}

function render() {
  const [tab, id] = address();
  if (view) {
    view.close();
    view.isLeft = true; // what it still waits for comes too late
  }
  view = VIEWS[tab](page, id);
  main.replaceChildren(view.element);
  main.dataset.tab = tab;
  document.title = `${TABS.find(([name]) => name === tab)[1]} · ${page.title}`;
  for (const link of document.querySelectorAll(".tabs a")) {
    const isHere = link.dataset.tab === tab;
    link.classList.toggle("here", isHere);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (isHere) link.scrollIntoView({ block: "nearest", inline: "center" });
  }
  toTop();
  if (matchMedia("(pointer: fine)").matches) main.querySelector(".box textarea")?.focus();
}

const actions = {
  go(tab) {
    if (location.hash === `#${tab}`) render();
    else location.hash = tab;
  },
  // The address of what is on show, so that a reload shows it again.
  remember(tab, id) {
    history.replaceState(null, "", `#${tab}/${id}`);
  },
};

function talkRow(talk, onclick) {
  const kind = TABS.find(([name]) => name === talk.kind)[1];
  const time = new Date(talk.created_s * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return h("li", {}, h("a", { href: `${document.body.dataset.base}#${talk.kind}/${talk.id}`, onclick },
    h("span", {}, talk.title), h("small", {}, `${kind} · ${time}`)));
}

async function showHistory() {
  const dialog = h("dialog", { class: "history", "aria-labelledby": "history-title" });
  const list = h("ul");
  const older = h("button", { class: "small", type: "button", onclick: () => showMore().catch((error) => toast(error.message)) }, "Show older ones");
  let before = Date.now() + 1e12; // whatever this machine's clock says
  async function showMore() {
    const { history: talks, has_more: hasMore } = await act("history", { before_s: before });
    list.append(...talks.map((talk) => talkRow(talk, () => dialog.close())));
    before = talks.at(-1)?.created_s;
    older.hidden = !hasMore;
  }
  await showMore();
  dialog.append(
    h("header", {}, h("h2", { id: "history-title" }, "Your conversations"), iconButton("close", "Close", () => dialog.close())),
    list.children.length ? list : h("p", { class: "aside" }, "Nothing yet."), older);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
}

function loggedIn() {
  return new Promise((done) => {
    const password = h("input", { type: "password", autocomplete: "current-password", "aria-label": "Password", placeholder: "Password" });
    const submit = async (event) => {
      event.preventDefault();
      try {
        await logIn(password.value);
        done();
      } catch (error) {
        toast(error.message);
      }
    };
    main.replaceChildren(h("form", { class: "login", onsubmit: submit }, h("h1", {}, "This page is not for everybody"), password,
      h("button", { class: "primary", type: "submit" }, "Log in")));
    password.focus();
  });
}

async function start() {
  document.querySelector(".tabs").replaceChildren(...TABS.map(([tab, label]) => h("a", { href: `${document.body.dataset.base}#${tab}`, "data-tab": tab }, label)));
  document.getElementById("scheme-button").addEventListener("click", () => window.criaToggleScheme());
  document.getElementById("history-button").addEventListener("click", () => showHistory().catch((error) => toast(error.message)));
  const token = location.pathname.match(/\/s\/([A-Za-z0-9_-]{43})$/)?.[1];
  if (token) {
    await showShared(main, token).catch(async (error) => {
      if (!(error instanceof LoginNeeded)) throw error;
      await loggedIn();
      await showShared(main, token);
    });
    return;
  }
  for (;;) {
    try {
      page = { ...(await act("start")), ...actions };
      if (page.models.length) break;
      main.replaceChildren(h("p", { class: "notice", role: "status" }, page.refusal || "The models are starting. This page goes on by itself."));
    } catch (error) {
      if (error instanceof LoginNeeded) {
        await loggedIn();
        continue;
      }
      main.replaceChildren(h("p", { class: "notice", role: "alert" }, error.message));
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
  addEventListener("hashchange", render);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // its address is none of a tab
    main.focus();
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if ("1234".includes(event.key) && view.voteBar && !view.voteBar.hidden) {
      event.preventDefault();
      view.key(event);
    } else if (event.key === "/") {
      event.preventDefault();
      main.querySelector(".box textarea")?.focus();
    }
  });
  render();
}

start();
