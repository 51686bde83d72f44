// Boundaries of a mask as polygons with holes, exact on pixel edges: the rings of src/s3seg/results/polygons.py.

/**
 * The polygons of a mask: one for each 4-connected part, its exterior first, then its holes.
 *
 * A pixel (x, y) is the square from (x, y) to (x + 1, y + 1). Rings are [x, y] vertices, not closed; they never cross
 * or touch themselves. Parts are ordered by their topmost row, then from left to right.
 *
 * @param {import("./rle.js").Mask} mask
 * @returns {[number, number][][][]}
 */
export function polygonsOf(mask) {
  if (mask.area === 0) return [];
  const window = padded(mask);
  const corners = cornersOf(window);
  const rings = ringsOf(corners);
  const areas = rings.map((ring) => shoelace(corners, ring));
  const owners = ownersOf(corners, rings, areas);
  const polygons = new Map(areas.flatMap((area, k) => (area > 0 ? [[k, []]] : [])));
  rings.forEach((ring, k) => {
    const vertices = ring.map((corner) => [corners.x[corner] + window.left, corners.y[corner] + window.top]);
    const polygon = polygons.get(owners[k]);
    if (areas[k] > 0) polygon.unshift(vertices);
    else polygon.push(vertices);
  });
  return [...polygons.values()];
}

/** The pixels of the mask's box with an empty border of one pixel; left and top are the picture's at vertex (0, 0). */
function padded(mask) {
  const [x1, y1, x2, y2] = mask.box;
  const width = x2 - x1 + 2;
  const height = y2 - y1 + 2;
  const pixels = new Uint8Array(width * height);
  mask.forEachPiece((x, top, bottom) => {
    for (let y = top; y < bottom; y++) pixels[(y - y1 + 1) * width + (x - x1 + 1)] = 1;
  });
  return { pixels, width, height, left: x1, top: y1 };
}

const KINDS = [1, 2, 4, 8].flatMap((bit) => [
  { bit, convex: true, patterns: new Set([bit, bit === 2 || bit === 4 ? 6 : 9]) },
  { bit, convex: false, patterns: new Set([15 - bit]) },
]);

/**
 * The corners of the boundary and, for each, the next one when walking with the mask on the right.
 *
 * A vertex where one or three of the four pixels around it are set is one corner. Where two set pixels touch diagonally
 * there are two corners, each turning around its own pixel: this keeps parts 4-connected.
 */
function cornersOf({ pixels, width, height }) {
  const found = KINDS.map(() => []);
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const at = y * width + x; // the four pixels around the vertex as bits
      const around = pixels[at] | (pixels[at + 1] << 1) | (pixels[at + width] << 2) | (pixels[at + width + 1] << 3);
      if (around === 0 || around === 15) continue;
      KINDS.forEach((kind, k) => kind.patterns.has(around) && found[k].push([x, y]));
    }
  }
  const corners = { x: [], y: [], toLeft: [], toUp: [], sideways: [] };
  KINDS.forEach(({ bit, convex }, k) => {
    const toLeft = Number(bit === 1 || bit === 4); // the pixel that the corner turns around lies there
    const toUp = Number(bit === 1 || bit === 2);
    for (const [x, y] of found[k]) {
      corners.x.push(x);
      corners.y.push(y);
      corners.toLeft.push(toLeft);
      corners.toUp.push(toUp);
      corners.sideways.push((toLeft === toUp) === convex);
    }
  });
  const { x, y, toLeft, toUp } = corners;
  // along a grid line corners pair up into edges; at a shared vertex the one that ends an edge comes first
  const inRow = partners(x.length, (a, b) => y[a] - y[b] || x[a] - x[b] || toLeft[b] - toLeft[a]);
  const inColumn = partners(x.length, (a, b) => x[a] - x[b] || y[a] - y[b] || toUp[b] - toUp[a]);
  corners.follower = corners.sideways.map((sideways, k) => (sideways ? inRow[k] : inColumn[k]));
  return corners;
}

function partners(count, compare) {
  const order = Array.from({ length: count }, (_, k) => k).sort(compare);
  const partner = new Array(count);
  for (let k = 0; k < count; k += 2) {
    partner[order[k]] = order[k + 1];
    partner[order[k + 1]] = order[k];
  }
  return partner;
}

/** Follow the corners into rings; when a path returns to a vertex, the part since then becomes its own ring. */
function ringsOf({ x, y, follower }) {
  const width = x.reduce((most, one) => Math.max(most, one), 0) + 1;
  const vertex = x.map((one, k) => y[k] * width + one);
  const seen = new Uint8Array(x.length);
  const rings = [];
  const order = Array.from({ length: x.length }, (_, k) => k).sort((a, b) => y[a] - y[b] || x[a] - x[b]);
  for (const start of order) {
    const path = [];
    const places = new Map(); // of the vertices of the path
    for (let corner = start; !seen[corner]; corner = follower[corner]) {
      seen[corner] = 1;
      const since = places.get(vertex[corner]);
      if (since !== undefined) {
        const inner = path.splice(since);
        rings.push(inner);
        for (const one of inner) places.delete(vertex[one]);
      }
      places.set(vertex[corner], path.length);
      path.push(corner);
    }
    if (path.length) rings.push(path);
  }
  return rings;
}

/** Twice the signed area: positive for an exterior, negative for a hole. */
function shoelace({ x, y }, ring) {
  return ring.reduce((sum, a, k) => {
    const b = ring[(k + 1) % ring.length];
    return sum + x[a] * y[b] - x[b] * y[a];
  }, 0);
}

/**
 * For each ring the exterior of its part.
 *
 * The row of mask pixels that ends at a hole's leftmost edge starts at an edge of the same part: at its exterior, or at
 * another hole that begins further left and is therefore known already.
 */
function ownersOf({ x, y, follower }, rings, areas) {
  const owners = rings.map((_, k) => k);
  const holes = owners.filter((k) => areas[k] < 0);
  if (!holes.length) return owners;
  const ringOf = new Int32Array(x.length);
  rings.forEach((ring, k) => ring.forEach((corner) => (ringOf[corner] = k)));
  const leftmost = new Map(
    holes.map((k) => [k, rings[k].reduce((best, one) => (x[one] - x[best] || y[one] - y[best]) < 0 ? one : best)]),
  );
  const rows = new Map(holes.map((k) => [y[leftmost.get(k)], []])); // vertical edges of the rows that are looked at
  for (let corner = 0; corner < x.length; corner++) {
    const next = follower[corner];
    if (x[corner] !== x[next]) continue;
    for (let row = Math.min(y[corner], y[next]); row < Math.max(y[corner], y[next]); row++) {
      rows.get(row)?.push([x[corner], ringOf[corner]]);
    }
  }
  for (const edges of rows.values()) edges.sort((one, other) => one[0] - other[0]);
  for (const k of holes.sort((one, other) => x[leftmost.get(one)] - x[leftmost.get(other)])) {
    const corner = leftmost.get(k); // the topmost of the leftmost corners: its edge runs down from it
    owners[k] = owners[rows.get(y[corner]).findLast(([at]) => at < x[corner])[1]];
  }
  return owners;
}
