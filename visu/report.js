// The search box and the epoch slider of a run's page. All that they show is in the page.
"use strict";

const MOST_NAMES = 500; // that a search shows of a card

const place = (id) => document.getElementById(id);

const cards = [...document.querySelectorAll("#gallery article")].map((card) => ({
  card,
  number: card.dataset.number, // none for the images without a cluster
  label: card.querySelector(".label")?.textContent.toLowerCase() ?? "",
  names: [...card.querySelectorAll("li")],
  pictures: [...card.querySelectorAll(".pictures > *")],
  shownFirst: !card.hidden,
}));

// Shows what a text finds of a card, and returns the number of images whose names have it.
function searchList({ card, number, label, names, pictures, shownFirst }, wanted) {
  const matches = (text) => wanted !== "" && text.toLowerCase().includes(wanted);
  const hits = names.filter((name) => matches(name.textContent));
  const shown = new Set(hits.length ? hits.slice(0, MOST_NAMES) : names);
  for (const name of names) name.hidden = !shown.has(name);
  for (const picture of pictures) picture.classList.toggle("hit", matches(picture.title));
  const list = card.querySelector("details");
  if (list) list.open = hits.length > 0;

  const isNumber = number === wanted;
  card.hidden = wanted === "" ? !shownFirst : !isNumber && !matches(label) && !hits.length;
  card.style.order = isNumber ? -2 : hits.length ? -1 : 0;
  return hits.length;
}

function search() {
  const text = place("search").value.trim();
  let images = 0;
  let clusters = 0;
  for (const each of cards) {
    images += searchList(each, text.toLowerCase());
    if (each.number !== undefined && !each.card.hidden) clusters++;
  }
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  place("found").textContent = text
    ? `${count(images, "image")} with “${text}” in the name; ${count(clusters, "cluster")} in all`
    : "";
}

place("search")?.addEventListener("input", search);

place("epoch")?.addEventListener("input", (event) => {
  document.querySelectorAll(".epoch").forEach((histogram, i) => {
    histogram.hidden = i !== Number(event.target.value);
  });
});
