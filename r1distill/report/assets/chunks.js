// The texts: chunks of compressed JSON further down the page, decoded when one of their records is asked for.
const KEPT_CHUNKS = 12;
const decoded = new Map();
const wholePage = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", () => resolve());
});

async function decode(id) {
  // the script runs while the rest of a large page still arrives: an element is whole once another follows it
  if (!document.getElementById(id)?.nextElementSibling) await wholePage;
  try {
    return await decompressed(document.getElementById(id).textContent);
  } catch (error) {
    throw new Error(`This part of the page cannot be read, the file was cut off: write the report again. (${id}: ${error.message})`);
  }
}

async function decompressed(base64) {
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(base64)
    : Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

async function chunk(id) {
  if (!decoded.has(id)) {
    decoded.set(id, decode(id));
    if (decoded.size > KEPT_CHUNKS) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(id);
}

// The number of the chunk that holds a record, and where in it: `firsts` are the numbers of the first records.
function whereIs(firsts, record) {
  let low = 0;
  let high = firsts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (firsts[middle] <= record) low = middle;
    else high = middle - 1;
  }
  return [low, record - firsts[low]];
}

async function textsOf(trace) {
  const [number, place] = whereIs(index.traceChunks, trace);
  return (await chunk("t" + number))[place];
}

async function questionOf(question) {
  const [number, place] = whereIs(index.questionChunks, question);
  return (await chunk("q" + number))[place];
}
