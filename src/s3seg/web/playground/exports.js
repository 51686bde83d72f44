// What is shown, as COCO and GeoJSON: the same values as s3seg.export.coco and s3seg.export.geojson give.

import { polygonsOf } from "./polygons.js";

/**
 * A COCO data set of one picture.
 *
 * @param {{name: string, width: number, height: number}} picture
 * @param {{prompt: string, items: import("./stage.js").Item[]}[]} groups What is shown of each prompt.
 */
export function cocoOf(picture, groups) {
  const prompts = promptsOf(groups);
  const annotations = groups.flatMap(({ prompt, items }) =>
    items.map(({ mask, score, box }) => {
      const [x1, y1, x2, y2] = mask.box;
      return {
        image_id: 1,
        category_id: prompts.indexOf(prompt) + 1,
        segmentation: mask.rle,
        bbox: [x1, y1, x2 - x1, y2 - y1],
        area: mask.area,
        iscrowd: 0,
        score,
        box_xyxy: box,
      };
    }),
  );
  return {
    info: { description: "instances found by s3seg" },
    images: [{ id: 1, file_name: picture.name, height: picture.height, width: picture.width }],
    categories: prompts.map((name, k) => ({ id: k + 1, name })),
    annotations: annotations.map((one, k) => ({ id: k + 1, ...one })),
  };
}

/** A FeatureCollection with a feature for each instance; coordinates are pixels, y down. Arguments as for `cocoOf`. */
export function geojsonOf(picture, groups) {
  const features = groups.flatMap(({ prompt, items }) =>
    items.map(({ mask, score, box }) => ({
      type: "Feature",
      bbox: mask.box,
      geometry: geometryOf(polygonsOf(mask)),
      properties: { image: picture.name, prompt, score, area: mask.area, box_xyxy: box },
    })),
  );
  return {
    type: "FeatureCollection",
    name: picture.name,
    images: [{ name: picture.name, height: picture.height, width: picture.width }],
    prompts: promptsOf(groups),
    features: features.map((one, k) => ({ id: k + 1, ...one })),
  };
}

function promptsOf(groups) {
  return [...new Set(groups.map(({ prompt }) => prompt))];
}

function geometryOf(polygons) {
  const closed = polygons.map((polygon) => polygon.map((ring) => [...ring, ring[0]]));
  if (!closed.length) return null;
  return closed.length === 1 ? { type: "Polygon", coordinates: closed[0] } : { type: "MultiPolygon", coordinates: closed };
}
