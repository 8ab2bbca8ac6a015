// What was made, the newest first. A picture is a button that puts it into the viewer.
function render({ model, el }) {
  const list = make("div", { class: "rows" });
  const empty = make("p", { class: "note", text: "Nothing was drawn yet." });
  el.append(
    make("section", { class: "onepass-live onepass-gallery", "aria-label": "Gallery" }, make("h3", { text: "Gallery" }), empty, list),
  );
  const shown = new Map(); // row number -> its elements, kept so that the focus stays where it is

  const thumb = (row, shot) => {
    const alt = `${shot.name}: ${row.prompt} (seed ${row.seed})`;
    const inside = shot.url ? sharp(make("img", { src: shot.url, alt })) : make("span", { class: "words", text: shot.note });
    const look = make("button", { type: "button", class: "thumb" }, inside);
    look.setAttribute("aria-label", `Look at ${alt}`);
    look.addEventListener("click", () => ask(model, "look", row.number, shot.name));
    const caption = make("figcaption", {}, make("b", { text: shot.name }), make("span", { text: shot.url ? shot.note : "" }));
    return make("figure", {}, look, caption);
  };
  const copied = async (row, text, said) => {
    text.hidden = false;
    text.focus();
    text.select();
    try {
      await navigator.clipboard.writeText(row.recipe);
      said.textContent = "The recipe is copied; save it as a .yaml file for `onepass run`.";
    } catch {
      said.textContent = "This browser does not let a page copy: press Ctrl+C for the selected text.";
    }
  };
  const built = (row) => {
    const said = make("p", { class: "note", role: "status" });
    const about = `${row.prompt}, seed ${row.seed}`;
    const text = make("textarea", { readonly: true, hidden: true, rows: 8, "aria-label": `Recipe: ${about}` });
    text.value = row.recipe;
    const save = button("Save to the run", () => ask(model, "save", row.number), { "aria-label": `Save to the run: ${about}` });
    const copy = button("Copy as a recipe", () => copied(row, text, said), { "aria-label": `Copy as a recipe: ${about}` });
    const head = make("header", {}, make("b", { text: row.prompt }), make("span", { text: `seed ${row.seed}` }));
    const shots = make("div", { class: "shots" }, ...row.shots.map((shot) => thumb(row, shot)));
    const element = make("article", {}, head, shots, make("div", { class: "line" }, save, copy), said, text);
    return { element, said };
  };
  on(model, ["rows"], () => {
    const rows = model.get("rows");
    const numbers = new Set(rows.map((row) => row.number));
    for (const [number, { element }] of shown) {
      if (!numbers.has(number)) {
        element.remove();
        shown.delete(number);
      }
    }
    for (const row of [...rows].reverse()) {
      if (shown.has(row.number)) continue;
      shown.set(row.number, built(row));
      list.prepend(shown.get(row.number).element);
    }
    empty.hidden = rows.length > 0;
  });
  on(model, ["said"], () => {
    for (const [number, said] of Object.entries(model.get("said"))) {
      const row = shown.get(Number(number));
      if (row) row.said.textContent = said;
    }
  });
}
export default { render };
