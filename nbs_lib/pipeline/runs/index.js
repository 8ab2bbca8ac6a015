"use strict";
// A click on a head orders the rows by that column; a second one turns the order round. Rows without a value come last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const place = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.children[place].dataset.by ?? row.children[place].textContent;
    const there = [...body.rows].filter((row) => value(row) !== ""), rest = [...body.rows].filter((row) => value(row) === "");
    const numbers = there.every((row) => value(row).trim() !== "" && !Number.isNaN(Number(value(row))));
    there.sort((a, b) => (numbers ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b))));
    if (down) there.reverse();
    body.append(...there, ...rest);
  });
}
