// Creates elements from data. Data from the server always becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a string among the children is text. */
export function el(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** The same for a part of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Set a node's text, only if it differs: otherwise a screen reader would announce it again. */
export function say(node, text) {
  const wanted = text ?? "";
  if (node.textContent !== wanted) node.textContent = wanted;
  const empty = wanted === "";
  if (node.hidden !== empty) node.hidden = empty;
}

/** Set an attribute when it differs. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Set a node's content: texts, and links as `{ text, href }`.
 *
 * Existing children are updated, not replaced, so that a link keeps the focus while an age changes.
 */
export function fill(node, parts) {
  parts.forEach((part, index) => {
    const link = typeof part !== "string";
    let child = node.childNodes[index];
    if (!child || (child.nodeType === Node.ELEMENT_NODE) !== link) {
      const made = link ? el("a") : new Text();
      if (child) child.replaceWith(made);
      else node.append(made);
      child = made;
    }
    if (link) mark(child, "href", part.href);
    const text = link ? part.text : part;
    if (child.textContent !== text) child.textContent = text;
  });
  while (node.childNodes.length > parts.length) node.lastChild.remove();
  const empty = parts.length === 0;
  if (node.hidden !== empty) node.hidden = empty;
}
