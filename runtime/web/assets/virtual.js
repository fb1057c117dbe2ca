// A long list of which only the visible part exists: the document stays small however many entries there are.

const AROUND = 3; // entries above and below the visible ones

/**
 * Show a list in a scrolling element that contains an empty <ol>.
 *
 * @param box the scrolling element. Its style says the height of an entry as --row.
 * @param draw draws entry i into an empty <li>.
 * @returns { resize(count), redraw(), reveal(i) }
 */
export function virtualList(box, draw) {
  const list = box.querySelector("ol");
  const drawn = new Map(); // place -> <li>
  let count = 0;

  function height() {
    const probe = document.createElement("li");
    probe.className = "pair";
    list.append(probe);
    const pixels = probe.getBoundingClientRect().height;
    probe.remove();
    return pixels;
  }

  function show() {
    const row = height();
    list.style.height = `${count * row}px`;
    const first = Math.max(0, Math.floor(box.scrollTop / row) - AROUND);
    const last = Math.min(count, Math.ceil((box.scrollTop + box.clientHeight) / row) + AROUND);
    for (const [place, item] of drawn) {
      if (place < first || place >= last) {
        item.remove();
        drawn.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      let item = drawn.get(place);
      if (!item) {
        item = document.createElement("li");
        drawn.set(place, item);
        list.append(item);
        item.className = "pair";
        item.setAttribute("aria-setsize", count);
        item.setAttribute("aria-posinset", place + 1);
        item.dataset.place = place;
        draw(item, place);
      }
      item.style.top = `${place * row}px`;
    }
  }

  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      show();
    });
  };
  box.addEventListener("scroll", later);
  new ResizeObserver(later).observe(box);

  return {
    resize(entries) {
      count = entries;
      this.redraw();
    },
    redraw() {
      for (const item of drawn.values()) item.remove();
      drawn.clear();
      show();
    },
    reveal(place) {
      const row = height();
      const top = place * row;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + row > box.scrollTop + box.clientHeight) box.scrollTop = top + row - box.clientHeight;
      show();
    },
  };
}
