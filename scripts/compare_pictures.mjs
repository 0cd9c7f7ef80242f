// node scripts/compare_pictures.mjs A B: exits with 1 unless the pictures have one size and at 99.9 % of their numbers
// differ by at most one level of 255.
import sharp from 'sharp';

const [a, b] = await Promise.all(
  process.argv.slice(2, 4).map((path) => sharp(path).removeAlpha().raw().toBuffer({ resolveWithObject: true })),
);
if (a.info.width !== b.info.width || a.info.height !== b.info.height) {
  console.error(`sizes differ: ${a.info.width}x${a.info.height} and ${b.info.width}x${b.info.height}`);
  process.exit(1);
}
let off = 0;
a.data.forEach((value, i) => {
  off += Math.abs(value - b.data[i]) > 1 ? 1 : 0;
});
console.log(`${off} of ${a.data.length} numbers differ by more than one level`);
process.exit(off > a.data.length / 1000 ? 1 : 0);
