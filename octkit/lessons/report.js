// What the page can do besides being read. Without it every text, table and figure is there all the same.
"use strict";
document.documentElement.classList.add("live");

// A click on a figure shows it as large as the window allows, a click on that in all its pixels.
const dialog = document.getElementById("zoom");
for (const image of document.querySelectorAll("figure img")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "figure";
  button.title = dialog.dataset.enlarge;
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    const large = image.cloneNode();
    large.addEventListener("click", () => large.classList.toggle("whole"));
    dialog.lastElementChild.replaceChildren(large);
    dialog.showModal();
  });
}
dialog.querySelector("button").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target !== dialog && event.target !== dialog.lastElementChild) return;
  dialog.close();
});

// A click on a column's head sorts by it, numbers as numbers; what is unknown stands last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      const unknown = (text) => text === "—" || text === "";
      const order = (a, b) => unknown(a) - unknown(b)
        || (down ? -1 : 1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
      body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
    });
  });
}

// The contents mark the section that is being read.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new Set();
const observer = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) isIntersecting ? seen.add(target.id) : seen.delete(target.id);
  const current = [...links.keys()].find((id) => seen.has(id));
  if (!current) return;
  links.forEach((link, id) => id === current
    ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
  const link = links.get(current), list = link.closest("nav");
  list.scrollTo({ left: link.offsetLeft - list.clientWidth / 2 + link.offsetWidth / 2 });
}, { rootMargin: "-12% 0px -75% 0px" });
for (const section of document.querySelectorAll("section")) observer.observe(section);
