// The chosen trace: its question, how all samples of the question came out, and the reply; two replies side by side.
const detail = document.getElementById("detail");
let drawnTimes = 0;
let thinkingOpen = false;

async function drawDetail() {
  const mine = ++drawnTimes;
  if (state.trace === "") {
    detail.replaceChildren(make("p", { class: "note" }, total ? "Choose a trace on the left." : "This run has no traces of an evaluation."));
    return;
  }
  const trace = Number(state.trace);
  const other = otherTrace(trace);
  try {
    const question = await questionOf(index.question[trace]);
    const texts = [await textsOf(trace), other === null ? null : await textsOf(other)];
    if (mine !== drawnTimes) return; // another one was chosen meanwhile
    const pattern = searchFor(state.search.trim());
    detail.replaceChildren(
      questionBox(trace, question, pattern),
      samplesBox(trace, other),
      make("div", { class: other === null ? "replies" : "replies two" }, reply(trace, texts[0], pattern),
        other === null ? null : reply(other, texts[1], pattern)),
    );
    detail.scrollTop = 0;
    performance.mark("trace shown");
  } catch (error) {
    if (mine === drawnTimes) detail.replaceChildren(make("p", { class: "note", role: "alert" }, String(error.message)));
  }
}

// The trace beside it: of the model to compare with, on the same question; the one that was picked, or the same sample.
function otherTrace(trace) {
  if (state.with === "") return null;
  const of = tracesOfQuestion[index.question[trace]].filter((one) => modelOf[one] === Number(state.with));
  if (!of.length) return null;
  if (of.includes(Number(state.other)) && state.other !== "") return Number(state.other);
  return of.find((one) => index.sample[one] === index.sample[trace]) ?? of[0];
}

function questionBox(trace, question, pattern) {
  const number = index.question[trace];
  const compare = make("select", { id: "with", onchange: (event) => change({ with: event.target.value, other: "" }) },
    make("option", { value: "" }, "nothing"),
    ...index.models.map((name, model) => make("option", { value: String(model), selected: String(model) === state.with },
      spelledOut(name))));
  const facts = [["Reference", question.answer], ["Tests", question.tests], ["Source", question.source], ["About it", question.meta]];
  const choices = (question.choices ?? []).map((choice, place) => String.fromCharCode(65 + place) + ". " + choice).join("\n");
  return make("section", { class: "question" },
    make("header", {},
      make("h2", {}, spelledOut(`${index.tasks[taskOf[trace]]}, question ${numberInTask(number)}`)),
      make("label", {}, "Compare with ", compare),
      make("button", { type: "button", onclick: () => change({ question: String(number) }) }, "Only this question")),
    longText(question.problem + (choices && "\n\n" + choices), pattern, "Question"),
    factList(facts, pattern));
}

function factList(facts, pattern) {
  const items = facts.filter(([, value]) => value !== null && value !== "" && value !== undefined);
  return make("dl", {}, ...items.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, longText(String(value), pattern, name))]));
}

// A square for each sample of the question, a line a model.
function samplesBox(trace, other) {
  const lines = index.models.map((name, model) => {
    const of = tracesOfQuestion[index.question[trace]].filter((one) => modelOf[one] === model);
    if (!of.length) return null;
    const right = of.filter(isRight).length;
    return make("div", { class: "samples" },
      make("span", { class: "name" }, spelledOut(name)),
      make("span", { class: "squares" }, ...of.map((one) => square(one, one === trace || one === other))),
      make("span", { class: "note" }, `${right} of ${of.length} right`));
  });
  return make("section", { "aria-label": "All samples of this question" }, ...lines);
}

function square(trace, chosen) {
  const right = isRight(trace);
  const compared = state.with !== "" && modelOf[trace] === Number(state.with);
  return make("button", { type: "button", class: "square " + (right ? "right" : "wrong"), "aria-pressed": String(chosen),
    "aria-label": `sample ${index.sample[trace] + 1}, ${right ? "right" : "wrong: " + outcomeOf(trace)}`,
    title: `sample ${index.sample[trace] + 1}: ${outcomeOf(trace)}, ${finishOf(trace)}, ${index.tokens[trace].toLocaleString("en")} tokens`,
    onclick: () => (compared ? change({ other: String(trace) }) : choose(trace)) },
    right ? "✓" : finishOf(trace) === "stop" ? "✗" : "…");
}

function reply(trace, texts, pattern) {
  const cutOff = outcomeOf(trace) === "correct" && !isRight(trace) ? ", but counts as wrong: it did not stop by itself" : "";
  const facts = [
    ["Extracted", texts.extracted ?? "no answer"],
    ["Verdict", outcomeOf(trace) + cutOff],
    ["Detail", texts.detail],
    ["Verifier", texts.verifier],
    ["Finish reason", finishOf(trace)],
    ["Tokens", index.tokens[trace].toLocaleString("en") + (texts.seconds ? ` in ${texts.seconds.toFixed(1)} s` : "")],
    ["Error", texts.error],
  ];
  const words = `${index.models[modelOf[trace]]}, sample ${index.sample[trace] + 1}`;
  return make("section", { class: "reply", "aria-label": spelledOut(words) },
    make("header", {}, badge(trace), make("h2", {}, spelledOut(words))),
    factList(facts, pattern),
    texts.thinking === null ? make("p", { class: "note" }, "No thinking.") : thinking(texts.thinking, pattern),
    make("h3", {}, "Answer"),
    texts.answer ? longText(texts.answer, pattern, "Answer") : make("p", { class: "note" }, "It says nothing outside its thinking."));
}

// Folded, and put on the page when it is unfolded; open at once where the search found something in it.
function thinking(text, pattern) {
  const box = make("details", { class: "thinking" },
    make("summary", {}, `Thinking, ${text.length.toLocaleString("en")} characters`));
  let filled = false;
  function fill() {
    if (filled || !box.open) return;
    filled = true;
    box.append(longText(text, pattern, "Thinking"));
  }
  box.addEventListener("toggle", fill);
  box.open = thinkingOpen || (pattern !== null && text.search(pattern) >= 0);
  fill();
  return box;
}

function foldThinking() {
  thinkingOpen = !thinkingOpen;
  for (const box of detail.querySelectorAll("details.thinking")) box.open = thinkingOpen;
}
