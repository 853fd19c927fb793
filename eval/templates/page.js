"use strict";
// Tables sort by a click on a column's name; rows of guessing stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const [body] = table.tBodies;
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const rising = cell.getAttribute("aria-sort") === "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows].filter((row) => !row.classList.contains("chance"));
      const last = [...body.rows].filter((row) => row.classList.contains("chance"));
      const words = (row) => row.cells[column].textContent.trim();
      const number = (row) => Number.parseFloat(words(row).replaceAll(",", ""));
      rows.sort((one, other) => {
        const [a, b] = [number(one), number(other)];
        if (Number.isNaN(a) || Number.isNaN(b)) {
          const [empty, also] = [words(one) === "–", words(other) === "–"];
          if (empty || also) return empty - also; // what is not there comes last
          const order = words(one).localeCompare(words(other), undefined, { numeric: true });
          return rising ? order : -order;
        }
        return rising ? a - b : b - a;
      });
      body.append(...rows, ...last);
    });
  });
}
// What is folded cannot be unfolded on paper.
window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
// On a map the frame of the point under the pointer, or of the one that has the focus.
for (const map of document.querySelectorAll(".map")) {
  const tip = map.querySelector(".tip");
  const { columns, width, height } = map.dataset;
  const show = (point) => {
    const place = Number(point.dataset.place);
    const [x, y] = [(place % columns) * width, Math.floor(place / columns) * height];
    tip.querySelector("img").style.transform = `translate(${-x}px, ${-y}px)`;
    tip.querySelector("span").textContent = point.querySelector("title").textContent;
    const [own, whole] = [point.getBoundingClientRect(), map.getBoundingClientRect()];
    tip.hidden = false;
    const left = Math.min(own.left - whole.left + 12, whole.width - tip.offsetWidth);
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${own.top - whole.top + 12}px`;
  };
  for (const point of map.querySelectorAll("circle")) {
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("focus", () => show(point));
    for (const end of ["pointerleave", "blur"]) point.addEventListener(end, () => (tip.hidden = true));
  }
}
