// What a person does with the page, done by its own keys and buttons; POSTs what came of it to /told.
(async () => {
  const told = [];
  const at = (id) => document.getElementById(id);
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const until = async (what, yes) => {
    for (let n = 0; n < 800; n++) {
      if (yes()) { told.push(`ok ${what}`); return; }
      await wait(25);
    }
    told.push(`never: ${what}`);
  };
  const see = (what, yes) => told.push(`${yes ? "ok" : "not"} ${what}`);
  const press = (target, key, more = {}) => target.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
  const texts = () => [...document.querySelectorAll("article p")].map((one) => one.textContent);
  const idle = () => !at("send").hidden;

  await until("experts are listed", () => at("model").options.length === 3);
  at("model").value = "calm";
  at("temperature").value = "0";
  at("said").value = "<b>Hi</b>, it rains";
  press(at("said"), "Enter");
  await until("a reply is under way", () => !at("stop").hidden);
  await until("a reply is there", () => idle() && texts().length === 2 && texts()[1]);
  see("what is said stays text", texts()[0] === "<b>Hi</b>, it rains");
  see("who answered is told", document.querySelectorAll("article small")[1].textContent === "calm");
  const first = texts()[1];
  press(document, "r", { altKey: true });
  await until("regenerating begins", () => !at("stop").hidden);
  await until("a greedy reply is the same again", () => idle() && texts()[1] === first);
  at("said").value = "More";
  at("send").click();
  await until("there is a stop button", () => !at("stop").hidden);
  press(document, "Escape");
  await until("it stops", idle);
  const count = texts().length;
  press(at("said"), "ArrowUp");
  see("the last words are taken back", at("said").value === "More" && texts().length < count);
  const theme = document.documentElement.dataset.theme;
  press(document, "d", { altKey: true });
  see("it has other colours", document.documentElement.dataset.theme !== theme);
  press(document, "n", { altKey: true });
  see("all is forgotten", texts().length === 0);
  at("model").append(new Option("gone"));
  at("model").value = "gone";
  at("said").value = "x";
  at("send").click();
  await until("trouble is told", () => at("trouble").textContent.includes("no model 'gone'"));
  await fetch("told", { method: "POST", body: told.join("\n") });
})();
