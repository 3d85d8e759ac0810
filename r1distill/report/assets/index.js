// What the page knows of every trace without its text: columns of numbers, a trace a row.
const index = JSON.parse(document.getElementById("index").textContent);
const total = index.question.length;
const taskOf = new Uint16Array(total);
const modelOf = new Uint16Array(total);
index.sets.forEach(([task, model, first], number) => {
  const end = number + 1 < index.sets.length ? index.sets[number + 1][2] : total;
  taskOf.fill(task, first, end);
  modelOf.fill(model, first, end);
});

const outcomeOf = (trace) => index.outcomes[index.outcome[trace]];
const finishOf = (trace) => index.finishes[index.finish[trace]];
// as scores count: a reply that was cut off is wrong, whatever stands in it
const isRight = (trace) => outcomeOf(trace) === "correct" && finishOf(trace) === "stop";

const rightOfQuestion = new Uint32Array(index.excerpts.length);
const tracesOfQuestion = index.excerpts.map(() => []);
for (let trace = 0; trace < total; trace++) {
  const question = index.question[trace];
  if (isRight(trace)) rightOfQuestion[question]++;
  tracesOfQuestion[question].push(trace);
}
const shareRight = (question) => rightOfQuestion[question] / Math.max(1, tracesOfQuestion[question].length);
const taskOfQuestion = (question) => index.firstQuestions.findLastIndex((first) => first <= question);
const numberInTask = (question) => question - index.firstQuestions[taskOfQuestion(question)] + 1;
