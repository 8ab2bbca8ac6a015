// Two pictures, one over the other; a range input over both moves the edge between them.
function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "onepass-slider";
  const picture = (side) => {
    const img = document.createElement("img");
    img.className = side;
    // small pictures are enlarged with square pixels; shrinking large ones that way would drop pixels
    img.addEventListener("load", () => img.classList.toggle("pixelated", img.naturalWidth < box.clientWidth));
    box.append(img);
    return img;
  };
  const after = picture("after");
  const before = picture("before");
  const label = (side) => {
    const span = document.createElement("span");
    span.className = "label " + side;
    box.append(span);
    return span;
  };
  const left = label("left");
  const right = label("right");
  const range = document.createElement("input");
  range.type = "range";
  range.min = 0;
  range.max = 100;
  // JupyterLab's command mode would take the arrow keys away
  range.setAttribute("data-lm-suppress-shortcuts", "true");
  box.append(range);
  el.append(box);

  const show = () => {
    before.src = model.get("before");
    after.src = model.get("after");
    left.textContent = model.get("before_label");
    right.textContent = model.get("after_label");
    before.alt = `${model.get("before_label")}: ${model.get("alt")}`;
    after.alt = `${model.get("after_label")}: ${model.get("alt")}`;
    range.setAttribute("aria-label", `How much is ${model.get("before_label")}: ${model.get("alt")}`);
    place();
  };
  const place = () => {
    range.value = model.get("position");
    box.style.setProperty("--position", range.value + "%");
    const [left, right] = [model.get("before_label"), model.get("after_label")];
    range.setAttribute("aria-valuetext", `${range.value} % ${left}, ${100 - range.value} % ${right}`);
  };
  range.addEventListener("input", () => {
    model.set("position", Number(range.value));
    model.save_changes();
  });
  for (const name of ["before", "after", "before_label", "after_label", "alt"]) model.on("change:" + name, show);
  model.on("change:position", place);
  show();
}
export default { render };
