"use strict";
// The host's page: links, progress and agreement, asked for again every five seconds.
const at = (id) => document.getElementById(id);

function cell(content) {
  const one = document.createElement("td");
  one.append(content);
  return one;
}

function line(rater, total) {
  const row = document.createElement("tr");
  const link = document.createElement("a");
  link.href = rater.link;
  link.textContent = location.origin + rater.link;
  row.append(cell(rater.name), cell(`${rater.done} / ${total}`), cell(link));
  return row;
}

async function look() {
  const response = await fetch(`${location.pathname.replace(/\/$/, "")}/progress`);
  const found = await response.json();
  const words = WORDS[found.language];
  document.documentElement.lang = found.language;
  document.title = at("title").textContent = at("caption").textContent = words.session;
  for (const id of ["who", "done", "link"]) at(id).textContent = words[id];
  at("raters").replaceChildren(...found.raters.map((rater) => line(rater, found.total)));
  const alpha = found.agreement && found.agreement.alpha.ordinal;
  const shown = (value) => (value === null ? "n/a" : value.toFixed(2));
  at("agreement").textContent = alpha
    ? words.alpha(shown(alpha.value), shown(alpha.low), shown(alpha.high)) : words.none;
}

look();
setInterval(look, 5000);
