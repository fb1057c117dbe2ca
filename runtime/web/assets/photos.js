// Photos that the user chose, drawn on canvases: they never become addresses, and no metadata of them is shown.

const FRAME = 640; // pixels, longer side of a whole photo
const CROP = 480; // pixels, side of a face
const MARGIN = 0.2; // share of the face's box, as in the pictures of the server

/**
 * Open a photo for drawing.
 *
 * @param file a File.
 * @returns { whole, scale, crop, close }: a canvas with the whole photo, its pixels for one of the photo, a function that
 *   draws the area of a face (left, top, right, bottom in pixels of the upright photo; undefined for the whole photo),
 *   and one that frees the photo. null if this browser cannot show the photo.
 */
export async function openPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null; // such as TIFF, which browsers do not read
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, FRAME / Math.max(width, height));
  return {
    whole: draw(bitmap, [0, 0, width, height], scale),
    scale,
    crop(box) {
      const area = box ? withMargin(box, width, height) : [0, 0, width, height];
      return draw(bitmap, area, Math.min(1, CROP / Math.max(area[2], area[3])));
    },
    close: () => bitmap.close(),
  };
}

/** Whether two boxes show one face: they share more than half of the smaller one. */
export function sameFace(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  return width > 0 && height > 0 && 2 * width * height > Math.min(area(a), area(b));
}

/** Copy a canvas into another one. */
export function copy(from, to) {
  to.width = from.width;
  to.height = from.height;
  to.getContext("2d").drawImage(from, 0, 0);
}

function draw(bitmap, [left, top, width, height], scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function withMargin([left, top, right, bottom], width, height) {
  const margin = MARGIN * Math.max(right - left, bottom - top);
  const x = Math.max(0, left - margin), y = Math.max(0, top - margin);
  return [x, y, Math.min(width, right + margin) - x, Math.min(height, bottom + margin) - y];
}
