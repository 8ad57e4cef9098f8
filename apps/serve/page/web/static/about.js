// What this page is, what it keeps, and how votes are counted.

import { h } from "./dom.js";

export function about(page) {
  const section = (title, ...lines) => [h("h2", {}, title), ...lines.map((line) => h("p", {}, line))];
  const element = h("section", { class: "read" }, h("h1", {}, "About"),
    ...section("What this is",
      "Here you ask open language models, compare their answers and vote. This is a research preview, for trying out and comparing, and not for commercial use.",
      "The models may be wrong, and they may offend. Do not rely on them for medical, legal or financial decisions."),
    ...(page.terms ? section("Terms", ...page.terms.split("\n").filter((line) => line.trim())) : []),
    ...section("What is kept",
      "Your questions, the answers and your votes are kept on this server, with a random number in a cookie that tells them apart from other visitors'. Your address is kept only as a keyed digest of its network.",
      "Do not enter personal data. You can delete each of your conversations under its answers; a vote stays, without its texts."),
    h("p", {}, "Your number is ", h("code", {}, page.visitor), ". Whoever runs this page can delete all conversations kept under it, or what one of your shared links shows. Votes stay, without their texts."),
    ...section("What is published",
      "Who runs this page may publish conversations and votes, and train models on them. They then carry no cookie number and no address, and a mark that says whether you agreed to terms here.",
      "Ratings, the number of votes and a digest of the log of votes are public on the Leaderboard. A conversation that you share can be read by anybody who has its link, until you take the link back."),
    ...(page.sources.length ? section("Where answers come from",
      "Under an answer you can ask where it came from. The page then shows passages of the model's training data that share runs of words with it. People wrote them elsewhere; they may be wrong, and they are not this page's words.") : []),
    ...section("How votes count",
      "In a battle the two models and their sides are drawn at random, and you see their names only after your vote. A battle takes one vote. Votes with visible names, votes on answers that name their model, and votes that look bought are kept but left out of the ratings, with the reason."),
    ...section("Licences",
      "The models carry the licences of their makers and of their training data; some allow research only. This page's software is Cria, under the Apache License 2.0."));
  return { element, close() {} };
}
