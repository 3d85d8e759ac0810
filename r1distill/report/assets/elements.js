// Elements are made here and nowhere else, and a text becomes a text node: no text is ever parsed as HTML.
const PIECE = 20000; // characters laid out as one block
const AT_ONCE = 300000; // characters shown before the reader asks for more

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// As in Python's html_text.py: a right-to-left mark could make a wrong answer look right.
function spelledOut(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) =>
    character === "\n" || character === "\t"
      ? character
      : "⟨U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩",
  );
}

function searchFor(words) {
  return words ? new RegExp(words.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu") : null;
}

// Text nodes, with what the search found marked.
function marked(text, pattern) {
  if (!pattern) return [text];
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    nodes.push(text.slice(at, match.index), make("mark", {}, match[0]));
    at = match.index + match[0].length;
  }
  return [...nodes, text.slice(at)];
}

// Where to cut: behind a line end where there is one, and never between the halves of a surrogate pair.
function cutAt(text, from) {
  const limit = from + PIECE;
  if (limit >= text.length) return text.length;
  const line = text.lastIndexOf("\n", limit - 1);
  if (line >= from + PIECE / 2) return line + 1;
  const code = text.charCodeAt(limit);
  return code >= 0xdc00 && code <= 0xdfff ? limit - 1 : limit;
}

// A text of any length: in blocks that are laid out when they come into view, and a part at a time.
function longText(text, pattern, label) {
  const box = make("div", { class: "text", tabindex: "0", role: "group", "aria-label": label });
  let at = 0;
  const more = make("button", { type: "button", onclick: () => grow() });
  function grow() {
    const end = Math.min(text.length, at + AT_ONCE);
    while (at < end) {
      const next = cutAt(text, at);
      const piece = text.slice(at, next).replace(/\n$/, "");
      more.before(make("div", { class: "piece" }, ...marked(spelledOut(piece), pattern)));
      at = next;
    }
    more.hidden = at >= text.length;
    more.textContent = `Show more: ${(text.length - at).toLocaleString("en")} characters are left`;
  }
  box.append(more);
  grow();
  return box;
}
