"use strict";
// Plain script for the page at "/": no library, no build, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let models = [];

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

async function ask(path, body) {
  const headers = { "content-type": "application/json" };
  if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  if (response.status === 401) $("key-row").hidden = false;
  return response;
}

async function askJson(path, body) {
  const response = await ask(path, body);
  const values = await response.json();
  if (!response.ok) throw new Error(values.error);
  return values;
}

const chosen = () => models.find((model) => model.name === $("model").value);

async function readModels() {
  const found = await askJson("/page/models");
  $("state").textContent = found.ready ? "ready" : "warming up …";
  const names = found.models.map((model) => model.name).join();
  if (names !== models.map((model) => model.name).join()) {
    models = found.models;
    $("model").replaceChildren(...models.map((model) => element("option", model.name, { value: model.name })));
    showModel();
  }
}

function showModel() {
  const model = chosen();
  if (!model) return;
  const tensors = (specs) => specs.map((spec) => `${spec.name} ${spec.datatype} [${spec.shape.join(", ")}]`).join("; ");
  const facts = [
    ["kind", model.platform.replace("fffcpu_", "").replaceAll("_", " ")],
    ["inputs", tensors(model.inputs)],
    ["outputs", tensors(model.outputs)],
    ["parameters", `${(model.bytes / 1e6).toFixed(2)} MB`],
  ];
  $("about").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  $("note").textContent = model.note;
  $("fields").replaceChildren(...fieldsOf(model));
  $("answer").replaceChildren();
  $("route").hidden = true;
}

function fieldsOf(model) {
  if (!model.fields.length) {
    const area = element("textarea", undefined, { id: "free", rows: 3, "aria-labelledby": "note", required: "" });
    return [area];
  }
  return model.fields.map((field, k) => {
    const line = element("p");
    const id = `field${k}`;
    line.append(element("label", field.name, { for: id }));
    if (field.choices.length) {
      const select = element("select", undefined, { id });
      select.append(...field.choices.map((choice) => element("option", choice, { value: choice })));
      select.append(element("option", "missing, or another", { value: "" }));
      line.append(select);
    } else {
      const type = field.kind === "number" ? { type: "number", step: "any" } : { type: "text" };
      const hint = field.kind === "date" ? { placeholder: "such as 2013-01-31" } : {};
      line.append(element("input", undefined, { id, ...type, ...hint }));
    }
    return line;
  });
}

function requestOf(model) {
  const text = $("free") ? $("free").value : "";
  if (model.inputs[0].name === "text" && !model.fields.length && model.inputs[0].datatype === "BYTES") {
    return { inputs: [{ name: "text", datatype: "BYTES", shape: [1], data: [text] }] };
  }
  if (model.fields.length) {
    const inputs = model.fields.map((field, k) => {
      const value = $(`field${k}`).value;
      const number = field.kind === "number" && value; // JSON has no NaN: a missing number is an empty text
      return { name: field.name, datatype: number ? "FP64" : "BYTES", shape: [1], data: [number ? Number(value) : value] };
    });
    return { inputs };
  }
  const numbers = text.split(/[\s,;]+/).filter((part) => part).map(Number);
  if (numbers.some(Number.isNaN)) throw new Error("Only numbers are possible here.");
  return { inputs: [{ name: "x", datatype: "FP64", shape: [1, numbers.length], data: numbers }] };
}

function showAnswer(outputs) {
  const byName = Object.fromEntries(outputs.map((output) => [output.name, output]));
  const parts = [];
  if (byName.label && byName.label.shape.length === 1) parts.push(element("p", `${byName.label.data[0]}`, { class: "label" }));
  else if (byName.label) parts.push(element("p", byName.label.data.join(" ")));
  if (byName.prediction) parts.push(element("p", byName.prediction.data.join("  "), { class: "label" }));
  if (byName.probabilities) parts.push(bars(byName));
  for (const name of ["y", "embedding"]) {
    if (byName[name]) parts.push(element("p", numbersOf(byName[name].data)));
  }
  $("answer").replaceChildren(...parts);
}

function numbersOf(data) {
  const shown = data.slice(0, 32).map((value) => Number(value).toPrecision(4)).join("  ");
  return data.length > 32 ? `${shown}  … (${data.length} numbers)` : shown;
}

function bars({ probabilities, tokens }) {
  const table = element("table");
  const names = tokens ? tokens.data : chosen().classes;
  const rows = probabilities.data.map((value, k) => [names[k], value]);
  if (!tokens) rows.sort((a, b) => b[1] - a[1]);
  for (const [name, value] of rows.slice(0, 20)) {
    const row = element("tr");
    const bar = element("span", undefined, { class: "bar" });
    bar.style.width = `${10 * value}rem`;
    const last = element("td");
    last.append(bar);
    last.style.textAlign = "left";
    row.append(element("th", name, { scope: "row" }), element("td", `${(100 * value).toFixed(1)} %`), last);
    table.append(row);
  }
  return table;
}

function showRoutes(trees) {
  $("trees").replaceChildren(...trees.map(drawTree));
  $("route").hidden = !trees.length;
}

function drawTree({ name, nodes, levels }) {
  // Only the nodes on the way and their siblings: a whole tree would not fit on a page.
  const step = 26, height = 16 * 2 + step * (nodes.length - 1);
  const svg = document.createElementNS(SVG, "svg");
  const add = (kind, attributes) => {
    const made = document.createElementNS(SVG, kind);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };
  let x = 0;
  const places = nodes.map((node, level) => {
    if (level) x += node === 2 * nodes[level - 1] + 1 ? -1 : 1;
    return [x, level];
  });
  const least = Math.min(...places.map(([at]) => at)) - 2, most = Math.max(...places.map(([at]) => at)) + 2;
  const at = ([column, level]) => [(column - least) * 18, 16 + step * level];
  const width = Math.max(160, (most - least) * 18);
  svg.setAttribute("viewBox", `0 0 ${width} ${height + 20}`);
  svg.setAttribute("width", width);
  svg.setAttribute("role", "img");
  const sides = nodes.slice(1).map((node, level) => (node === 2 * nodes[level] + 1 ? "left" : "right"));
  svg.setAttribute("aria-label", `${name}: ${sides.join(", ") || "one node"}`);
  places.forEach((place, level) => {
    if (level + 1 === places.length) return;
    for (const side of [-1, 1]) {
      const [x1, y1] = at(place), [x2, y2] = at([place[0] + side, level + 1]);
      const way = places[level + 1][0] === place[0] + side;
      add("line", { x1, y1, x2, y2, class: way ? "way" : "" });
      if (!way) add("circle", { cx: x2, cy: y2, r: 4 });
    }
  });
  places.forEach((place) => {
    const [cx, cy] = at(place);
    add("circle", { cx, cy, r: 6, class: "way" });
  });
  const more = levels > nodes.length ? ` (the first ${nodes.length} of ${levels} levels)` : "";
  add("text", { x: 2, y: height + 14 }).textContent = `${name}: node ${nodes[nodes.length - 1]}${more}`;
  return svg;
}

async function submit(event) {
  event.preventDefault();
  const model = chosen();
  $("ask").disabled = true;
  try {
    const request = requestOf(model);
    const answer = await askJson(`/v2/models/${model.name}/infer`, request);
    showAnswer(answer.outputs);
    showRoutes(await askJson(`/page/models/${model.name}/route`, request));
  } catch (error) {
    $("answer").replaceChildren(element("p", error.message, { class: "error" }));
    $("route").hidden = true;
  } finally {
    $("ask").disabled = false;
  }
}

async function showFigures() {
  const response = await ask("/metrics");
  if (!response.ok) return;
  const found = {};
  for (const line of (await response.text()).split("\n")) {
    const match = /^fffcpu_(\w+)\{([^}]*)\} (\S+)/.exec(line);
    const name = match && /(?:^|,)model="([^"]*)"/.exec(match[2]);
    if (!name || !name[1] || match[2].includes("le=")) continue;
    const own = (found[name[1]] ??= {});
    own[match[1]] = (own[match[1]] ?? 0) + Number(match[3]);
  }
  const mean = (own, name, scale) => {
    const count = own[`${name}_count`];
    return count ? ((scale * own[`${name}_sum`]) / count).toPrecision(3) : "–";
  };
  const rows = Object.entries(found).map(([name, own]) => {
    const row = element("tr");
    row.append(
      element("th", name, { scope: "row" }),
      ...[
        own.requests_total ?? 0,
        own.request_failures_total ?? 0,
        own.rows_total ?? 0,
        mean(own, "batch_rows", 1),
        mean(own, "queue_duration_seconds", 1000),
        mean(own, "inference_duration_seconds", 1000),
      ].map((value) => element("td", value)),
    );
    return row;
  });
  document.querySelector("#figures tbody").replaceChildren(...rows);
}

async function renew() {
  try {
    await readModels();
    await showFigures();
  } catch (error) {
    $("state").textContent = error.message;
  }
}

$("model").addEventListener("change", showModel);
$("form").addEventListener("submit", submit);
$("key").addEventListener("change", renew);
renew();
setInterval(renew, 2000);
