// Uploads a picture, finds what is named, and draws the masks over it:
//   npm start -- park.png out.png tree sun
//   npm start -- --tile 500 map.png out.png tree      also looks into tiles of 500 pixels, for small or many things
// S3SEG_URL and S3SEG_TOKEN are what `s3seg serve` prints.

import { readFile, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import createClient from "openapi-fetch";
import { PNG } from "pngjs";
import type { components, paths } from "./api.js"; // made by: npm run types

type Result = components["schemas"]["ResultDetailResponse"];
type Tile = components["schemas"]["SegmentRequest"]["tile"]; // pixels, "auto", or undefined for the whole picture only

const COLOURS: [number, number, number][] = [
  [230, 25, 75], [60, 180, 75], [0, 130, 200], [245, 130, 48], [145, 30, 180], [70, 240, 240], [240, 50, 230],
];

const url = required("S3SEG_URL");
const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${required("S3SEG_TOKEN")}` } });

const { values, positionals } = parseArgs({ options: { tile: { type: "string" } }, allowPositionals: true });
const [picture, drawn, ...prompts] = positionals;
if (!picture || !drawn || prompts.length === 0) {
  console.error("usage: npm start -- [--tile PIXELS|auto] PICTURE OUT.png PROMPT...");
  process.exit(2);
}
try {
  const bytes = await readFile(picture);
  const tile = values.tile === undefined || values.tile === "auto" ? values.tile : Number(values.tile);
  const result = await segment(bytes, basename(picture), prompts, tile);
  console.log(`found ${result.labels.join(", ") || "nothing"}; confidence ${result.metadata.confidence.toFixed(2)}`);
  if (picture.endsWith(".png")) {
    await writeFile(drawn, await overlay(bytes, result.mask_image_url));
    console.log(`drawn: ${drawn}`);
  }
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : error}`);
  process.exit(1);
}

async function segment(bytes: Buffer, name: string, prompts: string[], tile?: Tile): Promise<Result> {
  const form = new FormData();
  form.append("file", new Blob([new Uint8Array(bytes)]), name);
  const upload = await api.POST("/api/v1/upload", {
    body: form as never, // openapi-fetch passes a form on as it is
    bodySerializer: (body: unknown) => body as FormData,
  });
  const { image_url } = dataOf(upload);
  // A repeat with the same key is the same task and costs nothing, so a lost answer can be asked for again.
  const submitted = await api.POST("/api/v1/segment", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { image_url, text_prompts: prompts, tile }, // what is undefined is not sent
  });
  const { task_id } = dataOf(submitted);
  for (let pause = 200; ; pause = Math.min(pause * 1.5, 2000)) {
    const task = dataOf(await api.GET("/api/v1/tasks/{task_id}", { params: { path: { task_id } } }));
    if (task.status === "done") break;
    if (task.status === "error") throw new Error(task.error_message ?? "the task ended in error");
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return dataOf(await api.GET("/api/v1/results/{result_id}", { params: { path: { result_id: task_id } } }));
}

/** Return the data of an answer, or throw its error, whose code is stable. */
function dataOf<Body extends { data?: unknown }>(answer: {
  data?: Body;
  error?: unknown;
  response: Response;
}): NonNullable<Body["data"]> {
  if (answer.data?.data != null) return answer.data.data;
  const body = answer.error as { error?: { code: string; message: string } } | undefined;
  throw new Error(body?.error ? `${body.error.code}: ${body.error.message}` : `status ${answer.response.status}`);
}

/** Colour each instance. In the mask, 0 is background and k the k-th instance, in 8 bits or in 16 beyond 255 instances. */
async function overlay(bytes: Buffer, maskUrl: string): Promise<Buffer> {
  const stored = await fetch(maskUrl);
  if (!stored.ok) throw new Error(`the mask is not there: status ${stored.status}`);
  const image = PNG.sync.read(bytes);
  const mask = PNG.sync.read(Buffer.from(await stored.arrayBuffer()), { skipRescale: true });
  for (let pixel = 0; pixel < image.width * image.height; pixel++) {
    const instance = mask.data[pixel * 4] ?? 0;
    const colour = COLOURS[(instance - 1) % COLOURS.length];
    if (instance === 0 || !colour) continue;
    for (const [channel, value] of colour.entries()) {
      const at = pixel * 4 + channel;
      image.data[at] = ((image.data[at] ?? 0) + value) / 2;
    }
  }
  return PNG.sync.write(image);
}

function required(name: string): string {
  const value = process.env[name];
  if (value) return value.replace(/\/$/, "");
  console.error(`${name} is not set; run s3seg serve, and paste the lines that it prints`);
  process.exit(2);
}
