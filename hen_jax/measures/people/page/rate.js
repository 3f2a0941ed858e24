"use strict";
// A rater's page: all that it knows is on the server, so that a reload loses nothing but a draft,
// and the draft is kept in the window's own storage.
const here = location.pathname.replace(/\/$/, "");
const at = (id) => document.getElementById(id);
let state = null;
let words = WORDS.en;
let draft = { rating: null, checks: {} };
let busy = false;

async function ask(verb, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const response = await fetch(`${here}/${verb}`, options);
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

async function go(verb, body) {
  if (busy) return;
  busy = true;
  try {
    state = await ask(verb, body);
    at("error").textContent = "";
    if (verb !== "state") forget();
    show();
  } catch (error) {
    const offline = error instanceof TypeError;
    at("error").textContent = words.error + (offline ? words.offline : error.message);
  } finally {
    busy = false;
  }
}

const key = () => `hen:${here}:${state && state.item ? state.item.id : ""}`;
function forget() { draft = { rating: null, checks: {} }; at("comment").value = ""; sessionStorage.clear(); }
function remember() {
  sessionStorage.setItem(key(), JSON.stringify({ ...draft, comment: at("comment").value }));
}
function recall() {
  const kept = JSON.parse(sessionStorage.getItem(key()) || "null");
  if (!kept) return;
  draft = { rating: kept.rating, checks: kept.checks };
  at("comment").value = kept.comment;
}

function button(text, pressed, act, name) {
  const one = document.createElement("button");
  one.type = "button";
  one.textContent = text;
  if (name) one.setAttribute("aria-label", name);
  if (pressed !== null) one.setAttribute("aria-pressed", String(pressed));
  one.addEventListener("click", act);
  return one;
}

function vote(value) {
  const said = { id: state.item.id, comment: at("comment").value, checks: draft.checks };
  go("vote", state.kind === "choices" ? { ...said, choice: value } : { ...said, rating: value });
}

function pick(value) {
  if (!state.checklist.length) return vote(value);
  draft.rating = value;
  remember();
  show();
}

function showSides() {
  at("sides").replaceChildren(...state.item.replies.map((text, place) => {
    const side = document.createElement("section");
    const head = document.createElement("h2");
    const body = document.createElement("div");
    head.textContent = `${words.reply} ${"AB"[place]}`;
    body.className = "text";
    body.textContent = text;
    side.append(head, body);
    return side;
  }));
}

function showChecks() {
  at("checks").hidden = !state.checklist.length;
  const legend = at("checks-title");
  legend.textContent = words.checks;
  at("checks").replaceChildren(legend, ...state.checklist.map((one) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    label.className = "check";
    box.type = "checkbox";
    box.checked = Boolean(draft.checks[one.id]);
    box.addEventListener("change", () => { draft.checks[one.id] = box.checked; remember(); });
    label.append(box, one.text);
    return label;
  }));
}

function choices() {
  return [["a", words.a], ["b", words.b], ["tie", words.tie], ["both bad", words.bad]].map(
    ([value, text]) => button(text, state.checklist.length ? draft.rating === value : null,
      () => pick(value)));
}

function scale() {
  const [low, high] = state.scale;
  const steps = Array.from({ length: high - low + 1 }, (_, step) => low + step);
  const said = { [low]: words.low, [high]: words.high };
  return steps.map((value) => button(said[value] ? `${value} ${said[value]}` : String(value),
    state.checklist.length ? draft.rating === value : null, () => pick(value)));
}

function showItem() {
  recall();
  at("prompt-title").textContent = words.prompt;
  at("prompt").textContent = state.item.prompt;
  showSides();
  showChecks();
  at("question").textContent = words[state.kind];
  at("buttons").replaceChildren(...(state.kind === "choices" ? choices() : scale()));
  at("send").hidden = !state.checklist.length;
  at("send").disabled = draft.rating === null;
  const hints = { choices: ["keysChoices", "keysChoicesSend"], ratings: ["keysRatings", "keysSend"] };
  at("keys").textContent = words[hints[state.kind][state.checklist.length ? 1 : 0]];
}

function show() {
  words = WORDS[state.language];
  document.documentElement.lang = state.language;
  document.title = at("title").textContent = words.title;
  const texts = { agree: "agree", "consent-text": "consent", send: "send", undo: "undo",
    "undo-end": "undo", "comment-title": "comment", "end-text": "end", local: "local",
    export: "export", delete: "remove" };
  for (const [id, word] of Object.entries(texts)) at(id).textContent = words[word];
  at("bar").max = Math.max(state.total, 1);
  at("bar").value = state.done;
  at("count").textContent = words.count(state.done, state.total);
  at("consent").hidden = state.consented;
  at("rating").hidden = !state.item;
  at("end").hidden = !state.consented || Boolean(state.item);
  at("undo").disabled = at("undo-end").disabled = !state.done;
  at("undo-end").hidden = Boolean(state.item);
  at("export").href = `${here}/export`;
  if (state.item) showItem();
}

function pressed(event) {
  const typing = ["TEXTAREA", "INPUT"].includes(event.target.tagName);
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !state || !state.item) return;
  const letter = event.key.toLowerCase();
  const chosen = { a: "a", b: "b", t: "tie", n: "both bad" }[letter];
  const number = Number(event.key);
  if (letter === "u" && state.done) go("undo", {});
  else if (letter === "enter" && draft.rating !== null && event.target.tagName !== "BUTTON") vote(draft.rating);
  else if (state.kind === "choices" && chosen) pick(chosen);
  else if (state.kind === "ratings" && /^\d$/.test(event.key) && number >= state.scale[0] &&
    number <= state.scale[1]) pick(number);
  else return;
  event.preventDefault();
}

at("agree").addEventListener("click", () => go("consent", {}));
at("send").addEventListener("click", () => { if (draft.rating !== null) vote(draft.rating); });
at("undo").addEventListener("click", () => go("undo", {}));
at("undo-end").addEventListener("click", () => go("undo", {}));
at("delete").addEventListener("click", () => { if (confirm(words.sure)) go("delete", {}); });
at("comment").addEventListener("input", remember);
document.addEventListener("keydown", pressed);
go("state");
