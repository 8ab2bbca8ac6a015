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
  const drawByKey = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) draw();
  };
  const prompts = field("prompts", make("textarea", { rows: 3, spellcheck: "false" }));
  const history = make("select", { onchange: () => history.value && set("prompts", history.value) });
  on(model, ["history"], () => {
    history.replaceChildren(make("option", { value: "", text: "…" }));
    for (const prompt of get("history")) history.append(make("option", { value: prompt, text: prompt }));
  });
  history.addEventListener("blur", () => (history.value = ""));
  const runPrompts = button("The run's prompts", () => set("prompts", context.prompts.join("\n")));
  const hints = make("p", { class: "hints", role: "status" });
  on(model, ["hints"], () => (hints.textContent = get("hints")));

  const go = button("Draw", draw, { class: "go", title: "Ctrl+Enter in a field" });
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
  const message = make("p", { class: "alert", role: "alert" });
  on(model, ["message"], () => (message.textContent = get("message")));

  const seeds = field("seeds", make("input", { type: "text", inputmode: "numeric" }));
  const locked = make("input", { type: "checkbox", onchange: () => set("locked", locked.checked) });
  on(model, ["locked"], () => (locked.checked = get("locked")));
  const lock = make("label", { class: "tick" }, locked, make("span", { text: "Lock seeds" }));
  const shuffle = button("Shuffle", () => ask(model, "shuffle"));
  const steps = field("steps", make("input", { type: "number", min: 1, max: 100, step: 1 }), number);
  const scheduler = make("select", {}, make("option", { value: "", text: "each contender's own" }));
  for (const name of context.schedulers.filter(Boolean)) scheduler.append(make("option", { value: name, text: name.replace("Scheduler", "") }));
  field("scheduler", scheduler);
  const { low, high, step } = context.sizes;
  const side = (name) => field(name, make("input", { type: "number", min: low, max: high, step }), number);
  const negative = field("negative", make("input", { type: "text", spellcheck: "false" }));

  // Return the slider of a contender's scale, and a field for exact values.
  const dial = ({ name, label, dial: { symbol, low, high, step, usual } }) => {
    const title = `${symbol} of ${label}`;
    const bar = make("input", { type: "range", min: low, max: high, step, "aria-label": title });
    const exact = make("input", { type: "number", min: low, max: high, step, "aria-label": `${title}, as a number` });
    for (const input of [bar, exact]) input.addEventListener("input", () => set("scales", { ...get("scales"), [name]: number(input.value) }));
    on(model, ["scales"], () => {
      const value = name in get("scales") ? get("scales")[name] : usual;
      for (const input of [bar, exact]) if (document.activeElement !== input) input.value = value;
    });
    return make("div", { class: "dial" }, make("span", { text: symbol, "aria-hidden": "true" }), bar, exact);
  };
  const choose = (name, chosen) => set("chosen", chosen ? [...get("chosen"), name] : get("chosen").filter((other) => other !== name));
  const contenders = make("fieldset", { class: "contenders" }, make("legend", { text: "Contenders" }));
  for (const option of context.options.filter((option) => !option.reason)) {
    const tick = make("input", { type: "checkbox" });
    tick.addEventListener("change", () => choose(option.name, tick.checked));
    const label = make("label", { class: "tick" }, tick, make("span", {}, make("b", { text: option.label }), make("small", { text: option.about })));
    const row = make("div", { class: "contender", hidden: option.other_run }, label, option.dial ? dial(option) : null);
    on(model, ["chosen"], () => {
      tick.checked = get("chosen").includes(option.name);
      row.hidden = row.hidden && !tick.checked; // once added it stays, so that it can be taken again
    });
    contenders.append(row);
  }
  contenders.append(make("div", { class: "line" }, named("Adapters of other runs", adapters())));
  const others = field("other_contenders", make("textarea", { rows: 1, spellcheck: "false", placeholder: "selective-20" }));
  contenders.append(named("Other contenders, one a line", others, "guided at 3 · hybrid-20 · outputs/one at 0.5 + outputs/two at 0.7"));

  // Return the list of adapters: a chosen one becomes a contender.
  function adapters() {
    const list = make("select", {}, make("option", { value: "", text: "Add an adapter…" }), make("option", { value: "none", text: "No adapter: the base alone" }));
    for (const option of context.options.filter((option) => option.other_run)) {
      const text = option.reason ? `${option.label}: ${option.reason}` : option.label;
      list.append(make("option", { value: option.name, text, disabled: Boolean(option.reason) }));
    }
    list.addEventListener("change", () => {
      const base = ["guided", "unguided"];
      if (list.value === "none") {
        const chosen = get("chosen").filter((name) => base.includes(name));
        set("chosen", chosen.length ? chosen : base);
      } else if (!get("chosen").includes(list.value)) choose(list.value, true);
      list.value = ""; // it adds, and holds no state
    });
    return list;
  }

  const panel = make(
    "div",
    { class: "onepass-live onepass-panel", role: "group", "aria-label": "What is to be drawn" },
    named("Prompts, one a line", prompts),
    hints,
    make("div", { class: "line act" }, go, stop, bar, task),
    message,
    make("div", { class: "line" }, named("Used before", history), runPrompts),
    contenders,
    make("div", { class: "line" }, named("Seeds", seeds), lock, shuffle),
    make("div", { class: "line" }, named("Steps", steps), named("Width", side("width")), named("Height", side("height"))),
    make("p", { class: "note", text: `Both sides: multiples of ${step} from ${low} to ${high} pixels; trained at ${context.sizes.trained}.` }),
    named("Negative prompt", negative, "For guided contenders only: one pass has no second prediction to lead away from."),
    named("Scheduler", scheduler),
  );
  for (const input of panel.querySelectorAll("input:not([type=checkbox]), textarea")) input.addEventListener("keydown", drawByKey);
  el.append(panel);
}
export default { render };
