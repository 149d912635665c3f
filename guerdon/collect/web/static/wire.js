// Speaking to the server, and the outbox: answers wait in this browser until the server says that they are on its disk.
// Every answer carries an id made here, so that a repeated delivery is the same answer.

const WAIT = 20000; // milliseconds before a request counts as lost
let csrf = document.querySelector('meta[name="csrf"]').content;

export class Lost extends Error {} // no answer: network, or a server that is not up
export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: method === "POST" ? { "content-type": "application/json", "x-csrf-token": csrf } : {},
      body: method === "POST" ? JSON.stringify(body) : undefined,
      signal: AbortSignal.timeout(WAIT),
    });
  } catch (error) {
    throw new Lost(String(error));
  }
  if (response.status >= 500 || response.status === 429) throw new Lost(`status ${response.status}`);
  const reply = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, reply.error);
  return reply;
}

// Where things are kept: localStorage, or memory where it is closed or full.
const memory = new Map();
export const kept = {
  get(key) {
    try { return JSON.parse(localStorage.getItem(key) ?? memory.get(key) ?? "null"); } catch { return JSON.parse(memory.get(key) ?? "null"); }
  },
  set(key, value) {
    const text = JSON.stringify(value);
    try { localStorage.setItem(key, text); memory.delete(key); } catch { memory.set(key, text); }
  },
  remove(key) {
    memory.delete(key);
    try { localStorage.removeItem(key); } catch { /* nothing was kept there */ }
  },
  keys(prefix) {
    let names = [];
    try { names = Object.keys(localStorage); } catch { /* closed */ }
    return [...new Set([...names, ...memory.keys()])].filter((name) => name.startsWith(prefix)).sort();
  },
};

export class Outbox {
  // `base` is the study's path, `onState(state, waiting, text)` hears of every change, `onResult(result, reply)` of every answer.
  constructor(base, prefix, onState, onResult) {
    Object.assign(this, { base, prefix, onState, onResult, delay: 1000, sending: false, refused: "" });
    addEventListener("online", () => this.flush());
    addEventListener("focus", () => this.flush());
    addEventListener("beforeunload", (event) => { if (memory.size) event.preventDefault(); });
  }

  waiting() { return kept.keys(this.prefix); }

  put(answer) { // in the order they were given: the key begins with the time
    kept.set(`${this.prefix}${String(Date.now()).padStart(15, "0")}.${answer.id}`, answer);
    return this.flush();
  }

  async flush() {
    if (this.sending) return;
    clearTimeout(this.timer);
    this.sending = true;
    try {
      for (let names = this.waiting(); names.length; names = this.waiting()) {
        this.onState("sending", names.length, "Saving…");
        const batch = names.slice(0, 50);
        const reply = await call("POST", `${this.base}/judgements`, { answers: batch.map((name) => kept.get(name)) });
        reply.results.forEach((result, index) => {
          if (result.status === "refused") {
            this.refused = result.reason;
            kept.set(`${this.prefix.replace(".out.", ".refused.")}${result.id}`, kept.get(batch[index]));
          }
          kept.remove(batch[index]);
          this.onResult(result, reply);
        });
        this.delay = 1000;
      }
      if (this.refused) this.onState("refused", 0, `An answer was not taken: ${this.refused}`);
      else this.onState("saved", 0, "All answers saved");
    } catch (error) {
      await this.trouble(error);
    } finally {
      this.sending = false;
    }
  }

  async trouble(error) {
    const many = this.waiting().length, what = `${many} answer${many === 1 ? "" : "s"} kept here`;
    if (error instanceof Refused && error.status === 401) this.onState("waiting", many, `Signed out; ${what}`, true);
    else if (error instanceof Refused && error.status === 403) {
      this.onState("waiting", many, `${what}, trying again`);
      await call("GET", `${this.base}/progress`).then((reply) => { csrf = reply.csrf; }).catch(() => {});
    } else if (error instanceof Refused) this.onState("refused", many, `${what}: ${error.message}`);
    else this.onState("waiting", many, many ? `No network; ${what}` : "No network");
    this.timer = setTimeout(() => this.flush(), this.delay);
    this.delay = Math.min(this.delay * 2, 30000);
  }
}
