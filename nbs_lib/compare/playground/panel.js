// The playground's controls.
function render({ model, el }) {
  const get = (name) => model.get(name);
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const context = get("context");

  // Return the number in a field: null for an empty one, which Number would take for 0.
  const number = (text) => (text === "" ? null : Number(text));
  // Bind a control to a value of the model.
  const field = (name, control, parse = (value) => value) => {
    control.addEventListener("input", () => set(name, parse(control.value)));
    on(model, [name], () => {
      if (document.activeElement !== control) control.value = get(name); // the text being typed is newer than its echo
    });
    return control;
  };
  // not a message: it would overtake the last keys, which wait until the kernel has received those before
  const draw = () => set("draw_requests", get("draw_requests") + 1);
  const prompts = field("prompts", make("textarea", { rows: 3, spellcheck: "false" }));
  prompts.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) draw();
  });
  const history = make("select", { onchange: () => history.value && set("prompts", history.value) });
  on(model, ["history"], () => {
    history.replaceChildren(make("option", { value: "", text: "…" }));
    for (const prompt of get("history")) history.append(make("option", { value: prompt, text: prompt }));
  });
  history.addEventListener("blur", () => (history.value = ""));
  const runPrompts = button("The run's prompts", () => set("prompts", context.prompts.join("\n")));

  const seeds = field("seeds", make("input", { type: "text", inputmode: "numeric" }));
  const locked = make("input", { type: "checkbox", onchange: () => set("locked", locked.checked) });
  on(model, ["locked"], () => (locked.checked = get("locked")));
  const lock = make("label", { class: "tick" }, locked, make("span", { text: "Lock seeds" }));
  const shuffle = button("Shuffle", () => ask(model, "shuffle"));
  const steps = field("steps", make("input", { type: "number", min: 1, max: 100, step: 1 }), number);
  const scheduler = make("select", {}, make("option", { value: "", text: "each contender's own" }));
  for (const name of context.schedulers.filter(Boolean)) scheduler.append(make("option", { value: name, text: name }));
  field("scheduler", scheduler);

  // Return a number as a slider and as a field for exact values; `read` and `write` access the model.
  const dial = (name, low, high, step, read, write, changes) => {
    const bar = make("input", { type: "range", min: low, max: high, step, "aria-label": name });
    const exact = make("input", { type: "number", min: low, max: high, step, "aria-label": `${name}, as a number` });
    for (const input of [bar, exact]) input.addEventListener("input", () => write(number(input.value)));
    on(model, changes, () => {
      for (const input of [bar, exact]) if (document.activeElement !== input) input.value = read();
    });
    return make("div", { class: "dial" }, make("span", { text: name.split(" ")[0], "aria-hidden": "true" }), bar, exact);
  };
  const contenders = make("fieldset", { class: "contenders" }, make("legend", { text: "Contenders" }));
  for (const option of context.options) {
    const tick = make("input", { type: "checkbox", disabled: Boolean(option.reason) });
    tick.addEventListener("change", () => {
      set("chosen", tick.checked ? [...get("chosen"), option.name] : get("chosen").filter((name) => name !== option.name));
    });
    on(model, ["chosen"], () => (tick.checked = get("chosen").includes(option.name)));
    const row = make("div", { class: "contender" }, make("label", { class: "tick" }, tick, make("span", { text: option.label })));
    if (option.reason) row.append(make("small", { text: option.reason }));
    else if (option.scale === "w") {
      row.append(dial("w of guided", 1, context.max_guidance, 0.25, () => get("guidance"), (value) => set("guidance", value), ["guidance"]));
    } else if (option.scale === "λ") {
      const read = () => (option.name in get("scales") ? get("scales")[option.name] : 1);
      const write = (value) => set("scales", { ...get("scales"), [option.name]: value });
      row.append(dial(`λ of ${option.label}`, -1, 3, 0.05, read, write, ["scales"]));
    }
    contenders.append(row);
  }
  const others = field("other_contenders", make("textarea", { rows: 1, spellcheck: "false", placeholder: "selective-20" }));
  contenders.append(named("Others, one a line", others, "guided at 3 · hybrid-20 · outputs/one at 0.5 + outputs/two at 0.7"));

  const go = button("Draw", draw, { class: "go", title: "Ctrl+Enter in the prompt" });
  const stop = button("Stop", () => ask(model, "stop"));
  const bar = make("progress", { "aria-label": "Progress of the sampling", max: 1, value: 0 });
  const task = make("span", { class: "task" });
  on(model, ["busy", "step", "n_steps", "task"], () => {
    const busy = get("busy");
    go.setAttribute("aria-disabled", busy); // a disabled button would lose the focus, and the keys with it
    stop.setAttribute("aria-disabled", !busy);
    bar.hidden = !busy;
    bar.max = get("n_steps") || 1;
    bar.value = get("step");
    const progress = get("n_steps") ? `: step ${get("step")} of ${get("n_steps")}` : "…";
    task.textContent = busy ? get("task") + progress : "";
  });
  const note = make("p", { class: "note", role: "status" });
  on(model, ["note"], () => (note.textContent = get("note")));

  el.append(
    make(
      "div",
      { class: "onepass-live onepass-panel", role: "group", "aria-label": "What is to be drawn" },
      named("Prompts, one a line", prompts),
      make("div", { class: "line act" }, go, stop, bar, task),
      note,
      make("div", { class: "line" }, named("Used before", history), runPrompts),
      make("div", { class: "line" }, named("Seeds", seeds), lock, shuffle),
      make("div", { class: "line" }, named("Steps", steps), named("Scheduler", scheduler)),
      contenders,
    ),
  );
}
export default { render };
