// What the rater has said so far about one question, and what the server is told: positions only, never candidates.

export const blank = () => ({ choice: null, placed: [], tieNext: false, strength: null, rates: {}, rationale: "", edited: "" });

// placed: [[position, ...], ...], best first; positions in one group are tied
export const ranked = (draft, k) => draft.placed.flat().length === k;

export function place(draft, position, k) {
  draft.choice = null;
  if (draft.placed.flat().includes(position)) return false;
  if (draft.tieNext && draft.placed.length) draft.placed[draft.placed.length - 1].push(position);
  else draft.placed.push([position]);
  draft.tieNext = false;
  return true;
}

export function takeBack(draft) {
  draft.choice = null;
  const last = draft.placed[draft.placed.length - 1];
  if (!last) return;
  last.pop();
  if (!last.length) draft.placed.pop();
}

export function ranks(draft, k) { // one per position, from 1; null while they are not all known
  if (draft.choice === "bad") return null;
  if (k === 2) {
    if (draft.choice === "tie") return [1, 1];
    return draft.choice === null ? null : draft.choice === 0 ? [1, 2] : [2, 1];
  }
  if (!ranked(draft, k)) return null;
  const found = Array(k);
  let rank = 1;
  for (const group of draft.placed) {
    for (const position of group) found[position] = rank;
    rank += group.length;
  }
  return found;
}

export function winner(draft, k) { // the position that is better than all others, or null
  const found = ranks(draft, k);
  return found && found.filter((rank) => rank === 1).length === 1 ? found.indexOf(1) : null;
}

export function missing(draft, k, asks) { // what is still to be said, as a sentence; "" when nothing is
  if (draft.choice !== "bad" && !ranks(draft, k)) return k === 2 ? "Say which answer is better first." : "Rank every answer first.";
  if (asks.strength && winner(draft, k) !== null && !draft.strength) return "Say how much better it is.";
  for (const name of asks.attributes)
    for (let position = 0; position < k; position++)
      if (!draft.rates[name]?.[position]) return `Rate “${name}” for answer ${position + 1}.`;
  if (asks.rationale === "required" && !draft.rationale.trim()) return "Say why, in a few words.";
  return "";
}

export function judgement(draft, question, times, asks, special) {
  const k = question.answers.length, best = winner(draft, k);
  const base = { id: uuid(), assignment: question.assignment, submitted_at: Date.now() / 1000, ...times, replaces: question.replaces || "" };
  if (special) return { ...base, answer: special.answer, rationale: special.why };
  const rated = Object.keys(draft.rates).length ? draft.rates : null;
  const bad = draft.choice === "bad";
  return { ...base, answer: bad ? "all_bad" : "ranked", ranks: bad ? null : ranks(draft, k), strength: best === null ? null : draft.strength, attributes: rated,
    rationale: draft.rationale.trim(), edited: best !== null && draft.edited && draft.edited !== question.answers[best].text ? draft.edited : "" };
}

function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // pages without TLS have no randomUUID
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
