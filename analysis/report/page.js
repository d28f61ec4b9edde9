// Draws the figures of the report from the JSON beside it; needs nothing from elsewhere.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = (() => { const t = document.createElement("template"); t.innerHTML = "<svg></svg>"; return t.content.firstChild.namespaceURI; })();
const DASHES = ["", "7 4", "2 3", "8 3 2 3"];
const tip = document.getElementById("tip");

function add(parent, name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

function html(parent, name, className = "", text = null) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

const short = (value, digits = 3) => String(Number(value.toPrecision(digits)));
function scaled(value, scales, gap) {
  for (const [size, name] of scales) if (Math.abs(value) >= 0.9995 * size) return short(value / size) + gap + name;
  return short(value);
}
function written(value, unit) {
  if (unit === "share") return short(100 * value, 4) + "%";
  if (unit === "count") return scaled(value, [[1e9, "B"], [1e6, "M"], [1e3, "k"]], "");
  if (unit === "bytes") return scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]], " ");
  if (unit === "seconds") return scaled(value, [[3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"]], " ");
  return short(value, 4);
}
function interval(estimate, unit) {
  const range = estimate.low === null ? "" : ` [${written(estimate.low, unit)}, ${written(estimate.high, unit)}]`;
  return written(estimate.value, unit) + range;
}
const look = (label) => data.styles[label] || null;
const color = (label) => (look(label) ? `var(--c${look(label).color})` : "var(--quiet)");
const unstyled = {}; // dashes of lines that are no configuration, as they come within a panel
const dash = (label) => (look(label) ? DASHES[look(label).line] : unstyled[label] || "5 4");

function niceTicks(low, high, count, binary = false) {
  const span = high - low || 1;
  const rough = span / count;
  const base = binary ? 2 ** Math.floor(Math.log2(rough)) : 10 ** Math.floor(Math.log10(rough));
  const step = (binary ? [1, 2] : [1, 2, 2.5, 5, 10]).map((f) => f * base).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + span * 1e-9; at += 1) ticks.push(at * step);
  return ticks;
}
// There is no half of a training step.
const wholeTicks = (low, high, count) => niceTicks(low, high, Math.min(10, count, Math.max(1, high - low))).filter(Number.isInteger);
function logTicks(low, high, count) {
  const wide = Math.log10(high / low);
  if (wide < 0.5) return niceTicks(low, high, Math.min(count, 4));
  const factors = wide < 3 ? [1, 2, 5] : [1];
  let ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
    for (const factor of factors) ticks.push(factor * 10 ** power);
  ticks = ticks.filter((value) => value >= low && value <= high);
  const every = Math.ceil(ticks.length / count);
  return ticks.filter((_, index) => index % every === 0);
}

function axes(box, wanted) {
  const width = Math.max(340, Math.min(1100, box.clientWidth));
  const { height, left = 64, right = 16, top = 12, bottom = 50 } = wanted;
  const svg = add(box, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": wanted.title });
  return { svg, width, height, left, top, x0: left, x1: width - right, y0: height - bottom, y1: top };
}
function drawX(plot, ticks, at, text, label, unit) {
  for (const value of ticks) {
    add(plot.svg, "line", { class: "grid", x1: at(value), x2: at(value), y1: plot.y0, y2: plot.y1 });
    add(plot.svg, "text", { class: "tick", x: at(value), y: plot.y0 + 16, "text-anchor": "middle" }, text(value, unit));
  }
  add(plot.svg, "text", { class: "name", x: (plot.x0 + plot.x1) / 2, y: plot.y0 + 38, "text-anchor": "middle" }, label);
}
function drawY(plot, ticks, at, text, label, unit) {
  for (const value of ticks) {
    add(plot.svg, "line", { class: "grid", x1: plot.x0, x2: plot.x1, y1: at(value), y2: at(value) });
    add(plot.svg, "text", { class: "tick", x: plot.x0 - 7, y: at(value) + 4, "text-anchor": "end" }, text(value, unit));
  }
  const middle = (plot.y0 + plot.y1) / 2;
  add(plot.svg, "text", { class: "name", x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, label);
}
const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

function scatter(box, panel) {
  const plot = axes(box, { height: 440, title: panel.y_label });
  const ends = (each, key) => [each[key].value, ...(each[key].low === null ? [] : [each[key].low, each[key].high])];
  const xs = panel.points.flatMap((p) => ends(p, "x")).filter((value) => value > 0);
  const ys = [...panel.points.flatMap((p) => ends(p, "y")), ...(panel.before || [])];
  const pad = (Math.max(...ys) - Math.min(...ys) || 0.1) * 0.12;
  const [bottom, top] = [Math.min(...ys), Math.max(...ys)];
  const low = bottom < 0 ? bottom - pad : Math.max(0, bottom - pad); // no room below 0 where nothing can be there
  const high = panel.y_unit === "share" && top <= 1 ? Math.min(1, top + pad) : top + pad;
  const wide = Math.max(1.15, Math.max(...xs) / Math.min(...xs)) ** 0.14;
  const [least, most] = [Math.min(...xs) / wide, Math.max(...xs) * wide];
  const lx = linear(Math.log(least), Math.log(most), plot.x0, plot.x1);
  const x = (value) => lx(Math.log(Math.max(value, least)));
  const y = linear(low, high, plot.y0, plot.y1);
  drawX(plot, logTicks(least, most, plot.width / 90), x, written, panel.x_label + " (logarithmic)", panel.x_unit);
  drawY(plot, niceTicks(low, high, 6), y, written, panel.y_label, panel.y_unit);
  const taken = [];
  if (panel.before) {
    const [a, b] = panel.before;
    if (b - a > 5e-4) add(plot.svg, "rect", { class: "band", x: plot.x0, width: plot.x1 - plot.x0, y: y(b), height: y(a) - y(b) });
    const at = y((a + b) / 2);
    add(plot.svg, "line", { class: "before", x1: plot.x0, x2: plot.x1, y1: at, y2: at });
    taken.push({ x: plot.x0, y: at - 1, width: plot.x1 - plot.x0, height: 2 });
  }
  let path = "";
  panel.front.forEach(([cost, value], index) => {
    const next = index + 1 < panel.front.length ? x(panel.front[index + 1][0]) : plot.x1;
    path += `${index ? "V" : `M${x(cost)},`}${y(value)}H${next}`;
    taken.push({ x: x(cost), y: y(value) - 1, width: next - x(cost), height: 2 });
    if (index) taken.push({ x: x(cost) - 1, y: y(value), width: 2, height: y(panel.front[index - 1][1]) - y(value) });
  });
  add(plot.svg, "path", { class: "front", d: path });
  for (const p of [...panel.points].sort((a, b) => a.shown - b.shown)) {
    const group = add(plot.svg, "g", { class: p.shown ? "point" : "point minor", style: `color:${p.shown ? color(p.label) : "var(--faint)"}`, tabindex: 0 });
    if (p.x.low !== null) add(group, "line", { x1: x(p.x.low), x2: x(p.x.high), y1: y(p.y.value), y2: y(p.y.value) });
    if (p.y.low !== null) add(group, "line", { x1: x(p.x.value), x2: x(p.x.value), y1: y(p.y.low), y2: y(p.y.high) });
    add(group, "circle", { cx: x(p.x.value), cy: y(p.y.value), r: p.shown ? 6 : 3.5 });
    const chance = p.front_probability === null ? "" : `\non the front in ${short(100 * p.front_probability)}% of redrawn seeds`;
    group.dataset.tip = `${p.label}\n${panel.y_label} ${interval(p.y, panel.y_unit)}\n${panel.x_label} ${interval(p.x, panel.x_unit)}${chance}`;
    taken.push({ x: x(p.x.value) - 7, y: y(p.y.value) - 7, width: 14, height: 14 });
  }
  for (const p of panel.points.filter((each) => each.shown)) {
    if (p.x.low !== null) taken.push({ x: x(p.x.low), y: y(p.y.value) - 1, width: x(p.x.high) - x(p.x.low), height: 2 });
    if (p.y.low !== null) taken.push({ x: x(p.x.value) - 1, y: y(p.y.high), width: 2, height: y(p.y.low) - y(p.y.high) });
  }
  if (panel.before) nameBefore(plot, panel.before, y, taken);
  const shown = panel.points.filter((p) => p.shown);
  const missing = shown.filter((p) => !label(plot, p.label + (p.front_probability ? ` ${Math.round(100 * p.front_probability)}%` : ""), x(p.x.value), y(p.y.value), color(p.label), taken));
  if (missing.length) legend(box, missing.map((p) => p.label));
}

function nameBefore(plot, before, y, taken) {
  const text = add(plot.svg, "text", { class: "tick" }, "before training " + written((before[0] + before[1]) / 2, "share"));
  const size = text.getBBox();
  const room = plot.x1 - plot.x0 - size.width - 12;
  const spots = [0, 0.2, 0.4, 0.6, 0.8, 1].flatMap((share) => [y(before[1]) - 5 - size.height, y(before[0]) + 5].map((top) => ({
    x: plot.x0 + 6 + share * room, y: top, width: size.width, height: size.height })));
  const spot = spots.find((each) => !taken.some((other) => overlaps(each, other))) || spots[0];
  text.setAttribute("x", spot.x);
  text.setAttribute("y", spot.y - size.y);
  taken.push(spot);
}

function label(plot, text, px, py, fill, taken) {
  const node = add(plot.svg, "text", { class: "label", style: `fill:${fill}` }, text);
  const size = node.getBBox();
  for (const distance of [10, 16, 24, 36, 54, 76]) {
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]]) {
      const spot = {
        x: px + dx * distance - (dx === 0 ? size.width / 2 : dx < 0 ? size.width : 0),
        y: py + dy * distance - (dy === 0 ? size.height / 2 : dy < 0 ? size.height : 0),
        width: size.width,
        height: size.height,
      };
      const inside = spot.x >= plot.x0 && spot.x + spot.width <= plot.x1 && spot.y >= plot.y1 && spot.y + spot.height <= plot.y0;
      if (!inside || taken.some((other) => overlaps(spot, other))) continue;
      node.setAttribute("x", spot.x);
      node.setAttribute("y", spot.y - size.y);
      taken.push(spot);
      return true;
    }
  }
  node.remove();
  return false;
}
const overlaps = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

function legend(box, labels, toggle = null) {
  const row = html(box, "div", "legend");
  for (const name of labels) {
    const item = html(row, toggle ? "button" : "span", "key");
    const chip = add(item, "svg", { width: 26, height: 10 });
    add(chip, "line", { x1: 0, x2: 26, y1: 5, y2: 5, style: `stroke:${color(name)}`, "stroke-width": 3, "stroke-dasharray": dash(name) });
    html(item, "span", "", name);
    if (toggle) item.onclick = () => item.classList.toggle("off", !toggle(name));
  }
}

function lines(box, panel) {
  const named = panel.names.length > 0;
  const crowded = named && panel.names.join("").length * 7 > box.clientWidth - 100;
  const plot = axes(box, { height: 360, title: panel.y_label, left: 72, bottom: crowded ? 90 : 50 });
  panel.lines.filter((line) => !look(line.label)).forEach((line, index) => { unstyled[line.label] = ["5 4", "1.5 3", "9 3 2 3"][index % 3]; });
  const xs = panel.lines.flatMap((line) => line.x);
  const ys = panel.lines.flatMap((line) => [...line.y, ...(line.low || []), ...(line.high || [])]);
  const pad = (Math.max(...ys) - Math.min(...ys) || 0.1) * 0.05;
  const [low, high] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const margin = named ? 0.4 : 0;
  const x = linear(Math.min(...xs) - margin, Math.max(...xs) + margin, plot.x0, plot.x1);
  const y = linear(low, high, plot.y0, plot.y1);
  if (named) drawX(plot, panel.names.map((_, index) => index), x, (index) => (crowded ? "" : panel.names[index]), panel.x_label);
  else drawX(plot, wholeTicks(Math.min(...xs), Math.max(...xs), plot.width / 80), x, short, panel.x_label);
  if (crowded) panel.names.forEach((name, index) => {
    const at = [x(index), plot.y0 + 14];
    add(plot.svg, "text", { class: "tick", x: at[0], y: at[1], "text-anchor": "end", transform: `rotate(-35 ${at[0]} ${at[1]})` }, name);
  });
  if (crowded) plot.svg.querySelector(".name").setAttribute("y", plot.height - 4);
  drawY(plot, niceTicks(low, high, 6, panel.y_unit === "bytes"), y, written, panel.y_label, panel.y_unit);
  const groups = {};
  panel.lines.forEach((line, place) => {
    const group = (groups[line.label] = add(plot.svg, "g", { style: `color:${color(line.label)}` }));
    const shift = named ? (place - (panel.lines.length - 1) / 2) * 4 : 0;
    const at = line.x.map((value, index) => [x(value) + shift, y(line.y[index])]);
    if (line.low && named) line.x.forEach((value, i) => add(group, "line", { class: "whisker", x1: x(value) + shift, x2: x(value) + shift, y1: y(line.low[i]), y2: y(line.high[i]) }));
    if (line.low && !named) {
      const edge = [...line.x.map((v, i) => `${x(v)},${y(line.high[i])}`), ...line.x.map((v, i) => `${x(v)},${y(line.low[i])}`).reverse()];
      add(group, "polygon", { class: "fill", points: edge.join(" ") });
    }
    add(group, "polyline", { class: "line", points: at.map((pair) => pair.join(",")).join(" "), "stroke-dasharray": dash(line.label) });
    if (named) at.forEach(([cx, cy]) => add(group, "circle", { cx, cy, r: 4 }));
  });
  const rule = add(plot.svg, "line", { class: "rule", y1: plot.y0, y2: plot.y1, visibility: "hidden" });
  const hit = add(plot.svg, "rect", { x: plot.x0, y: plot.y1, width: plot.x1 - plot.x0, height: plot.y0 - plot.y1, fill: "transparent" });
  hit.onpointermove = (event) => {
    const px = ((event.clientX - plot.svg.getBoundingClientRect().left) / plot.svg.getBoundingClientRect().width) * plot.width;
    const nearest = xs.reduce((a, b) => (Math.abs(x(b) - px) < Math.abs(x(a) - px) ? b : a));
    for (const end of ["x1", "x2"]) rule.setAttribute(end, x(nearest));
    rule.setAttribute("visibility", "visible");
    const values = panel.lines.filter((line) => line.x.includes(nearest) && groups[line.label].style.display !== "none");
    const rows = values.map((line) => [line.y[line.x.indexOf(nearest)], line.label]).sort((a, b) => b[0] - a[0]);
    const head = named ? panel.names[nearest] : `${panel.x_label} ${short(nearest)}`;
    show(event, [head, ...rows.map(([value, name]) => `${written(value, panel.y_unit)}  ${name}`)].join("\n"));
  };
  hit.onpointerleave = () => { rule.setAttribute("visibility", "hidden"); hide(); };
  legend(box, panel.lines.map((line) => line.label), (name) => {
    const off = groups[name].style.display === "none";
    groups[name].style.display = off ? "" : "none";
    return off;
  });
}

const rowLabel = (text, most = 30) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const sideOf = (labels, most = 30) => 24 + 7.2 * Math.min(most, Math.max(...labels.map((each) => each.length)));

function bars(box, panel) {
  const plot = axes(box, { height: 66 + 30 * panel.labels.length, title: panel.x_label, left: sideOf(panel.labels) });
  const parts = Object.entries(panel.parts);
  const totals = panel.labels.map((_, row) => parts.reduce((sum, [, values]) => sum + values[row], 0));
  const most = Math.max(...totals, ...panel.marks) * 1.04;
  const x = linear(0, most, plot.x0, plot.x1);
  drawX(plot, niceTicks(0, most, plot.width / 110, panel.x_unit === "bytes"), x, written, panel.x_label, panel.x_unit);
  panel.labels.forEach((name, row) => {
    const top = plot.y1 + 30 * row + 5;
    add(plot.svg, "text", { class: "tick", x: plot.x0 - 8, y: top + 15, "text-anchor": "end" }, rowLabel(name));
    let start = 0;
    parts.forEach(([part, values], index) => {
      const width = x(start + values[row]) - x(start);
      const bar = add(plot.svg, "rect", { x: x(start), y: top, width, height: 21, style: `fill:var(--c${index % 7})` });
      bar.dataset.tip = `${name}\n${part}: ${written(values[row], panel.x_unit)}`;
      start += values[row];
    });
    if (panel.marks.length) {
      const mark = add(plot.svg, "rect", { class: "mark", x: x(panel.marks[row]) - 1.5, y: top - 4, width: 3, height: 29 });
      mark.dataset.tip = `${name}\n${panel.mark_label}: ${written(panel.marks[row], panel.x_unit)}`;
    }
  });
  const row = html(box, "div", "legend");
  parts.forEach(([part], index) => {
    const item = html(row, "span", "key");
    add(add(item, "svg", { width: 12, height: 12 }), "rect", { width: 12, height: 12, style: `fill:var(--c${index % 7})` });
    html(item, "span", "", part);
  });
  if (panel.marks.length) {
    const item = html(row, "span", "key");
    add(add(item, "svg", { width: 12, height: 14 }), "rect", { class: "mark", x: 4, width: 3, height: 14 });
    html(item, "span", "", panel.mark_label);
  }
}

function heat(box, panel) {
  const size = Math.max(14, Math.min(22, 300 / panel.rows.length));
  const plot = axes(box, { height: 64 + size * panel.rows.length, title: panel.y_label, left: sideOf(panel.rows) + 22 });
  const [first, last] = [panel.steps[0], panel.steps[panel.steps.length - 1]];
  const x = linear(first - 0.5, last + 0.5, plot.x0, plot.x1);
  panel.rows.forEach((name, row) => {
    const top = plot.y1 + size * row;
    add(plot.svg, "text", { class: "tick", x: plot.x0 - 7, y: top + size / 2 + 4, "text-anchor": "end" }, name);
    for (let start = 0; start < panel.steps.length; ) {
      let end = start + 1; // cells of one value in a row are one rectangle
      while (end < panel.steps.length && panel.values[row][end] === panel.values[row][start]) end += 1;
      const [from, to] = [panel.steps[start], panel.steps[end - 1]];
      const share = panel.values[row][start];
      const cell = add(plot.svg, "rect", { class: "cell", x: x(from - 0.5), width: x(to + 0.5) - x(from - 0.5), y: top, height: size - 1, "fill-opacity": share });
      cell.dataset.tip = `${panel.y_label} ${name}, step ${from}${to > from ? ` to ${to}` : ""}: ${written(share, "share")}`;
      start = end;
    }
  });
  for (const value of wholeTicks(first, last, plot.width / 80))
    add(plot.svg, "text", { class: "tick", x: x(value), y: plot.y0 + 16, "text-anchor": "middle" }, short(value));
  add(plot.svg, "text", { class: "name", x: (plot.x0 + plot.x1) / 2, y: plot.y0 + 38, "text-anchor": "middle" }, panel.x_label);
  const middle = (plot.y0 + plot.y1) / 2;
  add(plot.svg, "text", { class: "name", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, panel.y_label);
}

function intervals(box, panel) {
  const most = innerWidth > 1000 ? 70 : 30;
  const plot = axes(box, { height: 66 + 28 * panel.labels.length, title: panel.x_label, left: sideOf(panel.labels, most) });
  const ends = panel.values.flatMap((each) => [each.value, each.low === null ? each.value : each.low, each.high === null ? each.value : each.high]);
  const pad = (Math.max(...ends, 0) - Math.min(...ends, 0) || 1) * 0.06;
  const [low, high] = [Math.min(...ends, 0) - pad, Math.max(...ends, 0) + pad];
  const x = linear(low, high, plot.x0, plot.x1);
  drawX(plot, niceTicks(low, high, plot.width / 90), x, written, panel.x_label, panel.x_unit);
  add(plot.svg, "line", { class: "before", x1: x(0), x2: x(0), y1: plot.y0, y2: plot.y1 });
  panel.labels.forEach((name, row) => {
    const [value, at] = [panel.values[row], plot.y1 + 28 * row + 15];
    add(plot.svg, "text", { class: "tick", x: plot.x0 - 8, y: at + 4, "text-anchor": "end" }, rowLabel(name, most));
    const group = add(plot.svg, "g", { class: "point", style: `color:${color(name)}`, tabindex: 0 });
    if (value.low !== null) add(group, "line", { x1: x(value.low), x2: x(value.high), y1: at, y2: at });
    add(group, "circle", { cx: x(value.value), cy: at, r: 6, class: panel.decided[row] ? "" : "open" });
    group.dataset.tip = `${name}\n${interval(value, panel.x_unit)}\n${panel.decided[row] ? "told apart" : "not decided"}`;
  });
}

const KINDS = { scatter, lines, bars, heat, intervals };

function show(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 10}px`;
}
const hide = () => { tip.hidden = true; };
document.addEventListener("pointerover", (event) => {
  const owner = event.target.closest("[data-tip]");
  if (owner) show(event, owner.dataset.tip);
});
document.addEventListener("pointerout", (event) => { if (event.target.closest("[data-tip]")) hide(); });
document.addEventListener("focusin", (event) => {
  const owner = event.target.closest("[data-tip]");
  const place = owner && owner.getBoundingClientRect();
  if (owner) show({ clientX: place.right, clientY: place.bottom }, owner.dataset.tip);
});
document.addEventListener("focusout", hide);

function draw(section) {
  const figure = data.figures.find((each) => each.name === section.dataset.figure);
  const body = section.querySelector(".body");
  body.replaceChildren();
  for (const [name, panel] of Object.entries(figure.panels)) {
    if (name) html(body, "h3", "", name);
    KINDS[panel.kind](html(body, "div", "panel"), panel);
  }
}
const visible = () => document.querySelectorAll("section[data-figure]:not([hidden])");
visible().forEach(draw);

document.querySelectorAll(".tabs").forEach((tabs) => {
  const buttons = [...tabs.querySelectorAll("button")];
  for (const button of buttons) button.onclick = () => {
    for (const other of buttons) {
      other.setAttribute("aria-pressed", String(other === button));
      document.querySelector(`section[data-figure="${other.dataset.shows}"]`).hidden = other !== button;
    }
    draw(document.querySelector(`section[data-figure="${button.dataset.shows}"]`));
  };
});

document.querySelectorAll("table.sortable th").forEach((head) => {
  head.tabIndex = 0;
  const sort = () => {
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const place = head.cellIndex;
    const key = (row) => row.cells[place].dataset.value;
    const compare = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b));
    const rows = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  };
  head.onclick = sort;
  head.onkeydown = (event) => { if (event.key === "Enter") sort(); };
});

let drawnAt = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnAt) return;
  drawnAt = innerWidth;
  visible().forEach(draw);
});
