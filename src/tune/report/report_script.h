// Style and script of a study's page, beside the style of all pages (base/html.h).
#pragma once

namespace deepseek::tune {

constexpr const char* kReportStyle = R"(
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(520px,100%),1fr));gap:1em;margin-top:1.4em}
.charts section{padding:.5em}.wide{grid-column:1/-1}.charts p{margin:.3em .5em;font-size:.85em;color:#666}
svg{display:block;width:100%;height:auto;border-radius:4px;user-select:none}
pre{background:#8881;border-radius:6px;padding:.6em .8em;overflow:auto;margin:.4em 0;white-space:pre-wrap;overflow-wrap:anywhere}
.scroll{overflow:auto;max-height:80vh}.trials{border-collapse:collapse;font-size:.8em;font-variant-numeric:tabular-nums}
.trials th{position:sticky;top:0;background:#eee;text-align:left;padding:.3em .6em;white-space:nowrap}
.trials td{padding:.15em .6em;border-top:1px solid #8883;max-width:22em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.js th{cursor:pointer}button{font:inherit;font-size:.85em}html:not(.js) button{display:none}
svg .hot{stroke:#d55e00;stroke-width:2.5px;opacity:1}tr.hot td{background:#d55e0030}
.brushed svg [data-t]:not(.sel){opacity:.05}.brushed tr[data-t]:not(.sel){display:none}
#tip{position:fixed;pointer-events:none;background:#222;color:#fff;font-size:.8em;padding:.4em .6em;border-radius:4px;white-space:pre;
max-width:40em;overflow:hidden;z-index:9}
@media(prefers-color-scheme:dark){.charts p{color:#999}.trials th{background:#2a2d33}}
)";

constexpr const char* kReportScript = R"JS(
(() => {
  document.documentElement.classList.add('js');
  const data = JSON.parse(document.getElementById('data').textContent), tip = document.getElementById('tip');
  const marks = {};
  for (const e of document.querySelectorAll('[data-t]')) (marks[e.dataset.t] ??= []).push(e);
  let hot = null;
  const point = t => {
    if (t === hot) return;
    for (const e of marks[hot] || []) e.classList.remove('hot');
    for (const e of marks[t] || []) e.classList.add('hot');
    hot = t;
  };
  document.addEventListener('pointermove', e => {
    const mark = e.target.closest ? e.target.closest('[data-t]') : null, t = mark ? mark.dataset.t : null;
    point(t);
    tip.hidden = !(t in data) || mark.tagName === 'TR';
    if (tip.hidden) return;
    tip.textContent = data[t];
    tip.style.left = Math.max(4, Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8)) + 'px';
    tip.style.top = Math.max(4, Math.min(e.clientY + 14, innerHeight - tip.offsetHeight - 8)) + 'px';
  });
  // Spots of a mark, in its chart's units.
  const spots = e => {
    if (e.tagName === 'circle') return [[+e.getAttribute('cx'), +e.getAttribute('cy')]];
    const n = (e.getAttribute('d') || '').match(/-?[\d.]+/g) || [], list = [];
    for (let k = 0, x = 0, y = 0; k + 1 < n.length; k += 2) list.push([x += +n[k], y += +n[k + 1]]);
    return list;
  };
  const select = chosen => {
    document.body.classList.toggle('brushed', chosen !== null);
    for (const t in marks) for (const e of marks[t]) e.classList.toggle('sel', chosen !== null && chosen.has(t));
  };
  for (const svg of document.querySelectorAll('.charts svg')) {
    let from = null, frame = null;
    const at = e => new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
    svg.addEventListener('pointerdown', e => { if (e.button === 0 && e.pointerType === 'mouse') from = at(e); });
    addEventListener('pointermove', e => {
      if (!from) return;
      const to = at(e);
      if (!frame && Math.hypot(to.x - from.x, to.y - from.y) < 5) return;
      if (!frame) {
        frame = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
        frame.setAttribute('fill', '#d55e0022');
        frame.setAttribute('stroke', '#d55e00');
        svg.append(frame);
      }
      frame.setAttribute('x', Math.min(from.x, to.x));
      frame.setAttribute('y', Math.min(from.y, to.y));
      frame.setAttribute('width', Math.abs(to.x - from.x));
      frame.setAttribute('height', Math.abs(to.y - from.y));
    });
    addEventListener('pointerup', e => {
      if (!from) return;
      const to = at(e), chosen = new Set(), [x0, x1] = [from.x, to.x].sort((a, b) => a - b),
            [y0, y1] = [from.y, to.y].sort((a, b) => a - b);
      if (frame) {
        frame.remove();
        for (const mark of svg.querySelectorAll('[data-t]'))
          if (spots(mark).some(([x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1)) chosen.add(mark.dataset.t);
      }
      select(frame && chosen.size ? chosen : null);
      from = frame = null;
    });
  }
  for (const table of document.querySelectorAll('.trials')) {
    const body = table.tBodies[0];
    table.tHead.addEventListener('click', e => {
      const head = e.target.closest('th');
      if (!head) return;
      const k = head.cellIndex, sign = head.dataset.sign = head.dataset.sign === '1' ? -1 : 1;
      const key = row => { const s = row.cells[k].textContent, n = parseFloat(s); return s === '' || s === '-' ? null : isNaN(n) ? s : n; };
      const rows = [...body.rows].map(row => [key(row), row]);
      rows.sort(([a], [b]) => a === null ? (b === null ? 0 : 1) : b === null ? -1 :
        sign * (typeof a === 'number' && typeof b === 'number' ? a - b : String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0));
      body.append(...rows.map(([, row]) => row));
    });
  }
  for (const b of document.querySelectorAll('button.copy'))
    b.addEventListener('click', () => navigator.clipboard.writeText(b.nextElementSibling.textContent).then(
      () => { b.textContent = 'copied'; }, () => {}));
})();
)JS";

}  // namespace deepseek::tune
