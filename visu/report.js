// The search box and the epoch slider of a run's page. They only show and hide parts of the page.
"use strict";

// limits of a search: cards, and names in each card
const MOST_CARDS = 100;
const MOST_NAMES = 500;

const place = (id) => document.getElementById(id);
const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

const cards = [...document.querySelectorAll("#gallery article")].map((card) => ({
  card,
  shownFirst: !card.hidden,
  number: card.dataset.number, // undefined for the images without a cluster
  label: card.querySelector(".label")?.textContent.toLowerCase() ?? "",
  names: [...card.querySelectorAll("li")],
  pictures: [...card.querySelectorAll(".pictures > *")],
}));

// The headings of super-clusters, which a search hides: it sorts the cards anew
const headings = [...document.querySelectorAll("#gallery h3.super:not([hidden])")];

// The cards that contain a text, the best first, each with the names that contain it.
function find(wanted) {
  const found = cards.map((each) => {
    const hits = each.names.filter((name) => name.textContent.toLowerCase().includes(wanted));
    const ranks = [each.number === wanted, hits.length > 0, each.label.includes(wanted)];
    return { ...each, hits, rank: ranks.indexOf(true) };
  });
  return found.filter((each) => each.rank >= 0).sort((a, b) => a.rank - b.rank);
}

// Shows a card. If some of its names are hits, the other names are hidden.
function show({ card, names, pictures, hits, rank }) {
  const shown = new Set(hits.length ? hits.slice(0, MOST_NAMES) : names);
  for (const name of names) name.hidden = !shown.has(name);
  const wanted = new Set(hits.map((name) => name.textContent));
  for (const picture of pictures) picture.classList.toggle("hit", wanted.has(picture.title));
  const list = card.querySelector("details");
  if (list) list.open = hits.length > 0;
  card.style.order = rank;
  card.hidden = false;
}

function search() {
  const text = place("search").value.trim();
  for (const { card } of cards) card.hidden = true;
  for (const heading of headings) heading.hidden = text !== "";
  place("found").textContent = "";
  if (!text) {
    for (const each of cards) if (each.shownFirst) show({ ...each, hits: [], rank: 0 });
    return;
  }
  const found = find(text.toLowerCase());
  found.slice(0, MOST_CARDS).forEach(show);
  const images = found.reduce((sum, each) => sum + each.hits.length, 0);
  const clusters = found.filter((each) => each.number !== undefined).length;
  const rest = found.length > MOST_CARDS ? `; the first ${MOST_CARDS} are shown` : "";
  place("found").textContent =
    `${count(images, "image")} with “${text}” in the name; ${count(clusters, "cluster")} in all` +
    rest;
}

place("search")?.addEventListener("input", search);

place("epoch")?.addEventListener("input", (event) => {
  document.querySelectorAll(".epoch").forEach((histogram, i) => {
    histogram.hidden = i !== Number(event.target.value);
  });
});
