"use strict";
// A conversation with the server that this page comes from. What is said stays in this window.

const by = (id) => document.getElementById(id);
const talk = []; // {role, content, model}
let asking = null; // the AbortController of a reply under way

function show() {
  const list = by("messages");
  list.replaceChildren(...talk.map((message, place) => {
    const article = document.createElement("article");
    article.className = message.role;
    const who = document.createElement("small");
    who.textContent = message.role === "user" ? "you" : message.model;
    const text = document.createElement("p");
    text.textContent = message.content; // never as HTML
    article.append(who, text);
    if (asking && place === talk.length - 1) article.classList.add("writing");
    return article;
  }));
  list.scrollTop = list.scrollHeight;
  by("send").hidden = asking !== null;
  by("stop").hidden = asking === null;
  by("again").disabled = asking !== null || !talk.some((one) => one.role === "assistant");
}

// The last message as it is by now: whoever has the page read aloud is not told all the others again.
function showLast(message) {
  const last = by("messages").lastElementChild;
  if (!last) return; // all was forgotten meanwhile
  last.querySelector("small").textContent = message.model;
  last.querySelector("p").textContent = message.content;
  by("messages").scrollTop = by("messages").scrollHeight;
}

function tell(trouble) {
  by("trouble").textContent = trouble;
  by("trouble").hidden = !trouble;
}

function headers() {
  const key = by("key").value;
  return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
}

async function models() {
  try {
    const answer = await fetch("v1/models", { headers: headers() });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    const chosen = by("model").value;
    const names = (await answer.json()).data.map((one) => one.id);
    by("model").replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) by("model").value = chosen;
    else if (names.includes("auto")) by("model").value = "auto";
    tell("");
  } catch (error) {
    tell(error.message);
  }
}

// The data of each event of a response, as it comes.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (left + value).split("\n");
    left = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

async function reply() {
  const system = by("system").value.trim();
  const said = talk.map(({ role, content }) => ({ role, content }));
  const body = {
    model: by("model").value,
    messages: system ? [{ role: "system", content: system }, ...said] : said,
    temperature: Number(by("temperature").value),
    stream: true,
  };
  const mine = { role: "assistant", content: "", model: body.model };
  asking = new AbortController();
  talk.push(mine);
  tell("");
  show();
  try {
    const signal = asking.signal;
    const answer = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    let whole = false;
    for await (const data of events(answer)) {
      if (data === "[DONE]") { whole = true; break; }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices[0];
      if (!choice) continue;
      mine.model = chunk.model;
      mine.content += choice.delta.content ?? "";
      showLast(mine);
    }
    if (!whole) throw new Error("the reply broke off");
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
    const place = talk.indexOf(mine);
    if (!mine.content && place >= 0) talk.splice(place, 1); // nothing came
  } finally {
    asking = null;
    show();
    by("said").focus();
  }
}

function send() {
  const content = by("said").value.trim();
  if (!content || asking) return;
  by("said").value = "";
  talk.push({ role: "user", content });
  reply();
}

function again() {
  if (asking || !talk.some((one) => one.role === "assistant")) return;
  if (talk.at(-1).role === "assistant") talk.pop();
  reply();
}

function takeBack() {
  if (asking || by("said").value || !talk.length) return;
  while (talk.length && talk.at(-1).role !== "user") talk.pop();
  const last = talk.pop();
  if (last) by("said").value = last.content;
  show();
}

function fresh() {
  asking?.abort();
  talk.length = 0;
  tell("");
  show();
}

function theme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
}

by("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
by("stop").addEventListener("click", () => asking?.abort());
by("again").addEventListener("click", again);
by("fresh").addEventListener("click", fresh);
by("theme").addEventListener("click", theme);
by("key").addEventListener("change", models);
by("temperature").addEventListener("input", () => {
  by("degrees").textContent = Number(by("temperature").value).toFixed(1);
});
by("said").addEventListener("keydown", (event) => {
  if (event.isComposing) return; // an input method still chooses characters
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); send(); }
  if (event.key === "ArrowUp" && !by("said").value) { event.preventDefault(); takeBack(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") asking?.abort();
  const keys = { r: again, n: fresh, d: theme };
  if (event.altKey && keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

if (matchMedia("(prefers-color-scheme: dark)").matches) theme();
models();
show();
