// Making the screen: elements out of plain values. Markup from the server (already inert) goes in through one named door.

const door = window.trustedTypes ? trustedTypes.createPolicy("guerdon", { createHTML: (text) => text }) : { createHTML: (text) => text };

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (key === "text") node.textContent = value;
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export function prose(html) {
  const node = el("div", { class: "prose", dir: "auto" });
  node.innerHTML = door.createHTML(html);
  return node;
}

export const key = (text) => el("kbd", { class: "hint-key", "aria-hidden": "true", text });

export function option(name, value, text, hint, onChange, more = {}) {
  const input = el("input", { type: "radio", name, value, on: { change: onChange }, ...more });
  return el("label", { class: "option" }, input, el("span", { class: "face" }, hint ? key(hint) : null, text));
}

function turn(message) {
  return el("div", { class: `turn ${message.role}` }, el("div", { class: "who", text: message.who }), prose(message.html));
}

export function prompt(question) {
  return el("section", { class: "prompt", "aria-labelledby": "asked" }, el("h2", { id: "asked", class: "unseen", text: "Conversation" }), ...question.prompt.map(turn));
}

export function card(question, position, asks, hear) {
  const answer = question.answers[position], many = question.answers.length > 2, title = `Answer ${position + 1}`;
  const badge = el("span", { class: "badge", hidden: true });
  const head = el("header", {}, el("h2", { id: `answer-${position}`, text: title }), badge);
  if (many) {
    const face = el("button", { type: "button", class: "small", "data-place": position, on: { click: () => hear.place(position) } }, key(String(position + 1)), "Rank next", el("span", { class: "unseen", text: ` (answer ${position + 1})` }));
    head.append(face);
  }
  const body = answer.turns.length === 1 ? prose(answer.turns[0].html) : el("div", { class: "prose" }, ...answer.turns.map(turn));
  const node = el("section", { class: "card", tabindex: "-1", "aria-labelledby": `answer-${position}`, "data-card": position }, head, body);
  if (asks.attributes.length) node.append(el("div", { class: "attributes" }, ...asks.attributes.map((name, index) => scale(name, index, position, asks.scale, hear))));
  return node;
}

function scale(name, index, position, top, hear) {
  const points = Array.from({ length: top }, (_, step) => option(`rate-${index}-${position}`, step + 1, String(step + 1), "", () => hear.rate(name, position, step + 1), { "aria-label": `${name}: ${step + 1} of ${top}` }));
  return el("fieldset", { class: "scale" }, el("legend", { text: name }, el("span", { class: "unseen", text: `, answer ${position + 1}` })), el("div", { class: "points" }, ...points));
}

export function extras(asks, hear) {
  const parts = [];
  if (asks.rationale !== "no") {
    const text = el("textarea", { id: "rationale", maxlength: 10000, rows: 2, on: { input: hear.write } });
    parts.push(el("div", { class: "field" }, el("label", { for: "rationale" }, key("R"), ` Why? ${asks.rationale === "required" ? "(needed)" : "(optional)"}`), text));
  }
  if (asks.edit) {
    const text = el("textarea", { id: "edited", rows: 5, disabled: true, on: { input: hear.write } });
    const start = el("button", { type: "button", class: "small", id: "edit", disabled: true, on: { click: hear.edit } }, key("E"), "Rewrite the winner");
    parts.push(el("div", { class: "field" }, start, el("label", { for: "edited", class: "unseen", text: "The winner, rewritten to be better still" }), text));
  }
  return el("div", { class: "more" }, ...parts);
}

export function verdict(question, asks, hear) {
  const many = question.answers.length > 2, choices = el("div", { class: "group two" });
  const node = el("form", { class: "verdict", "aria-label": "Your answer", on: { submit: (event) => { event.preventDefault(); hear.send(); } } });
  if (many) {
    choices.append(el("span", { class: "ranking", id: "ranking", "aria-live": "polite", text: "Best first: rank an answer, or press its number" }));
    if (asks.ties) choices.append(el("button", { type: "button", id: "tie", "aria-pressed": "false", on: { click: hear.tie } }, key("="), "Next is a tie"));
    choices.append(el("button", { type: "button", on: { click: hear.back } }, key("⌫"), "Take back"));
  } else {
    choices.append(option("verdict", "0", "Answer 1 is better", "1", () => hear.choose(0)));
    if (asks.ties) choices.append(option("verdict", "tie", "About the same", "0", () => hear.choose("tie")));
    choices.append(option("verdict", "1", "Answer 2 is better", "2", () => hear.choose(1)));
  }
  if (asks.allBad) choices.append(option("verdict", "bad", many ? "All are bad" : "Both are bad", "B", () => hear.choose("bad")));
  node.append(el("fieldset", { class: "row" }, el("legend", { class: "unseen", text: many ? "Rank the answers" : "Which answer is better?" }), choices));
  const second = el("div", { class: "row" });
  if (asks.strength) {
    const steps = ["slightly", "clearly", "much"].map((word, index) => option("strength", index + 1, word, "JKL"[index], () => hear.strength(index + 1), { disabled: true }));
    second.append(el("fieldset", { id: "strength" }, el("legend", { text: many ? "The best beats the next" : "How much better?" }), el("div", { class: "group" }, ...steps)));
  }
  const side = (text, hint, listener) => el("button", { type: "button", class: "plain", on: { click: listener } }, text, key(hint));
  second.append(el("div", { class: "end" }, side("Skip", "S", () => hear.why("skip")), side("Flag", "F", () => hear.why("flag")), el("button", { class: "primary", id: "send" }, "Send", key("↵"))));
  node.append(second, el("p", { class: "message", id: "message", role: "alert" }));
  return node;
}

export function lesson(feedback, onward) {
  const order = feedback.ranks.map((rank, position) => [rank, position]).sort((a, b) => a[0] - b[0]);
  const text = order.map(([rank, position], index) => (index ? (rank === order[index - 1][0] ? " = " : " › ") : "") + `Answer ${position + 1}`).join("");
  return el("div", { class: "verdict" }, el("div", { class: "feedback", id: "feedback", tabindex: "-1" },
    el("div", { class: `note ${feedback.right ? "good" : "warn"}` }, el("p", {}, el("strong", { text: feedback.right ? "Right. " : "We see it differently. " }), `The answer we look for: ${text}.`), feedback.html ? prose(feedback.html) : null),
    el("div", { class: "actions" }, el("button", { class: "primary", id: "onward", type: "button", on: { click: onward } }, "Go on", key("↵")))));
}

const ENDS = {
  "nothing left": ["That was all", "There is nothing left to answer for now. Thank you."],
  "limit reached": ["You have reached your share", "Thank you: you answered as many questions as this study asks of one person."],
  "not qualified": ["The training is over", "Your answers to the training differed too often from what this study looks for. Whoever runs it can let you try again."],
  removed: ["You are no longer asked", "Ask whoever runs this study."],
  "study paused": ["The study is paused", "Come back later; all your answers are kept."],
  "study closed": ["The study is closed", "Thank you."],
};

export function end(standing, again) {
  const [title, text] = ENDS[standing] ?? ["Waiting for the network", "The next question comes as soon as the server can be reached. Your answers are kept in this browser."];
  return el("div", { class: "empty" }, el("h2", { id: "end", tabindex: "-1", text: title }), el("p", { class: "muted", text }),
    el("div", { class: "actions" }, el("button", { type: "button", on: { click: again } }, "Look again"), el("a", { class: "button", href: "/studies" }, "Studies")));
}
