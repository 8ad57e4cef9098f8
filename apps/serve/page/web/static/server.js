// The way to the server: actions, and events of answers. Both survive the loss of a page process.

const base = document.body.dataset.base;
const TRIES = 8;

export class Refused extends Error {}
export class LoginNeeded extends Refused {}
export class Gone extends Refused {}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// An action is safe to send twice: a question carries its id, a battle takes one vote.
export async function act(name, body = {}) {
  for (let attempt = 1; ; attempt += 1) {
    let response = null;
    try {
      response = await fetch(`${base}gradio_api/run/${name}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ data: [JSON.stringify(body)] }),
      });
    } catch { /* the network or the process is gone; another may answer */ }
    if (response && response.ok) {
      const result = JSON.parse((await response.json()).data[0]);
      if (result.error) throw new Refused(result.error);
      return result;
    }
    if (response && response.status === 401) throw new LoginNeeded("Log in first.");
    if (response && response.status < 500) {
      throw new Refused((await response.json()).error);
    }
    if (attempt === TRIES) throw new Refused("The page cannot be reached. Check your connection.");
    await pause(Math.min(4000, 250 * 2 ** attempt));
  }
}

export async function logIn(password) {
  const response = await fetch(`${base}login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: password });
  if (!response.ok) throw new Refused((await response.json()).error);
}

export async function getJson(path) {
  const response = await fetch(`${base}${path}`);
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) throw new LoginNeeded(body.error);
  if (response.status === 404 && body.error) throw new Gone(body.error);
  if (!response.ok) throw new Refused(body.error || "This cannot be shown right now. Try again in a moment.");
  return body;
}

// Calls onEvent for each change until all turns have ended, then onEnd; the browser connects again
// by itself, to whichever process is there. Returns a function that ends it.
export function follow(turns, onEvent, onEnd) {
  let source = null;
  let timer = 0;
  const open = () => {
    source = new EventSource(`${base}events?turns=${turns.join(",")}`);
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.turn) onEvent(event);
    };
    source.addEventListener("end", () => { source.close(); onEnd(); });
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, 1500);
    };
  };
  open();
  return () => { clearTimeout(timer); source.close(); };
}

export const link = (path) => new URL(`${base}${path}`, location.href).href.split("#")[0];
