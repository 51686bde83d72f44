// What the page does, as Python, curl and a command line to copy. Each gives the same masks as the page.
//
// File names and prompts may come from somebody else, and users run the code that they copy. In shell code they appear
// in quotes only, never in comments, since an interactive shell may run these, as zsh does.

// Control characters, which a terminal acts on when they are pasted, and characters that set the direction of text
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/**
 * @param {object} asked
 * @param {string} asked.url Of the service, without a slash at its end.
 * @param {string} asked.file Name of the picture.
 * @param {string | null} asked.imageUrl Of the picture, once it is uploaded.
 * @param {import("./service.js").Question} asked.question
 * @param {number | null} asked.threshold Null for the default one.
 * @returns {{python: string, curl: string, cli: string}}
 */
export function codeFor(asked) {
  return { python: pythonFor(asked), curl: curlFor(asked), cli: commandFor(asked) };
}

function pythonFor({ url, file, question, threshold }) {
  const limit = threshold === null ? "" : `, threshold=${threshold}`;
  const name = python(file);
  const lines = ["import s3seg", "", `client = s3seg.Client(${python(url)})  # with the token in S3SEG_TOKEN`];
  if (question.words) {
    const tile = question.tile ? `, tile=${question.tile}` : "";
    lines.push(`results = client.segment(${name}, ${python(question.words)}${tile}${limit})`);
  } else if (question.click) {
    const { points, labels, box } = question.click;
    lines.push(`results = [client.click(${name}, ${python(points)}, ${python(labels)}, box=${python(box)})]`);
  } else if (question.concept) {
    lines.push(`results = [client.segment_concept(${name}, ${python(question.concept.id)}${limit})]  # ${oneLine(question.concept.name)}`);
  } else {
    const { name: called, words, boxes, negativeBoxes } = question.examples;
    lines.push(
      `examples = [(${name}, ${python(boxes)}, ${python(negativeBoxes)})]  # to find, and not to find`,
      `concept = client.create_concept(${python(called)}, examples${words ? `, words=${python(words)}` : ""})`,
      `results = [client.segment_concept(${name}, concept.id${limit})]`,
      "client.delete_concept(concept.id)",
    );
  }
  lines.push("for result in results:", "    print(result.prompt, result.scores)");
  return `${lines.join("\n")}\n`;
}

function curlFor({ url, file, imageUrl, question, threshold }) {
  const { words, tile, click, concept, examples } = question;
  const post = (path, body, more = "") => `call "$url/api/v1/${path}"${more} -H 'Content-Type: application/json' -d ${body}`;
  const lines = [
    "# The access token is in S3SEG_TOKEN.",
    `url=${shell(url)}`,
    'call() { curl -sS --fail-with-body -H "Authorization: Bearer $S3SEG_TOKEN" "$@"; }',
    `field() { sed -n 's/.*"'"$1"'": *"\\([^"]*\\)".*/\\1/p'; }`,
  ];
  if (imageUrl) lines.push("# The picture was uploaded before.", `image=${shell(imageUrl)}`);
  else lines.push(`image=$(call "$url/api/v1/upload" -F ${shell(`file=@"${file.replace(/["\\]/g, "\\$&")}"`)} | field image_url)`);
  if (examples) {
    const { name, words: also, boxes, negativeBoxes: negative_boxes } = examples;
    const example = body({ image_url: variable("image") }, { boxes, negative_boxes });
    const kept = body({ examples: [example] }, { name, ...(also ? { words: also } : {}) });
    lines.push(`concept=$(${post("concepts", kept)} | field id)`);
  }
  const known = { image_url: variable("image"), ...(examples ? { concept_id: variable("concept") } : {}) };
  const rest = words ? { text_prompts: words, ...(tile ? { tile } : {}) } : click ? { clicks: [click] } : concept ? { concept_id: concept.id } : {};
  lines.push(`task=$(${post("segment", body(known, rest), " -H 'Prefer: wait=60'")} | field task_id)`);
  if (tile) lines.push(`while call "$url/api/v1/tasks/$task" | grep -E '"status": *"(pending|processing)"' > /dev/null; do sleep 2; done`);
  if (examples) lines.push('call -X DELETE "$url/api/v1/concepts/$concept" > /dev/null');
  lines.push(
    'instances=$(call "$url/api/v1/results/$task" | field instances_url)',
    'curl -sSL --fail "$instances" -o instances.json',
    ...(threshold === null || click ? [] : [`# instances.json has every score above 0.1. The page shows those above ${threshold}`]),
  );
  return `${lines.join("\n")}\n`;
}

/** A shell variable inside a JSON text in single quotes: ends the quotes, and opens them again. */
function variable(name) {
  return `"'"$${name}"'"`;
}

/** A JSON object as a quoted shell word. `written` has members that are shell words already, `values` plain values. */
function body(written, values) {
  const inner = (text) => (text.startsWith("'") ? text.slice(1, -1) : text);
  const members = Object.entries(written).map(([key, value]) => {
    return `"${key}": ${Array.isArray(value) ? `[${value.map(inner).join(", ")}]` : value}`;
  });
  const plain = json(values).slice(1, -1).replaceAll("'", `'\\''`);
  return `'{${[...members, ...(plain ? [plain] : [])].join(", ")}}'`;
}

function commandFor({ url, file, question, threshold }) {
  const limit = threshold === null ? "" : ` --threshold ${threshold}`;
  const start = `s3seg segment ${shell(file.startsWith("-") ? `./${file}` : file)}`;
  const end = `${limit} --json --output result.json\n`;
  const service = ` --url ${shell(url)}`;
  const { words, tile, click, concept, examples } = question;
  const closely = tile ? ` --tile ${tile}` : "";
  if (words) return `${start}${words.map((word) => ` --prompt=${shell(word)}`).join("")}${closely}${service}${end}`;
  if (click) {
    const points = click.points.map(([x, y], k) => ` --${click.labels[k] ? "point" : "not-point"} ${x},${y}`).join("");
    return `${start}${points} --box ${click.box.join(",")}${service} --json --output result.json\n`;
  }
  if (concept) {
    return "# The command line reads concepts from files of this machine, and does not use those of a service:\n# s3seg concept make --help\n";
  }
  const on = (option) => (box) => ` --${option} ${shell(`${file}:${box.join(",")}`)}`;
  const boxes = [...examples.boxes.map(on("example")), ...examples.negativeBoxes.map(on("not-example"))].join("");
  const prompt = examples.words ? ` --prompt=${shell(examples.words)}` : "";
  return (
    "# The command line takes boxes on this machine only, with the checkpoint that it finds here.\n" +
    `s3seg concept make concept.safetensors${boxes}${prompt}\n${start} --concept concept.safetensors${end}`
  );
}

/** A list, a number or a text as a Python literal, which is the same as in JSON. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  return json(value);
}

function json(value) {
  return JSON.stringify(value).replace(UNPRINTABLE, escaped);
}

function escaped(character) {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A text as a word for bash and zsh; for any POSIX shell, if all its characters are printable. */
function shell(text) {
  if (/^[\w./:@%+=-]+$/.test(text)) return text;
  if (text.search(UNPRINTABLE) < 0) return `'${text.replaceAll("'", `'\\''`)}'`;
  return `$'${text.replace(/['\\]/g, "\\$&").replace(UNPRINTABLE, asBytes)}'`;
}

function asBytes(character) {
  return Array.from(new TextEncoder().encode(character), (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}

/** A text on one line, for a comment in Python. */
function oneLine(text) {
  return text.replace(/\s/g, " ").replace(UNPRINTABLE, "");
}
