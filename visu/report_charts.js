// The curves and the histogram of a run's page, as SVG. Stands on what begins report.js.
"use strict";

// of a chart and the space around its axes, in pixels
const HEIGHT = 200;
const [LEFT, RIGHT, TOP, BOTTOM] = [54, 12, 8, 28];

const CHARTS = [
  {
    title: "Loss of the convnet",
    note: "mean cross-entropy of the epoch; ln k is what guessing gives",
    series: [
      { name: "convnet loss", colour: "blue", of: (m) => m.convnet_loss },
      { name: "ln k", colour: "grey", dashed: true, of: (m) => m.ln_k },
    ],
  },
  {
    title: "Loss of the clustering",
    note: "sum of squared distances to the centroids",
    digits: 1,
    series: [{ name: "k-means loss", colour: "blue", of: (m) => m.kmeans_loss }],
  },
  {
    title: "Normalised mutual information",
    note: "between the clusters and the epoch before's, and the folder labels",
    series: [
      { name: "epoch before", colour: "blue", of: (m) => m.nmi_previous },
      { name: "labels", colour: "orange", dashed: true, of: (m) => m.nmi_labels },
    ],
  },
  {
    title: "Purity",
    note: "share of the images that are in the most frequent folder of their cluster",
    series: [{ name: "purity", colour: "green", of: (m) => m.purity }],
  },
  {
    title: "Nearest neighbours",
    note: "share of the images that so many others classify right, by the features of the epoch",
    series: [
      { name: "10", colour: "blue", sparse: true, of: (m) => m.knn_top1?.["10"] },
      { name: "100", colour: "orange", dashed: true, sparse: true, of: (m) => m.knn_top1?.["100"] },
    ],
  },
  {
    title: "Clusters that are not empty",
    note: "",
    zero: true,
    series: [
      { name: "not empty", colour: "blue", of: (m) => m.nonempty_clusters },
      { name: "k", colour: "grey", dashed: true, of: (m) => m.clusters },
    ],
  },
  {
    title: "Sizes of the clusters",
    note: "images, of those that are not empty",
    log: true,
    digits: 1,
    series: [
      { name: "largest", colour: "orange", of: (m) => m.cluster_size?.largest },
      { name: "median", colour: "blue", of: (m) => m.cluster_size?.median },
      { name: "smallest", colour: "green", dashed: true, of: (m) => m.cluster_size?.smallest },
    ],
  },
  {
    title: "Seconds per stage",
    note: "",
    bars: true,
    digits: 1,
    series: [
      { name: "training", colour: "blue", of: (m) => m.seconds?.training },
      { name: "clustering", colour: "orange", of: (m) => m.seconds?.clustering },
      { name: "features", colour: "green", of: (m) => m.seconds?.features },
    ],
  },
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
  svg.addEventListener("pointerleave", (event) => {
    // a finger that is lifted leaves, too
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
    legend.append(
      element("span", {}, swatch, `${s.name} `, element("b", {}, words(s.of(row), spec.digits))),
    );
  }
  svg.querySelectorAll(".mark").forEach((old) => old.remove());
  if (shown === null) return;
  const place = {
    class: "mark cross",
    x1: x(row.epoch),
    x2: x(row.epoch),
    y1: TOP,
    y2: HEIGHT - BOTTOM,
  };
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
  const first = epochs[0];
  const last = epochs.at(-1);
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
  const least = Math.min(...values);
  const most = Math.max(...values);
  const down = HEIGHT - BOTTOM;
  const tall = down - TOP;
  if (log) {
    const low = Math.max(least / 1.2, 0.5);
    const high = most * 1.2;
    const y = (v) => down - (tall * Math.log(Math.max(v, low) / low)) / Math.log(high / low);
    return { y, ticks: logTicks(low, high) };
  }
  const air = (most - least) * 0.08 || Math.abs(most) * 0.05 || 1;
  const low = zero || bars ? 0 : least - air;
  const high = zero || bars ? most * 1.08 || 1 : most + air;
  return { y: (v) => down - (tall * (v - low)) / (high - low), ticks: linearTicks(low, high, 6) };
}

function linearTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++)
    ticks.push(Number((i * step).toPrecision(12)));
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
    let path = "";
    let pen = "M";
    for (const row of run.epochs) {
      const value = s.of(row);
      if (Number.isFinite(value)) {
        path += `${pen}${x(row.epoch).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
      } else if (!s.sparse) {
        pen = "M"; // a gap; what is measured every few epochs only has none
      }
    }
    const alone = !path.includes("L");
    // a line of no length still has its round ends
    const attributes = { d: path + (alone ? "l0 0" : ""), class: s.dashed ? "dashed" : "" };
    const line = shape("path", attributes);
    line.style.stroke = `var(--${s.colour})`;
    if (alone) line.style.strokeWidth = 7;
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
      const bar = shape("rect", {
        x: x(row.epoch) - wide / 2,
        y: top,
        width: wide,
        height: y(below) - top,
      });
      bar.style.fill = `var(--${s.colour})`;
      svg.append(bar);
      below += value;
    }
  }
}

// -------------------------------------------------------------------------- histogram

// One bar for each class of sizes, all of the same width; the classes grow with the size.
function addHistogram({ edges, epochs }) {
  const svg = shape("svg", {
    height: HEIGHT,
    role: "img",
    "aria-label": "Histogram of the cluster sizes",
  });
  const legend = element("div", { class: "legend" });
  const slider = element("input", {
    type: "range",
    min: 0,
    max: epochs.length - 1,
    value: epochs.length - 1,
  });
  slider.setAttribute("aria-label", "epoch");
  const card = element(
    "div",
    { class: "card", id: "histogram" },
    element("h3", {}, "Histogram of the cluster sizes"),
    element("p", { class: "note" }, "clusters by the number of their images"),
    legend,
    svg,
  );
  if (epochs.length > 1) card.append(slider);
  place("charts").append(card);
  const most = Math.max(1, ...epochs.flatMap((e) => e.counts));
  const range = (bin) =>
    edges[bin + 1] - edges[bin] === 1
      ? count(edges[bin], "image")
      : `${words(edges[bin])} to ${words(edges[bin + 1] - 1)} images`;

  function draw() {
    const width = svg.clientWidth;
    const now = epochs[slider.value];
    const scale = makeScale([most], { zero: true });
    const step = (width - LEFT - RIGHT) / (edges.length - 1);
    const x = (bin) => LEFT + bin * step;
    svg.replaceChildren();
    const every = Math.ceil(46 / step);
    const bins = now.counts.map((_, bin) => bin);
    drawAxes(svg, width, scale, [], x);
    for (const bin of bins.filter((bin) => bin % every === 0)) {
      svg.append(
        shape(
          "text",
          { x: x(bin + 0.5), y: HEIGHT - 6, "text-anchor": "middle" },
          words(edges[bin]),
        ),
      );
    }
    for (const bin of bins) {
      const top = scale.y(now.counts[bin]);
      const bar = shape("rect", {
        x: x(bin) + 1,
        y: top,
        width: Math.max(step - 2, 1),
        height: scale.y(0) - top,
      });
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
    const text =
      bin === null
        ? `${count(now.empty, "cluster")} empty`
        : `${range(bin)}: ${count(now.counts[bin], "cluster")}`;
    legend.replaceChildren(
      element("span", {}, now.name),
      element("span", {}, element("b", {}, text)),
    );
    svg.querySelectorAll("rect").forEach((bar, i) => {
      bar.style.opacity = bin === null || bin === i ? 1 : 0.5;
    });
  }

  slider.addEventListener("input", draw);
  return draw;
}
