// Each card shows its three pictures by itself; where scripts run, a before/after slider is put above them.
const template = document.getElementById("slider");
const capital = (word) => word[0].toUpperCase() + word.slice(1);

document.querySelectorAll(".card").forEach((card, index) => {
  const live = template.content.firstElementChild.cloneNode(true);
  const slider = live.querySelector(".onepass-slider");
  const range = live.querySelector("input[type=range]");
  const prompt = card.querySelector("h3").textContent;

  const place = () => {
    slider.style.setProperty("--position", range.value + "%");
    const [left, right] = live.querySelector(":checked").value.split(" ");
    range.setAttribute("aria-valuetext", `${range.value} % ${left}, ${100 - range.value} % ${right}`);
  };
  const choose = () => {
    const sides = live.querySelector(":checked").value.split(" ");
    ["before", "after"].forEach((side, i) => {
      const shown = slider.querySelector("." + side);
      const source = card.querySelector(`[data-contender=${sides[i]}] img`);
      shown.src = source.src;
      shown.alt = source.alt;
      shown.className = side + " " + source.className;
    });
    slider.querySelector(".left").textContent = capital(sides[0]);
    slider.querySelector(".right").textContent = capital(sides[1]);
    range.setAttribute("aria-label", `How much of the picture is ${sides[0]} rather than ${sides[1]}: ${prompt}`);
    place();
  };

  live.querySelectorAll("input[type=radio]").forEach((radio, i) => {
    radio.name = "pair" + index;
    radio.checked = i === 0;
    radio.addEventListener("change", choose);
  });
  range.addEventListener("input", place);
  choose();
  card.querySelector(".three").before(live);
});
