// The text that has less contrast to what is behind it than WCAG 2.2 asks for (1.4.3, AA).
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
const over = (top, under) => top.slice(0, 3).map((each, n) => each * top[3] + under[n] * (1 - top[3])).concat(1);
function behind(node) {
  if (!node) return [255, 255, 255, 1];
  const own = rgba(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : over(own, behind(node.parentElement));
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map(each => (each /= 255) <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
const pale = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text; (text = walk.nextNode());) {
  const node = text.parentElement;
  if (!text.data.trim() || !node.checkVisibility() || node.closest("script, style, noscript, .skip, .unseen")) continue;
  const style = getComputedStyle(node);
  const ground = behind(node);
  const ink = over(rgba(node.namespaceURI.endsWith("svg") ? style.fill : style.color), ground);
  const [most, least] = [light(ink), light(ground)].sort((a, b) => b - a);
  const contrast = (most + 0.05) / (least + 0.05);
  if (contrast < 4.5) pale.push(`${text.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
}
return [...new Set(pale)];
