// Which part of the page is seen, and what the form, the keys and the address do.
let searches = 0;
let saving = 0;

function address() {
  const chosen = Object.entries(state).filter(([name, value]) => value !== EMPTY[name]);
  const words = new URLSearchParams(chosen).toString();
  return "#traces" + (words && "?" + words);
}

// Browsers refuse more than some hundred changes of the address in half a minute, as a held arrow key makes.
function saveAddress() {
  clearTimeout(saving);
  saving = setTimeout(() => history.replaceState(null, "", address()), 250);
}

function route() {
  clearTimeout(saving);
  const [view, words] = location.hash.split("?");
  const traces = view === "#traces";
  document.getElementById("overview").hidden = traces;
  document.getElementById("traces").hidden = !traces;
  for (const link of document.querySelectorAll(".top a")) {
    if (link.hash === (traces ? "#traces" : "#overview")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!traces) {
    if (view.length > 1) document.getElementById(view.slice(1))?.scrollIntoView();
    return;
  }
  const given = Object.fromEntries(new URLSearchParams(words ?? ""));
  state = { ...EMPTY };
  for (const name of Object.keys(EMPTY)) if (name in given) state[name] = given[name];
  for (const [name, limit] of [["trace", total], ["other", total], ["with", index.models.length], ["question", index.excerpts.length]]) {
    const number = Number(state[name]);
    if (!Number.isInteger(number) || number < 0 || number >= limit) state[name] = "";
  }
  showTraces();
}

function change(changes) {
  Object.assign(state, changes);
  saveAddress();
  if ("trace" in changes || "with" in changes || "other" in changes) {
    drawRows();
    drawDetail();
  }
  if (Object.keys(changes).some((name) => FIELDS.includes(name) || name === "question")) showTraces();
}

function choose(trace) {
  change({ trace: String(trace), other: "" });
  const place = rows.indexOf(trace);
  if (place >= 0) keepInView(place);
}

function showTraces() {
  for (const name of FIELDS) field(name).value = state[name];
  const only = field("question");
  only.hidden = state.question === "";
  only.textContent = `Question ${numberInTask(Number(state.question))} only ✕`;
  const mine = ++searches;
  const candidates = chosenTraces();
  const words = state.search.trim();
  list.scrollTop = 0;
  if (!words) {
    listed(candidates, "");
    return;
  }
  listed([], "searching");
  let drawn = 0;
  search(candidates, words, (found, share) => {
    if (mine !== searches) return false;
    if (share === 1 || performance.now() - drawn > 200) {
      drawn = performance.now();
      listed(inOrder([...found]), share < 1 ? `searched ${Math.round(100 * share)} %` : "");
    }
    return true;
  }).catch((error) => { field("count").textContent = error.message; });
}

function listed(traces, progress) {
  showRows(traces);
  field("count").textContent = `${traces.length.toLocaleString("en")} of ${total.toLocaleString("en")} traces`
    + (progress && ", " + progress);
  if (progress) return;
  // the trace of the address stays, whatever the filters say; else the first of the list
  if (state.trace === "" || (!rows.includes(Number(state.trace)) && rows.length)) state.trace = rows.length ? String(rows[0]) : "";
  const place = rows.indexOf(Number(state.trace));
  if (place >= 0) keepInView(place);
  drawDetail();
}

function otherSample(by) {
  if (state.trace === "") return;
  const trace = Number(state.trace);
  const of = tracesOfQuestion[index.question[trace]].filter((one) => modelOf[one] === modelOf[trace]);
  choose(of[(of.indexOf(trace) + by + of.length) % of.length]);
}

function compareNext() {
  const models = ["", ...index.models.keys()].map(String);
  change({ with: models[(models.indexOf(state.with) + 1) % models.length], other: "" });
}

const KEYS = {
  j: () => step(1), k: () => step(-1), t: foldThinking, c: compareNext, "[": () => otherSample(-1), "]": () => otherSample(1),
  "/": () => field("search").focus(),
};
const LIST_KEYS = {
  ArrowDown: () => step(1), ArrowUp: () => step(-1), PageDown: () => step(10), PageUp: () => step(-10),
  Home: () => step(-rows.length), End: () => step(rows.length),
};

document.addEventListener("keydown", (event) => {
  if (document.getElementById("traces").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) {
    if (event.key === "Escape" && event.target === field("search")) change({ search: "" });
    if (event.key === "Escape" || event.key === "Enter") list.focus();
    return;
  }
  const action = (event.target === list && LIST_KEYS[event.key]) || KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

let typing = 0;
for (const name of FIELDS) {
  if (name === "search") {
    field(name).addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => change({ search: field("search").value }), 300);
    });
  } else field(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
}
field("question").addEventListener("click", () => change({ question: "" }));
field("filters").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", route);

fillChoices();
route();
performance.mark("interactive");
