// What the pages of the book do beyond mdBook: a long line of code goes on below its beginning, sources have colours, and
// flamegraphs can be clicked. Without JavaScript, long lines go on at the left edge, and nothing else is lost.
(() => {
  /** The lines of highlighted code, each with all of its tags closed. */
  function linesOf(html) {
    const open = [];
    return html.split("\n").map((line) => {
      const start = open.join("");
      for (const [tag] of line.matchAll(/<span[^>]*>|<\/span>/g)) tag === "</span>" ? open.pop() : open.push(tag);
      return start + line + "</span>".repeat(open.length);
    });
  }

  /** Says where code may be broken besides spaces, and that an option may not. Tags and entities stay as they are. */
  function withBreaks(html, places) {
    return html.replace(/<[^>]*>|&\w+;|(?<=\s|^)--?[a-z][\w-]*|[(/_.]|::/g, (part, index) => {
      if (part[0] === "-") return `<span class="word">${part}</span>`;
      if (!places.includes(part)) return part;
      // In front of the name of a method, and behind everything else.
      if (part === ".") return /^[a-z]/.test(html.slice(index + 1)) ? "<wbr>." : part;
      return `${part}<wbr>`;
    });
  }

  /** The column where a line that is too long goes on: below the last column of a table, or a little to the right. */
  function hangOf(text) {
    const gap = [...text.matchAll(/\S {3,}(?=\S)/g)].at(-1);
    return gap ? gap.index + gap[0].length : text.search(/\S|$/) + 2;
  }

  /** Fills the element of a line. */
  function fill(line, html) {
    line.innerHTML = withBreaks(html, ["(", "/", "::", "."]);
    line.style.setProperty("--hang", `${hangOf(line.textContent)}ch`);
  }

  for (const code of document.querySelectorAll(".content pre > code")) {
    // The highlighter knows no commands but those of a shell, and colours parts of others.
    if (code.classList.contains("language-sh")) code.textContent = code.textContent;
    const lines = linesOf(code.innerHTML.replace(/\n$/, "")).map((html) => {
      const line = document.createElement("span");
      line.className = "line";
      fill(line, html);
      return [line, "\n"];
    });
    code.replaceChildren(...lines.flat());
  }
  // Names of tests and of files, which are long words.
  for (const code of document.querySelectorAll(".content :not(pre) > code")) {
    if (code.textContent.length > 20 || code.closest("td, th")) code.innerHTML = withBreaks(code.innerHTML, ["/", "::", "_"]);
  }

  // The pages that docs/build makes of sources have an element for each line, so that links lead to lines without this.
  for (const code of document.querySelectorAll(".source code")) {
    const [, language] = /language-(\S+)/.exec(code.className);
    const html = window.hljs?.getLanguage(language) ? window.hljs.highlight(language, code.textContent).value : undefined;
    const texts = html && linesOf(html);
    [...code.children].forEach((line, index) => fill(line, texts?.[index] ?? line.innerHTML));
  }

  // An image runs no script: in a frame, the picture fits its text to the width, and can be zoomed. It asks for its width at
  // once, so the frame has one before the picture.
  for (const image of document.querySelectorAll('.content img[src*="flamegraph/"]')) {
    image.decode().then(() => {
      const frame = document.createElement("iframe");
      Object.assign(frame, { title: image.alt, className: "flamegraph", height: image.naturalHeight });
      (image.closest("a") ?? image).replaceWith(frame);
      if (frame.clientWidth > 0) frame.src = image.src;
    });
  }
})();
