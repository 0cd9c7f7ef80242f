// Charts as SVG, drawn by vega-lite.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parse, View } from 'vega';
import { compile } from 'vega-lite';

const CONFIG = {
  background: 'white',
  font: 'sans-serif',
  padding: 12,
  title: { anchor: 'start', fontSize: 15, subtitleColor: '#555', subtitlePadding: 6, offset: 14 },
  axis: {
    labelLimit: 320,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 'normal',
    grid: false,
    domain: false,
    ticks: false,
  },
  legend: { title: null, orient: 'top', labelFontSize: 12 },
  view: { stroke: null },
};

export const COLORS = { ours: '#d9480f', other: '#868e96' };

/** Writes a vega-lite specification as an SVG file. */
export async function saveChart(path, spec) {
  const view = new View(parse(compile({ config: CONFIG, ...spec }).spec), { renderer: 'none' });
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${await view.toSVG()}\n`);
}

/** One panel of horizontal bars: rows { label, value }, in their order; a row without a value says its note. */
export function bars({ title, rows, color }) {
  const y = { field: 'label', type: 'nominal', sort: null, title: null };
  return {
    title,
    width: 330,
    data: { values: rows },
    layer: [
      {
        mark: { type: 'bar', color, height: 14 },
        encoding: { y, x: { field: 'value', type: 'quantitative', axis: null } },
      },
      {
        mark: { type: 'text', align: 'left', dx: 5 },
        encoding: { y, x: { field: 'value', type: 'quantitative' }, text: { field: 'text' } },
      },
    ],
  };
}
