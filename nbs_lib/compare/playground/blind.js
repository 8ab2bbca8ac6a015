// Pairs without names. The keys 1, 2 and 0 vote, from anywhere in the widget.
function render({ model, el }) {
  const get = (name) => model.get(name);
  const start = button("Start", () => ask(model, "start"), { class: "go" });
  const stop = button("Stop", () => ask(model, "end"));
  const message = make("p", { class: "message", role: "status" });
  const prompt = make("h4");
  const pictures = ["left", "right"].map((side) => sharp(make("img", { class: side })));
  const figures = pictures.map((img, i) => make("figure", {}, img, make("figcaption", { text: String(i + 1) })));
  let lastVoted = 0; // number of the pair: a key that is pressed twice is one vote
  const vote = (choice) => {
    const number = get("pair").number;
    if (!number || number === lastVoted) return;
    lastVoted = number;
    ask(model, "vote", choice, number); // the kernel ignores a pair that another view has voted on
  };
  const votes = [
    ["1  Left", 1],
    ["0  Neither", 0],
    ["2  Right", 2],
  ].map(([text, choice]) => button(text, () => vote(choice), { "aria-keyshortcuts": choice }));
  const pair = make("div", { class: "pair" }, prompt, make("div", { class: "two" }, ...figures), make("div", { class: "line" }, ...votes));
  const bar = make("progress", { "aria-label": "Votes cast", max: 1, value: 0 });
  const count = make("span", { class: "task" });
  const results = make("ul", { class: "results", "aria-label": "What the votes come to" });
  const box = make(
    "section",
    { class: "onepass-live onepass-blind", "aria-label": "Blind comparison", tabindex: 0 },
    make("h3", { text: "Blind comparison" }),
    make("div", { class: "line act" }, start, stop, bar, count),
    message,
    pair,
    results,
  );
  box.addEventListener("keydown", (event) => {
    if (!["1", "2", "0"].includes(event.key) || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    event.preventDefault();
    vote(Number(event.key));
  });
  el.append(box);

  on(model, ["pair"], () => {
    const now = get("pair");
    if (now.number === 1) lastVoted = 0;
    const hadFocus = pair.contains(document.activeElement);
    pair.hidden = !now.number;
    if (hadFocus && pair.hidden) box.focus(); // or the keys would go to the notebook
    prompt.textContent = now.prompt || "";
    pictures.forEach((img, i) => {
      img.alt = `Picture ${i + 1}: ${now.prompt || ""}`;
      if (now.number) img.src = [now.left, now.right][i];
    });
    if (now.number === 1) box.focus();
  });
  on(model, ["message", "results"], () => {
    if (get("message").startsWith("The vote is not kept")) lastVoted = 0; // it can be cast again
    message.textContent = get("message") || "Two of the chosen contenders at a time, without their names: press 1, 2 or 0.";
    results.replaceChildren(...get("results").map((line) => make("li", { text: line })));
    results.hidden = !get("results").length;
  });
  on(model, ["busy", "pair", "n_votes", "n_pairs"], () => {
    start.setAttribute("aria-disabled", get("busy"));
    stop.setAttribute("aria-disabled", !get("busy") && !get("pair").number);
    bar.hidden = !get("n_pairs");
    bar.max = get("n_pairs") || 1;
    bar.value = get("n_votes");
    count.textContent = get("n_pairs") ? `${get("n_votes")} of ${get("n_pairs")} votes` : "";
  });
}
export default { render };
