// Helpers of the live widgets, prepended to the script of each.

// Return an element. Attributes: `text` and `on*` set the property, `true` an empty attribute; false and null are skipped.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  // JupyterLab's command mode would take the keys: arrows, digits, 0 pressed twice
  if (element.matches("a, button, input, select, textarea, summary, [tabindex]")) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  return element;
}

function button(text, onclick, attributes = {}) {
  return make("button", { type: "button", text, onclick, ...attributes });
}

// Return a control under its name.
function named(name, control, hint) {
  return make("label", { class: "named" }, make("span", { text: name }), control, hint ? make("small", { text: hint }) : null);
}

// Return radio buttons; `onChoice` is called with a value. The result has `show(value)`.
function choice(name, values, onChoice) {
  const group = make("div", { class: "choice", role: "radiogroup", "aria-label": name });
  const key = "onepass-" + Math.random().toString(36).slice(2);
  const inputs = values.map((value) => {
    const input = make("input", { type: "radio", name: key, value, onchange: () => onChoice(value) });
    group.append(make("label", {}, input, make("span", { text: value })));
    return input;
  });
  group.show = (value) => inputs.forEach((input) => (input.checked = input.value === value));
  return group;
}

// Enlarge small pictures with square pixels; large ones would lose pixels if they were reduced that way.
function sharp(img) {
  img.addEventListener("load", () => img.classList.toggle("pixelated", img.naturalWidth < img.clientWidth));
  return img;
}

// Ask the kernel for an action.
function ask(model, action, ...values) {
  model.send({ do: action, with: values });
}

// Call `show` now, and after each change of one of these values.
function on(model, names, show) {
  for (const name of names) model.on("change:" + name, show);
  show();
}
