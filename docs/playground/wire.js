// Tells bytes field by field, as the chapters do. Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.

/** Bytes that a line shows before it says "and so on". */
const SHOWN_BYTES_MAX = 8;
const PARAMETERS = {
  t: ["integer", "integer", "text", "text"],
  s: ["integer[]", "integer[]", "text[]", "text[]"],
  e: ["integer"],
  v: ["text[]", "text[]"],
};
const TYPES = {
  16: "boolean", 20: "bigint", 23: "integer", 25: "text", 1007: "integer[]", 1009: "text[]", 1016: "bigint[]", 3802: "jsonb",
};
const FROM_SERVER = {
  P: "Parse", D: "Describe", B: "Bind", E: "Execute", S: "Sync", Q: "Query", X: "Terminate",
  p: "the answer to a request to authenticate",
};
const TO_SERVER = {
  R: "Authentication", S: "ParameterStatus", K: "BackendKeyData", Z: "ReadyForQuery", 1: "ParseComplete", 2: "BindComplete",
  t: "ParameterDescription", T: "RowDescription",
  D: "DataRow", C: "CommandComplete", E: "ErrorResponse", N: "NoticeResponse", A: "NotificationResponse",
};
const ERROR_FIELDS = { S: "severity", V: "severity, never translated", C: "SQLSTATE", M: "message" };

const typeName = (oid) => TYPES[number(oid)] ?? `type ${number(oid)}`;
const text = (bytes) => new TextDecoder().decode(bytes);

/** The bytes that two hexadecimal digits each stand for. */
export function bytesOf(hex) {
  return Uint8Array.from({ length: hex.length / 2 }, (_, index) => parseInt(hex.slice(2 * index, 2 * index + 2), 16));
}

/** HTTP as lines, with their ends visible. */
export function http(bytes) {
  return text(bytes).replaceAll("\r\n", "\\r\\n\n").split("\n").filter((line) => line !== "").map((line) => ({ depth: 0, hex: "", line }));
}

/** One message of PostgreSQL's protocol as lines: the bytes of each field, and what they mean. */
export function postgres(bytes, isToServer) {
  const told = new Telling(bytes);
  try {
    if (isToServer) told.heard();
    else told.said();
  } catch (error) {
    told.lines.push({ depth: 1, hex: "", line: `not understood: ${error.message}` });
  }
  return told.lines;
}

class Telling {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
    this.depth = 0;
    this.lines = [];
  }

  /** One line: the next bytes, and what they mean. */
  take(count, meaning) {
    if (this.at + count > this.bytes.length) throw new Error("a field is longer than its message");
    const bytes = this.bytes.subarray(this.at, this.at + count);
    this.at += count;
    const shown = Array.from(bytes.subarray(0, SHOWN_BYTES_MAX), (byte) => byte.toString(16).padStart(2, "0"));
    if (count > SHOWN_BYTES_MAX) shown[SHOWN_BYTES_MAX - 1] = "…";
    this.lines.push({ depth: this.depth, hex: shown.join(" "), line: meaning(bytes) });
    return bytes;
  }

  peek(count) {
    return number(this.bytes.subarray(this.at, this.at + count));
  }

  integer(count, what) {
    return number(this.take(count, (bytes) => `${what}: ${number(bytes)}`));
  }

  string(what) {
    const end = this.bytes.indexOf(0, this.at);
    return text(this.take(end + 1 - this.at, (bytes) => `${what}: "${text(bytes.subarray(0, -1))}"`).subarray(0, -1));
  }

  head(names) {
    const tag = String.fromCharCode(this.bytes[0]);
    this.take(5, () => `${names[tag] ?? `a message ${tag}`}, ${this.bytes.length} bytes`);
    this.depth = 1;
    return tag;
  }

  said() {
    if (this.bytes[0] === 0) return this.startUp();
    const tag = this.head(FROM_SERVER);
    if (tag === "P") {
      this.string("name");
      this.string("text");
      this.types();
    } else if (tag === "Q") {
      this.string("text");
    } else if (tag === "D") {
      this.take(1, (kind) => (text(kind) === "S" ? "of a statement" : "of a portal"));
      this.string("name");
    } else if (tag === "B") {
      this.bind();
    } else if (tag === "E") {
      this.string("portal");
      this.integer(4, "rows at most, 0 for all");
    }
  }

  heard() {
    const tag = this.head(TO_SERVER);
    if (tag === "R") this.integer(4, "0 is Ok");
    else if (tag === "Z") {
      this.take(1, (status) => ({ I: "idle: no transaction is open", T: "in a transaction", E: "in a failed transaction" })[text(status)]);
    } else if (tag === "D") {
      const count = this.integer(2, "columns");
      for (let index = 0; index < count; index++) this.value();
    } else if (tag === "t") this.types();
    else if (tag === "T") {
      const count = this.integer(2, "columns");
      for (let index = 0; index < count; index++) {
        this.string("name");
        this.take(18, (rest) => `  ${typeName(rest.subarray(6, 10))}, behind its table and position`);
      }
    } else if (tag === "C") this.string("tag");
    else if (tag === "S") {
      this.string("name");
      this.string("value");
    } else if (tag === "A") {
      this.integer(4, "process");
      this.string("channel");
      this.string("text");
    } else if (tag === "E" || tag === "N") {
      while (this.bytes[this.at] !== 0) {
        const end = this.bytes.indexOf(0, this.at);
        this.take(end + 1 - this.at, (field) => {
          const kind = String.fromCharCode(field[0]);
          return `${ERROR_FIELDS[kind] ?? kind}: ${text(field.subarray(1, -1))}`;
        });
      }
      this.take(1, () => "no more fields");
    }
  }

  startUp() {
    this.take(4, () => `StartupMessage, ${this.bytes.length} bytes; the only one without a tag`);
    this.depth = 1;
    this.take(4, (version) => `protocol ${version[1]}.${version[3]}`);
    while (this.bytes[this.at] !== 0) {
      const middle = this.bytes.indexOf(0, this.at);
      const end = this.bytes.indexOf(0, middle + 1);
      this.take(end + 1 - this.at, (pair) => text(pair.subarray(0, -1)).replace("\0", " = "));
    }
    this.take(1, () => "no more parameters");
  }

  bind() {
    this.string("portal");
    const types = PARAMETERS[this.string("statement")] ?? [];
    this.take(4, () => "1 format for all parameters: binary");
    const count = this.integer(2, "parameters");
    for (let index = 0; index < count; index++) this.value(types[index] ?? "bigint");
    this.take(4, () => "1 format for all results: binary");
  }

  types() {
    const count = this.integer(2, "types of parameters");
    for (let index = 0; index < count; index++) this.take(4, (oid) => `  ${typeName(oid)}`);
  }

  /** A length and as many bytes. Of a result the type is not said, and guessed. */
  value(type) {
    const length = this.peek(4);
    if (length < 0) return void this.take(4, () => "  NULL");
    const guess = { 1: "boolean", 4: "integer", 8: "bigint" }[length] ?? (this.bytes[this.at + 4] === 1 ? "jsonb" : "bigint[]");
    const kind = type ?? guess;
    this.take(4 + length, (field) => {
      const bytes = field.subarray(4);
      const value = {
        text: () => `"${text(bytes)}"`,
        jsonb: () => `version ${bytes[0]}, ${text(bytes.subarray(1))}`,
        boolean: () => `${bytes[0] === 1}`,
        integer: () => number(bytes),
        bigint: () => number(bytes),
      }[kind];
      return `  ${kind} ${value ? value() : `{${elements(bytes, kind).join(", ")}}`}`;
    });
  }
}

/** A big-endian signed integer. Those shown here fit a JavaScript number. */
function number(bytes) {
  return Array.from(bytes).reduce((value, byte) => value * 256 + byte, bytes[0] >= 128 ? -1 : 0);
}

/** Of an array in one dimension: dimensions, whether there are NULLs, type, length, first index, elements. */
function elements(bytes, kind) {
  const told = [];
  for (let at = 20; at < bytes.length;) {
    const length = number(bytes.subarray(at, at + 4));
    at += 4;
    if (length < 0) {
      told.push("NULL");
      continue;
    }
    const element = bytes.subarray(at, at + length);
    told.push(kind === "text[]" ? text(element) : number(element));
    at += length;
  }
  return told;
}
