// Elements without markup: text is always text. The one place that makes HTML is `safeHtml`.

const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy("cria", { createHTML: (html) => html })
  : { createHTML: (html) => html };

// `html` must come from the server's renderer (apps/serve/page/render), never from a visitor.
export function safeHtml(element, html) {
  element.innerHTML = policy.createHTML(html);
  return element;
}

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  send: ["M12 19V5", "M5.500 11.500 12 5l6.500 6.500"],
  stop: ["M7 7h10v10H7z"],
  again: ["M20 11A8 8 0 1 0 18 17", "M20 5v6h-6"],
  copy: ["M9 9h10v10H9z", "M15 9V5H5v10h4"],
  edit: ["M4 20h4L19 9l-4-4L4 16z"],
  share: ["M12 15V4", "M8 7.500 12 4l4 3.500", "M5 12v8h14v-8"],
  more: ["M5 12h.01", "M12 12h.01", "M19 12h.01"],
  sliders: ["M4 7h9", "M17 7h3", "M4 17h3", "M11 17h9", "M15 4.500v5", "M9 14.500v5"],
  close: ["M6 6l12 12", "M18 6 6 18"],
  trash: ["M5 7h14", "M9 7V4h6v3", "M7 7l1 13h8l1-13"],
  plus: ["M12 5v14", "M5 12h14"],
  down: ["M12 4v11", "M7.500 11 12 15.500 16.500 11", "M5 20h14"],
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  for (const d of PATHS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

export function iconButton(name, label, onclick) {
  return h("button", { class: "icon-button", type: "button", title: label, "aria-label": label, onclick }, icon(name));
}

let hiding = 0;
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => place.classList.remove("shown"), 6000);
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { value: text, class: "offscreen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Copied.");
}
