// Draws the page of a run from the JSON in it. Whatever comes from outside, a file's name or a
// label, goes in as text, never as HTML.
"use strict";

const run = JSON.parse(document.getElementById("run").textContent);
const place = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shape(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function words(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const whole = Number.isInteger(value) || Math.abs(value) >= 1000;
  return whole ? Math.round(value).toLocaleString("en") : value.toFixed(digits);
}

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(0)} %`);
const count = (n, noun) => `${words(n)} ${noun}${n === 1 ? "" : "s"}`;

// ------------------------------------------------------------------------------ charts

const HEIGHT = 200, LEFT = 54, RIGHT = 12, TOP = 8, BOTTOM = 28; // pixels

const CHARTS = [
  { title: "Loss of the convnet", note: "mean cross-entropy of the epoch; ln k is what guessing gives",
    series: [
      { name: "convnet loss", colour: "blue", of: (m) => m.convnet_loss },
      { name: "ln k", colour: "grey", dashed: true, of: (m) => m.ln_k }] },
  { title: "Loss of the clustering", note: "sum of squared distances to the centroids", digits: 1,
    series: [{ name: "k-means loss", colour: "blue", of: (m) => m.kmeans_loss }] },
  { title: "Normalised mutual information", note: "between the clusters and the epoch before's, and the folder labels",
    series: [
      { name: "epoch before", colour: "blue", of: (m) => m.nmi_previous },
      { name: "labels", colour: "orange", dashed: true, of: (m) => m.nmi_labels }] },
  { title: "Purity", note: "share of the images whose cluster has most of its images in their folder",
    series: [{ name: "purity", colour: "green", of: (m) => m.purity }] },
  { title: "Clusters that are not empty", note: "", zero: true,
    series: [
      { name: "not empty", colour: "blue", of: (m) => m.nonempty_clusters },
      { name: "k", colour: "grey", dashed: true, of: (m) => m.clusters }] },
  { title: "Sizes of the clusters", note: "images, of those that are not empty", log: true, digits: 1,
    series: [
      { name: "largest", colour: "orange", of: (m) => m.cluster_size?.largest },
      { name: "median", colour: "blue", of: (m) => m.cluster_size?.median },
      { name: "smallest", colour: "green", dashed: true, of: (m) => m.cluster_size?.smallest }] },
  { title: "Seconds per stage", note: "", bars: true, digits: 1,
    series: [
      { name: "training", colour: "blue", of: (m) => m.seconds?.training },
      { name: "clustering", colour: "orange", of: (m) => m.seconds?.clustering },
      { name: "features", colour: "green", of: (m) => m.seconds?.features }] },
];

const charts = []; // those on the page, which show the same epoch

function addChart(spec) {
  const series = spec.series.filter((s) => run.epochs.some((m) => Number.isFinite(s.of(m))));
  if (!series.length) return;
  const svg = shape("svg", { height: HEIGHT, role: "img", tabindex: 0, "aria-label": spec.title });
  const legend = element("div", { class: "legend" });
  const card = element("div", { class: "card chart" }, element("h3", {}, spec.title));
  if (spec.note) card.append(element("p", { class: "note" }, spec.note));
  card.append(legend, svg);
  place("charts").append(card);
  const chart = { spec: { ...spec, series }, svg, legend };
  charts.push(chart);

  const at = (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const distances = run.epochs.map((m) => Math.abs(chart.x(m.epoch) - x));
    showEpoch(distances.indexOf(Math.min(...distances)));
  };
  svg.addEventListener("pointermove", at);
  svg.addEventListener("pointerdown", at);
  svg.addEventListener("pointerleave", (event) => { // a finger that is lifted leaves, too
    if (event.pointerType === "mouse") showEpoch(null);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = run.epochs.length - 1;
    showEpoch(Math.min(Math.max((shown ?? last) + step, 0), last));
  });
}

let shown = null; // the epoch that all charts show, as its place in run.epochs; null: the last

function showEpoch(index) {
  shown = index;
  charts.forEach(mark);
}

function mark({ spec, svg, legend, x, y }) {
  const row = run.epochs[shown ?? run.epochs.length - 1];
  legend.replaceChildren(element("span", {}, `epoch ${row.epoch}`));
  for (const s of spec.series) {
    const kind = spec.bars ? "area" : s.dashed ? "dashed" : "";
    const swatch = element("i", { class: `swatch ${kind}` });
    swatch.style.borderColor = `var(--${s.colour})`;
    legend.append(element("span", {}, swatch, `${s.name} `, element("b", {}, words(s.of(row), spec.digits))));
  }
  svg.querySelectorAll(".mark").forEach((old) => old.remove());
  if (shown === null) return;
  const place = { class: "mark cross", x1: x(row.epoch), x2: x(row.epoch), y1: TOP, y2: HEIGHT - BOTTOM };
  svg.append(shape("line", place));
  for (const s of spec.bars ? [] : spec.series) {
    if (!Number.isFinite(s.of(row))) continue;
    const dot = shape("circle", { class: "mark", cx: x(row.epoch), cy: y(s.of(row)), r: 4 });
    dot.style.fill = `var(--${s.colour})`;
    svg.append(dot);
  }
}

function drawChart(chart) {
  const { spec, svg } = chart;
  const width = svg.clientWidth;
  const epochs = run.epochs.map((m) => m.epoch);
  const first = epochs[0], last = epochs.at(-1);
  const room = spec.bars || first === last ? 0.5 : 0;
  const perEpoch = (width - LEFT - RIGHT) / (last - first + 2 * room);
  chart.x = (epoch) => LEFT + (epoch - first + room) * perEpoch;
  const tops = spec.bars
    ? run.epochs.map((m) => spec.series.reduce((sum, s) => sum + (s.of(m) ?? 0), 0))
    : run.epochs.flatMap((m) => spec.series.map((s) => s.of(m))).filter(Number.isFinite);
  const scale = makeScale(tops, spec);
  chart.y = scale.y;
  svg.replaceChildren();
  drawAxes(svg, width, scale, epochTicks(first, last, width), chart.x);
  (spec.bars ? drawBars : drawLines)(chart, perEpoch);
  mark(chart);
}

function makeScale(values, { zero, log, bars }) {
  let low = Math.min(...values), high = Math.max(...values);
  const down = HEIGHT - BOTTOM, tall = down - TOP;
  if (log) {
    low = Math.max(low / 1.2, 0.5), high *= 1.2;
    const y = (v) => down - (tall * Math.log(Math.max(v, low) / low)) / Math.log(high / low);
    return { y, ticks: logTicks(low, high) };
  }
  if (zero || bars) low = 0, high *= 1.08;
  else {
    const air = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
    low -= air, high += air;
  }
  high = high > low ? high : low + 1;
  return { y: (v) => down - (tall * (v - low)) / (high - low), ticks: linearTicks(low, high, 6) };
}

function linearTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const factors = high / low > 1000 ? [1] : [1, 2, 5];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    ticks.push(...factors.map((f) => f * power).filter((v) => v >= Math.max(low, 1) && v <= high));
  }
  return ticks;
}

function epochTicks(first, last, width) {
  const ticks = linearTicks(first, last + 1e-9, Math.min(width / 60, 10)).filter(Number.isInteger);
  return ticks.length ? ticks : [first];
}

function drawAxes(svg, width, scale, xTicks, x) {
  for (const tick of scale.ticks) {
    const y = scale.y(tick);
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    const text = tick.toLocaleString("en", { maximumFractionDigits: 6 });
    svg.append(shape("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text));
  }
  for (const tick of xTicks) {
    svg.append(shape("text", { x: x(tick), y: HEIGHT - 6, "text-anchor": "middle" }, tick));
  }
}

function drawLines({ spec, svg, x, y }) {
  for (const s of spec.series) {
    let path = "", pen = "M";
    for (const row of run.epochs) {
      const value = s.of(row);
      if (Number.isFinite(value)) path += `${pen}${x(row.epoch).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = Number.isFinite(value) ? "L" : "M";
    }
    // a point of no length still has its round ends, so that a single epoch is seen
    const line = shape("path", { d: path + (path.includes("L") ? "" : "l0 0"), class: s.dashed ? "dashed" : "" });
    line.style.stroke = `var(--${s.colour})`;
    if (run.epochs.length === 1) line.style.strokeWidth = 7;
    svg.append(line);
  }
}

function drawBars({ spec, svg, x, y }, perEpoch) {
  const wide = Math.min(perEpoch > 4 ? perEpoch * 0.8 : perEpoch + 0.6, 60);
  for (const row of run.epochs) {
    let below = 0;
    for (const s of spec.series) {
      const value = s.of(row) ?? 0;
      const top = y(below + value);
      const bar = shape("rect", { x: x(row.epoch) - wide / 2, y: top, width: wide, height: y(below) - top });
      bar.style.fill = `var(--${s.colour})`;
      svg.append(bar);
      below += value;
    }
  }
}

// -------------------------------------------------------------------------- histogram

// One bar for each class of sizes, all of the same width; the classes grow with the size.
function addHistogram({ edges, epochs }) {
  const svg = shape("svg", { height: HEIGHT, role: "img", "aria-label": "Histogram of the cluster sizes" });
  const legend = element("div", { class: "legend" });
  const slider = element("input", { type: "range", min: 0, max: epochs.length - 1, value: epochs.length - 1 });
  slider.setAttribute("aria-label", "epoch");
  const card = element("div", { class: "card", id: "histogram" },
    element("h3", {}, "Histogram of the cluster sizes"),
    element("p", { class: "note" }, "clusters by the number of their images"), legend, svg);
  if (epochs.length > 1) card.append(slider);
  place("charts").append(card);
  const most = Math.max(1, ...epochs.flatMap((e) => e.counts));
  const range = (bin) => (edges[bin + 1] - edges[bin] === 1
    ? count(edges[bin], "image") : `${words(edges[bin])} to ${words(edges[bin + 1] - 1)} images`);

  function draw() {
    const width = svg.clientWidth, now = epochs[slider.value];
    const scale = makeScale([most], { zero: true });
    const step = (width - LEFT - RIGHT) / (edges.length - 1);
    const x = (bin) => LEFT + bin * step;
    svg.replaceChildren();
    const every = Math.ceil(46 / step);
    const bins = now.counts.map((_, bin) => bin);
    drawAxes(svg, width, scale, [], x);
    for (const bin of bins.filter((bin) => bin % every === 0)) {
      svg.append(shape("text", { x: x(bin + 0.5), y: HEIGHT - 6, "text-anchor": "middle" }, words(edges[bin])));
    }
    for (const bin of bins) {
      const top = scale.y(now.counts[bin]);
      const bar = shape("rect", { x: x(bin) + 1, y: top, width: Math.max(step - 2, 1), height: scale.y(0) - top });
      bar.style.fill = "var(--blue)";
      svg.append(bar);
    }
    tell(null);
    svg.onpointermove = svg.onpointerdown = (event) => {
      const bin = Math.floor((event.clientX - svg.getBoundingClientRect().left - LEFT) / step);
      tell(bin in now.counts ? bin : null);
    };
    svg.onpointerleave = () => tell(null);
  }

  function tell(bin) {
    const now = epochs[slider.value];
    const text = bin === null ? `${count(now.empty, "cluster")} empty` : `${range(bin)}: ${count(now.counts[bin], "cluster")}`;
    legend.replaceChildren(element("span", {}, now.name), element("span", {}, element("b", {}, text)));
    svg.querySelectorAll("rect").forEach((bar, i) => { bar.style.opacity = bin === null || bin === i ? 1 : 0.5; });
  }

  slider.addEventListener("input", draw);
  return draw;
}

// --------------------------------------------------------------------------- overview

function addOverview() {
  document.title = `${run.name}: DeepCluster`;
  place("name").textContent = run.name;
  place("status").textContent = run.status;
  place("written").textContent = `Written ${run.written} by visu/report.py; nothing on this page is loaded from elsewhere.`;
  const last = run.epochs.at(-1);
  const figures = last ? [
    [words(last.convnet_loss), `convnet loss; ln k is ${words(last.ln_k)}`],
    [words(last.nmi_previous), "NMI to the epoch before"],
    [words(last.nmi_labels), "NMI to the folder labels"],
    [words(last.purity), "purity"],
    [words(last.nonempty_clusters), `of ${words(last.clusters)} clusters not empty`],
  ] : [];
  figures.push([words(run.images), run.left_out ? `images, ${words(run.left_out)} left out` : "images"]);
  for (const [value, name] of figures.filter(([value]) => value !== "–")) {
    place("overview").append(element("div", { class: "figure" }, element("b", {}, value), element("span", {}, name)));
  }
}

function addCurves() {
  if (!run.epochs.length) {
    place("charts").append(element("p", { class: "note" }, "No epoch is done yet."));
    place("numbers").hidden = true;
  }
  CHARTS.forEach(addChart);
  const draws = charts.map((chart) => () => drawChart(chart));
  if (run.histogram) draws.push(addHistogram(run.histogram));
  const drawAll = () => draws.forEach((draw) => draw());
  drawAll();
  let width = document.body.clientWidth;
  window.addEventListener("resize", () => {
    if (document.body.clientWidth !== width) drawAll();
    width = document.body.clientWidth;
  });
}

function flatten(row, prefix = "") {
  return Object.entries(row).flatMap(([name, value]) => (value !== null && typeof value === "object"
    ? flatten(value, `${prefix}${name} `) : [[(prefix + name).replaceAll("_", " "), value]]));
}

function addNumbers() {
  const rows = run.epochs.map((row) => new Map(flatten(row)));
  const names = [...new Set(rows.flatMap((row) => [...row.keys()]))];
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...names.map((name) => element("td", {}, row.get(name) ?? "–"))));
  place("numbers").append(element("div", { class: "scroll" }, element("table", {}, head, ...body)));
}

function addFilters() {
  const { views, why } = run.filters;
  if (why) return place("filters").append(element("p", { class: "note" }, why));
  const note = element("p", { class: "note" }), grid = element("div", { class: "filters" });
  const buttons = element("div", { class: "views" });
  const show = (view) => {
    note.textContent = view.note;
    grid.className = view.pairs ? "filters pairs" : "filters";
    grid.replaceChildren(...view.pictures.map((picture, i) => element("img",
      { src: `data:image/png;base64,${picture}`, alt: `filter ${i}`, title: `filter ${i}` })));
  };
  views.forEach((view, i) => {
    const button = element("input", { type: "radio", name: "view", ...(i === 0 ? { checked: "" } : {}) });
    button.addEventListener("change", () => show(view));
    buttons.append(element("label", {}, button, ` ${view.title}`));
  });
  if (views.length > 1) place("filters").append(buttons);
  place("filters").append(note, grid);
  show(views[0]);
}

// ---------------------------------------------------------------------------- clusters

const MORE = 24; // clusters that are added to the page at a time
const MOST_NAMES = 500; // in a card

const gallery = run.gallery;

if (gallery) { // its clusters come as a list for each kind of fact
  const facts = Object.entries(gallery.clusters);
  gallery.clusters = gallery.clusters.number.map((_, i) => Object.fromEntries(facts.map(([name, of]) => [name, of[i]])));
}

// places in gallery.images of each cluster's images
const members = new Map();
gallery?.images.cluster.forEach((number, i) => {
  if (!members.has(number)) members.set(number, []);
  members.get(number).push(i);
});

const ORDERS = {
  size: ["largest first", (a, b) => b.size - a.size],
  purity: ["purest first", (a, b) => b.purity - a.purity || b.size - a.size],
  stayed: ["steadiest first", (a, b) => b.stayed - a.stayed || b.size - a.size],
  number: ["by number", (a, b) => a.number - b.number],
};

function picture(i, data, hit) {
  const name = gallery.images.name[i];
  const attributes = { title: name, class: hit ? "hit" : "" };
  if (data === null) return element("div", { ...attributes, class: `missing ${attributes.class}` }, name);
  return element("img", { ...attributes, src: `data:image/webp;base64,${data}`, alt: name, decoding: "async" });
}

function clusterCard(cluster, hits) {
  const facts = [];
  if (cluster.purity !== null) facts.push(`${percent(cluster.purity)} in folder ${cluster.label}`);
  if (cluster.stayed !== null) facts.push(`${percent(cluster.stayed)} together before (${cluster.before})`);
  const card = element("article", { class: "card cluster" },
    element("h3", {}, `Cluster ${cluster.number}`, element("span", {}, count(cluster.size, "image"))),
    element("p", {}, facts.join(" · ")));
  const pictures = gallery.pictures[cluster.number] ?? [];
  if (pictures.length) {
    card.append(element("div", { class: "pictures" }, ...pictures.map(([i, data]) => picture(i, data, hits?.has(i)))));
  }
  if (hits) card.append(nameList([...hits]));
  else if (gallery.complete) {
    const all = element("details", {}, element("summary", {}, "Names of its images"));
    all.addEventListener("toggle", () => all.append(nameList(members.get(cluster.number))), { once: true });
    card.append(all);
  }
  return card;
}

function nameList(places) {
  const names = places.slice(0, MOST_NAMES).map((i) => gallery.images.name[i]);
  if (places.length > MOST_NAMES) names.push(`and ${words(places.length - MOST_NAMES)} more`);
  return element("ul", { class: "names" }, ...names.map((name) => element("li", {}, name)));
}

// What a text finds: clusters by number or label, and images by name (with their clusters).
function search(text) {
  const wanted = text.toLowerCase();
  const hits = new Map();
  let images = 0;
  gallery.images.name.forEach((name, i) => {
    if (!name.toLowerCase().includes(wanted)) return;
    const cluster = gallery.images.cluster[i];
    if (!hits.has(cluster)) hits.set(cluster, new Set());
    hits.get(cluster).add(i);
    images++;
  });
  const isNumber = (c) => String(c.number) === wanted;
  const inOrder = chosenOrder();
  const found = gallery.clusters.filter((c) => isNumber(c) || c.label?.toLowerCase().includes(wanted) || hits.has(c.number));
  found.sort((a, b) => isNumber(b) - isNumber(a) || hits.has(b.number) - hits.has(a.number) || inOrder(a, b));
  return { found, hits, images, leftOut: hits.get(-1) };
}

const chosenOrder = () => ORDERS[place("order").value][1];

function showClusters() {
  const text = place("search").value.trim();
  let found, message = "", hits = new Map();
  if (text) {
    const result = search(text);
    ({ found, hits } = result);
    const number = found.length && String(found[0].number) === text ? `Cluster ${text}. ` : "";
    message = `${number}${count(result.images, "image")} with “${text}” in the name; ${count(found.length, "cluster")} in all`;
    if (result.leftOut) message += `; left out of the clustering: ${[...result.leftOut].slice(0, 20).map((i) => gallery.images.name[i]).join(", ")}`;
  } else {
    found = gallery.clusters.filter((c) => c.number in gallery.pictures).sort(chosenOrder());
  }
  place("found").textContent = message;
  place("gallery").replaceChildren();
  place("more").onclick = () => {
    place("gallery").append(...found.splice(0, MORE).map((c) => clusterCard(c, hits.get(c.number))));
    place("more").textContent = `Show more of the ${count(found.length, "cluster")} left`;
    place("more").hidden = !found.length;
  };
  place("more").onclick();
}

function addClusters() {
  place("chosen").textContent = run.chosen;
  if (!gallery) return place("find").hidden = place("more").hidden = true;
  place("search").placeholder = "cluster number, label or image name";
  for (const [name, [title]] of Object.entries(ORDERS)) {
    if (gallery.clusters.some((c) => c[name] !== null)) {
      place("order").append(element("option", { value: name }, title));
    }
  }
  place("search").addEventListener("input", showClusters);
  place("order").addEventListener("input", showClusters);
  showClusters();
}

function addSettings() {
  const list = element("dl");
  for (const [name, value] of run.settings) {
    list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  }
  place("settings").append(run.settings.length ? list : element("p", { class: "note" }, "There is no config.json."));
}

addOverview();
addCurves();
addNumbers();
addFilters();
addClusters();
addSettings();
