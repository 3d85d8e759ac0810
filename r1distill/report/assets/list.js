// The list of traces: only the rows that can be seen exist.
const ROW = 58; // pixels, as in page.css
const SPARE = 6;
const list = document.getElementById("list");
const spacer = document.getElementById("spacer");
let rows = [];

function showRows(traces) {
  rows = traces;
  spacer.style.height = rows.length * ROW + "px";
  drawRows();
}

function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  const drawn = [];
  for (let place = first; place < last; place++) drawn.push(row(rows[place], place));
  spacer.replaceChildren(...drawn);
  list.setAttribute("aria-activedescendant", state.trace === "" ? "" : "row-" + state.trace);
}

function row(trace, place) {
  const question = index.question[trace];
  const extracted = index.extracted[trace];
  const element = make(
    "div",
    { class: "row", role: "option", id: "row-" + trace, "aria-selected": String(String(trace) === state.trace),
      "aria-setsize": String(rows.length), "aria-posinset": String(place + 1), onclick: () => choose(trace) },
    badge(trace),
    make("span", { class: "what" }, spelledOut(`${index.models[modelOf[trace]]} · question ${numberInTask(question)}, sample `
      + `${index.sample[trace] + 1}`)),
    make("span", { class: "tokens" }, index.tokens[trace].toLocaleString("en")),
    make("span", { class: "line" }, spelledOut(index.excerpts[question])),
    make("span", { class: extracted === null ? "line" : "extracted" }, extracted === null ? "no answer" : spelledOut(extracted)),
  );
  element.style.top = place * ROW + "px";
  return element;
}

// Right or wrong in a sign and a word, not by the colour alone.
function badge(trace) {
  const right = isRight(trace);
  const words = right ? "right" : "wrong: " + [outcomeOf(trace), finishOf(trace)].join(", ");
  return make("span", { class: "badge " + (right ? "right" : "wrong"), role: "img", "aria-label": words, title: words },
    right ? "✓" : finishOf(trace) === "stop" ? "✗" : "…");
}

function keepInView(place) {
  const top = place * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
}

function step(by) {
  if (!rows.length) return;
  const at = rows.indexOf(Number(state.trace));
  const place = state.trace === "" || at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by));
  choose(rows[place]);
}

let drawing = false;
list.addEventListener("scroll", () => {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawRows(); });
});
new ResizeObserver(drawRows).observe(list);
