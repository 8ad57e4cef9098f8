// The page follows a growing answer until its reader scrolls up.

let follows = true;
let lastTop = 0;

const bottom = () => document.documentElement.scrollHeight - innerHeight;

addEventListener("scroll", () => {
  // A page that became shorter has moved up too, to its end.
  if (scrollY < lastTop - 4 && bottom() - scrollY > 4) follows = false;
  else if (bottom() - scrollY < 60) follows = true;
  lastTop = scrollY;
}, { passive: true });

export function grew() {
  if (follows && bottom() - scrollY > 1) scrollTo({ top: bottom(), behavior: "instant" });
}

export function toBottom() {
  follows = true;
  requestAnimationFrame(() => scrollTo({ top: bottom(), behavior: "instant" }));
}

export function toTop() {
  follows = true;
  scrollTo({ top: 0, behavior: "instant" });
}
