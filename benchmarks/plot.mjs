// Bar charts as SVG: no dependency, and they show in a README.

const ROW = 22;
const BAR = 14;
const LABELS = 190;
const PANEL = 330;
const VALUES = 70;
const TOP = 80;

const escapeXml = (text) => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/**
 * Horizontal bars, one row per label, panels side by side.
 *
 * @param labels one per row
 * @param panels { title, unit, values, color }: a number per row, or null for a row without one, whose reason is in `notes`
 */
export function barChart({ title, subtitle, labels, panels, notes = [] }) {
  const width = LABELS + panels.length * (PANEL + VALUES);
  const height = TOP + labels.length * ROW + 16;
  const text = (x, y, content, more = '') => `<text x="${x}" y="${y}" ${more}>${escapeXml(content)}</text>`;
  const rows = labels.map((label, i) => text(LABELS - 10, TOP + i * ROW + 12, label, 'text-anchor="end"'));
  const bars = panels.flatMap(({ title: name, unit, values, color }, p) => {
    const left = LABELS + p * (PANEL + VALUES);
    const largest = Math.max(...values.filter((value) => value !== null), Number.MIN_VALUE);
    return [
      text(left, TOP - 10, `${name} (${unit})`, 'font-weight="bold"'),
      ...values.map((value, i) => {
        const y = TOP + i * ROW;
        if (value === null) {
          return text(left + 4, y + 12, p === 0 ? (notes[i] ?? '-') : '-', 'fill="#888"');
        }
        const length = Math.max(1, (value / largest) * PANEL);
        return (
          `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" rx="2" fill="${color}"/>` +
          text((left + length + 6).toFixed(1), y + 12, value.toPrecision(3))
        );
      }),
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    text(16, 22, title, 'font-size="16" font-weight="bold"'),
    text(16, 40, subtitle, 'fill="#555"'),
    ...rows,
    ...bars,
    '</svg>\n',
  ].join('\n');
}
