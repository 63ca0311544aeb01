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

// --------------------------------------------------------------------------- overview

function addOverview() {
  document.title = `${run.name}: DeepCluster`;
  place("name").textContent = run.name;
  place("status").textContent = run.status;
  place("written").textContent =
    `Written ${run.written} by visu/report.py; nothing on this page is loaded from elsewhere.`;
  const last = run.epochs.at(-1);
  const figures = last
    ? [
        [words(last.convnet_loss), `convnet loss; ln k is ${words(last.ln_k)}`],
        [words(last.nmi_previous), "NMI to the epoch before"],
        [words(last.nmi_labels), "NMI to the folder labels"],
        [words(last.purity), "purity"],
        [words(last.nonempty_clusters), `of ${words(last.clusters)} clusters not empty`],
      ]
    : [];
  figures.push([
    words(run.images),
    run.left_out ? `images, ${words(run.left_out)} left out` : "images",
  ]);
  for (const [value, name] of figures.filter(([value]) => value !== "–")) {
    place("overview").append(
      element("div", { class: "figure" }, element("b", {}, value), element("span", {}, name)),
    );
  }
}

const NARROWEST = 150; // pixels, for a chart; a page that nobody looks at yet may have no width

function addCurves() {
  if (!run.epochs.length) {
    place("charts").append(element("p", { class: "note" }, "No epoch is done yet."));
    place("numbers").hidden = true;
  }
  CHARTS.forEach(addChart);
  const draws = charts.map((chart) => () => drawChart(chart));
  if (run.histogram) draws.push(addHistogram(run.histogram));
  let width = 0;
  const fit = () => {
    const now = place("charts").clientWidth;
    if (now === width || now < NARROWEST) return;
    width = now;
    draws.forEach((draw) => draw());
  };
  fit();
  new ResizeObserver(fit).observe(place("charts"));
}

function flatten(row, prefix = "") {
  return Object.entries(row).flatMap(([name, value]) =>
    value !== null && typeof value === "object"
      ? flatten(value, `${prefix}${name} `)
      : [[(prefix + name).replaceAll("_", " "), value]],
  );
}

function addNumbers() {
  const rows = run.epochs.map((row) => new Map(flatten(row)));
  const names = [...new Set(rows.flatMap((row) => [...row.keys()]))];
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) =>
    element("tr", {}, ...names.map((name) => element("td", {}, row.get(name) ?? "–"))),
  );
  place("numbers").append(element("div", { class: "scroll" }, element("table", {}, head, ...body)));
}

function addFilters() {
  const { views, why } = run.filters;
  if (why) return place("filters").append(element("p", { class: "note" }, why));
  const note = element("p", { class: "note" });
  const grid = element("div", { class: "filters" });
  const buttons = element("div", { class: "views" });
  const show = (view) => {
    note.textContent = view.note;
    grid.className = view.pairs ? "filters pairs" : "filters";
    grid.replaceChildren(
      ...view.pictures.map((picture, i) =>
        element("img", {
          src: `data:image/png;base64,${picture}`,
          alt: `filter ${i}`,
          title: `filter ${i}`,
        }),
      ),
    );
  };
  views.forEach((view, i) => {
    const button = element("input", {
      type: "radio",
      name: "view",
      ...(i === 0 ? { checked: "" } : {}),
    });
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

if (gallery) {
  // its clusters come as a list for each kind of fact
  const facts = Object.entries(gallery.clusters);
  gallery.clusters = gallery.clusters.number.map((_, i) =>
    Object.fromEntries(facts.map(([name, of]) => [name, of[i]])),
  );
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
  if (data === null)
    return element("div", { ...attributes, class: `missing ${attributes.class}` }, name);
  return element("img", {
    ...attributes,
    src: `data:image/webp;base64,${data}`,
    alt: name,
    decoding: "async",
  });
}

function clusterCard(cluster, hits) {
  const facts = [];
  if (cluster.purity !== null) facts.push(`${percent(cluster.purity)} in folder ${cluster.label}`);
  if (cluster.stayed !== null)
    facts.push(`${percent(cluster.stayed)} together before (${cluster.before})`);
  const card = element(
    "article",
    { class: "card cluster" },
    element(
      "h3",
      {},
      `Cluster ${cluster.number}`,
      element("span", {}, count(cluster.size, "image")),
    ),
    element("p", {}, facts.join(" · ")),
  );
  const pictures = gallery.pictures[cluster.number] ?? [];
  if (pictures.length) {
    card.append(
      element(
        "div",
        { class: "pictures" },
        ...pictures.map(([i, data]) => picture(i, data, hits?.has(i))),
      ),
    );
  }
  if (hits) card.append(nameList([...hits]));
  else if (gallery.complete) {
    const all = element("details", {}, element("summary", {}, "Names of its images"));
    all.addEventListener("toggle", () => all.append(nameList(members.get(cluster.number))), {
      once: true,
    });
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
  const found = gallery.clusters.filter(
    (c) => isNumber(c) || c.label?.toLowerCase().includes(wanted) || hits.has(c.number),
  );
  found.sort(
    (a, b) => isNumber(b) - isNumber(a) || hits.has(b.number) - hits.has(a.number) || inOrder(a, b),
  );
  return { found, hits, images, leftOut: hits.get(-1) };
}

const chosenOrder = () => ORDERS[place("order").value][1];

function showClusters() {
  const text = place("search").value.trim();
  let found;
  let message = "";
  let hits = new Map();
  if (text) {
    const result = search(text);
    ({ found, hits } = result);
    const number = found.length && String(found[0].number) === text ? `Cluster ${text}. ` : "";
    const images = `${count(result.images, "image")} with “${text}” in the name`;
    message = `${number}${images}; ${count(found.length, "cluster")} in all`;
    if (result.leftOut) {
      const names = [...result.leftOut].slice(0, 20).map((i) => gallery.images.name[i]);
      message += `; left out, unreadable: ${names.join(", ")}`;
    }
  } else {
    found = gallery.clusters.filter((c) => c.number in gallery.pictures).sort(chosenOrder());
  }
  place("found").textContent = message;
  place("gallery").replaceChildren();
  place("more").onclick = () => {
    place("gallery").append(
      ...found.splice(0, MORE).map((c) => clusterCard(c, hits.get(c.number))),
    );
    place("more").textContent = `Show more of the ${count(found.length, "cluster")} left`;
    place("more").hidden = !found.length;
  };
  place("more").onclick();
}

function addClusters() {
  place("chosen").textContent = run.chosen;
  if (!gallery) return (place("find").hidden = place("more").hidden = true);
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
  place("settings").append(
    run.settings.length ? list : element("p", { class: "note" }, "There is no config.json."),
  );
}

function drawPage() {
  addOverview();
  addCurves();
  addNumbers();
  addFilters();
  addClusters();
  addSettings();
}
