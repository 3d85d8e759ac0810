// Which traces are listed: the choices of the form, kept in the address so that a link leads to what is seen.
const EMPTY = { task: "", model: "", verdict: "", finish: "", order: "question", search: "", question: "", trace: "",
  with: "", other: "" };
let state = { ...EMPTY };
const field = (name) => document.getElementById(name);
const FIELDS = ["task", "model", "verdict", "finish", "order", "search"];

function fillChoices() {
  const options = {
    task: [["", "all"], ...index.tasks.map((name, number) => [number, name])],
    model: [["", "all"], ...index.models.map((name, number) => [number, name])],
    verdict: [["", "all"], ["right", "right"], ["wrong", "wrong"], ...index.outcomes.map((name) => [name, "verdict: " + name])],
    finish: [["", "all"], ...index.finishes.map((name) => [name, name])],
  };
  for (const [name, choices] of Object.entries(options)) {
    field(name).append(...choices.map(([value, text]) => make("option", { value: String(value) }, spelledOut(text))));
  }
}

function matchesChoices(trace) {
  if (state.task !== "" && taskOf[trace] !== Number(state.task)) return false;
  if (state.model !== "" && modelOf[trace] !== Number(state.model)) return false;
  if (state.finish !== "" && finishOf(trace) !== state.finish) return false;
  if (state.question !== "" && index.question[trace] !== Number(state.question)) return false;
  if (state.verdict === "") return true;
  if (state.verdict === "right" || state.verdict === "wrong") return isRight(trace) === (state.verdict === "right");
  return outcomeOf(trace) === state.verdict;
}

const byQuestion = (one, two) => index.question[one] - index.question[two] || one - two;
const ORDERS = {
  question: byQuestion,
  hardest: (one, two) => shareRight(index.question[one]) - shareRight(index.question[two]) || byQuestion(one, two),
  longest: (one, two) => index.tokens[two] - index.tokens[one] || one - two,
  shortest: (one, two) => index.tokens[one] - index.tokens[two] || one - two,
};
const inOrder = (traces) => traces.sort(Object.hasOwn(ORDERS, state.order) ? ORDERS[state.order] : byQuestion);

function chosenTraces() {
  const traces = [];
  for (let trace = 0; trace < total; trace++) if (matchesChoices(trace)) traces.push(trace);
  return inOrder(traces);
}

// Texts are searched chunk by chunk; `report(found, share done)` is called on the way and returns false to stop.
async function search(candidates, words, report) {
  const pattern = new RegExp(searchFor(words).source, "iu");
  const hits = (record) => Object.values(record).some((value) => typeof value === "string" && pattern.test(value))
    || (record.choices ?? []).some((choice) => pattern.test(choice));
  const questions = new Set();
  for (const [number, first] of index.questionChunks.entries()) {
    (await chunk("q" + number)).forEach((record, place) => { if (hits(record)) questions.add(first + place); });
  }
  const found = candidates.filter((trace) => questions.has(index.question[trace]));
  const rest = new Map();
  for (const trace of candidates) {
    if (questions.has(index.question[trace])) continue;
    const [number, place] = whereIs(index.traceChunks, trace);
    if (!rest.has(number)) rest.set(number, []);
    rest.get(number).push([trace, place]);
  }
  let done = 0;
  for (const [number, traces] of [...rest].sort(([one], [two]) => one - two)) {
    // not kept: a search goes through all chunks once, and would throw out those that are being read
    const records = decoded.has("t" + number) ? await chunk("t" + number) : await decode("t" + number);
    for (const [trace, place] of traces) if (hits(records[place])) found.push(trace);
    if (!report(found, ++done / rest.size)) return;
  }
  report(found, 1);
}
