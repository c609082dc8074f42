// Serves the files of a folder on loopback, for the checks in a browser.

import fs from "node:fs";
import { createServer } from "node:http";
import path from "node:path";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".woff2": "font/woff2" };

/** Gives the server, to be closed, and the address of the folder. */
export async function serve(root) {
  const server = createServer((request, response) => {
    // A browser asks for it where a page names no icon.
    if (request.url === "/favicon.ico") return void response.writeHead(204).end();
    const file = path.join(root, path.normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)));
    if (!fs.existsSync(file) || fs.statSync(file).isDirectory()) return void response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "text/plain" });
    fs.createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, base: `http://127.0.0.1:${server.address().port}/` };
}
