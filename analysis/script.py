"""The script of a page: hides arms in figures and tables, leads from a point to its trial, opens what is linked to.

The page reads without it: it hides nothing before a reader asks.
"""

SCRIPT = """
const hidden = new Set(), plots = () => document.querySelectorAll('.js-plotly-plot');

// What a trace's `visible` was before its arm was hidden, by plot and number of the trace.
const before = new Map();

function applyArms(plot) {
  if (!before.has(plot)) before.set(plot, new Map());
  const kept = before.get(plot), change = new Map();
  plot.data.forEach((trace, i) => {
    if (hidden.has(trace.legendgroup)) {
      if (trace.visible === false) return;
      kept.set(i, trace.visible ?? true);
      change.set(i, false);
    } else if (kept.has(i)) {
      change.set(i, kept.get(i));
      kept.delete(i);
    }
  });
  if (change.size) Plotly.restyle(plot, {visible: [...change.values()]}, [...change.keys()]);
}

function reveal(id) {
  const place = document.getElementById(id);
  for (let box = place?.closest('details'); box; box = box.parentElement.closest('details')) box.open = true;
  place?.scrollIntoView();
}

function linked() { return decodeURIComponent(location.hash.slice(1)); }

for (const box of document.querySelectorAll('.arms input')) {
  box.checked = true;
  box.addEventListener('change', () => {
    hidden[box.checked ? 'delete' : 'add'](box.value);
    for (const row of document.querySelectorAll('tr[data-arm]')) row.hidden = hidden.has(row.dataset.arm);
    plots().forEach(applyArms);
  });
}

for (const plot of plots()) {
  plot.on('plotly_click', event => {
    const point = event.points[0], key = [point.customdata ?? point.data.meta].flat()[0];
    const id = 'trial-' + key;
    if (!document.getElementById(id)) return;
    location.hash = encodeURIComponent(id);
    reveal(id);
  });
}

for (const event of ['beforeprint', 'afterprint'])
  addEventListener(event, () => plots().forEach(plot => Plotly.Plots.resize(plot)));
for (const box of document.querySelectorAll('details'))
  box.addEventListener('toggle', () => box.querySelectorAll('.js-plotly-plot').forEach(p => Plotly.Plots.resize(p)));
addEventListener('hashchange', () => reveal(linked()));
if (location.hash) reveal(linked());
"""
