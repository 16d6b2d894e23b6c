// Before the first paint, so that the page does not flash in the other colours.
try {
  const theme = localStorage.getItem("ai-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* a browser that keeps nothing: the system's theme it is */ }
