"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const colour = (number) => getComputedStyle(document.documentElement).getPropertyValue(`--c${number % 8}`).trim();
const say = (value) => {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(4));
};
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const drawing = document.querySelector("template#drawing").content.firstElementChild;
const shape = (tag, attributes, text = "") => {
  const made = document.createElementNS(drawing.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
};

// ---- Curves: a chart is drawn when it comes near the window; arrow keys move along it.
const WIDTH = 360, HEIGHT = 190, LEFT = 56, BOTTOM = 22, TOP = 8, RIGHT = 8, DASHES = ["", "6 3", "2 3", "8 3 2 3"];

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= raw * 0.999);
  const made = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) made.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return made;
}

class Chart {
  constructor(chart) {
    this.chart = chart;
    this.output = element("output");
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "img" });
    this.figure = element("figure", { className: "chart" }, element("figcaption", { textContent: chart.title }), this.svg, this.output);
    const last = chart.lines.map((line) => `${this.called(line)} ${say(line.y[line.y.length - 1])}`).join(", ");
    this.svg.setAttribute("aria-label", `${chart.title} over steps; at the end: ${last}. Arrow keys move along the steps.`);
    this.steps = [...new Set(chart.lines.flatMap((line) => line.x))].sort((one, other) => one - other);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.at(this.steps.length - 1, false));
    this.svg.addEventListener("focus", () => this.at(this.place ?? this.steps.length - 1));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }
  called(line) {
    const name = this.chart.lines.some((other) => other.name !== line.name) ? line.name.replace(/\/[^/]*$/, "") : "";
    return [name, data.runs.length > 1 ? data.runs[line.run] : ""].filter(Boolean).join(", ") || line.name;
  }
  style(line) {
    const names = [...new Set(this.chart.lines.map((one) => one.name))];
    return names.length > 1 ? [names.indexOf(line.name), DASHES[line.run % 4]] : [line.run, ""];
  }
  draw() {
    const { lines, group } = this.chart, positive = lines.every((line) => line.y.every((value) => value > 0));
    const log = document.getElementById("log").checked && group === "losses" && positive;
    const down = log ? Math.log10 : (value) => value, values = lines.flatMap((line) => line.y.map(down));
    let low = values.reduce((one, other) => Math.min(one, other)), high = values.reduce((one, other) => Math.max(one, other));
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const first = this.steps[0], last = this.steps[this.steps.length - 1];
    this.x = (step) => LEFT + ((step - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (down(value) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const tick of ticks(low, high, 4)) {
      const at = y(log ? 10 ** tick : tick);
      parts.push(shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
      parts.push(shape("text", { x: LEFT - 5, y: at + 4, "text-anchor": "end" }, say(log ? 10 ** tick : tick)));
    }
    for (const tick of ticks(first, last, 4).filter(Number.isInteger)) {
      parts.push(shape("text", { x: this.x(tick), y: HEIGHT - 6, "text-anchor": "middle" }, say(tick)));
    }
    for (const line of lines) {
      const path = line.x.map((step, place) => `${place ? "L" : "M"}${this.x(step).toFixed(1)} ${y(line.y[place]).toFixed(1)}`).join("");
      const [number, dashes] = this.style(line);
      parts.push(shape("path", { class: "line", d: path, style: `stroke: var(--c${number % 8})`, "stroke-dasharray": dashes }));
      if (line.x.length === 1) parts.push(shape("circle", { cx: this.x(line.x[0]), cy: y(line.y[0]), r: 3, style: `fill: var(--c${number % 8})` }));
    }
    this.cursor = shape("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.svg.replaceChildren(...parts, this.cursor);
    this.at(this.place ?? this.steps.length - 1, false);
  }
  at(place, shown = true) {
    this.place = Math.max(0, Math.min(place, this.steps.length - 1));
    const step = this.steps[this.place];
    this.output.replaceChildren(`step ${step}: `, ...this.chart.lines.flatMap((line) => {
      let near = line.x.findIndex((one) => one > step);
      near = (near < 0 ? line.x.length : near) - 1;
      const [number, dashes] = this.style(line), key = element("span", { className: "key" });
      key.style.borderColor = `var(--c${number % 8})`;
      key.style.borderTopStyle = dashes ? "dashed" : "solid";
      return near < 0 ? [] : [key, `${this.called(line)} ${say(line.y[near])}  `];
    }));
    for (const name of ["x1", "x2"]) this.cursor?.setAttribute(name, this.x(step));
    this.cursor?.setAttribute("visibility", shown ? "visible" : "hidden");
  }
  point(event) {
    const box = this.svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * WIDTH;
    let best = 0;
    this.steps.forEach((step, place) => { if (Math.abs(this.x(step) - at) < Math.abs(this.x(this.steps[best]) - at)) best = place; });
    this.at(best);
  }
  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    this.at(this.place + move);
  }
}

const charts = data.charts.map((chart) => new Chart(chart));
const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  near.unobserve(entry.target);
  entry.target.chart.draw();
}), { rootMargin: "400px" });
for (const chart of charts) {
  const place = document.querySelector(`.charts[data-group="${chart.chart.group}"]`);
  chart.figure.chart = chart;
  place.append(chart.figure);
  near.observe(chart.figure);
}
document.getElementById("log")?.addEventListener("change", () => charts.filter((chart) => chart.cursor).forEach((chart) => chart.draw()));

// ---- The map.
class Plane {
  constructor(map) {
    this.map = map;
    this.canvas = document.querySelector("#plane canvas");
    this.shown = document.getElementById("shown");
    this.spoken = document.getElementById("spoken");
    this.count = map.modality.length;
    this.selected = -1;
    this.matches = null;
    [this.scale, this.left, this.top] = [1, 0, 0];
    for (const name of ["view", "colours"]) document.getElementById(name).addEventListener("change", () => this.draw());
    document.getElementById("find").addEventListener("input", (event) => this.find(event.target.value));
    document.getElementById("find").addEventListener("keydown", (event) => { if (event.key === "Enter") this.next(); });
    document.getElementById("larger").addEventListener("click", () => this.zoom(1.5));
    document.getElementById("smaller").addEventListener("click", () => this.zoom(1 / 1.5));
    document.getElementById("whole").addEventListener("click", () => { [this.scale, this.left, this.top] = [1, 0, 0]; this.draw(); });
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => { this.held = [event.clientX, event.clientY, this.left, this.top]; });
    addEventListener("pointerup", () => { this.held = null; });
    this.canvas.addEventListener("pointerleave", () => { if (document.activeElement !== this.canvas) this.select(-1); });
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== this.canvas) return;  // else the page could not be scrolled past
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY);
    }, { passive: false });
    this.canvas.addEventListener("focus", () => { if (this.selected < 0) this.select(this.middle(), true); });
    this.canvas.addEventListener("blur", () => this.select(-1));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }
  draw() {
    const { width, height } = this.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!width) return;
    [this.canvas.width, this.canvas.height] = [width * ratio, height * ratio];
    const pen = this.canvas.getContext("2d"), view = this.map.views[document.getElementById("view").value];
    const by = document.getElementById("colours").value;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.px = new Float32Array(this.count);
    this.py = new Float32Array(this.count);
    const [wide, high] = view.size, fit = Math.min((width - 40) / wide, (height - 40) / high);
    const colours = this.legend(by), drawn = by === "modality" ? this.map.modality : this.map.label;
    const grey = getComputedStyle(document.documentElement).getPropertyValue("--grey").trim();
    for (let n = 0; n < this.count; n++) {
      this.px[n] = width / 2 + this.left + (view.x[n] - wide / 2) * fit * this.scale;
      this.py[n] = height / 2 + this.top + (view.y[n] - high / 2) * fit * this.scale;
    }
    const order = [...Array(this.count).keys()];
    if (this.matches) order.sort((one, other) => this.matches.has(one) - this.matches.has(other));
    const radius = this.count > 3000 ? 2.2 : 3;
    for (const n of order) {
      pen.globalAlpha = this.matches && !this.matches.has(n) ? 0.08 : 0.75;
      pen.fillStyle = drawn[n] < 0 ? grey : colours[drawn[n] % 8];
      pen.beginPath();
      if (this.map.words_of[this.map.modality[n]]) pen.rect(this.px[n] - radius, this.py[n] - radius, 2 * radius, 2 * radius);
      else pen.arc(this.px[n], this.py[n], radius, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (this.selected >= 0) this.mark(pen);
    this.canvas.dataset.drawn = this.count;
    this.place();
  }
  mark(pen) {
    const one = this.selected, ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    pen.strokeStyle = ink;
    for (let n = 0; n < this.count; n++) {
      if (this.map.concept[n] !== this.map.concept[one] || n === one) continue;
      pen.beginPath();
      pen.moveTo(this.px[one], this.py[one]);
      pen.lineTo(this.px[n], this.py[n]);
      pen.stroke();
    }
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(this.px[one], this.py[one], 7, 0, 7);
    pen.stroke();
  }
  legend(by) {
    const names = by === "modality" ? this.map.modalities : this.map.labels, place = document.getElementById("legend");
    const colours = [...Array(8).keys()].map(colour);
    place.replaceChildren(...names.slice(0, 24).map((name, number) => {
      const key = element("span", { className: "key" });
      key.style.borderColor = colours[number % 8];
      return element("span", {}, key, name);
    }), ...(names.length > 24 ? [`and ${names.length - 24} more`] : []));
    return colours;
  }
  select(n, speak = false) {
    if (n === this.selected && n < 0) return;
    this.selected = n;
    this.shown.hidden = n < 0;
    if (n >= 0) {
      const { modalities, modality, words, label, labels, tile } = this.map;
      const picture = element("span", { className: "tile" });
      if (tile[n] >= 0) picture.style.backgroundPosition = position(tile[n]);
      const lines = [words[n], modalities[modality[n]], label[n] >= 0 ? labels[label[n]] : ""].filter(Boolean);
      const said = element("div", {}, ...lines.map((line) => element("p", { textContent: line })));
      this.shown.replaceChildren(...(tile[n] >= 0 ? [picture, said] : [said]));
      this.shown.dataset.point = n;
      if (speak) this.spoken.textContent = lines.join(", ");
    }
    this.draw();
  }
  place() {
    if (this.selected < 0) return;
    const box = this.canvas.getBoundingClientRect(), own = this.shown.getBoundingClientRect();
    const x = this.px[this.selected], y = this.py[this.selected];
    this.shown.style.left = `${Math.max(4, x + 16 + own.width > box.width ? x - 16 - own.width : x + 16)}px`;
    this.shown.style.top = `${Math.max(4, Math.min(y - own.height / 2, box.height - own.height - 4))}px`;
  }
  nearest(x, y, allowed = () => true) {
    let best = -1, least = Infinity;
    for (let n = 0; n < this.count; n++) {
      const far = (this.px[n] - x) ** 2 + (this.py[n] - y) ** 2;
      if (far < least && allowed(n)) [best, least] = [n, far];
    }
    return [best, Math.sqrt(least)];
  }
  middle() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return this.nearest(width / 2, height / 2)[0];
  }
  point(event) {
    if (this.held && event.buttons) {
      [this.left, this.top] = [this.held[2] + event.clientX - this.held[0], this.held[3] + event.clientY - this.held[1]];
      this.draw();
      return;
    }
    const [n, far] = this.nearest(event.offsetX, event.offsetY);
    this.select(far < 14 ? n : -1);
  }
  zoom(by, x, y) {
    const { width, height } = this.canvas.getBoundingClientRect();
    const [dx, dy] = [(x ?? width / 2) - width / 2, (y ?? height / 2) - height / 2];
    this.scale *= by;
    this.left = dx - (dx - this.left) * by;
    this.top = dy - (dy - this.top) * by;
    this.draw();
  }
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const x = this.px[this.selected], y = this.py[this.selected];
    if (way && this.selected >= 0) {
      const along = (n) => (this.px[n] - x) * way[0] + (this.py[n] - y) * way[1];
      const aside = (n) => Math.abs((this.px[n] - x) * way[1]) + Math.abs((this.py[n] - y) * way[0]);
      const [n] = this.nearest(x, y, (n) => n !== this.selected && along(n) > 0.01 && along(n) >= aside(n));
      if (n >= 0) this.select(n, true);
    } else if (event.key === "Enter" && this.selected >= 0) {
      const same = [...Array(this.count).keys()].filter((n) => this.map.concept[n] === this.map.concept[this.selected]);
      this.select(same[(same.indexOf(this.selected) + 1) % same.length], true);
    } else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") document.getElementById("whole").click();
    else if (event.key === "Escape") this.select(-1);
    else return;
    event.preventDefault();
  }
  find(words) {
    const wanted = words.trim().toLowerCase();
    this.matches = wanted ? new Set([...Array(this.count).keys()].filter((n) => this.map.words[n].toLowerCase().includes(wanted))) : null;
    document.getElementById("matched").textContent = wanted ? `${this.matches.size} points` : "";
    this.draw();
  }
  next() {
    if (!this.matches?.size) return;
    const found = [...this.matches], place = found.indexOf(this.selected);
    this.select(found[(place + 1) % found.length], true);
  }
}

const position = (tile) => `${-(tile % data.columns) * data.tile}px ${-Math.floor(tile / data.columns) * data.tile}px`;
for (const tile of document.querySelectorAll(".tile[data-tile]")) tile.style.backgroundPosition = position(+tile.dataset.tile);
const plane = data.map && new Plane(data.map);
plane?.draw();
document.documentElement.dataset.ready = performance.now().toFixed(0);
