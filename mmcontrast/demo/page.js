"use strict";
const at = (id) => document.getElementById(id);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
let file = null, latest = 0;

async function ask(path, request) {
  const body = request && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) };
  let answer;
  try {
    answer = await (await fetch(path, body || {})).json();
  } catch {
    throw new Error("the demo does not answer; was it ended?");
  }
  if (answer.error) throw new Error(answer.error);
  return answer;
}

function say(id, words) {
  at(id).hidden = !words;
  at(id).textContent = words;
}

const times = (milliseconds, began) =>
  `${Object.entries(milliseconds).map(([name, value]) => `${name} ${value} ms`).join(", ")}; ${Math.round(performance.now() - began)} ms in all`;

const base64 = (chosen) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => failed(new Error(`${chosen.name}: cannot be read`));
  reader.readAsDataURL(chosen);
});

function choose(chosen) {
  file = chosen || null;
  const preview = at("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.hidden = !file?.type.startsWith("image/");
  if (file && !preview.hidden) preview.src = URL.createObjectURL(file);
  at("clear").hidden = !file;
  if (!file) at("file").value = "";
  update();
}

function update() {
  at("mix").disabled = !(file && at("text").value.trim());
  at("share").textContent = at("mix").disabled ? "" : `${Math.round(at("mix").value * 100)} % file`;
}

async function search(event) {
  event?.preventDefault();
  const number = ++latest, began = performance.now();
  try {
    const request = { text: at("text").value, mix: +at("mix").value, kind: at("kind").value, count: +at("count").value || 12 };
    if (file) Object.assign(request, { file: await base64(file), name: file.name });
    const answer = await ask("search", request);
    if (number !== latest) return;
    say("error", "");
    at("results").replaceChildren(...answer.results.map((one) => element("li", {},
      ...(one.shown ? [element("img", { src: one.shown, alt: one.text || one.name, loading: "lazy" })] : []),
      ...(one.sound ? [element("audio", { src: one.sound, controls: true, preload: "none" })] : []),
      element("p", { className: "text", textContent: one.text || one.name }),
      element("p", { className: "score", textContent: one.score.toFixed(3), title: one.name }))));
    at("time").textContent = times(answer.milliseconds, began);
  } catch (error) {
    if (number !== latest) return;
    at("results").replaceChildren();
    at("time").textContent = "";
    say("error", error.message);
  }
}

async function classify(event) {
  event.preventDefault();
  const began = performance.now();
  try {
    const request = { classes: at("classes").value.split("\n"), template: at("template").value };
    if (file) Object.assign(request, { file: await base64(file), name: file.name });
    const answer = await ask("classify", request);
    say("class_error", "");
    at("probabilities").replaceChildren(...answer.classes.map((one) => element("li", {},
      element("span", { textContent: one.name }),
      element("meter", { min: 0, max: 1, value: one.probability, ariaLabel: one.name }),
      element("span", { className: "score", textContent: `${(100 * one.probability).toFixed(1)} %` }))));
    at("class_time").textContent = `temperature ${answer.temperature}; ${times(answer.milliseconds, began)}`;
  } catch (error) {
    at("probabilities").replaceChildren();
    at("class_time").textContent = "";
    say("class_error", error.message);
  }
}

at("ask").addEventListener("submit", search);
at("classify").addEventListener("submit", classify);
at("text").addEventListener("input", update);
at("mix").addEventListener("input", update);
at("mix").addEventListener("change", search);
at("file").addEventListener("change", () => choose(at("file").files[0]));
at("clear").addEventListener("click", () => choose(null));
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) {
      choose(event.dataTransfer.files[0]);
      search();
    }
  });
}

ask("about").then((about) => {
  at("about").textContent = `${about.searched}; ${about.run}: ${about.model}`;
  at("kind").replaceChildren(...about.kinds.map((kind) => element("option", { value: kind.name, textContent: kind.nouns })));
  const files = Object.values(about.files).join(" or ");
  at("words").hidden = !about.words;
  at("drop").hidden = !files;
  at("mixture").hidden = !about.words || !files;
  at("of_files").textContent = files.charAt(0).toUpperCase() + files.slice(1);
  at("file").accept = about.suffixes.join(",");
  at("zero_shot").hidden = !about.classifies;
  document.documentElement.dataset.ready = "";
}).catch((error) => say("error", error.message));
