"use strict";
const REACH = {mouse: 12, touch: 24};  // pixels around a dot where it can be hit
const MOST_LISTED = 60, MOST_IN_LEGEND = 30, MARGIN = 16, CLOSEST = 60;

const at = id => document.getElementById(id);
const map = JSON.parse(at("content").textContent);
const count = map.x.length, canvas = at("canvas"), pen = canvas.getContext("2d");
const dark = matchMedia("(prefers-color-scheme: dark)");
const view = {zoom: 1, x: 0, y: 0};  // zoom factor, and offset in pixels
let found = null;  // a boolean for each image; null without a search
let shown = -1, kept = false;  // the image on the card, and whether a click keeps it there
const fingers = new Map();  // pressed pointers, with their last places
let travelled = 0;  // pixels since the first of them was pressed

/* Coordinates. */

const widest = [Math.max(...map.x), Math.max(...map.y)];

function unit() {  // pixels per unit of the map's coordinates; at zoom 1 the whole map fits
  return Math.min((canvas.clientWidth - 2 * MARGIN) / Math.max(widest[0], 1e-9),
                  (canvas.clientHeight - 2 * MARGIN) / Math.max(widest[1], 1e-9));
}

function place(i) {  // the centre of a dot, in pixels of the canvas
  const size = unit() * view.zoom;
  return [canvas.clientWidth / 2 + view.x + (map.x[i] - widest[0] / 2) * size,
          canvas.clientHeight / 2 + view.y + (widest[1] / 2 - map.y[i]) * size];
}

function nearest(x, y, reach) {
  let best = -1, least = reach * reach;
  for (let i = 0; i < count; i++) {
    if (found && !found[i]) continue;
    const [px, py] = place(i), apart = (px - x) ** 2 + (py - y) ** 2;
    if (apart <= least) [best, least] = [i, apart];
  }
  return best;
}

/* Drawing. */

function colourOf(i) {
  const lightness = dark.matches ? 62 : 45;
  const kind = at("colour").value;
  if (kind === "label") return labelColour(map.label[i]);
  if (map[kind] && map[kind][i] >= 0)  // the golden angle: far apart
    return `hsl(${map[kind][i] * 137.508 % 360} 65% ${lightness}%)`;
  return `hsl(205 65% ${lightness}%)`;
}

function labelColour(label) {  // neighbours in hue differ in lightness
  const lightness = (dark.matches ? 56 : 40) + 14 * (label % 2);
  return `hsl(${360 * label / map.labels.length} 70% ${lightness}%)`;
}

function draw() {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  pen.scale(scale, scale);
  const radius = Math.min(Math.max(Math.sqrt(width * height / count) / 8, 2), 5) * view.zoom ** 0.3;
  const dot = (i, r) => {
    const [x, y] = place(i);
    if (x < -r || y < -r || x > width + r || y > height + r) return;
    pen.fillStyle = colourOf(i);
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.fill();
  };
  pen.globalAlpha = 0.12;
  if (found) for (let i = 0; i < count; i++) if (!found[i]) dot(i, radius);
  pen.globalAlpha = 0.85;
  for (let i = 0; i < count; i++) if (!found || found[i]) dot(i, found ? radius * 1.3 : radius);
  pen.globalAlpha = 1;
  if (shown >= 0) {
    dot(shown, radius * 1.6);
    pen.strokeStyle = dark.matches ? "#fff" : "#000";
    pen.lineWidth = 2;
    pen.stroke();
    moveCard();
  }
}

/* The card of one image. */

function show(i, keep = false) {
  kept = keep && i >= 0;
  at("mates").hidden = !kept || !clusterName(i);
  if (i !== shown) {
    shown = i;
    at("card").hidden = i < 0;
    if (i >= 0) {
      at("picture").src = picture(i);
      at("name").textContent = map.name[i];
      at("of").textContent = [
        clusterName(i),
        map.super && map.super[i] >= 0 ? `super-cluster ${map.super[i]}` : "",
        map.label ? `label ${map.labels[map.label[i]]}` : "",
      ].filter(Boolean).join("\n");
    }
  }
  draw();
}

function clusterName(i) {  // empty for an image without a cluster
  return map.cluster && map.cluster[i] >= 0 ? `cluster ${map.cluster[i]}` : "";
}

function picture(i) {
  return `data:image/webp;base64,${map.picture[i]}`;
}

function moveCard() {  // beside its dot, within the map
  const [x, y] = place(shown), card = at("card"), gap = 14;
  const left = x + gap + card.offsetWidth < canvas.clientWidth ? x + gap : x - gap - card.offsetWidth;
  card.style.left = `${Math.max(0, Math.min(left, canvas.clientWidth - card.offsetWidth))}px`;
  const lowest = canvas.clientHeight - card.offsetHeight;
  card.style.top = `${Math.max(0, Math.min(y - card.offsetHeight / 2, lowest))}px`;
}

/* The search. */

function search() {
  const text = at("search").value.trim().toLowerCase();
  const cluster = /^(super-)?cluster\s*(\d+)$/.exec(text);
  const clusters = cluster && (cluster[1] ? map.super : map.cluster);
  const fits = i => clusters
    ? clusters[i] === Number(cluster[2])
    : map.name[i].toLowerCase().includes(text)
      || Boolean(map.label) && map.labels[map.label[i]].toLowerCase() === text;
  found = text ? map.x.map((_, i) => fits(i)) : null;
  if (found && shown >= 0 && !found[shown]) show(-1);
  const hits = found ? [...found.keys()].filter(i => found[i]) : [];
  const said = `${hits.length.toLocaleString("en")} of ${count.toLocaleString("en")} images`;
  const listed = hits.length > MOST_LISTED ? `; the first ${MOST_LISTED} are below the map` : "";
  at("status").textContent = found ? said + listed : "";
  at("found").replaceChildren(...hits.slice(0, MOST_LISTED).map(i => {
    const button = document.createElement("button"), image = new Image();
    image.src = picture(i);
    image.alt = button.title = map.name[i];
    button.append(image);
    button.onclick = () => show(i, true);
    return button;
  }));
  draw();
}

function find(text) {
  at("search").value = text;
  search();
}

/* Moving and zooming. */

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = view.zoom, middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
  view.zoom = Math.min(Math.max(before * factor, 1), CLOSEST);
  const grown = view.zoom / before;  // the point at (x, y) stays there
  view.x = (x - middle[0]) * (1 - grown) + view.x * grown;
  view.y = (y - middle[1]) * (1 - grown) + view.y * grown;
  if (view.zoom === 1) view.x = view.y = 0;
  draw();
}

function spot(event) {
  const frame = canvas.getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

function apart() {  // the distance of two fingers
  const [a, b] = [...fingers.values()];
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  if (!fingers.size) travelled = 0;
  fingers.set(event.pointerId, spot(event));
};

canvas.onpointermove = event => {
  const now = spot(event), before = fingers.get(event.pointerId);
  if (!before) {
    if (!kept) show(nearest(...now, REACH.mouse));
    return;
  }
  const wide = fingers.size === 2 && apart();
  fingers.set(event.pointerId, now);
  travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (wide) {
    const [a, b] = [...fingers.values()];
    zoom(apart() / wide, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
  } else if (travelled > 4) {
    view.x += now[0] - before[0];
    view.y += now[1] - before[1];
    draw();
  }
};

canvas.onpointerup = canvas.onpointercancel = event => {
  const tapped = event.type === "pointerup" && fingers.size === 1 && travelled <= 4;
  fingers.delete(event.pointerId);
  if (tapped) show(nearest(...spot(event), REACH[event.pointerType] || REACH.mouse), true);
};

canvas.onpointerleave = () => { if (!kept && !fingers.size) show(-1); };

canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...spot(event));
}, {passive: false});

/* The start. */

function writeLegend() {
  const listed = at("colour").value === "label" && map.labels.length <= MOST_IN_LEGEND;
  at("legend").replaceChildren(...(listed ? map.labels : []).map((name, label) => {
    const entry = document.createElement("span"), sign = document.createElement("i");
    sign.style.background = labelColour(label);
    entry.append(sign, name);
    return entry;
  }));
}

function repaint() {
  writeLegend();
  draw();
}

at("title").textContent = document.title = map.title;
at("about").textContent = map.about;
const kinds = ["cluster", "super", "label"].filter(kind => map[kind]);
const words = {super: "super-cluster"};
at("colour").replaceChildren(...kinds.map(kind => new Option(`colour: ${words[kind] || kind}`, kind)));
at("colour").hidden = kinds.length < 2;
at("search").placeholder = ["name", map.label && "label", map.cluster && "cluster 12"].filter(Boolean).join(", ");
at("search").oninput = search;
at("colour").onchange = repaint;
at("closer").onclick = () => zoom(1.6);
at("farther").onclick = () => zoom(1 / 1.6);
at("whole").onclick = () => zoom(0);
at("mates").onclick = () => find(clusterName(shown));
dark.onchange = repaint;
new ResizeObserver(draw).observe(canvas);
repaint();
