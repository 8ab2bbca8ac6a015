// Rows of pictures, the newest first. A picture is a button that puts it into the viewer.
function render({ model, el }) {
  const list = make("div", { class: "rows" });
  const empty = make("p", { class: "note", text: "Nothing was drawn yet." });
  const kept = make("p", { class: "note", text: `Every picture is in ${model.get("folder")}, with its settings in the PNG.` });
  const waiting = new Set(); // tokens of this view's downloads: another view of the page has its own
  const download = (...which) => {
    const token = Math.random().toString(36).slice(2);
    waiting.add(token);
    ask(model, "download", token, ...which);
  };
  const all = button("Download all as a zip", () => download());
  const heading = make("div", { class: "line head" }, make("h3", { text: "Gallery" }), all);
  el.append(make("section", { class: "onepass-live onepass-gallery", "aria-label": "Gallery" }, heading, kept, empty, list));
  const elements = new Map(); // row number -> its elements, reused so that the focus stays in them

  model.on("msg:custom", ({ token, file }, buffers) => {
    if (!waiting.delete(token)) return;
    const url = URL.createObjectURL(new Blob([buffers[0]]));
    const link = make("a", { href: url, download: file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000); // the browser reads it after the click
  });

  const thumb = (row, sample) => {
    const alt = `${sample.name}: ${row.prompt} (seed ${row.seed})`;
    const inside = sample.url ? sharp(make("img", { src: sample.url, alt })) : make("span", { class: "words", text: sample.note });
    const look = make("button", { type: "button", class: "thumb" }, inside);
    look.setAttribute("aria-label", `Look at ${alt}`);
    look.addEventListener("click", () => ask(model, "look", row.number, sample.name));
    const save = sample.url ? button("Download", () => download(row.number, sample.name), { class: "link", "aria-label": `Download ${alt}` }) : null;
    const caption = make("figcaption", {}, make("b", { text: sample.name }), make("span", { text: sample.url ? sample.note : "" }), save);
    return make("figure", {}, look, caption);
  };
  const copyRecipe = async (row, text, message) => {
    text.hidden = false;
    text.focus();
    text.select();
    try {
      await navigator.clipboard.writeText(row.recipe);
      message.textContent = "The recipe is copied; save it as a .yaml file for `onepass run`.";
    } catch {
      message.textContent = "This browser does not let a page copy: press Ctrl+C for the selected text.";
    }
  };
  const build = (row) => {
    const message = make("p", { class: "note", role: "status" });
    const about = `${row.prompt}, seed ${row.seed}`;
    const text = make("textarea", { readonly: true, hidden: true, rows: 8, "aria-label": `Recipe: ${about}` });
    text.value = row.recipe;
    const copy = button("Copy as a recipe", () => copyRecipe(row, text, message), { "aria-label": `Copy as a recipe: ${about}` });
    // a picture that was removed cannot be brought back: asked twice
    const remove = button("Remove", () => (remove.dataset.sure ? ask(model, "remove", row.number) : confirm(true)), { "aria-label": `Remove: ${about}` });
    const confirm = (sure) => {
      if (sure) remove.dataset.sure = true;
      else delete remove.dataset.sure;
      remove.textContent = sure ? "Remove its files, really?" : "Remove";
    };
    remove.addEventListener("blur", () => confirm(false));
    const head = make("header", {}, make("b", { text: row.prompt }), make("span", { text: `seed ${row.seed}` }));
    const samples = make("div", { class: "samples" }, ...row.samples.map((sample) => thumb(row, sample)));
    const element = make("article", {}, head, samples, make("div", { class: "line" }, copy, remove), message, text);
    return { element, message };
  };
  on(model, ["rows"], () => {
    const rows = model.get("rows");
    const numbers = new Set(rows.map((row) => row.number));
    for (const [number, { element }] of elements) {
      if (!numbers.has(number)) {
        element.remove();
        elements.delete(number);
      }
    }
    for (const row of [...rows].reverse()) {
      if (elements.has(row.number)) continue;
      elements.set(row.number, build(row));
      list.prepend(elements.get(row.number).element);
    }
    empty.hidden = rows.length > 0;
    all.hidden = kept.hidden = rows.length === 0;
  });
  on(model, ["messages"], () => {
    for (const [number, text] of Object.entries(model.get("messages"))) {
      const row = elements.get(Number(number));
      if (row) row.message.textContent = text;
    }
  });
}
export default { render };
