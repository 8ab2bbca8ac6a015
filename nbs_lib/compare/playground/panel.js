// The playground's controls.
function render({ model, el }) {
  const get = (name) => model.get(name);
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const context = get("context");

  // What a field of a number holds: null for an empty one, which Number would take for 0.
  const number = (text) => (text === "" ? null : Number(text));
  // A field that holds a value of the model.
  const field = (name, control, of = (value) => value) => {
    control.addEventListener("input", () => set(name, of(control.value)));
    on(model, [name], () => {
      if (document.activeElement !== control) control.value = get(name); // what is being typed is newer than an echo of it
    });
    return control;
  };
  // not a message: it would overtake the last keys that were typed, which wait until the kernel has taken those before
  const draw = () => set("wanted", get("wanted") + 1);
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
  const own = button("The run's prompts", () => set("prompts", context.prompts.join("\n")));

  const seeds = field("seeds", make("input", { type: "text", inputmode: "numeric" }));
  const locked = make("input", { type: "checkbox", onchange: () => set("locked", locked.checked) });
  on(model, ["locked"], () => (locked.checked = get("locked")));
  const lock = make("label", { class: "tick" }, locked, make("span", { text: "Lock seeds" }));
  const shuffle = button("Shuffle", () => ask(model, "shuffle"));
  const steps = field("steps", make("input", { type: "number", min: 1, max: 100, step: 1 }), number);
  const scheduler = make("select", {}, make("option", { value: "", text: "each contender's own" }));
  for (const name of context.schedulers.filter(Boolean)) scheduler.append(make("option", { value: name, text: name }));
  field("scheduler", scheduler);

  // A number as a slider and as a field, for exact values; `read` and `write` are of the model.
  const dial = (name, low, high, step, read, write, changes) => {
    const bar = make("input", { type: "range", min: low, max: high, step, "aria-label": name });
    const exact = make("input", { type: "number", min: low, max: high, step, "aria-label": `${name}, as a number` });
    for (const each of [bar, exact]) each.addEventListener("input", () => write(number(each.value)));
    on(model, changes, () => {
      for (const each of [bar, exact]) if (document.activeElement !== each) each.value = read();
    });
    return make("div", { class: "dial" }, make("span", { text: name.split(" ")[0], "aria-hidden": "true" }), bar, exact);
  };
  const who = make("fieldset", { class: "who" }, make("legend", { text: "Contenders" }));
  for (const each of context.choices) {
    const tick = make("input", { type: "checkbox", disabled: Boolean(each.why) });
    tick.addEventListener("change", () => {
      set("chosen", tick.checked ? [...get("chosen"), each.name] : get("chosen").filter((name) => name !== each.name));
    });
    on(model, ["chosen"], () => (tick.checked = get("chosen").includes(each.name)));
    const row = make("div", { class: "contender" }, make("label", { class: "tick" }, tick, make("span", { text: each.label })));
    if (each.why) row.append(make("small", { text: each.why }));
    else if (each.scale === "w") {
      row.append(dial("w of guided", 1, context.guidance, 0.25, () => get("guidance"), (value) => set("guidance", value), ["guidance"]));
    } else if (each.scale === "λ") {
      const write = (value) => set("scales", { ...get("scales"), [each.name]: value });
      row.append(dial(`λ of ${each.label}`, -1, 3, 0.05, () => (each.name in get("scales") ? get("scales")[each.name] : 1), write, ["scales"]));
    }
    who.append(row);
  }
  const more = field("more", make("textarea", { rows: 1, spellcheck: "false", placeholder: "selective-20" }));
  who.append(named("Others, one a line", more, "guided at 3 · hybrid-20 · outputs/one at 0.5 + outputs/two at 0.7"));

  const go = button("Draw", draw, { class: "go", title: "Ctrl+Enter in the prompt" });
  const stop = button("Stop", () => ask(model, "stop"));
  const bar = make("progress", { "aria-label": "Progress of the sampling", max: 1, value: 0 });
  const doing = make("span", { class: "doing" });
  on(model, ["busy", "done", "of", "doing"], () => {
    const busy = get("busy");
    go.setAttribute("aria-disabled", busy); // a disabled button would lose the focus, and the keys with it
    stop.setAttribute("aria-disabled", !busy);
    bar.hidden = !busy;
    bar.max = get("of") || 1;
    bar.value = get("done");
    doing.textContent = !busy ? "" : get("of") ? `${get("doing")}: step ${get("done")} of ${get("of")}` : get("doing") + "…";
  });
  const note = make("p", { class: "note", role: "status" });
  on(model, ["note"], () => (note.textContent = get("note")));

  el.append(
    make(
      "div",
      { class: "onepass-live onepass-panel", role: "group", "aria-label": "What is to be drawn" },
      named("Prompts, one a line", prompts),
      make("div", { class: "line act" }, go, stop, bar, doing),
      note,
      make("div", { class: "line" }, named("Used before", history), own),
      make("div", { class: "line" }, named("Seeds", seeds), lock, shuffle),
      make("div", { class: "line" }, named("Steps", steps), named("Scheduler", scheduler)),
      who,
    ),
  );
}
export default { render };
