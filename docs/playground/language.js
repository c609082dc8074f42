// The page in the language of its reader: ?lang=pt-BR or ?lang=en, else what the browser prefers. What the code and the two
// protocols call things (phases, messages, settings, the server's own answers) stays as it is.

import { PHRASES, TEXTS } from "./pt-BR.js";

const wanted = new URLSearchParams(location.search).get("lang") ?? navigator.language;
const isPortuguese = /^pt\b/i.test(wanted);

/** Texts without a translation: the check of the page wants none. */
const untranslated = new Set();
globalThis.untranslated = untranslated;

/** A text of the page, translated if that is wanted. */
export function say(text) {
  if (!isPortuguese || !/\p{L}/u.test(text)) return text;
  if (Object.hasOwn(TEXTS, text)) return TEXTS[text];
  for (const [pattern, translated] of PHRASES) {
    const found = pattern.exec(text);
    // `$1` is translated in turn, `#1` is not.
    if (found) return translated.replace(/([$#])(\d)/g, (_, kind, group) => (kind === "$" ? say(found[group] ?? "") : found[group] ?? ""));
  }
  untranslated.add(text);
  return text;
}

/** Translates what bank.html has. */
export function translatePage() {
  if (!isPortuguese) return;
  document.documentElement.lang = "pt-BR";
  document.title = say(document.title);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    const words = node.data.trim().replace(/\s+/g, " ");
    if (words && !node.parentElement.closest("code, script, noscript, #language")) node.data = node.data.replace(/\S[^]*\S|\S/, () => say(words));
  }
  Object.assign(document.getElementById("language"), { href: "?lang=en", hreflang: "en", lang: "en", textContent: "In English" });
  for (const element of document.querySelectorAll("[aria-label]")) element.setAttribute("aria-label", say(element.getAttribute("aria-label")));
}
