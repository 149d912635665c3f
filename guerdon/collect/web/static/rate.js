// The rater's screen. One question is shown, the next is fetched meanwhile, answers go through the outbox.

import { call, kept, Lost, Outbox } from "./wire.js";
import * as draw from "./draw.js";
import * as say from "./answer.js";

const $ = (id) => document.getElementById(id);
const asks = JSON.parse($("asks").dataset.asks);
const base = `/api/studies/${encodeURIComponent(asks.study)}`;
const mine = `guerdon.${asks.rater}.${asks.study}`;
const HOLD = 2; // questions on the screen and ahead of it
const KEYS = [["1 – 9", "Choose that answer; with more than two, rank it next"], ["0 or =", "About the same; with more than two, the next is a tie"], ["Backspace", "Take the last rank back"], ["B", "Both or all are bad"],
  ["J K L", "Slightly, clearly, much better"], ["A", "Go to the ratings"], ["R", "Go to the reason"], ["E", "Rewrite the winner"], ["Escape", "Leave a text; single keys work again"], ["← →", "Go from answer to answer"],
  ["Enter", "Send; after a training question, go on"], ["Ctrl+Enter", "Send, also from within a text"], ["S", "Skip"], ["F", "Flag"], ["U", "Undo the last answer"], ["G", "Guidelines"], ["?", "This list"]];

let held = []; // questions given to this browser; the first is on the screen
let current = null, draft = null, times = {}, progress = null, fetching = false, learning = false;

const outbox = new Outbox(base, `${mine}.out.`, showState, onResult);

function showState(state, waiting, text, signedOut) {
  const place = $("state");
  place.dataset.state = state;
  place.replaceChildren(text);
  if (signedOut) place.append(" · ", draw.el("a", { href: `/login?next=${encodeURIComponent(location.pathname)}`, text: "Sign in" }));
  if (state === "waiting" || state === "refused") spoken(text);
}
const spoken = (text) => { $("spoken").textContent = text; };

function onResult(result, reply) {
  showProgress(reply.progress);
  if (result.feedback) teach(result.feedback);
  else if (learning === result.id) onward();
}

function showProgress(found) {
  progress = found;
  const training = found.state === "training" && found.training_total;
  const [done, all] = training ? [found.training_done, found.training_total] : [found.items, found.items + found.left];
  $("count").textContent = training ? `Training: ${done} of ${all}` : `${done} answered` + (found.left > 5 ? `, about ${found.left} to go` : found.left ? ", a few to go" : "");
  $("progress").hidden = !all;
  if (all) Object.assign($("progress"), { max: all, value: Math.min(done, all) });
}

async function fill() { // fetch until enough questions are held
  if (fetching) return;
  fetching = true;
  try {
    while (held.length < HOLD) {
      const reply = await call("GET", `${base}/next?held=${held.map((question) => question.assignment).join(",")}`);
      showProgress(reply.progress);
      if (!reply.question) break;
      held.push(reply.question);
      if (!current && !learning) show();
    }
    if (!held.length && !current && !learning) finish(progress.standing);
    if (!outbox.waiting().length && !outbox.refused) showState("saved", 0, "All answers saved");
  } catch (error) {
    if (!(error instanceof Lost)) showState("waiting", 0, error.message, error.status === 401);
    else if (!outbox.waiting().length) showState("waiting", 0, "No network");
    if (!current && !learning) finish("");
    setTimeout(fill, 3000);
  } finally {
    fetching = false;
  }
}

function finish(standing) {
  $("place").replaceChildren(draw.end(standing, () => { fill(); outbox.flush(); }));
  spoken($("end").textContent);
}

function show() {
  current = held[0];
  const k = current.answers.length;
  draft = Object.assign(say.blank(), kept.get(`${mine}.draft.${current.assignment}`) ?? {});
  times = { shown_at: Date.now() / 1000, first_input_at: null };
  const answers = draw.el("div", { class: k > 2 ? "answers many" : "answers" }, ...current.answers.map((_, position) => draw.card(current, position, asks, hear)));
  const again = current.replaces ? [draw.el("p", { class: "note", id: "again", text: "You answered this before. What you send now replaces that answer; until then it stands." })] : [];
  $("place").replaceChildren(...again, draw.prompt(current), answers, draw.extras(asks, hear), draw.verdict(current, asks, hear));
  for (const [name, values] of Object.entries(draft.rates)) values.forEach((value, position) => {
    const input = document.querySelector(`[name="rate-${asks.attributes.indexOf(name)}-${position}"][value="${value}"]`);
    if (input) input.checked = true;
  });
  if ($("rationale")) $("rationale").value = draft.rationale;
  refresh();
  scrollTo(0, 0);
  $("heading").focus({ preventScroll: true });
  spoken(`${current.training ? "Training question" : "Question"} with ${k} answers.`);
}

function refresh() { // the screen as the draft says
  const k = current.answers.length, best = say.winner(draft, k), found = say.ranks(draft, k);
  document.querySelectorAll("[data-card]").forEach((node, position) => {
    const at = draft.placed.findIndex((group) => group.includes(position)), badge = node.querySelector(".badge");
    const tied = k > 2 ? at >= 0 && draft.placed[at].length > 1 : draft.choice === "tie";
    const rank = k > 2 ? (at < 0 ? 0 : 1 + draft.placed.slice(0, at).flat().length) : found ? found[position] : 0;
    badge.textContent = draft.choice === "bad" ? "Bad" : k === 2 ? (tied ? "Tie" : "Better") : `${rank}${["", "st", "nd", "rd"][rank] ?? "th"}${tied ? ", tie" : ""}`;
    badge.hidden = draft.choice !== "bad" && !(k === 2 ? rank === 1 : rank);
    node.classList.toggle("chosen", rank === 1 && draft.choice !== "bad");
    node.classList.toggle("bad", draft.choice === "bad");
    const button = node.querySelector("[data-place]");
    if (button) button.disabled = at >= 0;
  });
  document.querySelectorAll('[name="verdict"]').forEach((input) => { input.checked = String(draft.choice) === input.value; });
  document.querySelectorAll('[name="strength"]').forEach((input) => { input.disabled = best === null; input.checked = best !== null && draft.strength === Number(input.value); });
  if ($("ranking")) $("ranking").textContent = draft.placed.map((group) => group.map((position) => position + 1).join(" = ")).join(" › ") || "Best first: rank an answer, or press its number";
  if ($("tie")) $("tie").setAttribute("aria-pressed", String(draft.tieNext));
  if ($("edit")) $("edit").disabled = best === null;
  if ($("edited")) {
    $("edited").disabled = best === null || !draft.edited;
    if (document.activeElement !== $("edited")) $("edited").value = best === null ? "" : draft.edited;
  }
  $("message").textContent = "";
}

const hear = { // what the rater does
  touched() {
    times.first_input_at ??= Date.now() / 1000;
    kept.set(`${mine}.draft.${current.assignment}`, draft);
    refresh();
  },
  choose(choice) {
    if (choice === "bad") draft.placed = [];
    if (choice !== draft.choice) draft.edited = "";
    draft.choice = choice;
    hear.touched();
  },
  place(position) { say.place(draft, position, current.answers.length); draft.edited = ""; hear.touched(); },
  back() { say.takeBack(draft); draft.edited = ""; hear.touched(); },
  tie() { draft.tieNext = !draft.tieNext && draft.placed.length > 0; hear.touched(); },
  strength(step) { if (say.winner(draft, current.answers.length) !== null) { draft.strength = step; hear.touched(); } },
  rate(name, position, value) {
    draft.rates[name] ??= Array(current.answers.length).fill(null);
    draft.rates[name][position] = value;
    hear.touched();
  },
  write() {
    if ($("rationale")) draft.rationale = $("rationale").value;
    if ($("edited") && !$("edited").disabled) draft.edited = $("edited").value;
    hear.touched();
  },
  edit() {
    const best = say.winner(draft, current.answers.length);
    if (best === null) return;
    draft.edited ||= current.answers[best].text;
    hear.touched();
    $("edited").focus();
  },
  send() {
    const lack = say.missing(draft, current.answers.length, asks);
    $("message").textContent = lack;
    if (!lack) deliver();
  },
  why(answer) {
    $("why").dataset.answer = answer;
    $("why-title").textContent = answer === "skip" ? "Skip: why?" : "Flag: what is wrong with this question?";
    $("why-text").value = "";
    $("why").showModal();
    $("why-text").focus();
  },
};

function deliver(special) {
  times.first_input_at ??= Date.now() / 1000;
  const answer = say.judgement(draft, current, times, asks, special), training = current.training;
  if (!training) kept.set(`${mine}.last`, { question: current, draft, id: answer.id });
  kept.remove(`${mine}.draft.${current.assignment}`);
  held.shift();
  if (training) learning = answer.id;
  const sent = outbox.put(answer);
  if (training) { $("send").disabled = true; spoken("Checking…"); return; }
  current = null;
  if (held.length) show(); else $("place").replaceChildren(draw.el("p", { class: "empty muted", text: "One moment…" }));
  sent.then(fill);
}

function teach(feedback) {
  document.querySelector(".verdict")?.replaceWith(draw.lesson(feedback, onward));
  $("feedback")?.focus();
  spoken(feedback.right ? "Right." : "We see it differently.");
  fill();
}

function onward() {
  learning = false;
  current = null;
  if (held.length) show(); else fill();
}

async function undo() {
  if (learning) return;
  const last = kept.get(`${mine}.last`);
  let question = last?.question;
  if (last) question = { ...last.question, replaces: last.id };
  else {
    try { question = (await call("POST", `${base}/undo`, {})).question; } catch (error) { return spoken("Undo needs the network now."); }
  }
  if (!question) return spoken("There is nothing to undo.");
  kept.remove(`${mine}.last`);
  if (last) kept.set(`${mine}.draft.${question.assignment}`, last.draft);
  held = [question, ...held.filter((other) => other.assignment !== question.assignment)];
  show();
  spoken("The last question again; what you send now replaces your answer.");
}

function onKey(event) {
  const target = event.target, writing = target.matches("textarea, select, input:not([type=radio], [type=checkbox])");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if ($("why").open) $("why-form").requestSubmit($("why-form").querySelector("[value=send]")); else if (current && !learning) hear.send();
    return event.preventDefault();
  }
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (writing) { if (event.key === "Escape") target.blur(); return; }
  if (event.key === "Enter" && target.matches("button, a, summary")) return;
  if (!$("use-keys").checked && event.key !== "Enter") return;
  const act = action(event.key);
  if (act) { event.preventDefault(); act(); }
}

function action(pressed) {
  const k = current?.answers.length, letter = pressed.toLowerCase();
  const always = { u: undo, g: () => $("guidelines").showModal(), "?": () => $("help").showModal() };
  if (always[letter]) return always[letter];
  if (learning) return letter === "enter" && $("onward") ? onward : null;
  if (!current) return null;
  if (/^[1-9]$/.test(pressed)) return Number(pressed) <= k ? () => (k === 2 ? hear.choose(Number(pressed) - 1) : hear.place(Number(pressed) - 1)) : null;
  if (pressed === "0" || pressed === "=") return asks.ties ? () => (k === 2 ? hear.choose("tie") : hear.tie()) : null;
  if (letter === "b") return asks.allBad ? () => hear.choose("bad") : null;
  if ("jkl".includes(letter)) return asks.strength ? () => hear.strength("jkl".indexOf(letter) + 1) : null;
  const focus = (selector) => () => document.querySelector(selector)?.focus();
  const more = { s: () => hear.why("skip"), f: () => hear.why("flag"), enter: hear.send, backspace: k > 2 ? hear.back : null, a: focus(".attributes input"), r: focus("#rationale"), e: asks.edit ? hear.edit : null };
  if (letter in more) return more[letter];
  if ((letter === "arrowleft" || letter === "arrowright") && !document.activeElement.matches("input[type=radio]")) return () => step(letter === "arrowright" ? 1 : -1);
  return null;
}

function step(by) {
  const cards = [...document.querySelectorAll("[data-card]")], at = cards.indexOf(document.activeElement.closest("[data-card]"));
  const next = cards[(at + by + cards.length + (at < 0 && by < 0 ? 1 : 0)) % cards.length];
  next.setAttribute("tabindex", "0");
  next.focus();
}

$("keys").append(...KEYS.flatMap(([pressed, text]) => [draw.el("dt", {}, draw.el("kbd", { text: pressed })), draw.el("dd", { text })]));
$("use-keys").checked = kept.get("guerdon.keys") !== false;
$("use-keys").addEventListener("change", () => { kept.set("guerdon.keys", $("use-keys").checked); document.body.classList.toggle("no-keys", !$("use-keys").checked); });
document.body.classList.toggle("no-keys", !$("use-keys").checked);
$("undo").addEventListener("click", undo);
$("open-guidelines").addEventListener("click", () => $("guidelines").showModal());
$("open-help").addEventListener("click", () => $("help").showModal());
$("why").addEventListener("close", () => { if ($("why").returnValue === "send") deliver({ answer: $("why").dataset.answer, why: $("why-text").value.trim() }); $("why").returnValue = ""; });
document.addEventListener("keydown", onKey);
outbox.flush().then(fill);
