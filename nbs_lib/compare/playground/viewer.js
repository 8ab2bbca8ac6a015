// Two pictures against each other, as one set of elements that the style shows as the mode says.
function render({ model, el }) {
  const get = (name) => model.get(name);
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const modes = choice("How the two are shown", ["slider", "side by side", "difference", "flip"], (mode) => set("mode", mode));
  const after = sharp(make("img", { class: "after" }));
  const before = sharp(make("img", { class: "before" }));
  const left = make("span", { class: "label left" });
  const right = make("span", { class: "label right" });
  const [leftWords, rightWords] = ["left", "right"].map((side) => make("p", { class: "words " + side }));
  const range = make("input", { type: "range", min: 0, max: 100 });
  range.addEventListener("input", () => set("position", Number(range.value)));
  const flip = button("", () => set("flipped", !get("flipped")), { class: "flip" });
  const box = make("div", { class: "onepass-slider" }, after, before, left, right, leftWords, rightWords, range, flip);
  const empty = make("p", { class: "words alone", text: "Nothing was drawn yet." });
  const notes = make("p", { class: "notes" });
  const sampled = make("img");
  const previewed = make("figcaption");
  const preview = make("figure", { class: "preview" }, sampled, previewed);
  el.append(make("div", { class: "onepass-live onepass-viewer" }, modes, empty, box, notes, preview));

  const picture = (img, side) => {
    const url = get(side);
    img.hidden = !url;
    if (url) img.src = url;
    else img.removeAttribute("src");
    img.alt = `${get(side + "_label")}: ${get("alt")}`;
  };
  const show = () => {
    picture(before, "before");
    picture(after, "after");
    left.textContent = get("before_label");
    right.textContent = get("after_label");
    leftWords.textContent = get("before") ? "" : get("before_note");
    rightWords.textContent = get("after") ? "" : get("after_note");
    range.setAttribute("aria-label", `How much is ${get("before_label")}: ${get("alt")}`);
    const sampling = Boolean(get("preview"));
    preview.hidden = !sampling;
    if (sampling) sampled.src = get("preview");
    sampled.alt = `Preview of ${get("task")}`;
    previewed.textContent = `A preview of ${get("task")}; the finished picture is sharper.`;
    const none = !get("before_label") && !get("after_label");
    empty.hidden = sampling || !none;
    box.hidden = notes.hidden = sampling || none;
    const note = (side) => (get(side) && get(side + "_note") ? [`${get(side + "_label")}: ${get(side + "_note")}`] : []);
    notes.textContent = [...note("before"), ...note("after")].join(" · ");
    place();
  };
  const place = () => {
    const both = get("before") && get("after");
    const mode = both ? get("mode") : "side by side"; // the one with room for words beside a picture
    modes.show(get("mode"));
    box.dataset.mode = mode;
    range.value = get("position");
    box.style.setProperty("--position", (mode === "slider" ? range.value : mode === "flip" && get("flipped") ? 0 : 100) + "%");
    const [a, b] = [get("before_label"), get("after_label")];
    range.setAttribute("aria-valuetext", `${range.value} % ${a}, ${100 - range.value} % ${b}`);
    flip.setAttribute("aria-label", `${get("flipped") ? b : a} is shown; show ${get("flipped") ? a : b}`);
    left.hidden = mode === "flip" && get("flipped");
    right.hidden = mode === "flip" && !get("flipped");
    box.setAttribute("aria-label", `${a} and ${b}, ${mode}`);
  };
  on(model, ["before", "after", "before_label", "after_label", "before_note", "after_note", "alt", "preview", "task"], show);
  on(model, ["position", "mode", "flipped"], place);
}
export default { render };
