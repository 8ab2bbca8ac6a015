// Helpers of the live widgets; they stand before each widget's own script.

// An element. Attributes: `text` and `on*` set the property, `true` an empty attribute; false and null are left out.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  // JupyterLab's command mode would take the keys away: of arrows, of digits, of 0 that is pressed twice
  if (element.matches("a, button, input, select, textarea, summary, [tabindex]")) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  return element;
}

function button(text, onclick, attributes = {}) {
  return make("button", { type: "button", text, onclick, ...attributes });
}

// A control under its name.
function named(name, control, hint) {
  return make("label", { class: "named" }, make("span", { text: name }), control, hint ? make("small", { text: hint }) : null);
}

// A choice out of a few, as radio buttons; `chosen` is called with a value. The result has `show(value)`.
function choice(name, values, chosen) {
  const group = make("div", { class: "choice", role: "radiogroup", "aria-label": name });
  const key = "onepass-" + Math.random().toString(36).slice(2);
  const inputs = values.map((value) => {
    const input = make("input", { type: "radio", name: key, value, onchange: () => chosen(value) });
    group.append(make("label", {}, input, make("span", { text: value })));
    return input;
  });
  group.show = (value) => inputs.forEach((input) => (input.checked = input.value === value));
  return group;
}

// Small pictures are enlarged with square pixels; shrinking large ones that way would drop pixels.
function sharp(img) {
  img.addEventListener("load", () => img.classList.toggle("pixelated", img.naturalWidth < img.clientWidth));
  return img;
}

// Ask the kernel to do something.
function ask(model, does, ...values) {
  model.send({ do: does, with: values });
}

function on(model, names, show) {
  for (const name of names) model.on("change:" + name, show);
  show();
}
