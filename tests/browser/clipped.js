// What sticks out of the page, or is cut off in its box though nothing says so.
const found = [];
if (document.documentElement.scrollWidth > innerWidth) found.push(`page: ${document.documentElement.scrollWidth}`);
for (const node of document.querySelectorAll("main *, header *")) {
  const box = node.getBoundingClientRect();
  if (!box.width || node.closest(".unseen, .scroll, svg, .skip, noscript, thead, .bar")) continue;
  if (box.right > innerWidth + 1) found.push(`${node.tagName} ${node.className}: ${box.right}`);
}
for (const node of document.querySelectorAll(".tile dd, .tile dt, h2, h3, .chip, .number, button, .button")) {
  if (!node.checkVisibility() || getComputedStyle(node).clipPath !== "none") continue;
  if (node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline") found.push(`${node.textContent}: cut`);
}
for (const node of document.querySelectorAll(".scroll")) {
  if (node.scrollWidth > node.clientWidth + 1) found.push(`${node.id || node.parentElement.id}: ${node.scrollWidth} in ${node.clientWidth}`);
}
return found;
